r"""Cross-validate a recipe on a few labelled KITTI frames.

python -m experiments.studies.cross_validate --source KITTI --recipe FLAGFILE --output DIR \
    --train_flag=--init_from=RUN

Frames are sorted by id and split into folds of neighbours (frames of one drive are similar, so the
scores of a random split would be too high). For each fold, a training (`flowseg.train` with the
recipe's flags and each --train_flag) uses the other folds, and its last weights are scored on the
fold, so that nothing is selected by the scored frames. The scores are from one confusion matrix
over all frames. Finished folds are kept: the same command resumes an interrupted run.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_prep import kitti
from data_prep.conversion import writer
from flowseg import files, runs
from flowseg.cli import entry
from flowseg.data import labels, records
from flowseg.errors import ArgumentError
from flowseg.scoring import evaluation, frame_scores, set_scores


def cut(items: list, folds: int) -> list[list]:
    """Split `items` into `folds` runs of neighbours, of sizes as equal as possible.

    Raises:
        ValueError: fewer than two folds, or fewer items than folds.
    """
    if not 2 <= folds <= len(items):
        raise ArgumentError(
            f"folds={folds}: must be at least 2, and at most the number of frames ({len(items)})",
            "folds",
        )
    limits = [round(i * len(items) / folds) for i in range(folds + 1)]
    return [items[a:b] for a, b in zip(limits, limits[1:], strict=False)]


def cross_validate(
    sources: Sequence[Path | str],
    recipe: Path | str,
    output: Path | str,
    folds: int = 3,
    more_flags: Sequence[str] = (),
) -> dict[str, float]:
    """Train and score every fold.

    Args:
        sources: KITTI folders, as `data_prep.kitti` takes them; frames without labels are skipped.
        recipe: flagfile of `flowseg.train`.
        output: folder for each fold's records and run, and scores.json.
        folds: number of folds.
        more_flags: additional flags of `flowseg.train`.

    Returns:
        Dict of scores pooled over all frames, and the mIoU of each fold as `fold<k>/seg/miou`.

    Raises:
        ValueError: too few frames, or a training that failed.
    """
    output = Path(output)
    frames = [frame for frame in kitti.find_frames(sources) if "labels" in frame.files]
    parts = cut(frames, folds)
    pooled, names = {}, labels.CITYSCAPES.names
    fold_scores = {}
    for number, held_out in enumerate(parts):
        folder = output / f"fold{number}"
        splits = {"train": [f for f in frames if f not in held_out], "val": held_out}
        settings = {"fold": number, "folds": folds}
        writer.write("kitti", splits, folder / "records", sources=sources, settings=settings)
        _train(recipe, folder, more_flags)
        run = runs.load_run(folder / "run", "last")
        shards = records.match_files(folder / "records/val-*")
        predict = evaluation.run_predictor(run, run.label_set)
        counts, _ = evaluation.count(shards, run.label_set, predict)
        pooled = frame_scores.add(pooled, counts)
        fold_scores[f"fold{number}/seg/miou"] = frame_scores.scores(counts, names)["seg/miou"]
    scores = frame_scores.scores(pooled, names) | fold_scores
    files.write_json(output / "scores.json", scores)
    return scores


def _train(recipe, folder, more_flags):
    command = [sys.executable, "-m", "flowseg.train", f"--flagfile={recipe}"]
    command += [f"--run_dir={folder / 'run'}", f"--train_records={folder / 'records/train-*'}"]
    if subprocess.run([*command, *more_flags]).returncode:
        raise ValueError(f"{folder}: the training failed (see its message above)")


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_multi_string(
        "source", [], "KITTI folder, as data_prep.kitti takes it; repeatable."
    )
    flags.DEFINE_string("recipe", None, "Flagfile of flowseg.train.", required=True)
    flags.DEFINE_string("output", None, "Folder for records, runs and scores.", required=True)
    flags.DEFINE_integer("folds", 3, "Number of folds.", 2)
    flags.DEFINE_multi_string("train_flag", [], "Additional flag of flowseg.train; repeatable.")


def main():
    """Cross-validate and print."""
    args = flags.FLAGS
    scores = cross_validate(args.source, args.recipe, args.output, args.folds, args.train_flag)
    print(set_scores.table(scores, {}))
    print(f"wrote {Path(args.output) / 'scores.json'}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
