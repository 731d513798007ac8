"""Measure the time and size of a pair of the `street` world, by stage.

    python -m experiments.costs.scene_benchmark --height 128 --width 416 --count 40

One process on one core renders pairs and writes their files, as a worker of `data_prep.scenes`
does. The profiler's overhead is included in the shares, but not in the pairs per second, which come
from a separate pass without it.
"""

import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path

import cv2
from absl import flags

from data_prep.conversion.workers import cores
from data_prep.scenes import farm, store
from flowseg import tables
from flowseg.cli import entry

# Stage -> its functions as (file, name), each including all that it calls.
_STAGES = {
    "layout and compiling": (("layout.py", "draw_street"), ("world.py", "build")),
    "rays": (("rays.py", "intersect"),),
    "textures": (("textures.py", "sample"),),
    "other shading": (("light.py", "_shade"),),  # less the textures
    "sensor": (("sensor.py", "expose"),),
    "PNG": (("farm.py", "_encode"), ("flow_io.py", "encode_kitti_flow")),
    "writing": (("files.py", "write"),),
}


def measure(job: farm.Job, count: int) -> tuple[float, dict[str, float], float]:
    """Render pairs 0..count-1 of `job` twice.

    Returns:
        (pairs per second, stage -> share of the time in percent, bytes per pair).
    """
    farm.make(job, count)  # warm-up: texture atlas, MuJoCo and OpenCV
    start = time.perf_counter()
    size = sum(farm.make(job, index)[0] for index in range(count))
    seconds = time.perf_counter() - start
    profile = cProfile.Profile()
    profile.enable()
    for index in range(count):
        farm.make(job, index)
    profile.disable()
    stats = pstats.Stats(profile)
    shares = {stage: _seconds(stats, functions) for stage, functions in _STAGES.items()}
    shares["other shading"] -= shares["textures"]
    shares["the rest"] = stats.total_tt - sum(shares.values())
    return (
        count / seconds,
        {stage: 100 * spent / stats.total_tt for stage, spent in shares.items()},
        size / count,
    )


def _seconds(stats, functions):
    """Time in functions, including all that they call."""
    return sum(
        cumulative
        for (file, _, name), (_, _, _, cumulative, _) in stats.stats.items()
        if (Path(file).name, name) in functions
    )


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_integer("height", 128, "Rows of the frames, px.", *store.SIZES)
    flags.DEFINE_integer("width", 416, "Columns of the frames, px.", *store.SIZES)
    flags.DEFINE_integer("count", 40, "Number of pairs, each rendered twice.", 1)
    flags.DEFINE_integer("seed", 0, "Random seed of the pairs.", 0)


def main():
    """Run the benchmark."""
    args = flags.FLAGS
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores()[-1]})
    with tempfile.TemporaryDirectory() as folder:
        job = farm.Job(
            Path(folder),
            "street",
            args.seed,
            args.height,
            args.width,
            effects=True,
            photos=None,
        )
        rate, shares, size = measure(job, args.count)
    print(f"street, {args.height}x{args.width}, {args.count} pairs, one core:")
    print(f"{rate:.2f} pairs/s, {size:,.0f} bytes per pair; share of time:")
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    print(tables.plain((stage, f"{share:.1f} %") for stage, share in ranked))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
