"""Manages the folder of synthetic pairs: its settings, finished pairs and missing pairs.

`scenes.json` in the folder stores the settings of its pairs. Pair k depends only on these and on k,
so that any number of processes and any count produce the same bytes, and a run with a larger count
continues where an earlier one ended. A pair is finished when all its files have their final names.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.conversion import workers
from data_prep.scenes import farm
from data_prep.scenes.photos import find_photos
from flowseg import files
from flowseg.errors import ArgumentError

WORLDS = ("street", "layers")
SIZES = (32, 8192)  # px, minimum and maximum
MAX_PAIRS = 1_000_000  # names have six digits
PLAN = "scenes.json"
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
        processes: number of processes; default: one per core.

    Raises:
        ValueError: photos are missing or not used by the world, a package is missing, or `output`
            is a file, contains something else, or is in use.
        OSError: reading or writing failed, or a worker process died; finished pairs are kept.
    """
    output = Path(output)
    _check(output, world, photos, height, width)
    photo_paths = find_photos(photos) if photos else None
    job = farm.Job(
        output=output,
        world=world,
        seed=seed,
        height=height,
        width=width,
        effects=effects,
        photos=photo_paths,
    )
    busy = "another run is using this folder: wait for it, or give another output"
    with files.lock(output, busy, "output"):
        _claim(output, _plan(job, photos))
        todo = np.flatnonzero(~_find_done(job, count))
        if not len(todo):
            print(f"{output}: all {count} pairs are already finished, nothing to do")
            return
        if len(todo) < count:
            print(f"{output}: resuming, {count - len(todo)} of {count} pairs are already finished")
        processes = min(processes or len(workers.cores()), len(todo))
        print(_make_all(job, todo, count, processes))


def _check(output, world, photos, height, width):
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
    if job.photos:
        described = [[os.path.relpath(path, photos), os.stat(path).st_size] for path in job.photos]
        digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
        plan["photos"] = {"count": len(described), "sha256_of_names_and_sizes": digest}
    return plan


def _claim(output, plan):
    """Check that the folder has this plan; write the plan if there is none yet.

    Raises:
        ValueError: the folder has a different plan, or its plan is damaged.
    """
    path = output / PLAN
    if not path.exists():
        files.write(path, json.dumps(plan, indent=1) + "\n")
    try:
        old = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ArgumentError("damaged: give another output", "output", path=path) from error
    if differing := [key for key in plan if old.get(key) != plan[key]]:
        existing, requested = (
            ", ".join(_named(key, p.get(key)) for key in differing) for p in (old, plan)
        )
        raise ArgumentError(
            f"holds pairs generated with {existing}, not {requested}: give another output",
            "output",
            "noeffects",
            *(key for key in differing if key != "version"),
            path=output,
        )


def _named(key, value):
    """Format an entry of the plan as an argument; disabled effects are the flag `noeffects`."""
    if key == "effects":
        return "effects" if value else "noeffects"
    if key == "photos":
        # With the digest, because another folder may have the same number of photos.
        summary = value and f"{value['count']} ({value['sha256_of_names_and_sizes']:.6})"
        return f"photos of {summary}" if summary else "no photos"
    return f"version {value} of this command" if key == "version" else f"{key}={value}"


def _find_done(job, count):
    """Find the pairs with all files, (count,) bool, and remove leftovers of killed runs."""
    done = np.ones(count, bool)
    for folder, ending in farm.locations(job.world).values():
        exists = np.zeros(count, bool)
        if (job.output / folder).is_dir():
            with os.scandir(job.output / folder) as entries:
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
    start, size, peak = time.perf_counter(), 0, 0
    make = functools.partial(farm.make, job)
    results = workers.map_in_processes(make, map(int, todo), processes, pin=True)
    bar = tqdm(total=count, initial=count - len(todo), unit="pair", disable=None)
    try:
        with bar, contextlib.closing(results):
            for bytes_written, peak_of_worker in results:
                size, peak = size + bytes_written, max(peak, peak_of_worker)
                bar.update()
    except MemoryError as error:
        reason = "out of memory: use fewer workers; finished pairs are kept"
        raise workers.OutOfMemory(reason, "workers") from error
    except OSError as error:
        if error.errno is None:
            raise
        advice = "free some space and run" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run"
        reason = f"{error.strerror}; finished pairs are kept, {advice} the same command again"
        raise OSError(error.errno, reason, error.filename) from error
    seconds = time.perf_counter() - start
    rate = len(todo) / seconds
    per_core = rate / min(processes, len(workers.cores()))
    return (
        f"{len(todo)} pairs in {seconds:.1f} s: {rate:.2f} pairs/s, {per_core:.2f} per core; "
        f"{size / len(todo):,.0f} bytes per pair, {peak / 2**20:.0f} MiB peak per worker"
    )
