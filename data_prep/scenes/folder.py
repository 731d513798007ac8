"""A folder of synthetic scenes: its settings, and the rendering of what is missing in it."""

import contextlib
import errno
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.conversion import workers
from flowseg import files
from flowseg.errors import ArgumentError

PLAN = "scenes.json"  # name of the file with the settings of a folder
# Settings that folders of earlier versions lack.
_EARLIER = {"motion": 1.0}


def claim(path: Path, plan: dict[str, Any]) -> None:
    """Check that the folder has this plan; write the plan if there is none yet.

    Args:
        path: the file with the settings in the folder.
        plan: the settings; those of drives have a `layout`, those of pairs have not.

    Raises:
        ValueError: the folder has a different plan, or its plan is damaged.
        OSError: the plan cannot be written.
    """
    output = path.parent
    if not path.exists():
        files.write(path, json.dumps(plan, indent=1) + "\n")
    try:
        old = {**_EARLIER, **dict(json.loads(path.read_text()))}
    except (ValueError, TypeError) as error:
        raise ArgumentError("damaged: give another output", "output", path=path) from error
    held = _content(old)
    if held != _content(plan):
        reason = f"holds {held}, not {_content(plan)}: give another output"
        raise ArgumentError(reason, "output", path=output)
    if differing := [key for key in plan if old.get(key) != plan[key]]:
        existing, requested = (
            ", ".join(_named(key, p.get(key)) for key in differing) for p in (old, plan)
        )
        raise ArgumentError(
            f"holds {held} generated with {existing}, not {requested}: give another output",
            "output",
            "noeffects",
            *(key for key in differing if key != "version"),
            path=output,
        )


def _content(plan):
    return "drives" if plan.get("layout") else "pairs"


def _named(key, value):
    """Format an entry of the plan as an argument; disabled effects are the flag `noeffects`."""
    if key == "effects":
        return "effects" if value else "noeffects"
    if key == "photos":
        # With the digest, because another folder may have the same number of photos.
        summary = value and f"{value['count']} ({value['sha256_of_names_and_sizes']:.6})"
        return f"photos of {summary}" if summary else "no photos"
    if key == "speed" and value is None:
        return "no speed"
    return f"version {value} of this command" if key == "version" else f"{key}={value}"


def render(
    make: Callable[[Any], tuple[int, int, int]],
    items: Iterable,
    processes: int,
    total: int,
    initial: int,
    unit: str,
) -> str:
    """Run `make` for every item in worker processes, and return a summary.

    Args:
        make: picklable; renders an item and writes its files. Returns how many pairs or frames it
            has written, their bytes, and the peak memory of its process in bytes.
        items: consumed lazily.
        processes: number of processes.
        total, initial: number of pairs or frames in the folder, and how many of them exist.
        unit: pair or frame.

    Raises:
        ValueError, OSError: raised by `make`, or a worker process died; what is finished is kept.
    """
    start, done, size, peak = time.perf_counter(), 0, 0, 0
    results = workers.map_in_processes(make, items, processes, pin=True)
    bar = tqdm(total=total, initial=initial, unit=unit, disable=None)
    try:
        with bar, contextlib.closing(results):
            for count, bytes_written, peak_of_worker in results:
                done, size = done + count, size + bytes_written
                peak = max(peak, peak_of_worker)
                bar.update(count)
    except MemoryError as error:
        reason = f"out of memory: use fewer workers; finished {unit}s are kept"
        raise workers.OutOfMemory(reason, "workers") from error
    except OSError as error:
        if error.errno is None:
            raise
        advice = "free some space and run" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run"
        kept = f"finished {unit}s are kept, {advice} the same command again"
        raise OSError(error.errno, f"{error.strerror}; {kept}", error.filename) from error
    seconds = time.perf_counter() - start
    rate = done / seconds
    per_core = rate / min(processes, len(workers.cores()))
    return (
        f"{done} {unit}s in {seconds:.1f} s: {rate:.2f} {unit}s/s, {per_core:.2f} per core; "
        f"{size / done:,.0f} bytes per {unit}, {peak / 2**20:.0f} MiB peak per worker"
    )
