"""Trainings of one recipe that differ in a few flags, side by side, with seeds; a table.

    python -m experiments.studies.schedules --train_records GLOB --val_records GLOB --output DIR \
        --variant 'fixed:' --variant 'alternating:--alternate=1' [--seeds 0,1,2]

A variant is NAME:FLAGS of flowseg.train; {seed} and {output} in its flags are put in. The first is
what the others are compared with, seed by seed. The last weights are scored on the validation
records. Finished trainings are kept: the same command goes on where it was stopped.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from experiments.studies import seed_table, trials
from flowseg.errors import ArgumentError

_SCORES = {
    "seg/miou": "mIoU, %",
    "seg/pixel_accuracy": "pixels, %",
    "flow/aepe": "AEPE, px",
    "flow/fl_all": "Fl-all, %",
    "seconds": "training, s",
}


def training_flags(
    own: Sequence[str],
    seed: str,
    recipe: str,
    train_records: Sequence[str],
    more_flags: Sequence[str] = (),
) -> list[str]:
    """The flags of `flowseg.train` for one variant with one seed.

    Args:
        own: the variant's flags.
        seed: of the training.
        recipe: flagfile of `flowseg.train`.
        train_records: GLOBs.
        more_flags: flags of every training.
    """
    trained = [f"--flagfile={recipe}", f"--train_records={','.join(train_records)}"]
    return [*trained, f"--seed={seed}", "--val_records=", *more_flags, *own]


def parse(texts: Sequence[str]) -> dict[str, list[str]]:
    """["NAME:FLAGS", ...] -> name -> list of flags, not yet with seed and output.

    Raises:
        ValueError: no name, or one twice.
    """
    found = {}
    for text in texts:
        name, colon, own = text.partition(":")
        if not colon or not name or name in found:
            raise ArgumentError(f"variant {text!r}: give NAME:FLAGS, each name once", "variant")
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
            trained = training_flags(own, seed, args.recipe, args.train_records, args.train_flag)
            found[name].append(trials.score(folder, trained, args.val_records))
    print(table(found))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
