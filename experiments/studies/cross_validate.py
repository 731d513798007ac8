r"""Score a recipe on few labelled KITTI frames: each frame by a network that never saw its fold.

python -m experiments.studies.cross_validate --source KITTI --recipe FLAGFILE --output DIR \
    --train_flag=--init_from=RUN

Frames are sorted by id and cut into folds of neighbours (frames of one drive look alike, so a
random cut would flatter). For each fold a training (`flowseg.train` with the recipe's flags and
each --train_flag) sees the others, and its last weights are scored on the fold: no choice by the
frames that are scored. One confusion matrix over all frames gives the scores. Finished folds are
kept: the same command goes on where it was stopped.
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
    """`items` in `folds` runs of neighbours, as equal as can be.

    Raises:
        ValueError: fewer than two folds, or fewer items than folds.
    """
    if not 2 <= folds <= len(items):
        raise ArgumentError(
            f"folds={folds}: at least 2, and at most one a frame ({len(items)})", "folds"
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
        sources: KITTI folders, as `data_prep.kitti` takes them; frames without labels are left out.
        recipe: flagfile of `flowseg.train`.
        output: folder for each fold's records and run, and scores.json.
        folds: how many.
        more_flags: further flags of `flowseg.train`.

    Returns:
        Dict of scores pooled over all frames, and each fold's own mIoU as `fold<k>/seg/miou`.

    Raises:
        ValueError: too few frames, or a training that failed.
    """
    output = Path(output)
    frames = [frame for frame in kitti.find_frames(sources) if "labels" in frame.files]
    parts = cut(frames, folds)
    pooled, names = {}, labels.CITYSCAPES.names
    own = {}
    for number, held_out in enumerate(parts):
        folder = output / f"fold{number}"
        splits = {"train": [f for f in frames if f not in held_out], "val": held_out}
        settings = {"fold": number, "folds": folds}
        writer.write("kitti", splits, folder / "records", sources=sources, settings=settings)
        _train(recipe, folder, more_flags)
        run = runs.load_run(folder / "run", "last")
        shards = records.match_files(folder / "records/val-*")
        ask = evaluation.run_answers(run, run.label_set)
        counts, _ = evaluation.count(shards, run.label_set, ask)
        pooled = frame_scores.add(pooled, counts)
        own[f"fold{number}/seg/miou"] = frame_scores.scores(counts, names)["seg/miou"]
    scores = frame_scores.scores(pooled, names) | own
    files.write_json(output / "scores.json", scores)
    return scores


def _train(recipe, folder, more_flags):
    command = [sys.executable, "-m", "flowseg.train", f"--flagfile={recipe}"]
    command += [f"--run_dir={folder / 'run'}", f"--train_records={folder / 'records/train-*'}"]
    if subprocess.run([*command, *more_flags]).returncode:
        raise ValueError(f"{folder}: the training failed (its reason stands above)")


def define_flags():
    """The flags of this command."""
    flags.DEFINE_multi_string("source", [], "KITTI folder, as data_prep.kitti takes it; repeat it.")
    flags.DEFINE_string("recipe", None, "Flagfile of flowseg.train.", required=True)
    flags.DEFINE_string("output", None, "Folder for records, runs and scores.", required=True)
    flags.DEFINE_integer("folds", 3, "How many parts the frames are cut into.", 2)
    flags.DEFINE_multi_string("train_flag", [], "Further flag of flowseg.train; repeat it.")


def main():
    """Cross-validate and tell."""
    args = flags.FLAGS
    scores = cross_validate(args.source, args.recipe, args.output, args.folds, args.train_flag)
    print(set_scores.table(scores, {}))
    print(f"wrote {Path(args.output) / 'scores.json'}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
