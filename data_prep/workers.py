"""Frames checked side by side in worker processes, without TensorFlow in them."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from data_prep.frames import read_frame

# Below this many frames, starting processes takes longer than the work.
_FEW_FRAMES = 16


def read_frames(frames, processes=None):
    """Yield, in order, what `read_frame` returns of every frame, or the exception it raised.

    Args:
        frames: list of :class:`data_prep.frames.Frame`.
        processes: how many; default: one a CPU core. One, or few frames: none but this.

    Raises:
        OSError: a worker process died.
    """
    processes = min(processes or os.cpu_count() or 1, len(frames))
    if processes <= 1 or len(frames) < _FEW_FRAMES:
        yield from map(_attempt, frames)
        return
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker)
    waiting = deque()
    try:
        for frame in frames:
            waiting.append(_submit(pool, frame))
            if len(waiting) > 2 * processes:  # bounds the memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OSError("a worker process died (out of memory?): use fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(frame):
    try:
        return read_frame(frame)
    except (ValueError, OSError) as error:
        return error
    except cv2.error as error:
        return ValueError(f"{frame.files['image1']}: OpenCV cannot read this frame: {error.err}")


def _submit(pool, frame):
    """Submit with Ctrl-C blocked, which the processes started here inherit: only the parent
    heeds it, and ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_attempt, frame)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker():
    # Else a worker whose parent was killed would wait for work for ever.
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
