"""Convert Cityscapes, in its official layout, to FlowSeg records.

    python -m data_prep.cityscapes --source CITYSCAPES --output RECORDS
    python -m data_prep.cityscapes --source CITYSCAPES --frames sequence --output RECORDS
    python -m data_prep.cityscapes --source CITYSCAPES --truth coarse --output RECORDS

CITYSCAPES is the folder into which the owner's archives were unpacked:

    leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png and _gtFine_instanceIds.png
    leftImg8bit_sequence/train/aachen/aachen_000000_000000_leftImg8bit.png      (--frames sequence)
    gtCoarse/train_extra/erlangen/erlangen_000000_000000_gtCoarse_labelIds.png  (--truth coarse)

The official split is kept. `test` is optional, and so are its labels, which are void. Of
`gtCoarse`, `train_extra` is added to `train`. The instance maps are optional and only used for
scoring (iIoU).

With --frames sequence, all frames of the 30-frame videos become records: pairs of neighbouring
frames without flow, of which about one in 30 has labels. Their number is printed. Without it, the
labelled frames become stills. Both name the video (aachen_000000) and the number in it.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Encoder, Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import labels, masks
from flowseg.errors import ArgumentError

# Folder of a split -> split of the records.
SPLITS = {"train": "train", "val": "val", "test": "test", "train_extra": "train"}
IMAGES = {"labelled": "leftImg8bit", "sequence": "leftImg8bit_sequence"}
TRUTH = {"fine": "gtFine", "coarse": "gtCoarse"}
# A video may have several snippets of this many frames, with gaps of any length between them.
SNIPPET = 30
_IMAGE = "_leftImg8bit"
_NAME = re.compile(r"(.+_\d+)_(\d+)", re.ASCII)
_LARGEST_TRAIN_ID = len(labels.CITYSCAPES.names) - 1


def find_frames(
    sources: Iterable[str | Path], frames: str = "labelled", truth: str = "fine"
) -> dict[str, list[Frame]]:
    """List the frames of Cityscapes folders without opening any file.

    Args:
        sources: folders, each as given to `--source`.
        frames: "labelled" or "sequence", see `IMAGES`.
        truth: "fine" or "coarse", see `TRUTH`.

    Returns:
        dict, split name -> list of :class:`frames.Frame`, sorted by frame id
        (aachen_000000_000019) within a folder; `test` only if the source has one.

    Raises:
        ValueError: a folder is missing or empty, or a name in a video has no frame number.
    """
    splits = {"train": [], "val": []}
    for source in map(Path, sources):
        if not source.is_dir():
            raise ArgumentError("no such folder (source)", "source", path=source)
        for name in _folders(source, frames, truth):
            images, maps = source / IMAGES[frames] / name, source / TRUTH[truth] / name
            find = _find_videos if frames == "sequence" else _find_labelled
            splits.setdefault(SPLITS[name], []).extend(find(images, maps))
    if frames == "sequence":
        all_frames = sum(splits.values(), [])
        labelled = sum("labels" in frame.files for frame in all_frames)
        print(f"{labelled} of {len(all_frames)} frames have labels")
    return splits


def _folders(source, frames, truth):
    """Return the names of the split folders to read, in both trees."""
    if frames == "labelled" and truth == "fine":
        return ["train", "val", *(["test"] if (source / "leftImg8bit/test").is_dir() else [])]
    # These archives are large: a part of the splits is enough.
    tree = IMAGES[frames] if frames == "sequence" else TRUTH[truth]
    if names := [name for name in SPLITS if (source / tree / name).is_dir()]:
        return names
    raise ArgumentError(
        f"no folder {tree}/train or the like here: source is the folder into which the archives "
        "of Cityscapes were unpacked",
        "source",
        path=source,
    )


def _find_labelled(images, maps):
    """Yield the stills of one split, including expected files that are missing."""
    ending = f"_{maps.parent.name}_labelIds"
    needed = {images: _IMAGE, maps: ending}
    if images.name == "test" and not maps.is_dir():
        del needed[maps]
    frame_ids = set()
    for folder, name_end in needed.items():
        paths = system_files.glob(folder, f"*/*{name_end}.png")
        if not paths:
            raise ArgumentError(
                f"no */*{name_end}.png here: source is the folder with leftImg8bit and "
                f"{maps.parent.name}{_only_train_ids(folder)}",
                "source",
                path=folder,
            )
        frame_ids |= {(path.parent.name, path.stem.removesuffix(name_end)) for path in paths}
    for city, frame_id in sorted(frame_ids):
        match = _NAME.fullmatch(frame_id)
        files = {"image1": images / city / f"{frame_id}{_IMAGE}.png"}
        if maps in needed:
            files["labels"] = maps / city / f"{frame_id}{ending}.png"
        video = {"video": match[1], "frame_index": int(match[2])} if match else {}
        yield _frame(frame_id, files, **video)


def _only_train_ids(folder):
    if not system_files.glob(folder, "*/*_labelTrainIds.png"):
        return ""
    return " (*_labelTrainIds.png are not read: they hold train ids, not label ids)"


def _find_videos(images, maps):
    """Yield all frames of the videos of one split, including missing ones."""
    ending = f"_{maps.parent.name}_labelIds"
    videos = {}  # (city, video) -> number -> record field -> file
    for folder, field, name_end in ((images, "image1", _IMAGE), (maps, "labels", ending)):
        for path in system_files.glob(folder, f"*/*{name_end}.png"):
            match = _NAME.fullmatch(path.stem.removesuffix(name_end))
            if not match:
                raise ValueError(f"{path}: its name is not CITY_SEQUENCE_FRAME{name_end}.png")
            numbers = videos.setdefault((path.parent.name, match[1]), {})
            first = numbers.setdefault(int(match[2]), {}).setdefault(field, path)
            if first != path:
                raise ValueError(f"{path}: same frame as {first.name}: keep one of the two")
    if not any("image1" in files for numbers in videos.values() for files in numbers.values()):
        raise ArgumentError(
            f"no */*{_IMAGE}.png here: source is the folder with {images.parent.name}",
            "source",
            path=images,
        )
    for (city, video), files_of in sorted(videos.items()):
        for number in _fill_snippets(files_of):
            missing = images / city / f"{video}_{number:06d}{_IMAGE}.png"
            files = {"image1": missing} | files_of.get(number, {})
            if following := files_of.get(number + 1, {}).get("image1"):
                files["image2"] = following
            yield _frame(f"{video}_{number:06d}", files, video=video, frame_index=number)


def _fill_snippets(numbers):
    """Return the frame numbers in order, with those that are missing within a snippet."""
    filled, start = [], None
    for number in sorted(numbers):
        if start is None or number - start >= SNIPPET:
            start = number
            filled.append(number)
        else:
            filled += range(filled[-1] + 1, number + 1)
    return filled


def _frame(frame_id, files, **fields):
    """Return a frame, with its instance map if it has labels and there is one."""
    if "labels" in files:
        name = files["labels"].name.replace("_labelIds.png", "_instanceIds.png")
        instances = files["labels"].with_name(name)
        fields |= {"label_set": "cityscapes", "instances_format": "cityscapes"}
        fields["encoders"] = {"labels": Encoder(check_label_ids)}
        files |= {"instances": instances} if instances.is_file() else {}
    return Frame(frame_id, files, **fields)


def check_label_ids(path: Path) -> bytes:
    """Return the content of a label file, unless it holds train ids.

    Raises:
        ValueError: all ids are train ids, and 255 occurs, which label files do not hold.
    """
    data = path.read_bytes()
    # Colours name the classes, so that they cannot be confused.
    if masks.holds_plain_ids(data):
        present = np.flatnonzero(np.bincount(masks.decode(data, path).ravel(), minlength=256))
        if present[-1] == labels.IGNORE_LABEL and (present[:-1] <= _LARGEST_TRAIN_ID).all():
            raise ValueError(
                f"{path}: holds only the values 0 to {_LARGEST_TRAIN_ID} and 255, which are train "
                "ids: use the owner's *_labelIds.png"
            )
    return data


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    frames: str = "labelled",
    truth: str = "fine",
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert Cityscapes folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "cityscapes",
        split.shuffle(find_frames(sources, frames, truth), seed),
        output,
        sources=sources,
        settings={"frames": frames, "truth": truth, "seed": seed},
        label_set=labels.CITYSCAPES,
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "frames", "truth")


if __name__ == "__main__":
    options.define_flags("Folder that contains leftImg8bit and gtFine", official_split=True)
    flags.DEFINE_enum(
        "frames", "labelled", list(IMAGES), "Labelled frames as stills, or the videos' frames."
    )
    flags.DEFINE_enum("truth", "fine", list(TRUTH), "Which annotations are read.")
    entry.run(main)
