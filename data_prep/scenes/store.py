"""Manages the folder of synthetic pairs: its settings, finished pairs and missing pairs.

`scenes.json` in the folder stores the settings of its pairs. Pair k depends only on these and on k,
so that any number of processes and any count produce the same bytes, and a run with a larger count
continues where an earlier one ended. A pair is finished when all its files have their final names.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from data_prep.conversion import workers
from data_prep.scenes import farm, folder
from data_prep.scenes.photos import find_photos
from flowseg import files
from flowseg.errors import ArgumentError

WORLDS = ("street", "layers")
SIZES = (32, 8192)  # px, minimum and maximum
MAX_PAIRS = 1_000_000  # names have six digits
PLAN = folder.PLAN
VERSION = 1  # to be increased when a world renders other pairs for the same seed


def write_pairs(
    output: str | Path,
    world: str,
    count: int,
    seed: int = 0,
    height: int = 375,
    width: int = 1242,
    photos: str | Path | None = None,
    effects: bool = True,
    motion: float = 1.0,
    processes: int | None = None,
) -> None:
    """Render pairs 0..count-1 that are missing in `output`, and print a summary.

    Args:
        output: folder; created if missing.
        world: one of `WORLDS`.
        count: total number of pairs in the folder, 1..`MAX_PAIRS`.
        seed: 0 or more.
        height, width: size of the frames, px, within `SIZES`.
        photos: folder of photographs, for the world `layers`.
        effects: whether to simulate blur, noise and other camera effects.
        motion: factor on the distances of motion, for the world `layers`.
        processes: number of processes; default: one per core.

    Raises:
        ValueError: photos are missing or not used by the world, a package is missing, or `output`
            is a file, contains something else, or is in use.
        OSError: reading or writing failed, or a worker process died; finished pairs are kept.
    """
    output = Path(output)
    _check(output, world, photos, height, width, motion)
    photo_paths = find_photos(photos) if photos else None
    job = farm.Job(
        output=output,
        world=world,
        seed=seed,
        height=height,
        width=width,
        effects=effects,
        motion=motion,
        photos=photo_paths,
    )
    busy = "another run is using this folder: wait for it, or give another output"
    with files.lock(output, busy, "output"):
        folder.claim(output / PLAN, _plan(job, photos))
        todo = np.flatnonzero(~_find_done(job, count))
        if not len(todo):
            print(f"{output}: all {count} pairs are already finished, nothing to do")
            return
        if len(todo) < count:
            print(f"{output}: resuming, {count - len(todo)} of {count} pairs are already finished")
        processes = min(processes or len(workers.cores()), len(todo))
        print(_make_all(job, todo, count, processes))


def _check(output, world, photos, height, width, motion):
    """Validate the arguments before anything is written."""
    if world == "layers" and not photos:
        raise ArgumentError(
            "photos is not given: world=layers needs a folder of photographs", "photos", "world"
        )
    if world == "street" and height > 2 * width:
        raise ArgumentError(
            f"height={height}: street frames can be at most twice as high as wide", "height"
        )
    if world != "layers" and photos:
        raise ArgumentError(f"photos={photos}: only used with world=layers", "photos", "world")
    if world != "layers" and motion != 1:
        raise ArgumentError(f"motion={motion:g}: only used with world=layers", "motion", "world")
    farm.load(world)
    if output.exists() and not output.is_dir():
        raise ArgumentError("is a file; output must be a folder", "output", path=output)
    foreign = [name for name in (*farm.SETS, "training") if (output / name).exists()]
    if foreign and not (output / PLAN).exists():
        raise ArgumentError(
            f"holds a folder {foreign[0]} that this command did not create (no {PLAN} beside it): "
            "give another output",
            "output",
            path=output,
        )


def _plan(job, photos):
    """Build the content of `scenes.json`: all settings of the pairs, independent of the machine."""
    plan = {"version": VERSION, "world": job.world, "seed": job.seed}
    plan |= {"height": job.height, "width": job.width, "effects": job.effects, "photos": None}
    if job.world == "layers":
        plan["motion"] = job.motion
    if job.photos:
        described = [[os.path.relpath(path, photos), os.stat(path).st_size] for path in job.photos]
        digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
        plan["photos"] = {"count": len(described), "sha256_of_names_and_sizes": digest}
    return plan


def _find_done(job, count):
    """Find the pairs with all files, (count,) bool, and remove leftovers of killed runs."""
    done = np.ones(count, bool)
    for subfolder, ending in farm.locations(job.world).values():
        exists = np.zeros(count, bool)
        if (job.output / subfolder).is_dir():
            with os.scandir(job.output / subfolder) as entries:
                for entry in entries:
                    number = entry.name.removesuffix(ending)
                    if entry.name.startswith(".partial-"):
                        os.unlink(entry.path)
                    elif len(number) == 6 and number.isdecimal() and int(number) < count:
                        # An empty file is left by a power failure before the data was on disk.
                        exists[int(number)] = entry.stat().st_size > 0
        done &= exists
    return done


def _make_all(job, todo, count, processes):
    """Render the pairs with the indices `todo`, and return the summary."""
    make = functools.partial(_make_counted, job)
    return folder.render(
        make, map(int, todo), processes, total=count, initial=count - len(todo), unit="pair"
    )


def _make_counted(job, index):
    return 1, *farm.make(job, index)
