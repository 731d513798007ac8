"""Render synthetic frame pairs with exact flow and labels into a folder in KITTI's layout.

    python -m data_prep.scenes --world street --count 1000 --output SCENES
    python -m data_prep.scenes --world layers --photos PHOTOS --count 1000 --output LAYERS
    python -m data_prep.kitti --source SCENES --output RECORDS

street: drives through synthetic streets, with flow and labels. layers: cut-outs of photographs that
move over one another, with flow only. Pair k depends only on --world, --seed, --height, --width and
k: an interrupted run, or a run with a larger --count, continues where the last one ended.
"""

from absl import flags

from data_prep.scenes import store
from flowseg.cli import entry


def define_flags() -> None:
    """Define the flags of this command."""
    smallest, largest = store.SIZES
    flags.DEFINE_enum("world", None, store.WORLDS, "Kind of synthetic world.")
    flags.DEFINE_integer(
        "count",
        None,
        "Total number of pairs in the folder.",
        lower_bound=1,
        upper_bound=store.MAX_PAIRS,
    )
    flags.DEFINE_integer("seed", 0, "Random seed of the pairs.", lower_bound=0)
    flags.DEFINE_integer(
        "height", 375, "Height of the frames, px.", lower_bound=smallest, upper_bound=largest
    )
    flags.DEFINE_integer(
        "width", 1242, "Width of the frames, px.", lower_bound=smallest, upper_bound=largest
    )
    flags.DEFINE_string("output", None, "Folder for the pairs; created if missing.")
    flags.DEFINE_string("photos", None, "Folder of photographs for --world=layers.")
    flags.DEFINE_bool("effects", True, "Simulate blur, noise and other camera effects.")
    flags.DEFINE_integer(
        "workers", None, "Number of processes; default: one per CPU core.", lower_bound=1
    )


def main() -> None:
    """Run the command.

    Raises:
        ValueError, OSError: see `store.write_pairs`; or a required flag is missing.
    """
    values = flags.FLAGS
    for name in ("world", "count", "output"):
        if not values[name].value:
            raise ValueError(f"--{name} is not given (see --help)")
    store.write_pairs(
        values.output,
        values.world,
        values.count,
        seed=values.seed,
        height=values.height,
        width=values.width,
        photos=values.photos,
        effects=values.effects,
        processes=values.workers,
    )


if __name__ == "__main__":
    define_flags()
    entry.run(main)
