"""Lists the frames of videos that are stored as one numbered image file per frame."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_prep.conversion.frames import Frame
from flowseg import system_files


def numbered_files(folder: Path, suffix: str, prefix: str = "") -> dict[int, Path]:
    """Map the frame numbers of the files `prefix` + digits + `suffix` in a folder to these files.

    Raises:
        ValueError: a file with that suffix has another name, or two have the same number.
    """
    files = {}
    for path in system_files.glob(folder, f"*{suffix}"):
        digits = path.name.removesuffix(suffix).removeprefix(prefix)
        if not (path.name.startswith(prefix) and digits.isascii() and digits.isdigit()):
            raise ValueError(
                f"{path}: not a frame of this data set, whose files are named {prefix}NUMBER"
                f"{suffix}: are two data sets unpacked into one folder?"
            )
        if int(digits) in files:
            raise ValueError(
                f"{path}: same frame number as {files[int(digits)].name}: keep one of the two"
            )
        files[int(digits)] = path
    return files


def fill_gaps(numbers: Iterable[int], longest: int = 1000) -> list[int]:
    """Return the numbers in order, with those of missing frames between them.

    Args:
        numbers: numbers of frames.
        longest: how many frames in a row may be missing; a longer gap stays.
    """
    filled = []
    for number in sorted(numbers):
        is_missing = filled and number - filled[-1] - 1 <= longest
        filled += range(filled[-1] + 1 if is_missing else number, number + 1)
    return filled


def list_video(
    video: str,
    images: dict[int, Path],
    truth: Callable[[int], dict[str, Path]] = lambda number: {},
    **options: Any,
) -> list[Frame]:
    """List the frames of a video.

    A frame is a pair with the next number, if that file exists. So a missing image is the error of
    one frame only.

    Args:
        video: name of the video.
        images: frame number -> image file, also for frames whose file is missing.
        truth: frame number -> record field -> file of the ground truth.
        **options: further fields of `Frame`.
    """
    frames = []
    for number, image in sorted(images.items()):
        files = {"image1": image}
        following = images.get(number + 1)
        if following and following.is_file():
            files["image2"] = following
        frame = Frame(f"{video}/{image.stem}", files | truth(number), video=video, **options)
        frames.append(frame._replace(frame_index=number))
    return frames
