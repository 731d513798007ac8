"""Trainings of one recipe that differ in a few flags, side by side, with seeds; a table.

    python -m experiments.studies.schedules --train_records GLOB --val_records GLOB --output DIR \
        --variant 'fixed:' --variant 'alternating:--alternate=1' [--seeds 0,1,2]

A variant is NAME:FLAGS of flowseg.train; {seed} and {output} in its flags are put in. The first is
what the others are compared with, seed by seed. The last weights are scored on the validation
records. Finished trainings are kept: the same command goes on where it was stopped.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from experiments.studies import seed_table
from flowseg import files, runs
from flowseg.data import records
from flowseg.scoring import evaluation

_SCORES = {
    "seg/miou": "mIoU, %",
    "seg/pixel_accuracy": "pixels, %",
    "flow/aepe": "AEPE, px",
    "flow/fl_all": "Fl-all, %",
    "seconds": "training, s",
}


def score(folder, own, seed, args):
    """Train one variant with one seed (unless that is done) and score it.

    Args:
        folder: of the run.
        own: the variant's flags, a list.
        seed: of the training.
        args: the flags of this command.

    Returns:
        Dict of scores, with the `seconds` that training took.

    Raises:
        ValueError: the training failed; or what stands in the folder was asked otherwise.
    """
    trained = [f"--flagfile={args.recipe}", f"--train_records={','.join(args.train_records)}"]
    trained += [f"--seed={seed}", "--val_records=", *args.train_flag, *own]
    asked = {"trained": " ".join(trained), "scored_on": ",".join(args.val_records)}
    path = folder / "scores.json"
    if path.is_file():
        done = json.loads(path.read_text())
        if {key: done[key] for key in asked} != asked:
            raise ValueError(f"{path}: of other flags or records: give another --output")
        return done
    begin = time.monotonic()
    command = [sys.executable, "-m", "flowseg.train", f"--run_dir={folder}", *trained]
    if subprocess.run(command).returncode:
        raise ValueError(f"{folder}: the training failed (its reason stands above)")
    seconds = time.monotonic() - begin
    run = runs.load_run(folder, "last")
    scores, _ = evaluation.evaluate(run, records.match_files(*args.val_records))
    files.write_json(path, asked | scores | {"seconds": seconds})
    return scores | {"seconds": seconds}


def parse(texts):
    """["NAME:FLAGS", ...] -> name -> list of flags, not yet with seed and output.

    Raises:
        ValueError: no name, or one twice.
    """
    found = {}
    for text in texts:
        name, colon, own = text.partition(":")
        if not colon or not name or name in found:
            raise ValueError(f"--variant {text!r}: give NAME:FLAGS, each name once")
        found[name] = shlex.split(own)
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean and deviation over the seeds; what each has more than the first variant.

    Args:
        found: variant -> list of scores, one dict a seed.
    """
    return seed_table.table(found, _SCORES, base=next(iter(found)))


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("recipe", "experiments/joint.flags", "Flagfile of flowseg.train.")
    flags.DEFINE_list("train_records", None, "Records to train on: GLOB[,GLOB].", required=True)
    flags.DEFINE_list("val_records", None, "Records to score on: GLOB[,GLOB].", required=True)
    flags.DEFINE_string("output", None, "Folder for runs and scores.", required=True)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "One training a variant and seed.")
    flags.DEFINE_multi_string("variant", None, "NAME:FLAGS; repeat it.", required=True)
    flags.DEFINE_multi_string("train_flag", [], "Flag of every training; repeat it.")


def main():
    """Train what is missing, score, print the table."""
    args = flags.FLAGS
    variants = parse(args.variant)
    found = {name: [] for name in variants}
    for seed in args.seeds:
        for name, own in variants.items():
            own = [part.format(seed=seed, output=args.output) for part in own]
            folder = Path(args.output) / f"{name.replace(' ', '_')}_{seed}"
            found[name].append(score(folder, own, seed, args))
    print(table(found))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
