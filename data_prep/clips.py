"""Convert the 22-frame clips of moving shapes to FlowSeg records.

    python -m data_prep.clips --source CLIPS --output RECORDS

CLIPS is the folder that contains the clips as published (NYU's course on deep learning, 2023):

    train/video_0/image_0.png ... image_21.png, mask.npy    unlabeled/video_2000/image_0.png ...
    val/video_1000/image_0.png ... image_21.png, mask.npy   hidden/video_15000/image_0.png ...

Frames are 160x240. `mask.npy` holds the class ids of all frames, (22, 160, 240) uint8, of the label
set `clips`: 0 is the background, and no two objects of a clip have the same class. `hidden` clips
have only frames 0 to 10 and no masks; they become the split `test`. --unlabeled adds the clips of
`unlabeled`, which have no masks, to `train`. Each of the folders may be missing.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from data_prep.conversion import options, split, videos, writer
from data_prep.conversion.frames import Encoder, Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.errors import ArgumentError

# Folder -> split.
FOLDERS = {"train": "train", "val": "val", "unlabeled": "train", "hidden": "test"}
LENGTH, HEIGHT, WIDTH = 22, 160, 240
# How many frames of a hidden clip are public.
HIDDEN_LENGTH = 11


def find_frames(sources: Iterable[str | Path], unlabeled: bool = False) -> dict[str, list[Frame]]:
    """List the frames of folders of clips without opening any file.

    Args:
        sources: folders, each as given to `--source`.
        unlabeled: add the clips of `unlabeled` to `train`.

    Returns:
        dict, split name -> list of :class:`frames.Frame`, sorted by clip and number; `test` only
        if the folder has `hidden`. Frame ids are train/video_0/image_0.

    Raises:
        ValueError: a folder is missing or has no clips, or a clip has too many frames.
    """
    splits = {"train": [], "val": []}
    for source in map(Path, sources):
        clips = {name: system_files.glob(source, f"{name}/video_*") for name in FOLDERS}
        if not any(clips.values()):
            raise ArgumentError(
                f"no clips here: source is the folder with {', '.join(FOLDERS)}, which contain "
                "video_N/image_0.png",
                "source",
                path=source,
            )
        if clips["unlabeled"] and not unlabeled:
            print(f"{source}: {len(clips.pop('unlabeled'))} clips of unlabeled are not converted")
        for name, folders in clips.items():
            for folder in sorted(folders, key=_number):
                splits.setdefault(FOLDERS[name], []).extend(_list_clip(name, folder))
    return splits


def _number(folder):
    digits = folder.name.removeprefix("video_")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{folder}: not a clip: their folders are named video_NUMBER")
    return int(digits)


def _list_clip(name, folder):
    """List the frames of a clip, including missing ones."""
    images = videos.numbered(folder, "image_*.png")
    if max(images, default=0) >= LENGTH:
        raise ValueError(f"{images[max(images)]}: a clip has only frames 0 to {LENGTH - 1}")
    length = HIDDEN_LENGTH if name == "hidden" else LENGTH
    has_masks = name in ("train", "val")
    masks = dict.fromkeys({*range(length), *images} if has_masks else (), folder / "mask.npy")
    frames = videos.list_frames(
        f"{name}/{folder.name}",
        2,
        lambda number: folder / f"image_{number}.png",
        {"image1": images, "labels": masks},
        range(length),
        label_set=labels.CLIPS.name,
    )
    return [
        frame._replace(encoders={"labels": Encoder(partial(encode_mask, frame.frame_index))})
        if has_masks
        else frame
        for frame in frames
    ]


def encode_mask(number: int, path: Path) -> bytes:
    """Encode the mask of one frame, out of the file of its clip, as an 8-bit grey PNG.

    Raises:
        ValueError: not a readable NumPy file, or its shape, type or ids are not those of a clip.
    """
    try:
        # Reads only the pages of one frame. Pickled objects could run code.
        masks = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: not a readable NumPy file (damaged or truncated): {error}"
        ) from error
    expected = (LENGTH, HEIGHT, WIDTH)
    if getattr(masks, "shape", None) != expected or masks.dtype != np.uint8:
        kind = f"{masks.shape} {masks.dtype}" if isinstance(masks, np.ndarray) else "an archive"
        raise ValueError(f"{path}: holds {kind}, but the masks of a clip are {expected} uint8")
    mask = np.array(masks[number])
    largest = int(mask.max())
    if largest >= len(labels.CLIPS.names):
        raise ValueError(
            f"{path}: frame {number} holds the id {largest}, but the classes of the clips are 0 "
            f"to {len(labels.CLIPS.names) - 1}"
        )
    return cv2.imencode(".png", mask)[1].tobytes()


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    unlabeled: bool = False,
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert folders of clips to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "clips",
        split.shuffle(find_frames(sources, unlabeled), seed),
        output,
        sources=sources,
        settings={"unlabeled": unlabeled, "seed": seed},
        label_set=labels.CLIPS,
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "unlabeled")


if __name__ == "__main__":
    options.define_flags(
        "Folder that contains train, val, unlabeled or hidden", official_split=True
    )
    flags.DEFINE_bool("unlabeled", False, "Add the clips of the folder unlabeled to train.")
    entry.run(main)
