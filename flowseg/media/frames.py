"""Reads images, folders of images and videos, and writes videos.

Frames are (H, W, 3) uint8 RGB. Videos and folders are read one frame at a time, so that memory use
does not depend on their length.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from flowseg import console, files, memory
from flowseg.data.flow_io import PNG_MAGIC, check_png

# Silence FFmpeg, whose messages would surround our one-line error. The variable is read once, at
# the first video of the process.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# Codecs for writing: MPEG-4 Part 2 for players; VP8, which is slower to encode, for web browsers.
# OpenCV's wheels have no H.264 encoder, and their VP9 encoder is even slower.
VIDEO_CODECS = {".mp4": "mp4v", ".webm": "VP80"}
# Image formats that OpenCV's wheels read correctly (for PAM they swap the colours).
IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jp2",
    ".webp",
    ".avif",
    ".tif",
    ".tiff",
    ".bmp",
    ".dib",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".ras",
    ".sr",
)
# Suffixes to recognise a video without opening it; `open_frames` also tries other files.
VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".wmv",
    ".asf",
    ".flv",
    ".ogv",
    ".3gp",
    ".gif",
)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Grey becomes three equal channels, 16-bit values keep their upper 8 bits, an alpha channel is
    dropped, and EXIF orientation is applied.

    Raises:
        ValueError: the file is missing, damaged, truncated, or not an image; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such image file")
    data = path.read_bytes()
    memory.require_for_image(data, path)
    if data.startswith(PNG_MAGIC):
        check_png(data, path)
    with _quiet_opencv():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise ValueError(f"{path}: not a readable image (damaged, truncated or not an image)")
    return image


def open_frames(
    path: str | os.PathLike,
) -> tuple[Iterator[tuple[str, np.ndarray]], float | None, int | None]:
    """The frames of a video file or of a folder of images, in order.

    A folder is sorted in natural order: image_2 comes before image_10.

    Args:
        path: video file, or folder of image files of the same size.

    Returns:
        (frames, fps, count): an iterator of (name, (H, W, 3) uint8 RGB); frames per second, or
        None if unknown (always for a folder); the number of frames according to the video's
        header or the folder, or None. A damaged video can end before this number.

    Raises:
        ValueError: the path is missing, unreadable, or has fewer than two frames; or, while
            iterating, a frame cannot be read or differs in size from the first.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such video file or folder of frames")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path}: a single image; give a video file or a folder of frames")
    return _open_video(path)


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sort key for natural order: numbers within file names are compared by value."""
    parts = re.split("([0-9]+)", name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], name


def _open_folder(folder):
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    if len(files) < 2:
        raise ValueError(
            f"{folder}: holds {len(files)} image files, but flow needs at least two frames "
            f"(looked for {', '.join(IMAGE_SUFFIXES)})"
        )
    files.sort(key=lambda file: natural_key(file.name))

    def frames():
        size = None
        for file in files:
            image = read_image(file)
            size = size or image.shape[:2]
            if image.shape[:2] != size:
                raise ValueError(
                    f"{file}: {_size_text(image)}, but the frames before it have "
                    f"{size[1]}x{size[0]} px; put each size into its own folder"
                )
            yield file.name, image

    return frames(), None, len(files)


def _open_video(path):
    with _quiet_opencv():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise ValueError(f"{path}: not a video that OpenCV can read (damaged, or another format)")
    fps = capture.get(cv2.CAP_PROP_FPS)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames():
        try:
            for index in itertools.count():
                done, image = capture.read()
                if not done:
                    return
                yield f"frame {index}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    # Read two frames now: only this shows that the video can be decoded.
    rest = frames()
    first = list(itertools.islice(rest, 2))
    if len(first) < 2:
        raise ValueError(f"{path}: holds {len(first)} readable frames, but flow needs at least two")
    # Containers without a frame rate report 0 or their clock rate (such as 90000); those without a
    # frame count report 0 or, as MPEG does, 1.
    return (
        itertools.chain(first, rest),
        fps if 0 < fps <= 480 else None,
        count if count > 1 else None,
    )


def check_video_name(path: str | os.PathLike) -> None:
    """Raise ValueError unless `path` has a suffix of a video format that can be written."""
    if Path(path).suffix.lower() not in VIDEO_CODECS:
        raise ValueError(f"{path}: the video's name must end in {' or '.join(VIDEO_CODECS)}")


@contextlib.contextmanager
def video_writer(path: str | os.PathLike, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a video: `with video_writer(path, fps) as write: write(frame)`.

    The file gets its final name only if the block succeeds and the video reads back with the size,
    rate and number of frames that were written. If Ctrl-C or a bad frame ends the block, the frames
    written so far remain as FILE.part.mp4 (or .webm). Odd sizes are padded by one column or row at
    the right or bottom, because the formats require even sizes.

    Args:
        path: FILE.mp4 (for players) or FILE.webm (for web browsers; see `VIDEO_CODECS`); its folder
            is created if missing.
        fps: frames per second.

    Yields:
        A function that takes one (H, W, 3) uint8 RGB frame; all frames must have the same size.

    Raises:
        ValueError: the suffix is unsupported, there are no frames, or their sizes differ; also any
            ValueError or OSError of the block, with the partial file added to its message.
        OSError: the video cannot be written, or does not read back as written.
    """
    check_video_name(path)
    path = Path(path)
    sink, shapes = None, []

    def write(frame):
        nonlocal sink
        if shapes and frame.shape != shapes[0]:
            raise ValueError(
                f"{path}: frame {len(shapes)} is {_size_text(frame)}, unlike the first"
            )
        odd_height, odd_width = frame.shape[0] % 2, frame.shape[1] % 2
        padded = cv2.copyMakeBorder(frame, 0, odd_height, 0, odd_width, cv2.BORDER_REPLICATE)
        padded = cv2.cvtColor(padded, cv2.COLOR_RGB2BGR)
        if sink is None:
            codec = VIDEO_CODECS[path.suffix.lower()]
            code, size = cv2.VideoWriter_fourcc(*codec), padded.shape[1::-1]
            # For every WebM OpenCV warns that the container does not support the codec tag.
            with _quiet_opencv(), console.no_stderr():
                sink = cv2.VideoWriter(str(partial), cv2.CAP_FFMPEG, code, fps, size)
            if not sink.isOpened():
                raise OSError(f"{path}: OpenCV cannot write this kind of video here")
        # Count first: Ctrl-C during the OpenCV call is raised after it, when the frame is written.
        shapes.append(frame.shape)
        sink.write(padded)

    def finish():
        height, width = (n + n % 2 for n in shapes[0][:2])
        sink.release()
        _check_video(partial, path, (width, height, len(shapes)), fps)

    with files.atomic(path) as partial:
        try:
            yield write
            if sink is None:
                raise ValueError(f"{path}: no frame to write")
            finish()
        except (KeyboardInterrupt, ValueError, OSError) as error:
            if sink is None:
                raise
            finish()
            partial_video = path.with_suffix(f".part{path.suffix}")
            partial.replace(partial_video)
            message = f"{partial_video} holds the {len(shapes)} frames so far"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(message) from error
            raise ValueError(f"{error}; {message}") from error
        finally:
            if sink is not None:
                sink.release()


def _check_video(partial, path, expected, fps):
    with _quiet_opencv():
        capture = cv2.VideoCapture(str(partial), cv2.CAP_FFMPEG)
    names = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
    actual = tuple(int(capture.get(name)) for name in names)
    actual_fps = capture.get(cv2.CAP_PROP_FPS)
    readable = capture.read()[0]
    capture.release()
    # OpenCV stores the rate with three decimals.
    if not readable or actual != expected or abs(actual_fps - fps) > 1e-3 + 1e-3 * fps:
        raise OSError(
            f"{path}: the video does not read back as written (width, height, frames {actual} "
            f"instead of {expected}, {actual_fps:g} instead of {fps:g} frames per second); is the "
            "disk full?"
        )


@contextlib.contextmanager
def _quiet_opencv():
    """Silence OpenCV's log while failures are reported by our own error messages."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _size_text(image):
    return f"{image.shape[1]}x{image.shape[0]} px"
