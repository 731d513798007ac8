"""Lists the frames of videos whose files are numbered, and counts the ground truth they lack."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from data_prep.conversion.frames import Frame, split_number
from flowseg import system_files
from flowseg.data import masks
from flowseg.errors import ArgumentError

# Fields of the first frame of a pair, or of a still.
_OF_IMAGE1 = ("labels", "instances", "objects")
# The largest number that records can hold.
_LARGEST = 2**63 - 1
_LONGEST_GAP = 1000


def check_folder(source: str | Path) -> Path:
    """Return `source` as a Path; raise ValueError unless it is a folder."""
    source = Path(source)
    if not source.is_dir():
        raise ArgumentError("no such folder (source)", "source", path=source)
    return source


def numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Map the numbers in the names of a folder's files to the files.

    Args:
        folder: it may be missing: then there are no files.
        pattern: name of the files, with `*` in place of the number, such as `rgb_*.jpg`.

    Raises:
        ValueError: a file with the suffix of the pattern has another name, or two files have the
            same number.
    """
    before, after = pattern.split("*")
    path_of = {}
    for path in system_files.glob(folder, f"*{Path(after).suffix or after}"):
        digits = path.name.removeprefix(before).removesuffix(after)
        if path.name != f"{before}{digits}{after}" or not (digits.isascii() and digits.isdigit()):
            raise ValueError(
                f"{path}: unexpected file name (expected {before}NUMBER{after}): are two data sets "
                "unpacked into one folder?"
            )
        first = path_of.setdefault(int(digits), path)
        if first is not path:
            raise ValueError(f"{path}: same frame number as {first.name}: rename one of the two")
    return path_of


def fill_gaps(numbers: Iterable[int]) -> list[int]:
    """Return frame numbers in order, with those of missing frames between them.

    A gap of over a thousand frames stays: one wrong name must not give a million missing frames.
    """
    filled = []
    for number in sorted(numbers):
        is_missing = filled and number - filled[-1] <= _LONGEST_GAP
        filled += range(filled[-1] + 1 if is_missing else number, number + 1)
    return filled


def list_frames(
    video: str,
    digits: int,
    image_path: Callable[[int], Path],
    files: Mapping[str, Mapping[int, Path]],
    numbers: Iterable[int] = (),
    **values: Any,
) -> list[Frame]:
    """List the frames of a video, with those that are missing between its files (`fill_gaps`).

    A number in between without an image gets a frame with the missing file, which is an error when
    the frame is read. A frame is a pair with the next one, if that has an image: so a missing image
    is the error of one frame only.

    Args:
        video: name of the video; a frame's id is this name and the number.
        digits: number of digits in the frame ids.
        image_path: official path of the image with a number.
        files: record field -> number -> file. `image1` has the images of all frames; the backward
            flow of a pair is the file with the number of its second frame. Fields that need flow
            (`flow_noc`, `occlusion`) are omitted where it is missing.
        numbers: further numbers of frames.
        **values: further fields of :class:`Frame`; `label_set` applies to frames with labels.
    """
    images = files["image1"]
    frames = []
    for number in fill_gaps({*numbers, *(n for paths in files.values() for n in paths)}):
        frame_files = {"image1": images.get(number, image_path(number))}
        later = number + 1
        if later in images:
            frame_files["image2"] = images[later]
            with_flow = ("flow", "flow_noc", "occlusion") if number in files.get("flow", {}) else ()
            frame_files |= {field: files.get(field, {}).get(number) for field in with_flow}
            frame_files["backward_flow"] = files.get("backward_flow", {}).get(later)
        frame_files |= {field: files.get(field, {}).get(number) for field in _OF_IMAGE1}
        frame_files = {field: path for field, path in frame_files.items() if path}
        frame = Frame(f"{video}/{number:0{digits}d}", frame_files, video=video, frame_index=number)
        frames.append(frame._replace(**values))
    return [frame if "labels" in frame.files else frame._replace(label_set="") for frame in frames]


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
    for parts_of in subfolders.values():
        patterns = {parts and (parts[0], parts[2]) for parts in parts_of.values()}
        if None not in patterns and len(patterns) == 1:
            numbers |= {name: parts[1] for name, parts in parts_of.items()}
    return {name: number for name, number in numbers.items() if number <= _LARGEST}


def report(source: Path, frames: Sequence[Frame], flow_files: Iterable[Path]) -> None:
    """Print, in one line, how many frames lack ground truth, and how many flow files are not read.

    Args:
        source: folder that the frames are from.
        frames: its frames.
        flow_files: all flow files of their videos. Those of the last frame, and those of the
            backward flow of the first, are not read.
    """
    pairs = [frame.files for frame in frames if "image2" in frame.files]
    parts = []
    if without := sum("flow" not in files for files in pairs):
        parts.append(f"{without} of {len(pairs)} pairs have no flow file")
    labelled = sum("labels" in frame.files for frame in frames)
    if 0 < labelled < len(frames):
        parts.append(f"{len(frames) - labelled} of {len(frames)} frames have no label file")
    used = {files.get(field) for files in pairs for field in ("flow", "backward_flow")}
    if unused := sorted(set(flow_files) - used):
        parts.append(
            f"{len(unused)} flow files are not read, because the other frame of their pair is not "
            f"in the data set, first: {unused[0]}"
        )
    if parts:
        print(f"{source}: {'; '.join(parts)}")


def choose(requested: Sequence[str], known: Iterable[str], argument: str, path: Path) -> list[str]:
    """Return the requested names, each once.

    Raises:
        ArgumentError: none is requested, or one is not in `known`; `path` is the folder.
    """
    known = sorted(known)
    listed = ", ".join(known) or "none"
    if not requested:
        raise ArgumentError(f"{argument} is empty: choose from {listed}", argument, path=path)
    for name in requested:
        if name not in known:
            text = f"{argument}={name}: not in this folder, which has {listed}"
            raise ArgumentError(text, argument, path=path)
    return list(dict.fromkeys(requested))


def encode_ids(path: Path) -> bytes:
    """Content of a grey or palette PNG as an 8-bit grey PNG; a function for `frames.Encoder`.

    Raises:
        ValueError: not an undamaged PNG of ids up to 255.
    """
    data = path.read_bytes()
    ids = masks.decode(data, path)
    return data if masks.holds_plain_ids(data) else cv2.imencode(".png", ids)[1].tobytes()
