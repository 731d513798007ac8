"""Score a trained run on record shards, each frame at its own size.

python -m flowseg.evaluate --run_dir DIR --records GLOB --metrics_json FILE

writes flat JSON: seg/miou, seg/iou/<class>, seg/pixel_accuracy, seg/boundary_f and
seg/boundary_f/<class>; flow/aepe, flow/fl_all, flow/fl_all_per_image, these again with _noc,
without what the second frame does not show, where the set has such truth; and flow/aepe_<region>,
flow/fl_<region> of what is hidden, of slow, middling and fast motion (0_10, 10_40, 40_up px), of
foreground and background (fg, bg); with Cityscapes' classes also seg/category_miou and, where there
are instance maps, seg/iiou: see `scoring.frame_scores`. Rates are percent, flow errors pixels. What
no frame has truth for is left out. A frame without a second one is shown with itself in its place:
only its classes count.

With --score_as NAME the classes are scored as another set's wider ones (CamVid's 11 classes for a
network of Cityscapes' 19): a pixel's probabilities are summed per wider class, then the largest
wins.

With --output DIR each frame's answers are written into DIR/<frame id>/ as `flowseg.predict` does;
with --submission DIR as KITTI's servers take them: zip the folders DIR/semantic and DIR/flow, each
with its name. KITTI's test frames, whose truth nobody has, get no scores.

With --predictions DIR in place of --run_dir, answers that some method wrote are scored; each frame
that has truth needs one, of its own size. --report FILE.html is a page of all this with the worst
and best frames, --compare FILE another evaluation's metrics beside it.

Records from more than one folder are scored together, and each folder's alone: set/<folder>/<score>
in the JSON. --frames_csv FILE is a table of every frame's scores.
"""

import collections
import sys
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np
from tqdm import tqdm

from flowseg import runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES, IGNORE_LABEL, class_groups, load_label_set, thing_table
from flowseg.scoring import answers, frame_scores, prediction_files, report, set_scores
from flowseg.scoring.streaming import grouped_logits

# What is told about the frames seen, and the counts that a frame with such truth has.
_KINDS = {"seg": "seg/confusion", "flow": "flow/all", "flow_noc": "flow/noc"}


def evaluate(run, files, scale=1.0, each=None, score_as=None):
    """Scores of a run over every frame of `files`.

    Args:
        run: a `runs.Run`.
        files: record shards.
        scale: frames are resized by it for the network; scores are at their own size.
        each: called with (frame, logits, flow) of each frame, where given.
        score_as: a `labels.LabelSet` of wider classes to score; default: the run's own classes.

    Returns:
        The scores (see `frame_scores.scores`), and how many frames there were (see `count`).

    Raises:
        ValueError: no frames; a shard that cannot be read, by name; classes that do not group;
            answers that are no numbers, by their frame.
    """
    label_set = score_as or run.label_set
    counts, seen = count(files, label_set, run_answers(run, label_set, scale, each))
    return frame_scores.scores(counts, label_set.names), seen


def run_answers(run, label_set, scale=1.0, each=None):
    """A function for `count`: frame -> a run's train ids, in the classes of `label_set`, and flow.

    Raises:
        ValueError: the run's classes do not group into `label_set`. Asked: answers that are no
            numbers, by their frame.
    """
    groups = None if label_set == run.label_set else class_groups(run.label_set, label_set)

    def ask(frame):
        logits, flow = run.predict(frame["image1"], frame["image2"], scale)
        _check_numbers(frame, logits, flow)
        if each:
            each(frame, logits, flow)
        told = logits if groups is None else np.asarray(grouped_logits(logits, groups))
        return told.argmax(-1), flow

    return ask


def _check_numbers(frame, logits, flow):
    """Raise ValueError, naming the frame, where a network answers with what is no number.

    The largest of such logits would be a class like any other.
    """
    for kind, answer in (("classes", logits), ("flow", flow)):
        if not np.isfinite(answer).all():
            lost = (~np.isfinite(answer)).any(-1)
            raise ValueError(
                f"frame {frame['frame_id'].decode()}: the network's {kind} are no numbers at "
                f"{lost.sum()} of {lost.size} pixels: has its training diverged?"
            )


def count(files, label_set, ask, each=None):
    """Counts of answers over every frame of the record shards `files`.

    Args:
        label_set: the classes.
        ask: decoded frame (`decoding.evaluation_data`) -> (H, W) train ids, 255 where
            nothing is said, and (H, W, 2) flow; either may be None: not asked.
        each: called with (frame, seg, flow, the frame's counts), where given.

    Returns:
        The counts of all frames together (see `scoring`), and a dict of how many frames there
        were: `frames`, with `seg`, `flow`, `flow_noc` truth that was asked, `single` without a
        second frame, and by what they know their `foreground`.

    Raises:
        ValueError: no frames; a shard that cannot be read, by name; what `ask` raises.
    """
    counts = {}
    seen = dict.fromkeys(("frames", "seg", "flow", "flow_noc", "single"), 0)
    seen["foreground"] = collections.Counter()
    frames = decoding.evaluation_data(files, label_set).as_numpy_iterator()
    with records.named_errors(files):
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            seg, flow = ask(frame)
            found, source = count_frame(frame, seg, flow, label_set)
            counts = frame_scores.add(counts, found)
            if each:
                each(frame, seg, flow, found)
            if "flow/all" in found and source:
                seen["foreground"][source] += 1
            seen["frames"] += 1
            seen["single"] += not frame["has_image2"]
            for kind, key in _KINDS.items():
                seen[kind] += key in found
    if not seen["frames"]:
        raise ValueError(f"{files[0]}: no records: nothing to score")
    return counts, seen


