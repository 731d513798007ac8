"""Made worlds with exact flow and labels -> a folder in KITTI's layout.

    python -m data_prep.scenes --world street --count 1000 --output SCENES
    python -m data_prep.scenes --world layers --photos PICTURES --count 1000 --output LAYERS
    python -m data_prep.kitti --source SCENES --output RECORDS

street: drives through made-up streets, with flow and labels. layers: cut-outs of photographs that
move over one another, with flow alone. Pair k depends on --world, --seed, --height, --width and k
alone: a run that was stopped, or a larger --count, goes on where the last one ended.
"""

from absl import flags

from data_prep.scenes import store
from flowseg.cli import entry


def define_flags() -> None:
    """Define the flags of the command."""
    least, most = store.SIZES
    flags.DEFINE_enum("world", None, store.WORLDS, "What is made.")
    flags.DEFINE_integer(
        "count", None, "Pairs the folder shall hold.", lower_bound=1, upper_bound=store.MOST_PAIRS
    )
    flags.DEFINE_integer("seed", 0, "Other seeds give other pairs.", lower_bound=0)
    flags.DEFINE_integer("height", 375, "Of the frames, px.", lower_bound=least, upper_bound=most)
    flags.DEFINE_integer("width", 1242, "Of the frames, px.", lower_bound=least, upper_bound=most)
    flags.DEFINE_string("output", None, "Folder for the pairs; made if need be.")
    flags.DEFINE_string("photos", None, "Folder of pictures that layers are cut from.")
    flags.DEFINE_bool("effects", True, "Blur, noise and the like of a real camera.")
    flags.DEFINE_integer("workers", None, "Processes; default: one a CPU core.", lower_bound=1)


def main() -> None:
    """The command.

    Raises:
        ValueError, OSError: see `store.write_pairs`; or a flag is not given.
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
