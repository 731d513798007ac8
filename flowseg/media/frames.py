"""Reads images, and the frames of folders and videos.

Frames are (H, W, 3) uint8 RGB. Videos and folders are read one frame at a time, so that memory use
does not depend on their length.
"""

import collections
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from flowseg import console, system_files
from flowseg.data.images import IMAGE_SUFFIXES, find_bit_depth, read_image
from flowseg.errors import ArgumentError
from flowseg.media.video import SourceFrame, is_address, open_video

# printf's format of a frame number in a file name, such as %d or %05d.
_NUMBER_FORMAT = re.compile(r"%0?[0-9]*d")


def open_frames(
    path: str | os.PathLike, allow_gaps: bool = False, bit_depth: int | None = None
) -> tuple[Iterator[SourceFrame], Fraction | None, int | None]:
    """The frames of a video or of a folder of images, in order.

    A folder is sorted in natural order: image_2 comes before image_10. The last numbers in its file
    names must rise by a constant step. Where they do not, a new sequence begins (see
    `SourceFrame`), and one warning on stderr names the files; so does a step other than 1. Frames
    of names without numbers are neighbours.

    Args:
        path: video file; address for FFmpeg (see `video.open_video`); folder of image files of the
            same size; or FOLDER/%05d.png for the files of the folder with such names.
        allow_gaps: all frames of a folder belong to one sequence.
        bit_depth: how many bits the 16-bit images of a folder use, see `images.decode`; default:
            that of the largest value in the folder, see `images.find_bit_depth`.

    Returns:
        (frames, fps, count): an iterator of `SourceFrame`; frames per second, or None if unknown
        (always for a folder); the number of frames according to the video's header or the folder,
        or None. A damaged video can end before this number.

    Raises:
        ValueError: the path is missing, unreadable, or has fewer than two frames; the numbers of a
            folder have no constant step; or, while iterating, a frame cannot be read or differs in
            size from the first.
    """
    if is_address(path):
        return open_video(path)
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, _images_in(path), allow_gaps, bit_depth)
    if not path.exists() and _NUMBER_FORMAT.search(path.name):
        return _open_folder(path, _images_like(path), allow_gaps, bit_depth)
    if not path.is_file():
        raise ValueError(f"{path}: no such video file or folder of frames")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path}: a single image; give a video file or a folder of frames")
    return open_video(path)


def sequences(frames: Iterable[SourceFrame]) -> Iterator[Iterator[SourceFrame]]:
    """Split frames into their sequences, as iterators; use up each before taking the next."""
    for _, group in itertools.groupby(frames, key=lambda frame: frame.sequence):
        yield group


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sort key for natural order: numbers within file names are compared by value."""
    parts = re.split("([0-9]+)", name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], name


def _images_in(folder):
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not system_files.is_system_file(file)
    ]
    if len(files) < 2:
        raise ValueError(
            f"{folder}: holds {len(files)} image files, but flow needs at least two frames "
            f"(looked for {', '.join(IMAGE_SUFFIXES)})"
        )
    return sorted(files, key=lambda file: natural_key(file.name))


def _images_like(pattern):
    """Return the files whose names `pattern`, such as FOLDER/%05d.png, gives for some number."""
    before, after = _NUMBER_FORMAT.split(pattern.name, maxsplit=1)
    number_format = _NUMBER_FORMAT.search(pattern.name)[0]
    if not pattern.parent.is_dir():
        raise ValueError(f"{pattern.parent}: no such folder of frames")
    numbered = {}
    for file in pattern.parent.iterdir():
        match = re.fullmatch(f"{re.escape(before)}([0-9]+){re.escape(after)}", file.name)
        if match and number_format % int(match[1]) == match[1]:
            numbered[int(match[1])] = file
    if len(numbered) < 2:
        raise ValueError(
            f"{pattern}: {len(numbered)} files have such names, but flow needs at least two frames"
        )
    return [numbered[number] for number in sorted(numbered)]


def _open_folder(path, files, allow_gaps, bit_depth):
    bit_depth = bit_depth or find_bit_depth(files)
    numbers = [0] * len(files) if allow_gaps else _sequence_numbers(path, files)

    def frames():
        size = None
        for file, sequence in zip(files, numbers, strict=True):
            image = read_image(file, bit_depth)
            size = size or image.shape[:2]
            if image.shape[:2] != size:
                raise ValueError(
                    f"{file}: {_size_text(image)}, but the frames before it have "
                    f"{size[1]}x{size[0]} px; put each size into its own folder"
                )
            yield SourceFrame(file.name, image, None, sequence)

    return frames(), None, len(files)


def _sequence_numbers(path, files):
    """Return the number of each file's sequence; a gap in the file names begins a new one.

    Raises:
        ValueError: fewer than half of the steps between neighbours are the same.
    """
    parts = [re.fullmatch("(.*?)([0-9]+)([^0-9]*)", file.stem.lower()) for file in files]
    if not any(parts):
        return [0] * len(files)
    steps = [
        int(b[2]) - int(a[2]) if a and b and (a[1], a[3]) == (b[1], b[3]) else None
        for a, b in itertools.pairwise(parts)
    ]
    counts = collections.Counter(step for step in steps if step)
    # The most frequent step; of several, the smallest.
    step = min(counts, key=lambda step: (-counts[step], step), default=None)
    gaps = [i for i, actual in enumerate(steps) if step is None or actual != step]
    if step is None or 2 * len(gaps) > len(steps):
        raise ArgumentError(
            "the numbers in the file names do not rise by a constant step, so neighbours may not "
            f"be consecutive frames (first: {files[gaps[0]].name}, {files[gaps[0] + 1].name}); "
            "give allow_gaps to pair all neighbours",
            "allow_gaps",
            path=path,
        )
    notes = []
    if step != 1:
        notes.append(f"its frames are numbered in steps of {step}: a pair spans {step} numbers")
    if gaps:
        more = f" and {len(gaps) - 1} more" if gaps[1:] else ""
        notes.append(
            f"no pair across gaps in the file names: {files[gaps[0]].name} to "
            f"{files[gaps[0] + 1].name}{more} (allow_gaps pairs all neighbours)"
        )
    if notes:
        console.warn(f"{path}: {'; '.join(notes)}")
    return [0, *itertools.accumulate(int(actual != step) for actual in steps)]


def _size_text(image):
    return f"{image.shape[1]}x{image.shape[0]} px"
