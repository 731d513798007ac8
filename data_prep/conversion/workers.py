"""Runs work in parallel worker processes, which do not load TensorFlow.

This module imports nothing heavy: a worker must be pinned to its core before NumPy, OpenCV or
MuJoCo start their threads.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from flowseg.errors import ArgumentError

# Below this many frames, starting processes takes longer than the work.
_FEW_FRAMES = 16

_work = None  # the function that this worker process runs


class OutOfMemory(ArgumentError, OSError):
    """Too little memory for this number of worker processes."""


def read_frames(
    frames: Sequence, processes: int | None = None, ray_address: str | None = None
) -> Iterator[tuple[dict, dict] | Exception]:
    """Yield, in order, the result of `read_frame` for every frame, or the exception it raised.

    Args:
        frames: list of :class:`data_prep.conversion.frames.Frame`.
        processes: number of processes; default: one per core that this process may use. With
            one process, or few frames, the work runs in this process.
        ray_address: Ray cluster whose machines do the work instead of local processes; see
            `map_on_ray`.

    Raises:
        OSError: a worker process died.
    """
    if ray_address is not None:
        yield from map_on_ray(_attempt, frames, ray_address)
        return
    processes = min(processes or len(cores()), len(frames))
    if processes <= 1 or len(frames) < _FEW_FRAMES:
        yield from map(_attempt, frames)
    else:
        yield from map_in_processes(_attempt, frames, processes)


def _attempt(frame):
    import cv2

    from data_prep.conversion.frames import read_frame

    try:
        return read_frame(frame)
    except (ValueError, OSError) as error:
        return error
    except cv2.error as error:
        return ValueError(f"{frame.files['image1']}: OpenCV cannot read this frame: {error.err}")


def cores() -> list[int]:
    """Return the CPU cores that this process may use, as far as the system reports them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def map_in_processes(
    function: Callable[[Any], Any], items: Iterable, processes: int, pin: bool = False
) -> Generator:
    """Yield `function(item)` for every item, in order; only a few items are in flight at a time.

    Close the generator to stop the processes early; items already started are finished first.

    Args:
        function: picklable; sent once to every process, so it may be large.
        items: iterable, consumed lazily.
        processes: number of processes.
        pin: pin each process to a core of its own, where the system supports it.

    Raises:
        OSError: a worker process died.
        Exception: any exception that `function` raised.
    """
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    core_queue = context.SimpleQueue()
    if pin and hasattr(os, "sched_setaffinity"):
        # Not always starting at the first core, where a concurrent run would compete for it.
        usable, first = cores(), os.getpid()
        for i in range(processes):
            core_queue.put(usable[(first + i) % len(usable)])
    pool = ProcessPoolExecutor(
        max_workers=processes,
        mp_context=context,
        initializer=_start_worker,
        initargs=(pickle.dumps(function), core_queue),
    )
    waiting = deque()
    try:
        for item in items:
            waiting.append(_submit(pool, item))
            if len(waiting) > 2 * processes:  # bounds the memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        reason = "a worker process died (out of memory?): use fewer workers"
        raise OutOfMemory(reason, "workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def map_on_ray(function: Callable[[Any], Any], items: Iterable, address: str) -> Generator:
    """Yield `function(item)` for every item, in order, computed by the machines of a Ray cluster.

    The machines need the packages that FlowSeg requires and must see files under the same paths;
    the code is sent to them. The work of a lost machine is repeated by another.

    Args:
        function: picklable.
        items: iterable, consumed lazily.
        address: as `flowseg.ray_cluster.connect` accepts it.

    Raises:
        ValueError: Ray is missing.
        OSError: no cluster at the address, or a worker process died.
        Exception: any exception that `function` raised.
    """
    from flowseg import ray_cluster

    ray = ray_cluster.connect(address, code=("flowseg", "data_prep"))
    waiting = deque()
    try:
        work = ray.remote(function)
        max_waiting = 2 * int(ray.cluster_resources().get("CPU", 1))
        for item in items:
            waiting.append(work.remote(item))
            if len(waiting) > max_waiting:  # bounds the memory
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"Ray at {address}: the work failed: {reason}") from error
    finally:
        ray.shutdown()


def _submit(pool, item):
    """Submit an item with Ctrl-C blocked, which processes started here inherit.

    Only the parent handles Ctrl-C, and stops them.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_run, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _start_worker(function, core_queue):
    global _work
    # Otherwise a worker whose parent was killed would wait for work forever.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if not core_queue.empty():
        os.sched_setaffinity(0, {core_queue.get()})
    _work = pickle.loads(function)  # imports its dependencies only now


def _run(item):
    return _work(item)
