"""A user's frames: pictures, folders of pictures and videos in, videos out.

Frames are (H, W, 3) uint8 RGB. Videos and folders are read one frame at a time, so that memory
stays flat however long they are.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from flowseg import console, files
from flowseg.data.flow_io import PNG_MAGIC, check_png

# FFmpeg's own messages would stand around the one clear line of an error. Read once, at the
# process's first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# What videos are written in: MPEG-4 Part 2 for players; VP8, which takes longer, for web browsers.
# OpenCV's wheels bring no encoder for H.264, and theirs for VP9 is slower still.
VIDEO_CODECS = {".mp4": "mp4v", ".webm": "VP80"}
# Still pictures that OpenCV's wheels read as they were meant (of PAM they swap the colours).
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
# Videos by name, for whoever must know one without opening it; `open_frames` tries any other file.
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
    """A picture file as (H, W, 3) uint8 RGB.

    Grey becomes three equal channels, 16 bits keep their upper 8, an alpha channel is dropped
    and a camera's rotation mark is obeyed.

    Raises:
        ValueError: naming the file: missing, damaged, truncated, or not a picture.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such image file")
    data = path.read_bytes()
    if data.startswith(PNG_MAGIC):
        check_png(data, path)
    with _quiet_opencv():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise ValueError(f"{path}: not a readable image (damaged, truncated or no image at all)")
    return image


def open_frames(
    path: str | os.PathLike,
) -> tuple[Iterator[tuple[str, np.ndarray]], float | None, int | None]:
    """The frames of a video file or of a folder of pictures, in order.

    A folder is sorted by name with numbers by value: image_2 comes before image_10.

    Args:
        path: video file, or folder of image files of one size.

    Returns:
        (frames, fps, count): an iterator of (name, (H, W, 3) uint8 RGB); frames a second, or
        None where the source does not say (a folder never does); how many frames it announces,
        or None. A damaged video can end before its announced count.

    Raises:
        ValueError: naming the path: missing, unreadable, or fewer than two frames. While
            iterating: a frame that cannot be read or is of another size than the first.
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
    """Sort key of a file name in which numbers count by value."""
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
            f"{folder}: holds {len(files)} image files, flow needs two frames or more "
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
                    f"{size[1]}x{size[0]} px; put each size into a folder of its own"
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

    # Two frames are read now: only that shows that the video can be decoded at all.
    rest = frames()
    first = list(itertools.islice(rest, 2))
    if len(first) < 2:
        raise ValueError(f"{path}: holds {len(first)} readable frames, flow needs two or more")
    # Containers without a true rate announce 0 or their clock (for example 90000); those without a
    # true count 0 or, as MPEG's, 1.
    return (
        itertools.chain(first, rest),
        fps if 0 < fps <= 480 else None,
        count if count > 1 else None,
    )


def check_video_name(path: str | os.PathLike) -> None:
    """Raise ValueError unless `path` names a video that can be written."""
    if Path(path).suffix.lower() not in VIDEO_CODECS:
        raise ValueError(f"{path}: the video's name must end in {' or '.join(VIDEO_CODECS)}")


@contextlib.contextmanager
def video_writer(path: str | os.PathLike, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a video: `with video_writer(path, fps) as write: write(frame)`.

    The file gets its name only when the block ends well and the video reads back with the size,
    rate and number of frames that were written. Where the block ends by Ctrl-C or a bad frame, what
    was written so far is left as FILE.part.mp4 (or .webm). Odd sizes gain one column or row at the
    right or bottom, because the formats want even ones.

    Args:
        path: FILE.mp4 (for players) or FILE.webm (for web browsers; see `VIDEO_CODECS`); its folder
            is made where missing.
        fps: frames a second.

    Yields:
        A function that takes one (H, W, 3) uint8 RGB frame; all must have one size.

    Raises:
        ValueError: another suffix, no frame at all, or frames of different sizes; and any
            ValueError or OSError of the block, its message lengthened by what is left.
        OSError: the video cannot be written, or does not read back as it was written.
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
        frame_even = cv2.copyMakeBorder(frame, 0, odd_height, 0, odd_width, cv2.BORDER_REPLICATE)
        frame_even = cv2.cvtColor(frame_even, cv2.COLOR_RGB2BGR)
        if sink is None:
            codec = VIDEO_CODECS[path.suffix.lower()]
            code, size = cv2.VideoWriter_fourcc(*codec), frame_even.shape[1::-1]
            # OpenCV says of every WebM that its container knows no such codes, and goes on.
            with _quiet_opencv(), console.no_stderr():
                sink = cv2.VideoWriter(str(partial), cv2.CAP_FFMPEG, code, fps, size)
            if not sink.isOpened():
                raise OSError(f"{path}: OpenCV cannot write such a video here")
        # Counted first: Ctrl-C while OpenCV writes is raised right after it, when the frame is in.
        shapes.append(frame.shape)
        sink.write(frame_even)

    def finish():
        height, width = (n + n % 2 for n in shapes[0][:2])
        sink.release()
        _check_video(partial, path, (width, height, len(shapes)), fps)

    with files.whole(path) as partial:
        try:
            yield write
            if sink is None:
                raise ValueError(f"{path}: no frame to write")
            finish()
        except (KeyboardInterrupt, ValueError, OSError) as error:
            if sink is None:
                raise
            finish()
            part = path.with_suffix(f".part{path.suffix}")
            partial.replace(part)
            told = f"{part} holds the {len(shapes)} frames so far"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(told) from error
            raise ValueError(f"{error}; {told}") from error
        finally:
            if sink is not None:
                sink.release()


def _check_video(partial, path, expected, fps):
    with _quiet_opencv():
        capture = cv2.VideoCapture(str(partial), cv2.CAP_FFMPEG)
    names = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
    found = tuple(int(capture.get(name)) for name in names)
    found_fps = capture.get(cv2.CAP_PROP_FPS)
    readable = capture.read()[0]
    capture.release()
    # OpenCV keeps three decimals of the rate.
    if not readable or found != expected or abs(found_fps - fps) > 1e-3 + 1e-3 * fps:
        raise OSError(
            f"{path}: the video does not read back as written (width, height, frames {found} "
            f"instead of {expected}, {found_fps:g} instead of {fps:g} frames a second); is the "
            "disk full?"
        )


@contextlib.contextmanager
def _quiet_opencv():
    """Keep OpenCV's own log lines away while a failure is about to be told in our words."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _size_text(image):
    return f"{image.shape[1]}x{image.shape[0]} px"
