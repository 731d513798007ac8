"""Score the flow after each stride of the decoder.

python -m experiments.studies.strides --run_dir DIR --records GLOB[,GLOB]

All rows are from the same weights: the flow of one trained network after each stride, upsampled
bilinearly to full size; the last row is the output of the network, with learned upsampling.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
from tqdm import tqdm

from flowseg import runs, tables
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.data.labels import LabelSet
from flowseg.network.decoder import FLOW_STRIDES
from flowseg.network.flow_layers import UpsampleFlow
from flowseg.network.flow_stream import COARSEST
from flowseg.network.model import compose, parts
from flowseg.scoring import frame_scores

_SHOWN = {
    "flow/aepe": "AEPE, px",
    "flow/fl_all": "Fl-all, %",
    "flow/aepe_0_10": "motion 0 to 10 px",
    "flow/aepe_10_40": "10 to 40",
    "flow/aepe_40_100": "40 to 100",
    "flow/aepe_100_up": "over 100",
}


def taps(decoder: keras.Model) -> dict[str, keras.KerasTensor]:
    """Title -> the decoder's flow at full size (B, H, W, 2), coarse to fine."""
    strides = sorted({*COARSEST, *FLOW_STRIDES}, reverse=True)
    coarse = {f"stride_{stride}": decoder.output.get(f"flow_{stride}") for stride in strides}
    return {
        **{title: flow for title, flow in coarse.items() if flow is not None},
        "stride_2": UpsampleFlow(2)(decoder.get_layer("flow_2_move").output),
        "learned_upsampling": decoder.output["flow"],
    }


def score(
    model: keras.Model, label_set: LabelSet, files: Sequence[Path | str]
) -> dict[str, dict[str, float]]:
    """Title -> scores (see `frame_scores.scores`) over the pairs of `files` that have flow.

    Raises:
        ValueError: no pair has ground-truth flow; a damaged shard.
    """
    encoder, decoder = parts(model)
    flows = taps(decoder)
    part = keras.Model(decoder.input, flows)
    network = compose(encoder, part, tuple(flows), "strides")
    counts = {title: {} for title in flows}
    with records.named_errors(files):
        frames = decoding.evaluation_data(files, label_set).as_numpy_iterator()
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            if not (frame["has_image2"] and frame["flow"][..., 2].any()):
                continue
            pair = {key: frame[key][None].astype(np.float32) for key in ("image1", "image2")}
            for title, flow in network.predict_on_batch(pair).items():
                frame_counts = frame_scores.count_flow(
                    frame["flow"], flow[0], frame["flow_noc"], None
                )
                counts[title] = frame_scores.add(counts[title], frame_counts)
    if not all(counts.values()):
        raise ValueError(f"{files[0]}: no pair with ground-truth flow")
    return {
        title: frame_scores.scores(frame_counts, label_set.names)
        for title, frame_counts in counts.items()
    }


def table(scores_by_title: dict[str, dict[str, float]]) -> str:
    """Markdown table with one row per stride."""
    rows = [
        [
            title.replace("_", " "),
            *(f"{scores[key]:.2f}" if key in scores else "" for key in _SHOWN),
        ]
        for title, scores in scores_by_title.items()
    ]
    return tables.markdown(["", *_SHOWN.values()], rows)


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_record_sets(
        "records", None, "Records with flow: GLOB[,GLOB].", required=True
    )


def main():
    """Predict, score and print."""
    args = flags.FLAGS
    files = records.match_files(*args.records)
    run = runs.load_run(args.run_dir, args.weights)
    print(table(score(run.model, run.label_set, files)))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
