"""Does the network know where its flow is wrong? Scores without the least sure pixels.

python -m experiments.studies.confidence --run_dir DIR --records GLOB[,GLOB]

One table over all valid pixels of the set: scores of the surest share of them, by the network's
confidence; by the errors themselves, which is the best that any order can do; and the area between
the two curves (AUSE, Ilg et al. 2018: 0 is perfect, 1 as good as no order). A second table says
how often flow of a given confidence is right, within 3 px or 5 %.
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
# Of the area between the curves.
_STEPS = np.arange(0, 1, 0.01)


def collect(
    model: keras.Model, label_set: LabelSet, files: Sequence[Path | str]
) -> list[np.ndarray]:
    """Of every valid pixel of the files' pairs: end-point error, outlier or not, confidence.

    Args:
        model: of `model.confident_model`; sees the frames at their own size.
        label_set: its classes.
        files: record shards.

    Raises:
        ValueError: no pair has flow truth; a damaged shard.
    """
    found = []
    with records.named_errors(files):
        frames = decoding.evaluation_data(files, label_set).as_numpy_iterator()
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            truth = frame["flow"][None]
            if not (frame["has_image2"] and truth[..., 2].any()):
                continue
            pair = {key: frame[key][None].astype(np.float32) for key in ("image1", "image2")}
            told = model.predict_on_batch(pair)
            error, valid = end_point_error(truth, told["flow"])
            wrong = is_outlier(truth, error, valid)
            error, wrong, valid = (np.asarray(x) for x in (error, wrong, valid))
            found.append([x[valid] for x in (error, wrong, np.asarray(told["confidence"]))])
    if not found:
        raise ValueError(f"{files[0]}: no pair with flow truth")
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def kept(values: np.ndarray, order: np.ndarray, share: float) -> float:
    """Mean of the first `share` of `values` in the order given."""
    return values[order[: max(1, round(share * len(order)))]].mean()


def ause(error: np.ndarray, sure: np.ndarray) -> float:
    """Area between the curves of AEPE over the share left out; as a part of that of no order."""
    own, best = np.argsort(-sure, kind="stable"), np.argsort(error, kind="stable")
    between = [kept(error, own, 1 - left) - kept(error, best, 1 - left) for left in _STEPS]
    nothing = [error.mean() - kept(error, best, 1 - left) for left in _STEPS]
    return np.mean(between) / max(np.mean(nothing), 1e-9)


def tables(error: np.ndarray, wrong: np.ndarray, sure: np.ndarray) -> str:
    """Markdown of both tables, and AUSE."""
    own, best = np.argsort(-sure, kind="stable"), np.argsort(error, kind="stable")
    by_share = [
        (
            f"{100 * share:.0f} %",
            f"{kept(error, own, share):.2f}",
            f"{100 * kept(wrong, own, share):.1f}",
            f"{kept(error, best, share):.2f}",
        )
        for share in SHARES
    ]
    by_confidence = []
    for low in np.arange(0, 1, 0.2):
        inside = (sure >= low) & ((sure < low + 0.2) | (low > 0.7))
        right = f"{100 * (1 - wrong[inside].mean()):.0f}" if inside.any() else "-"
        by_confidence.append((f"{low:.1f} to {low + 0.2:.1f}", f"{100 * inside.mean():.1f}", right))
    headings = ["surest", "AEPE, px", "Fl-all, %", "AEPE of the best order, px"]
    return "\n".join(
        [
            markdown(headings, by_share, left=0),
            f"AUSE {ause(error, sure):.2f}",
            "",
            markdown(["confidence", "pixels, %", "right, %"], by_confidence, left=0),
        ]
    )


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_list("records", None, "Records with flow: GLOB[,GLOB].", required=True)


def main():
    """Ask, and tell."""
    args = flags.FLAGS
    files = records.match_files(*args.records)
    run = runs.load_run(args.run_dir, args.weights)
    print(tables(*collect(confident_model(run.model), run.label_set, files)))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
