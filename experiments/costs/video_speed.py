"""Measure the time and memory of reading and writing videos, beside OpenCV.

    python -m experiments.costs.video_speed --frames 1000 --large_frames 300

writes --frames frames of 640x193 and --large_frames of 1920x1080 with `media.video_output` and with
OpenCV, and reads the H.264 file with `media.video` and with OpenCV. Each row is measured in its own
process. CPU seconds are those of all threads, and less affected by other jobs than the time; peak
memory includes Python and the libraries.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from flowseg import tables
from flowseg.cli import entry
from flowseg.media.frames import open_frames
from flowseg.media.video_output import video_writer

FPS = 25


def moving_frames(width: int, height: int, count: int) -> Iterator[np.ndarray]:
    """Yield (height, width, 3) uint8 RGB: a camera that pans over textured ground."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width + 256, 3), np.uint8)
    ground = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    for number in range(count):
        left = abs((3 * number + 256) % 512 - 256)
        yield np.ascontiguousarray(ground[:, left : left + width])


def write_with_flowseg(path: str, width: int, height: int, count: int) -> int:
    """Write a video as the commands do, including the check of the file; returns `count`."""
    with video_writer(path, FPS) as write:
        for image in moving_frames(width, height, count):
            write(image)
    return count


def write_with_opencv(path: str, width: int, height: int, count: int) -> int:
    """Write MPEG-4 Part 2 or VP8 with OpenCV, which has no encoder for H.264; returns `count`."""
    code = {".mp4": "mp4v", ".webm": "VP80"}[Path(path).suffix]
    size = width + width % 2, height + height % 2
    sink = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), FPS, size)
    for image in moving_frames(width, height, count):
        padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        sink.write(cv2.cvtColor(padded, cv2.COLOR_RGB2BGR))
    sink.release()
    return count


def read_with_flowseg(path: str, *_: int) -> int:
    """Read all frames as the commands do; returns their number."""
    return sum(1 for _ in open_frames(path)[0])


def read_with_opencv(path: str, *_: int) -> int:
    """Read all frames as RGB with OpenCV; returns their number."""
    capture, count = cv2.VideoCapture(path, cv2.CAP_FFMPEG), 0
    while True:
        done, image = capture.read()
        if not done:
            return count
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        count += 1


# Operation -> function and file.
ROWS = {
    "write H.264, PyAV": (write_with_flowseg, "a.mp4"),
    "write MPEG-4 Part 2, OpenCV": (write_with_opencv, "b.mp4"),
    "write VP8, PyAV": (write_with_flowseg, "a.webm"),
    "write VP8, OpenCV": (write_with_opencv, "b.webm"),
    "read H.264, PyAV": (read_with_flowseg, "a.mp4"),
    "read H.264, OpenCV": (read_with_opencv, "a.mp4"),
}


def measure(
    work: Callable[..., int], path: str, width: int, height: int, count: int
) -> tuple[float, float, float]:
    """Run `work(path, width, height, count)` in a new process.

    Returns:
        (seconds, CPU seconds, peak memory in MB).

    Raises:
        ValueError: it processed another number of frames than `count`.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        done, *costs = pool.apply(_measured, (work, path, width, height, count))
    if done != count:
        raise ValueError(f"{path}: {done} of {count} frames processed by {work.__name__}")
    return tuple(costs)


def _measured(work, *arguments):
    start, cpu = time.perf_counter(), time.process_time()
    done = work(*arguments)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return done, seconds, cpu, peak


def table(sizes: dict[tuple[int, int], int]) -> str:
    """Measure every row of `ROWS` for {(width, height): frames}; returns a Markdown table."""
    headings = ("size", "frames", "operation", "s", "CPU s", "frames per s", "peak MB", "file MB")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for (width, height), count in sizes.items():
            for operation, (work, name) in ROWS.items():
                path = Path(folder) / name
                seconds, cpu, peak = measure(work, str(path), width, height, count)
                rows.append(
                    (
                        f"{width}x{height}",
                        count,
                        operation,
                        f"{seconds:.1f}",
                        f"{cpu:.1f}",
                        f"{count / seconds:.0f}",
                        f"{peak:.0f}",
                        f"{path.stat().st_size / 1e6:.1f}",
                    )
                )
    return tables.markdown(headings, rows, left=3)


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_integer("frames", 1000, "Number of frames of 640x193.", 2)
    flags.DEFINE_integer("large_frames", 300, "Number of frames of 1920x1080.", 2)


def main():
    """Measure and print."""
    args = flags.FLAGS
    print(table({(640, 193): args.frames, (1920, 1080): args.large_frames}))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
