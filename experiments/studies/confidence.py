"""Evaluate the flow confidence: scores without the least confident pixels.

python -m experiments.studies.confidence --run_dir DIR --records GLOB[,GLOB]

The first table covers all valid pixels of the set: scores of the most confident share of them,
ordered by the network's confidence; the same ordered by the errors, which is the best possible
order; and the area between the two curves (AUSE, Ilg et al. 2018: 0 is perfect, 1 is as good as no
order). The second table shows how often flow of a given confidence is correct, within 3 px or 5 %.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
from tqdm import tqdm

from flowseg import runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.data.labels import LabelSet
from flowseg.network.model import confident_model
from flowseg.scoring.flow_errors import end_point_error, is_outlier
from flowseg.tables import markdown

SHARES = (1.0, 0.95, 0.9, 0.8, 0.5)
# Excluded shares, for the area between the curves.
_STEPS = np.arange(0, 1, 0.01)


def collect(
    model: keras.Model, label_set: LabelSet, files: Sequence[Path | str]
) -> list[np.ndarray]:
    """End-point error, outlier flag and confidence of every valid pixel of the files' pairs.

    Args:
        model: from `model.confident_model`; takes the frames at their own size.
        label_set: classes of the model.
        files: record shards.

    Raises:
        ValueError: no pair has ground-truth flow; a damaged shard.
    """
    collected = []
    with records.named_errors(files):
        frames = decoding.evaluation_data(files, label_set).as_numpy_iterator()
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            truth = frame["flow"][None]
            if not (frame["has_image2"] and truth[..., 2].any()):
                continue
            pair = {key: frame[key][None].astype(np.float32) for key in ("image1", "image2")}
            outputs = model.predict_on_batch(pair)
            error, valid = end_point_error(truth, outputs["flow"])
            wrong = is_outlier(truth, error, valid)
            error, wrong, valid = (np.asarray(x) for x in (error, wrong, valid))
            collected.append([x[valid] for x in (error, wrong, np.asarray(outputs["confidence"]))])
    if not collected:
        raise ValueError(f"{files[0]}: no pair with ground-truth flow")
    return [np.concatenate(parts) for parts in zip(*collected, strict=True)]


def mean_of_first(values: np.ndarray, order: np.ndarray, share: float) -> float:
    """Mean of the first `share` of `values` in the given order."""
    return values[order[: max(1, round(share * len(order)))]].mean()


def ause(error: np.ndarray, confidence: np.ndarray) -> float:
    """Area between the curves of AEPE over the excluded share, relative to that of no order."""
    order, best = np.argsort(-confidence, kind="stable"), np.argsort(error, kind="stable")
    between = [
        mean_of_first(error, order, 1 - excluded) - mean_of_first(error, best, 1 - excluded)
        for excluded in _STEPS
    ]
    baseline = [error.mean() - mean_of_first(error, best, 1 - excluded) for excluded in _STEPS]
    return np.mean(between) / max(np.mean(baseline), 1e-9)


def tables(error: np.ndarray, wrong: np.ndarray, confidence: np.ndarray) -> str:
    """Both tables in Markdown, and AUSE."""
    order, best = np.argsort(-confidence, kind="stable"), np.argsort(error, kind="stable")
    by_share = [
        (
            f"{100 * share:.0f} %",
            f"{mean_of_first(error, order, share):.2f}",
            f"{100 * mean_of_first(wrong, order, share):.1f}",
            f"{mean_of_first(error, best, share):.2f}",
        )
        for share in SHARES
    ]
    by_confidence = []
    for low in np.arange(0, 1, 0.2):
        inside = (confidence >= low) & ((confidence < low + 0.2) | (low > 0.7))
        correct = f"{100 * (1 - wrong[inside].mean()):.0f}" if inside.any() else "-"
        by_confidence.append(
            (f"{low:.1f} to {low + 0.2:.1f}", f"{100 * inside.mean():.1f}", correct)
        )
    headings = ["most confident", "AEPE, px", "Fl-all, %", "AEPE of the best order, px"]
    return "\n".join(
        [
            markdown(headings, by_share, left=0),
            f"AUSE {ause(error, confidence):.2f}",
            "",
            markdown(["confidence", "pixels, %", "correct, %"], by_confidence, left=0),
        ]
    )


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_record_sets(
        "records", None, "Records with flow: GLOB[,GLOB].", required=True
    )


def main():
    """Predict, evaluate and print."""
    args = flags.FLAGS
    files = records.match_files(*args.records)
    run = runs.load_run(args.run_dir, args.weights)
    print(tables(*collect(confident_model(run.model), run.label_set, files)))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
