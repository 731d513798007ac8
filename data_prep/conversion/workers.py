"""Work done side by side in worker processes, without TensorFlow in them.

This room imports nothing heavy: a worker that is to keep to one core must know it before NumPy,
OpenCV or MuJoCo start their threads.
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

_work = None  # what this worker process was started for


class OutOfMemory(ArgumentError, OSError):
    """There is too little memory for so many worker processes."""


def read_frames(
    frames: Sequence, processes: int | None = None, ray_address: str | None = None
) -> Iterator[tuple[dict, dict] | Exception]:
    """Yield, in order, what `read_frame` returns of every frame, or the exception it raised.

    Args:
        frames: list of :class:`data_prep.conversion.frames.Frame`.
        processes: how many; default: one a core that this process may use. One, or few frames:
            none but this.
        ray_address: the work is that of a Ray cluster's machines in place of processes; see
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
    """The CPU cores that this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def map_in_processes(
    function: Callable[[Any], Any], items: Iterable, processes: int, pin: bool = False
) -> Generator:
    """Yield `function(item)` of every item, in order; only few items are under way at a time.

    Close the generator to end the processes early; what they have begun is finished first.

    Args:
        function: can be pickled; sent once to every process, so it may carry much with it.
        items: iterable, read as the work goes on.
        processes: how many.
        pin: keep each process to one core of its own, where the system can.

    Raises:
        OSError: a worker process died.
        Exception: whatever `function` raised.
    """
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    own_cores = context.SimpleQueue()
    if pin and hasattr(os, "sched_setaffinity"):
        # Not always from the first core on: a second run beside this one would crowd there.
        usable, first = cores(), os.getpid()
        for i in range(processes):
            own_cores.put(usable[(first + i) % len(usable)])
    pool = ProcessPoolExecutor(
        max_workers=processes,
        mp_context=context,
        initializer=_start_worker,
        initargs=(pickle.dumps(function), own_cores),
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
    """Yield `function(item)` of every item, in order, by the machines of a Ray cluster.

    They have the packages that FlowSeg wants, and see files under the same names; the code is sent
    to them. What a lost machine had begun another does again.

    Args:
        function: can be pickled.
        items: iterable, read as the work goes on.
        address: as `flowseg.ray_cluster.connect` takes it.

    Raises:
        ValueError: Ray is missing.
        OSError: no cluster there, or a worker process died.
        Exception: whatever `function` raised.
    """
    from flowseg import ray_cluster

    ray = ray_cluster.connect(address, code=("flowseg", "data_prep"))
    waiting = deque()
    try:
        work = ray.remote(function)
        most = 2 * int(ray.cluster_resources().get("CPU", 1))
        for item in items:
            waiting.append(work.remote(item))
            if len(waiting) > most:  # bounds the memory
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"Ray at {address}: the work was not done: {reason}") from error
    finally:
        ray.shutdown()


def _submit(pool, item):
    """Submit with Ctrl-C blocked, which the processes started here inherit: only the parent
    heeds it, and ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_do, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(function, own_cores):
    global _work
    # Else a worker whose parent was killed would wait for work for ever.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    if not own_cores.empty():
        os.sched_setaffinity(0, {own_cores.get()})
    _work = pickle.loads(function)  # imports what it needs only now


def _do(item):
    return _work(item)
