"""Score a trained run on record shards, each frame at its original size.

python -m flowseg.evaluate --run_dir DIR --records GLOB --metrics_json FILE

writes flat JSON: seg/miou, seg/iou/<class>, seg/pixel_accuracy, seg/boundary_f and
seg/boundary_f/<class>; flow/aepe, flow/fl_all and flow/fl_all_per_image; the same with the suffix
_noc, over non-occluded pixels, if the set has such ground truth; and flow/aepe_<region> and
flow/fl_<region> for occluded pixels (occluded), for slow, medium and fast motion (0_10, 10_40,
40_up px, the last also in two parts, 40_100 and 100_up), and for foreground and background (fg,
bg). For the classes of Cityscapes it also has seg/category_miou and, if there are instance maps,
seg/iiou: see `scoring.frame_scores`. Rates are in percent, flow errors in pixels. Scores for which
no frame has ground truth are omitted. A frame without a second frame is paired with itself, and
only its classes are scored.

With --score_as NAME the classes are scored as the broader classes of another label set (CamVid's 11
for a network with Cityscapes' 19): each pixel's probabilities are summed per broader class, and the
largest sum determines the class.

With --output DIR each frame's predictions are written into DIR/<frame id>/, in the format of
`flowseg.predict`. With --submission DIR they are written in the format of KITTI's evaluation
servers; to submit them, zip the folders DIR/semantic and DIR/flow into one file each. KITTI's test
frames have no public ground truth, so they get no scores.

With --predictions DIR instead of --run_dir, existing predictions of any method are scored; every
frame with ground truth needs predictions of the same size. --report FILE.html writes a page with
all scores and the worst and best frames; --compare FILE adds another evaluation's metrics to it.

Records from more than one folder are scored together and per folder: set/<folder>/<score> in the
JSON. --frames_csv FILE writes a table with the scores of each frame.
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
from flowseg.scoring.evaluation import count, run_predictor


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_record_sets(
        "records", None, "Record shards to score on: GLOB[,GLOB].", required=True
    )
    flags.DEFINE_string("metrics_json", None, "File for the scores; default: none.")
    flags.DEFINE_string("frames_csv", None, "CSV file for each frame's scores; default: none.")
    flags.DEFINE_string("report", None, "HTML file for scores and images; default: none.")
    flags.DEFINE_string("compare", None, "Metrics file of another run to show in the report.")
    flags.DEFINE_string("output", None, "Folder for the predictions; default: none.")
    flags.DEFINE_string(
        "submission", None, "Folder for the predictions in the format of KITTI's servers."
    )
    shared_flags.define_seg_ids()
    flags.DEFINE_string(
        "score_as",
        None,
        "Classes to score: a label set or its JSON file; default: the run's classes.",
    )
    flags.DEFINE_string(
        "predictions",
        None,
        "Instead of --run_dir: a folder of predictions by any method, <frame id>/{seg,flow}.png or "
        "{semantic,flow}/<frame id>.png, with the classes of --score_as (default: cityscapes).",
    )
    shared_flags.define_run_flags(alternative="predictions")
    flags.adopt_module_key_flags(shared_flags)


def main():
    """Score the predictions, print the table and write the requested files."""
    args = flags.FLAGS
    shards = records.match_files(*args.records)
    other = set_scores.read_scores(args.compare) if args.compare else None
    label_set, predictor, name, flags_text = (_open_folder if args.predictions else _open_run)(
        args, shards
    )
    collected = (report.Collector if args.report else set_scores.Tally)(label_set)
    counts, totals = count(shards, label_set, predictor, collected.add)
    scores, sets = frame_scores.scores(counts, label_set.names), collected.set_scores()
    print(set_scores.table(scores, sets) or "nothing to score: these frames have no ground truth")
    print(
        f"{totals['frames']} frames, {totals['seg']} with labels, "
        f"{totals['flow']} with flow ground truth"
        + (
            f"; {totals['single']} have no second frame and were paired with themselves"
            * bool(totals["single"])
        )
    )
    foreground = ""
    if totals["foreground"]:
        sources = ", ".join(f"{source} ({n} frames)" for source, n in totals["foreground"].items())
        foreground = f"foreground (fg, bg) of the flow scores from {sources}"
        print(foreground)
    for folder in (args.output, args.submission):
        if folder and Path(folder).is_dir():
            print(f"wrote {folder}")
    if args.metrics_json:
        files.write_json(args.metrics_json, set_scores.flat(scores, sets))
        print(f"wrote {args.metrics_json}")
    if args.frames_csv:
        collected.write_csv(args.frames_csv, scores)
        print(f"wrote {args.frames_csv}")
    if args.report:
        title = f"{name} on {', '.join(args.records)}"
        note = foreground and f"F{foreground[1:]}."
        report.write(args.report, title, scores, counts, collected, flags_text, other, note)
        print(f"wrote {args.report}")


def _open_run(args, shards):
    """Return the classes to score, the predictor, the name and the flags of a trained run."""
    run = runs.load_run(args.run_dir, args.weights)
    label_set = load_label_set(args.score_as) if args.score_as else run.label_set
    decoding.check_records(shards, label_set)

    if args.output or args.submission:
        evaluation.frames_with_truth(shards)  # Raises if a frame id occurs twice.
    if args.submission and prediction_files.city_ids(run.label_set) is None:
        reason = f"label set {run.label_set.name} has classes without a Cityscapes id"
        print(f"warning: {args.submission}/semantic is not written: {reason}", file=sys.stderr)

    def write(frame, logits, flow):
        name = frame["frame_id"].decode()
        seg = logits.argmax(-1).astype(np.uint8)
        if args.output:
            folder = Path(args.output) / name
            prediction_files.write_predictions(folder, seg, flow, run.label_set, args.seg_ids)
        if args.submission:
            flow_or_none = flow if frame["has_image2"] else None
            prediction_files.write_submission(
                args.submission, name, seg, flow_or_none, run.label_set
            )

    each = write if args.output or args.submission else None
    flags_file = run.folder / "flags.txt"
    text = files.read_text(flags_file) if flags_file.is_file() else ""
    text += f"\nscored with\n--weights={args.weights}\n--input_scale={args.input_scale:g}\n"
    text += f"--score_as={label_set.name}\n"
    name = args.run_dir or args.weights
    return label_set, run_predictor(run, label_set, args.input_scale, each), name, text


def _open_folder(args, shards):
    """Return the same as `_open_run` for a folder of predictions, whose flags are unknown."""
    for name in ("output", "submission"):
        if args[name].value:
            raise ValueError(
                f"--{name} writes a run's predictions, but --predictions reads existing ones"
            )
    label_set = load_label_set(args.score_as or "cityscapes")
    decoding.check_records(shards, label_set)
    written = prediction_files.open_predictions(args.predictions, label_set, args.seg_ids)
    prediction_files.check_complete(written, evaluation.frames_with_truth(shards))
    return label_set, written.read_frame, str(args.predictions), ""


def entry_point():
    """Entry point of `flowseg-evaluate`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
