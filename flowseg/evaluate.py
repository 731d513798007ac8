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

import sys
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np

from flowseg import files, runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.data.labels import load_label_set
from flowseg.scoring import evaluation, frame_scores, prediction_files, report, set_scores
from flowseg.scoring.evaluation import count, run_answers


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
        files.write_json(args.metrics_json, set_scores.flat(scores, sets))
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
        evaluation.frames_with_truth(shards)  # Tells of ids that are there twice.
    if args.submission and prediction_files.city_ids(run.label_set) is None:
        told = f"label set {run.label_set.name} has classes without one of Cityscapes' ids"
        print(f"warning: {args.submission}/semantic is not written: {told}", file=sys.stderr)

    def write(frame, logits, flow):
        name = frame["frame_id"].decode()
        seg = logits.argmax(-1).astype(np.uint8)
        if args.output:
            folder = Path(args.output) / name
            prediction_files.write_answers(folder, seg, flow, run.label_set, args.seg_ids)
        if args.submission:
            told = flow if frame["has_image2"] else None
            prediction_files.write_submission(args.submission, name, seg, told, run.label_set)

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
    prediction_files.check_all_there(written, evaluation.frames_with_truth(shards))
    return label_set, written.answer, str(args.predictions), ""


def run():
    """Entry point of `flowseg-evaluate`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
