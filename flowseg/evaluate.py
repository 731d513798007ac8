"""Score a trained run on record shards, each frame at its own size.

python -m flowseg.evaluate --run_dir DIR --records GLOB --metrics_json FILE

writes flat JSON: seg/miou, seg/iou/<class>, seg/pixel_accuracy, flow/aepe, flow/fl_all,
flow/fl_all_per_image; and the flow scores again with _noc, without the occluded pixels, where the
set has such truth. Rates are percent, flow errors pixels. Kinds of truth that no frame has are
left out. A frame without a second one is shown with itself in its place: only its classes count.

With --score_as NAME the classes are scored as another set's wider ones (CamVid's 11 classes for a
network of Cityscapes' 19): a pixel's probabilities are summed per wider class, then the largest
wins.

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
from flowseg.labels import IGNORE_LABEL, class_groups, load_label_set
from flowseg.metrics import FlowScores, SegScores, grouped_logits
from flowseg.predict import write_answers


def evaluate(run, files, scale=1.0, answers=None, score_as=None):
    """Scores of a run over every frame of `files`.

    Args:
        run: a `runs.Run`.
        files: record shards.
        scale: frames are resized by it for the network; scores are at their own size.
        answers: called with (frame, logits, flow) of each frame, where given.
        score_as: a `labels.LabelSet` of wider classes to score; default: the run's own classes.

    Returns:
        Dict of scores, and dict of how many frames there were: `frames`, with `seg` truth, with
        `flow` truth, and `single` without a second frame.

    Raises:
        ValueError: no frames; a shard that cannot be read, by name; classes that do not group.
    """
    scored = score_as or run.label_set
    groups = None if scored == run.label_set else class_groups(run.label_set, scored)
    seg_scores = SegScores(scored.names, per_class=True)
    flow_scores = {"flow": FlowScores(), "flow_noc": FlowScores("_noc")}
    seen = dict.fromkeys(("frames", "seg", "flow", "flow_noc", "single"), 0)
    frames = data.evaluation_data(files, scored).as_numpy_iterator()
    with records.named_errors(files):
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            logits, flow = run.predict(frame["image1"], frame["image2"], scale)
            seen["frames"] += 1
            seen["single"] += not frame["has_image2"]
            if (frame["seg"] != IGNORE_LABEL).any():
                seen["seg"] += 1
                told = logits if groups is None else grouped_logits(logits, groups)
                seg_scores.update_state(frame["seg"][None], told[None])
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
    flags.DEFINE_string(
        "score_as", None, "Score these classes: a built-in label set, or a JSON file; default: own."
    )


def main():
    """Score and tell."""
    args = flags.FLAGS
    files = records.match_files(*args.records)
    run = runs.load_run(args.run_dir, args.weights)
    score_as = load_label_set(args.score_as) if args.score_as else run.label_set
    data.check_records(files, score_as)

    def write(frame, logits, flow):
        folder = Path(args.output) / frame["frame_id"].decode()
        seg = logits.argmax(-1).astype(np.uint8)
        write_answers(folder, seg, flow, run.label_set, args.seg_ids)

    scores, seen = evaluate(run, files, args.scale, write if args.output else None, score_as)
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
