"""The folder of made pairs: whose it is, what stands in it already, and what is left to make.

`scenes.json` in the folder says what its pairs are made with. Pair k depends on that, on k and on
nothing else, so that the same bytes come for any number of processes and any count, and a larger
count goes on where a smaller one ended. A pair is finished when all its files have their names.
"""

import contextlib
import errno
import fcntl
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
SIZES = (32, 8192)  # px, least and most
MOST_PAIRS = 1_000_000  # names have six digits
PLAN = "scenes.json"
VERSION = 1  # raise it when a world comes to draw other pairs from the same seed


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
    """Make pairs 0..count-1 in `output`, but for those that stand there, and print a summary.

    Args:
        output: folder; made if need be.
        world: one of `WORLDS`.
        count: how many pairs the folder shall hold, 1..`MOST_PAIRS`.
        seed: 0 or more.
        height, width: of the frames, px, within `SIZES`.
        photos: folder of photographs, for the world of layers.
        effects: blur, noise and the like of a real camera.
        processes: how many; default: one a core.

    Raises:
        ValueError: photos that the world does not take or lacks, a package that is missing, or
            `output` is a file, holds something else, or is in use.
        OSError: reading or writing failed, or a worker process died; finished pairs are kept.
    """
    output = Path(output)
    _check(output, world, photos, height, width)
    found = find_photos(photos) if photos else None
    job = farm.Job(
        output=output,
        world=world,
        seed=seed,
        height=height,
        width=width,
        effects=effects,
        photos=found,
    )
    output.mkdir(parents=True, exist_ok=True)
    with _locked(output):
        _claim(output, _plan(job, photos))
        todo = np.flatnonzero(~_find_done(job, count))
        if not len(todo):
            print(f"{output}: all {count} pairs are already made, nothing to do")
            return
        if len(todo) < count:
            print(f"{output}: resuming, {count - len(todo)} of {count} pairs are already made")
        processes = min(processes or len(workers.cores()), len(todo))
        print(_make_all(job, todo, count, processes))


def _check(output, world, photos, height, width):
    """Refuse what cannot be, before anything is touched."""
    if world == "layers" and not photos:
        raise ArgumentError(
            "photos is not given: world=layers is cut from a folder of pictures", "photos", "world"
        )
    if world == "street" and height > 2 * width:
        raise ArgumentError(
            f"height={height}: a street's frames are at most twice as tall as wide", "height"
        )
    if world != "layers" and photos:
        raise ArgumentError(f"photos={photos}: only world=layers takes it", "photos", "world")
    farm.load(world)
    if output.exists() and not output.is_dir():
        raise ArgumentError("is a file; output must be a folder", "output", path=output)
    foreign = [name for name in (*farm.SETS, "training") if (output / name).exists()]
    if foreign and not (output / PLAN).exists():
        raise ArgumentError(
            f"holds a {foreign[0]} that was not made here (no {PLAN} beside it): "
            "give another output",
            "output",
            path=output,
        )


@contextlib.contextmanager
def _locked(output):
    """Keep a second run out of the folder; the lock goes with the process, however it ends."""
    with open(output / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArgumentError(
                "another run is writing there: wait for it, or give another output",
                "output",
                path=output,
            ) from error
        except OSError:
            pass  # a network drive that has no locks
        yield


def _plan(job, photos):
    """What `scenes.json` holds: all that decides the pairs, and nothing of this machine."""
    plan = {"version": VERSION, "world": job.world, "seed": job.seed}
    plan |= {"height": job.height, "width": job.width, "effects": job.effects, "photos": None}
    if job.photos:
        described = [[os.path.relpath(path, photos), os.stat(path).st_size] for path in job.photos]
        digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
        plan["photos"] = {"count": len(described), "sha256_of_names_and_sizes": digest}
    return plan


def _claim(output, plan):
    """Make sure that the folder is of this plan; write the plan where there is none yet.

    Raises:
        ValueError: the folder is of another plan, or nobody can tell.
    """
    path = output / PLAN
    if not path.exists():
        files.write(path, json.dumps(plan, indent=1) + "\n")
    try:
        old = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ArgumentError("damaged: give another output", "output", path=path) from error
    if other := [key for key in plan if old.get(key) != plan[key]]:
        was, asked = (", ".join(_named(key, p.get(key)) for key in other) for p in (old, plan))
        raise ArgumentError(
            f"holds pairs made with {was}, not {asked}: give another output",
            "output",
            "noeffects",
            *(key for key in other if key != "version"),
            path=output,
        )


def _named(key, value):
    """An entry of the plan as an argument; a command's flag for no effects is its own word."""
    if key == "effects":
        return "effects" if value else "noeffects"
    if key == "photos":
        # The digest too: another folder may have as many.
        told = value and f"{value['count']} ({value['sha256_of_names_and_sizes']:.6})"
        return f"photos of {told}" if told else "no photos"
    return f"version {value} of this command" if key == "version" else f"{key}={value}"


def _find_done(job, count):
    """(count,) bool: the pairs that have all their files. Removes what a killed run left."""
    done = np.ones(count, bool)
    for folder, ending in farm.places(job.world).values():
        here = np.zeros(count, bool)
        if (job.output / folder).is_dir():
            with os.scandir(job.output / folder) as entries:
                for entry in entries:
                    number = entry.name.removesuffix(ending)
                    if entry.name.startswith(".partial-"):
                        os.unlink(entry.path)
                    elif len(number) == 6 and number.isdecimal() and int(number) < count:
                        # Of no length: the power failed before it was on the disk.
                        here[int(number)] = entry.stat().st_size > 0
        done &= here
    return done


def _make_all(job, todo, count, processes):
    """Make the pairs of these numbers; returns the summary."""
    start, size, peak = time.perf_counter(), 0, 0
    make = functools.partial(farm.make, job)
    made = workers.map_in_processes(make, map(int, todo), processes, pin=True)
    bar = tqdm(total=count, initial=count - len(todo), unit="pair", disable=None)
    try:
        with bar, contextlib.closing(made):
            for bytes_written, peak_of_worker in made:
                size, peak = size + bytes_written, max(peak, peak_of_worker)
                bar.update()
    except MemoryError as error:
        reason = "out of memory: use fewer workers; finished pairs are kept"
        raise workers.OutOfMemory(reason, "workers") from error
    except OSError as error:
        if error.errno is None:
            raise
        mend = "make room and run" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run"
        reason = f"{error.strerror}; finished pairs are kept, {mend} the same command again"
        raise OSError(error.errno, reason, error.filename) from error
    seconds = time.perf_counter() - start
    rate = len(todo) / seconds
    per_core = rate / min(processes, len(workers.cores()))
    return (
        f"{len(todo)} pairs in {seconds:.1f} s: {rate:.2f} pairs/s, {per_core:.2f} per core; "
        f"{size / len(todo):,.0f} bytes a pair, {peak / 2**20:.0f} MiB at most in a worker"
    )
