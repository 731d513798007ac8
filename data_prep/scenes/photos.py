"""Finds and reads the photographs from which layers are cut."""

from pathlib import Path

import cv2
import numpy as np

from flowseg import system_files
from flowseg.media.frames import read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm")
GAMMA = 2.2


def find_photos(folder: str | Path) -> tuple[Path, ...]:
    """List the photographs in `folder` as a sorted tuple of Paths.

    Subfolders are not searched, because data sets store label maps and other PNGs next to images.

    Raises:
        ValueError: the folder is missing or contains no photograph.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of photographs")
    paths = system_files.without(folder.iterdir(), folder)
    photos = tuple(path for path in paths if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise ValueError(f"{folder}: no photographs directly in it ({', '.join(SUFFIXES)})")
    return photos


def read_photo(rng: np.random.Generator, path: Path, height: int, width: int) -> np.ndarray:
    """Read a photograph as (h, w, 3) float32 linear light, at most 1.5 times the frame size.

    Args:
        rng: numpy Generator that decides whether the photograph is mirrored.
        path: path of the photograph.
        height, width: size of the frames, px.

    Raises:
        ValueError: the file cannot be read or is not a photograph.
    """
    photo = read_image(path, bit_depth=16)
    if photo.max() < 32:
        raise ValueError(f"{path}: nearly black: not a photograph (a label map?)")
    shrink = min(photo.shape[0] / height, photo.shape[1] / width) / 1.5
    if shrink > 1:
        photo = cv2.resize(photo, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    return (np.linspace(0, 1, 256, dtype=np.float32) ** GAMMA)[photo[:, :: rng.choice([1, -1])]]
