"""Convert KITTI-STEP to FlowSeg records.

    python -m data_prep.kitti_step --source KITTI_STEP --output RECORDS

KITTI_STEP is the folder with the unpacked `kitti-step.tar.gz` (Weber et al. 2021) and the left
colour images of KITTI's tracking set, `data_tracking_image_2.zip`:

    panoptic_maps/train/0000/000000.png    panoptic_maps/val/0002/000000.png
    training/image_02/0000/000000.png

The layout of DeepLab2 (images/train/0000/000000.png) is read, too. In a map, red is the class as a
Cityscapes train id (255: void), and 256 * green + blue is the number of the person or car in its
video; 0 stands for no single object. Each sequence is a video; the official split is kept. Images
without maps (`testing`) are not read.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.conversion import options, split, videos, writer
from data_prep.conversion.frames import Encoder, Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import flow_io, labels
from flowseg.errors import ArgumentError

MAPS = ("panoptic_maps", "kitti-step/panoptic_maps")
IMAGES = ("training/image_02", "data_tracking_image_2/training/image_02", "image_02")
VAL_SEQUENCES = "0002 0006 0007 0008 0010 0013 0014 0016 0018".split()
# Instances are class * 1000 + number.
MAX_NUMBER = 999
_LABEL_IDS = labels.label_id_table(labels.CITYSCAPES).astype(np.uint16)


def find_frames(sources: Iterable[str | Path]) -> dict[str, list[Frame]]:
    """List the frames of KITTI-STEP folders without opening any file.

    Args:
        sources: folders, each as given to `--source`.

    Returns:
        dict, split name -> list of :class:`frames.Frame`, sorted by sequence and number; frame ids
        are 0000/000000.

    Raises:
        ValueError: a folder is missing or empty, or a sequence is in the wrong split.
    """
    splits = {"train": [], "val": []}
    for source in map(Path, sources):
        maps = next((source / name for name in MAPS if (source / name).is_dir()), source / MAPS[0])
        sequences = {
            name: [path for path in system_files.glob(maps / name, "*") if path.is_dir()]
            for name in splits
        }
        if not any(sequences.values()):
            raise ArgumentError(
                "no maps here: source is the folder with panoptic_maps/train/0000/000000.png",
                "source",
                path=maps,
            )
        for name, folders in sequences.items():
            for folder in folders:
                if (folder.name in VAL_SEQUENCES) != (name == "val"):
                    right = "train" if name == "val" else "val"
                    raise ValueError(
                        f"{folder}: sequence {folder.name} belongs to {right} in the official "
                        "split: move it there"
                    )
                splits[name] += _list_sequence(source, folder)
    return splits


def _list_sequence(source, folder):
    """List the frames of a sequence, including missing ones."""
    split_name, sequence = folder.parts[-2:]
    places = [source / name / sequence for name in (*IMAGES, f"images/{split_name}")]
    place = next((place for place in places if place.is_dir()), None)
    if not place:
        raise ArgumentError(
            f"no images of sequence {sequence}: unpack KITTI's tracking images, so that source has "
            f"{IMAGES[0]}/{sequence}/000000.png",
            "source",
            path=source,
        )
    images, maps = (videos.numbered(each, "*.png") for each in (place, folder))
    # Every frame has a map: a missing one is an error.
    numbers = videos.fill_gaps({*images, *maps})
    maps = {number: maps.get(number, folder / f"{number:06d}.png") for number in numbers}
    return videos.list_frames(
        sequence,
        6,
        lambda number: place / f"{number:06d}.png",
        {"image1": images, "labels": maps, "instances": maps},
        label_set="cityscapes_train",
        instances_format="cityscapes",
        encoders={"labels": Encoder(encode_classes), "instances": Encoder(encode_instances)},
    )


def _read(path):
    """Return the class, (H, W) uint8, and the number, (H, W) uint16, of a panoptic map."""
    data = path.read_bytes()
    flow_io.check_png(data, path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"{path}: not a panoptic map of KITTI-STEP, which is a PNG of 8-bit RGB (red: class, "
            "256 * green + blue: number)"
        )
    blue, green, red = np.moveaxis(pixels, -1, 0)
    return red, green.astype(np.uint16) * 256 + blue


def encode_classes(path: Path) -> bytes:
    """Encode the classes of a panoptic map as an 8-bit grey PNG of train ids.

    Raises:
        ValueError: not a panoptic map.
    """
    return cv2.imencode(".png", _read(path)[0])[1].tobytes()


def encode_instances(path: Path) -> bytes:
    """Encode the instances of a panoptic map as a 16-bit PNG, as Cityscapes encodes them.

    class * 1000 + number with Cityscapes' label ids, or the class alone without a number; void is
    0.

    Raises:
        ValueError: not a panoptic map, an unknown class, or a number over 999.
    """
    classes, numbers = _read(path)
    void = classes == labels.IGNORE_LABEL
    numbers = np.where(void, 0, numbers)
    if numbers.max() > MAX_NUMBER:
        raise ValueError(
            f"{path}: holds the object number {numbers.max()} (256 * green + blue), but numbers "
            f"are at most {MAX_NUMBER}"
        )
    ids = np.where(void, 0, _LABEL_IDS[classes]).astype(np.uint16)
    coded = np.where(numbers > 0, ids * 1000 + numbers, ids)
    return cv2.imencode(".png", coded.astype(np.uint16))[1].tobytes()


def convert(
    sources: Sequence[str | Path], output: str | Path, seed: int = 0, **kwargs: Any
) -> dict[str, Any]:
    """Convert KITTI-STEP folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "kitti_step",
        split.shuffle(find_frames(sources), seed),
        output,
        sources=sources,
        settings={"seed": seed},
        label_set=labels.CITYSCAPES,
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags(
        "Folder that contains panoptic_maps and training/image_02", official_split=True
    )
    entry.run(main)
