"""Score a trained run on record shards, each frame at its own size.

python -m flowseg.evaluate --run_dir DIR --records GLOB --metrics_json FILE

writes flat JSON: seg/miou, seg/iou/<class>, seg/pixel_accuracy, flow/aepe, flow/fl_all,
flow/fl_all_per_image; and the flow scores again with _noc, without the occluded pixels, where the
set has such truth. Rates are percent, flow errors pixels. Kinds of truth that no frame has are
left out. A frame without a second one is shown with itself in its place: only its classes count.

With --output DIR each frame's answers are written into DIR/<frame id>/ as `flowseg.predict` does.
"""

from pathlib import Path

from absl import flags

from flowseg import commands

# isort: split
import keras
import numpy as np
from tqdm import tqdm

from flowseg import data, records, runs
from flowseg import flags as shared_flags
from flowseg.labels import IGNORE_LABEL
from flowseg.metrics import FlowScores, SegScores
from flowseg.predict import write_answers


def evaluate(run, files, scale=1.0, answers=None):
    """Scores of a run over every frame of `files`.

    Args:
        run: a `runs.Run`.
        files: record shards.
        scale: frames are resized by it for the network; scores are at their own size.
        answers: called with (frame, logits, flow) of each frame, where given.

    Returns:
        Dict of scores, and dict of how many frames there were: `frames`, with `seg` truth, with
        `flow` truth, and `single` without a second frame.

    Raises:
        ValueError: no frames; or a shard that cannot be read, by name.
    """
    seg_scores = SegScores(run.label_set.names, per_class=True)
    flow_scores = {"flow": FlowScores(), "flow_noc": FlowScores("_noc")}
    seen = dict.fromkeys(("frames", "seg", "flow", "flow_noc", "single"), 0)
    frames = data.evaluation_data(files, run.label_set).as_numpy_iterator()
    with records.named_errors(files):
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            logits, flow = run.predict(frame["image1"], frame["image2"], scale)
            seen["frames"] += 1
            seen["single"] += not frame["has_image2"]
            if (frame["seg"] != IGNORE_LABEL).any():
                seen["seg"] += 1
                seg_scores.update_state(frame["seg"][None], logits[None])
            for key, scores in flow_scores.items():
                if frame[key][..., 2].any():
                    seen[key] += 1
                    scores.update_state(frame[key][None], flow[None])
            if answers:
                answers(frame, logits, flow)
    if not seen["frames"]:
        raise ValueError(f"{files[0]}: no records: nothing to score")
    results = {}
    for key, scores in {"seg": seg_scores, **flow_scores}.items():
        if seen[key]:
            results |= {k: float(keras.ops.convert_to_numpy(v)) for k, v in scores.result().items()}
    # A class that neither truth nor prediction has is no number.
    return {key: value for key, value in results.items() if np.isfinite(value)}, seen


def table(scores):
    """The scores as lines of text, in percent and pixels."""
    units = {key: "px" if "aepe" in key else "%" for key in scores}
    width = max(map(len, scores), default=0)
    return "\n".join(f"{key:<{width}}  {scores[key]:8.3f} {units[key]}" for key in scores)


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_list("records", None, "Record shards to score on: GLOB[,GLOB].", required=True)
    flags.DEFINE_string("metrics_json", None, "File for the scores; default: none.")
    flags.DEFINE_string("output", None, "Folder for the answers; default: none.")
    shared_flags.define_seg_ids()


def main():
    """Score and tell."""
    args = flags.FLAGS
    files = records.match_files(*args.records)
    run = runs.load_run(args.run_dir, args.weights)
    data.check_records(files, run.label_set)

    def write(frame, logits, flow):
        folder = Path(args.output) / frame["frame_id"].decode()
        seg = logits.argmax(-1).astype(np.uint8)
        write_answers(folder, seg, flow, run.label_set, args.seg_ids)

    scores, seen = evaluate(run, files, args.scale, write if args.output else None)
    print(table(scores))
    print(
        f"{seen['frames']} frames, {seen['seg']} with labels, {seen['flow']} with flow truth"
        + (f"; {seen['single']} have no second frame and were shown twice" * bool(seen["single"]))
    )
    if args.metrics_json:
        runs.write_json(args.metrics_json, scores)
        print(f"wrote {args.metrics_json}")


def run():
    """Entry point of `flowseg-evaluate`."""
    define_flags()
    commands.run(main)


if __name__ == "__main__":
    run()
