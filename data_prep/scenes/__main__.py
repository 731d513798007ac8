"""Render synthetic frame pairs or videos with exact flow and labels.

    python -m data_prep.scenes --world street --count 1000 --output SCENES
    python -m data_prep.scenes --world street --count 20 --frames 300 --output DRIVES
    python -m data_prep.scenes --world layers --photos PHOTOS --count 1000 --output LAYERS
    python -m data_prep.kitti --source SCENES --output RECORDS

street: drives through synthetic streets, with flow and labels. layers: cut-outs of photographs that
move over one another, with flow only. Pair k depends only on --world, --seed, --height, --width and
k: an interrupted run, or a run with a larger --count, continues where the last one ended. Pairs are
written in KITTI's layout.

With --frames the street world writes drives, videos of that many frames, in the layout of Virtual
KITTI 2 but with KITTI's encoding of flow: labels, instances, and flow forward and backward for each
frame. A frame depends only on the settings, the drive's number and its own.
"""

from absl import flags

from data_prep.scenes import drives, store
from flowseg.cli import entry


def define_flags() -> None:
    """Define the flags of this command."""
    smallest, largest = store.SIZES
    flags.DEFINE_enum("world", None, store.WORLDS, "Kind of synthetic world.")
    flags.DEFINE_integer(
        "count",
        None,
        "Total number of pairs, or with --frames of drives, in the folder.",
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
    flags.DEFINE_integer(
        "frames",
        None,
        "Number of frames of each drive of --world=street; default: pairs, not drives.",
        lower_bound=2,
        upper_bound=drives.MAX_FRAMES,
    )
    flags.DEFINE_float(
        "speed",
        None,
        "Mean speed of the camera in drives, metres per second; default: drawn for each drive.",
        lower_bound=0.5,
        upper_bound=40.0,
    )
    flags.DEFINE_float(
        "rate",
        None,
        f"Frames per second of drives; default: {drives.RATE:g}.",
        lower_bound=1.0,
        upper_bound=1000.0,
    )
    flags.DEFINE_string("photos", None, "Folder of photographs for --world=layers.")
    flags.DEFINE_float(
        "motion",
        1.0,
        "Factor on the distances that --world=layers moves: 4 for motion to about 250 px.",
        lower_bound=0.1,
        upper_bound=10.0,
    )
    flags.DEFINE_bool("effects", True, "Simulate blur, noise and other camera effects.")
    flags.DEFINE_integer(
        "workers", None, "Number of processes; default: one per CPU core.", lower_bound=1
    )


def main() -> None:
    """Run the command.

    Raises:
        ValueError, OSError: see `store.write_pairs` and `drives.write_drives`; or a required flag
            is missing, or flags do not fit each other.
    """
    values = flags.FLAGS
    for name in ("world", "count", "output"):
        if not values[name].value:
            raise ValueError(f"--{name} is not given (see --help)")
    common = {
        "seed": values.seed,
        "height": values.height,
        "width": values.width,
        "effects": values.effects,
        "processes": values.workers,
    }
    if values.frames is None:
        for name in ("speed", "rate"):
            if values[name].value is not None:
                raise ValueError(f"--{name}: only used with --frames, for drives")
        world_settings = {"photos": values.photos, "motion": values.motion}
        store.write_pairs(values.output, values.world, values.count, **world_settings, **common)
        return
    if values.world != "street":
        raise ValueError(f"--frames: only used with --world=street, not {values.world}")
    if values.photos:
        raise ValueError(f"--photos={values.photos}: only used with --world=layers")
    if values.motion != 1:
        raise ValueError(f"--motion={values.motion:g}: only used with --world=layers")
    rate = drives.RATE if values.rate is None else values.rate
    drives.write_drives(
        values.output, values.count, values.frames, speed=values.speed, rate=rate, **common
    )


if __name__ == "__main__":
    define_flags()
    entry.run(main)