def count_frame(frame, seg, flow, label_set):
    """One frame's counts (see `scoring`), and what its foreground is known by.

    Foreground, as KITTI scores flow on it, is the objects of the frame's object map; where there is
    none, the things of its instance map; else the labels of persons and vehicles, moving or not.

    Args:
        frame: decoded frame of `decoding.evaluation_data`, in NumPy.
        seg: (H, W) train ids of `label_set`, 255 where nothing is said; None: not asked.
        flow: (H, W, 2); None: not asked.
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
    counts = {}
    if seg is not None:
        counts |= frame_scores.count_seg(frame["seg"], seg, len(label_set.names), things)
    if flow is not None:
        counts |= frame_scores.count_flow(frame["flow"], flow, frame["flow_noc"], foreground)
    return counts, source


def define_flags():
    """The flags of this command."""
    flags.DEFINE_list("records", None, "Record shards to score on: GLOB[,GLOB].", required=True)
    flags.DEFINE_string("metrics_json", None, "File for the scores; default: none.")
    flags.DEFINE_string("frames_csv", None, "CSV file for each frame's scores; default: none.")
    flags.DEFINE_string("report", None, "HTML file for scores and pictures; default: none.")
    flags.DEFINE_string("compare", None, "Metrics file of another run, to stand in the report.")
    flags.DEFINE_string("output", None, "Folder for the answers; default: none.")
    flags.DEFINE_string("submission", None, "Folder for the answers as KITTI's servers take them.")
    shared_flags.define_seg_ids()
    flags.DEFINE_string(
        "score_as", None, "Score these classes: a built-in label set, or a JSON file; default: own."
    )
    flags.DEFINE_string(
        "predictions",
        None,
        "In place of --run_dir: a folder of answers by any method, <frame id>/{seg,flow}.png or "
        "{semantic,flow}/<frame id>.png; their classes are --score_as's (default: cityscapes).",
    )
    shared_flags.define_run_flags(instead="predictions")
    flags.adopt_module_key_flags(shared_flags)


def main():
    """Score and tell."""
    args = flags.FLAGS
    shards = records.match_files(*args.records)
    other = set_scores.read_scores(args.compare) if args.compare else None
    label_set, ask, told, flags_text = (_of_folder if args.predictions else _of_run)(args, shards)
    kept = (report.Collector if args.report else set_scores.Tally)(label_set)
    counts, seen = count(shards, label_set, ask, kept.add)
    scores, sets = frame_scores.scores(counts, label_set.names), kept.set_scores()
    print(set_scores.table(scores, sets) or "nothing to score: these frames have no truth")
    print(
        f"{seen['frames']} frames, {seen['seg']} with labels, {seen['flow']} with flow truth"
        + (f"; {seen['single']} have no second frame and were shown twice" * bool(seen["single"]))
    )
    foreground = ""
    if seen["foreground"]:
        sources = ", ".join(f"{source} ({n} frames)" for source, n in seen["foreground"].items())
        foreground = f"foreground of flow (fg, bg) by {sources}"
        print(foreground)
    for folder in (args.output, args.submission):
        if folder and Path(folder).is_dir():
            print(f"wrote {folder}")
    if args.metrics_json:
        runs.write_json(args.metrics_json, set_scores.flat(scores, sets))
        print(f"wrote {args.metrics_json}")
    if args.frames_csv:
        kept.write_csv(args.frames_csv, scores)
        print(f"wrote {args.frames_csv}")
    if args.report:
        title = f"{told} on {', '.join(args.records)}"
        told = foreground and f"F{foreground[1:]}."
        report.write(args.report, title, scores, counts, kept, flags_text, other, told)
        print(f"wrote {args.report}")


def _of_run(args, shards):
    """Of a trained run: the classes scored, what answers, its name, its flags."""
    run = runs.load_run(args.run_dir, args.weights)
    label_set = load_label_set(args.score_as) if args.score_as else run.label_set
    decoding.check_records(shards, label_set)

    if args.output or args.submission:
        prediction_files.frames_with_truth(shards)  # Tells of ids that are there twice.
    if args.submission and answers.city_ids(run.label_set) is None:
        told = f"label set {run.label_set.name} has classes without one of Cityscapes' ids"
        print(f"warning: {args.submission}/semantic is not written: {told}", file=sys.stderr)

    def write(frame, logits, flow):
        name = frame["frame_id"].decode()
        seg = logits.argmax(-1).astype(np.uint8)
        if args.output:
            folder = Path(args.output) / name
            answers.write_answers(folder, seg, flow, run.label_set, args.seg_ids)
        if args.submission:
            told = flow if frame["has_image2"] else None
            answers.write_submission(args.submission, name, seg, told, run.label_set)

    kept = write if args.output or args.submission else None
    flags_file = run.folder / "flags.txt"
    text = flags_file.read_text() if flags_file.is_file() else ""
    text += f"\nscored with\n--weights={args.weights}\n--input_scale={args.input_scale:g}\n"
    text += f"--score_as={label_set.name}\n"
    told = args.run_dir or args.weights
    return label_set, run_answers(run, label_set, args.input_scale, kept), told, text


def _of_folder(args, shards):
    """Of a folder of answers: the same."""
    for name in ("output", "submission"):
        if args[name].value:
            raise ValueError(f"--{name}: writes a run's answers; --predictions are written already")
    label_set = load_label_set(args.score_as or "cityscapes")
    decoding.check_records(shards, label_set)
    written = prediction_files.find_answers(args.predictions, label_set, args.seg_ids)
    prediction_files.check_all_there(written, prediction_files.frames_with_truth(shards))
    return label_set, written.answer, str(args.predictions), ""


def run():
    """Entry point of `flowseg-evaluate`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
