"""Compare trainings of one recipe that differ in a few flags, over several seeds, in a table.

    python -m experiments.studies.schedules --train_records GLOB --val_records GLOB --output DIR \
        --variant 'fixed:' --variant 'alternating:--alternate=1' [--seeds 0,1,2]

A variant is NAME:FLAGS of flowseg.train; {seed} and {output} in its flags are replaced. The other
variants are compared with the first one, seed by seed. The last weights are scored on the
validation records. Finished trainings are kept: the same command resumes an interrupted study.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from experiments.studies import seed_table, trials
from flowseg.cli import flags as shared_flags
from flowseg.errors import ArgumentError

_SCORES = {
    "seg/miou": "mIoU, %",
    "seg/pixel_accuracy": "pixels, %",
    "flow/aepe": "AEPE, px",
    "flow/fl_all": "Fl-all, %",
    "seconds": "training, s",
}


def training_flags(
    variant_flags: Sequence[str],
    seed: str,
    recipe: str,
    train_records: Sequence[str],
    more_flags: Sequence[str] = (),
) -> list[str]:
    """The flags of `flowseg.train` for one variant with one seed.

    Args:
        variant_flags: flags of the variant.
        seed: random seed of the training.
        recipe: flagfile of `flowseg.train`.
        train_records: GLOBs.
        more_flags: flags of every training.
    """
    train_flags = [f"--flagfile={recipe}", f"--train_records={','.join(train_records)}"]
    return [*train_flags, f"--seed={seed}", "--val_records=", *more_flags, *variant_flags]


def parse(texts: Sequence[str]) -> dict[str, list[str]]:
    """["NAME:FLAGS", ...] -> name -> list of flags, before seed and output are replaced.

    Raises:
        ValueError: a missing or duplicate name.
    """
    variants = {}
    for text in texts:
        name, colon, variant_flags = text.partition(":")
        if not colon or not name or name in variants:
            raise ArgumentError(f"variant {text!r}: give NAME:FLAGS, each name once", "variant")
        variants[name] = shlex.split(variant_flags)
    return variants


def table(scores_by_variant: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean and deviation over the seeds, and differences from the first variant.

    Args:
        scores_by_variant: variant -> list of scores, one dict per seed.
    """
    return seed_table.table(scores_by_variant, _SCORES, base=next(iter(scores_by_variant)))


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("recipe", "experiments/joint.flags", "Flagfile of flowseg.train.")
    shared_flags.define_record_sets(
        "train_records", None, "Records to train on: GLOB[,GLOB].", required=True
    )
    shared_flags.define_record_sets(
        "val_records", None, "Records to score on: GLOB[,GLOB].", required=True
    )
    flags.DEFINE_string("output", None, "Folder for runs and scores.", required=True)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "One training per variant and seed.")
    flags.DEFINE_multi_string("variant", None, "NAME:FLAGS; repeatable.", required=True)
    flags.DEFINE_multi_string("train_flag", [], "Flag of every training; repeatable.")


def main():
    """Train what is missing, score and print the table."""
    args = flags.FLAGS
    variants = parse(args.variant)
    scores_by_variant = {name: [] for name in variants}
    for seed in args.seeds:
        for name, variant_flags in variants.items():
            variant_flags = [part.format(seed=seed, output=args.output) for part in variant_flags]
            folder = Path(args.output) / f"{name.replace(' ', '_')}_{seed}"
            train_flags = training_flags(
                variant_flags, seed, args.recipe, args.train_records, args.train_flag
            )
            scores_by_variant[name].append(trials.score(folder, train_flags, args.val_records))
    print(table(scores_by_variant))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
