"""Extracts frames of video files, which a conversion then reads like other images.

A frame is needed more than once (as a first and as a second frame), in any order and by several
processes, and a video can only be decoded from its start. So each video is decoded once, and its
frames are written as PNG into a folder in the output, which is removed at the end.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NoReturn

import cv2

from data_prep.conversion.frames import Encoder, Frame, split_number
from flowseg import files
from flowseg.errors import ArgumentError
from flowseg.media.video import open_video

FOLDER = ".video_frames"


@contextlib.contextmanager
def temporary_folder(output: str | Path) -> Iterator[Callable[[], Path]]:
    """Yield a function that creates and locks a folder in `output`, which is removed at the end.

    Its path is the same in every run, so that finished shards of its frames are recognised. A
    killed run leaves it to the next one.

    Raises:
        ValueError: by the function: another process uses the folder.
        OSError: by the function: `output` is not writable.
    """
    # Ray's workers run in other working directories.
    folder = Path(output).absolute() / FOLDER
    busy = "another conversion is using this folder: wait for it, or give another output"
    with contextlib.ExitStack() as stack:

        @functools.cache
        def create():
            stack.enter_context(files.lock(folder, busy, "output"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            return folder

        yield create


def by_number(truth: dict[str, Path], videos: dict[str, Path]) -> dict[str, Path]:
    """Rename the ground truth of frames of videos: drive/frame_12 becomes drive/000012.

    Args:
        truth: name below the folder, without suffix -> file.
        videos: name, without suffix -> video file.

    Raises:
        ValueError: a name has no number, or two names of a video have the same.
    """
    renamed = {}
    for name, path in truth.items():
        video, _, stem = name.rpartition("/")
        if video in videos:
            parts = split_number(stem)
            if not parts:
                raise ValueError(
                    f"{path}: has no frame number, but belongs to the video {videos[video]}"
                )
            name = _name(video, parts[1])
        if name in renamed:
            raise ValueError(f"{path}: same frame as {renamed[name].name}: keep one of the two")
        renamed[name] = path
    return renamed


def extract_all(
    videos: dict[str, Path],
    truth: dict[str, Path],
    folder: Path,
    step: int,
    first: int,
    everything: bool = False,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Extract the frames with ground truth, and their second frames, of all videos.

    Args:
        videos: name -> video file.
        truth: names of frames, as from `by_number` -> one of their files.
        folder: folder for the frames.
        step: number of a second frame minus that of the first.
        first: number of the first frame of a video.
        everything: extract all frames.

    Returns:
        (images, errors): name of a frame, such as drive/000012 -> file; and -> the error of its
        video, if that cannot be read.

    Raises:
        ValueError: ground truth of a frame that its video does not have.
        OSError: reading or writing failed.
    """
    images, errors = {}, {}
    for video, path in videos.items():
        files_of = {name: truth[name] for name in truth if name.rpartition("/")[0] == video}
        numbers = {int(name.rpartition("/")[2]) for name in files_of}
        wanted = {number + shift for number in numbers for shift in (0, step)}
        if not wanted and not everything:
            print(f"{path}: skipped, it has neither masks nor flow")
            continue
        try:
            count = extract(path, folder / video, None if everything else wanted, first)
        except ValueError as error:
            # The error of every frame, so that a conversion can skip and list them.
            present = wanted or {first}
            for number in present:
                files.write(_file(folder / video, number), b"")
            errors |= {_name(video, number): str(error) for number in present}
        else:
            present = range(first, first + count)
            for name, file in files_of.items():
                if int(name.rpartition("/")[2]) not in present:
                    raise ArgumentError(
                        f"no such frame: {path} has {count} frames, numbered {first} to "
                        f"{present[-1]} (first_frame={first})",
                        "first_frame",
                        path=file,
                    )
            present = present if everything else wanted.intersection(present)
        images |= {_name(video, n): _file(folder / video, n) for n in sorted(present)}
    return images, errors


def _name(video, number):
    return f"{video}/{number:06d}"


def _file(folder, number):
    return folder / f"{number:06d}.png"


def extract(video: Path, folder: Path, wanted: Collection[int] | None, first: int) -> int:
    """Write frames of a video as `folder`/000012.png.

    The files have the modification time of the video. Memory use does not depend on its length.

    Args:
        video: file.
        folder: created if missing.
        wanted: numbers of the frames to write; None: all.
        first: number of the first frame.

    Returns:
        The number of frames of the video.

    Raises:
        ValueError: not a video, damaged, or its frames differ in size. A damaged video is refused,
            because it may lack frames, so that the numbers of the others would be wrong.
        OSError: reading or writing failed.
    """
    time = video.stat().st_mtime_ns
    frames, _, _ = open_video(video, on_damage=_refuse)
    number = first
    for number, frame in enumerate(frames, first):
        if wanted is None or number in wanted:
            png = cv2.imencode(".png", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))[1]
            path = _file(folder, number)
            files.write(path, png.tobytes())
            os.utime(path, ns=(time, time))
    return number + 1 - first


def _refuse(message) -> NoReturn:
    raise ValueError(f"{message}: the numbers of its frames may be wrong: repair the video")


def no_folder() -> NoReturn:
    """Raise an error in place of returning a folder for extracted frames."""
    raise ValueError("video files can only be read by convert, which has a folder for their frames")


def with_error(frame: Frame, message: str) -> Frame:
    """Return a frame of a video that cannot be read: reading the frame raises ValueError."""
    error = Encoder(functools.partial(_raise, message))
    return frame._replace(encoders={**frame.encoders, "image1": error})


def _raise(message, path) -> NoReturn:
    raise ValueError(message)
