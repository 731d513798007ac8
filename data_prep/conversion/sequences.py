"""Lists the frames of videos that are stored as one numbered image file per frame."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_prep.conversion.frames import Frame, split_number

# The largest number that records can hold.
_LARGEST = 2**63 - 1
_LONGEST_GAP = 1000


def fill_gaps(numbers: Iterable[int]) -> list[int]:
    """Return frame numbers in order, with those of missing frames between them.

    A gap of over a thousand frames stays: one wrong name must not give a million missing frames.
    """
    filled = []
    for number in sorted(numbers):
        is_missing = filled and number - filled[-1] <= _LONGEST_GAP
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


def number_videos(images: dict[str, Path]) -> dict[str, int]:
    """Number the images of each subfolder that is a video.

    In a video, only the last number in the names of the images differs. Images outside subfolders
    are of no video.

    Args:
        images: path below a folder, without suffix -> file.

    Returns:
        dict, key in `images` -> frame number.
    """
    subfolders = {}
    for name, path in images.items():
        if "/" in name:
            subfolders.setdefault(name.rpartition("/")[0], {})[name] = split_number(path.stem)
    numbers = {}
    for found in subfolders.values():
        patterns = {parts and (parts[0], parts[2]) for parts in found.values()}
        if None not in patterns and len(patterns) == 1:
            numbers |= {name: parts[1] for name, parts in found.items()}
    return {name: number for name, number in numbers.items() if number <= _LARGEST}
