"""Score a trained run on record shards, each frame at its own size.

python -m flowseg.evaluate --run_dir DIR --records GLOB --metrics_json FILE

writes flat JSON: seg/miou, seg/iou/<class>, seg/pixel_accuracy, seg/boundary_f; flow/aepe,
flow/fl_all, flow/fl_all_per_image, these again with _noc, without what the second frame does not
show, where the set has such truth; and flow/aepe_<region>, flow/fl_<region> of what is hidden, of
slow, middling and fast motion (0_10, 10_40, 40_up px), of foreground and background (fg, bg); with
Cityscapes' classes also seg/category_miou and, where there are instance maps, seg/iiou: see
`flowseg.scoring`. Rates are percent, flow errors pixels. What no frame has truth for is left out. A
frame without a second one is shown with itself in its place: only its classes count.

With --score_as NAME the classes are scored as another set's wider ones (CamVid's 11 classes for a
network of Cityscapes' 19): a pixel's probabilities are summed per wider class, then the largest
wins.

With --output DIR each frame's answers are written into DIR/<frame id>/ as `flowseg.predict` does.
"""

import collections
from pathlib import Path

from absl import flags

from flowseg import commands

# isort: split
import numpy as np
from tqdm import tqdm

from flowseg import data, records, runs, scoring
from flowseg import flags as shared_flags
from flowseg.labels import (
    CITYSCAPES,
    IGNORE_LABEL,
    class_groups,
    load_label_set,
    thing_table,
)
from flowseg.metrics import grouped_logits
from flowseg.predict import write_answers

# What is told about the frames seen, and the counts that a frame with such truth has.
_KINDS = {"seg": "seg/confusion", "flow": "flow/all", "flow_noc": "flow/noc"}


def evaluate(run, files, scale=1.0, answers=None, score_as=None):
    """Scores of a run over every frame of `files`: those of `count`, as `scoring.scores` has them.

    Args and what is raised: see `count`.

    Returns:
        Dict of scores, and dict of how many frames there were: `frames`, with `seg` truth, with
        `flow` truth, `single` without a second frame, and by what they know their `foreground`.
    """
    counts, seen = count(run, files, scale, answers, score_as)
    return scoring.scores(counts, (score_as or run.label_set).names), seen


def count(run, files, scale=1.0, answers=None, score_as=None):
    """Counts of a run over every frame of `files`.

    Args:
        run: a `runs.Run`.
        files: record shards.
        scale: frames are resized by it for the network; scores are at their own size.
        answers: called with (frame, logits, flow) of each frame, where given.
        score_as: a `labels.LabelSet` of wider classes to score; default: the run's own classes.

    Returns:
        The counts of all frames together (see `scoring`), and how many frames there were, as
        `evaluate` tells them.

    Raises:
        ValueError: no frames; a shard that cannot be read, by name; classes that do not group.
    """
    scored = score_as or run.label_set
    groups = None if scored == run.label_set else class_groups(run.label_set, scored)
    counts = {}
    seen = dict.fromkeys(("frames", "seg", "flow", "flow_noc", "single"), 0)
    seen["foreground"] = collections.Counter()
    frames = data.evaluation_data(files, scored).as_numpy_iterator()
    with records.named_errors(files):
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            logits, flow = run.predict(frame["image1"], frame["image2"], scale)
            told = logits if groups is None else np.asarray(grouped_logits(logits, groups))
            found, source = count_frame(frame, told.argmax(-1), flow, scored)
            counts = scoring.add(counts, found)
            if "flow/all" in found and source:
                seen["foreground"][source] += 1
            seen["frames"] += 1
            seen["single"] += not frame["has_image2"]
            for kind, key in _KINDS.items():
                seen[kind] += key in found
            if answers:
                answers(frame, logits, flow)
    if not seen["frames"]:
        raise ValueError(f"{files[0]}: no records: nothing to score")
    return counts, seen


def count_frame(frame, seg, flow, label_set):
    """One frame's counts (see `scoring`), and what its foreground is known by.

    Foreground, as KITTI scores flow on it, is the objects of the frame's object map; where there is
    none, the things of its instance map; else the labels of persons and vehicles, moving or not.

    Args:
        frame: decoded frame of `data.evaluation_data`, in NumPy.
        seg: (H, W) train ids of `label_set`, 255 where nothing is said.
        flow: (H, W, 2).
        label_set: the classes.

    Returns:
        dict of counts, and "object map", "instance map", "labels" or None.
    """
    source, foreground = None, None
    if frame["has_objects"]:
        source, foreground = "object map", frame["objects"] > 0
    elif frame["has_things"]:
        source, foreground = "instance map", frame["things"] > 0
    elif (frame["seg"] != IGNORE_LABEL).any():
        source, foreground = "labels", thing_table(label_set)[frame["seg"]]
    city = label_set.names == CITYSCAPES.names and frame["has_things"]
    things = frame["things"] if city else None
    counts = scoring.count_seg(frame["seg"], seg, len(label_set.names), things)
    return counts | scoring.count_flow(frame["flow"], flow, frame["flow_noc"], foreground), source


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
    if seen["foreground"]:
        told = ", ".join(f"{source} ({n} frames)" for source, n in seen["foreground"].items())
        print(f"foreground of flow (fg, bg) by {told}")
    if args.metrics_json:
        runs.write_json(args.metrics_json, scores)
        print(f"wrote {args.metrics_json}")


def run():
    """Entry point of `flowseg-evaluate`."""
    define_flags()
    commands.run(main)


if __name__ == "__main__":
    run()
