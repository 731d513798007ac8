"""The photographs that layers are cut from."""

from pathlib import Path

import cv2
import numpy as np

from flowseg.media.frames import read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm")
GAMMA = 2.2


def find_photos(folder: str | Path) -> tuple[Path, ...]:
    """The photographs in `folder`: a tuple of Paths, sorted.

    Folders below it are not searched: data sets keep label maps and other PNGs beside photographs.

    Raises:
        ValueError: no such folder, or no photograph in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of photographs")
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    photos = tuple(sorted(path for path in found if not path.name.startswith(".")))
    if not photos:
        raise ValueError(f"{folder}: no photographs right in it ({', '.join(SUFFIXES)})")
    return photos


def read_photo(rng: np.random.Generator, path: Path, height: int, width: int) -> np.ndarray:
    """(h, w, 3) float32 linear light, at most one and a half times as large as the frames.

    Args:
        rng: numpy Generator: whether it is mirrored.
        path: of the photograph.
        height, width: of the frames, px.

    Raises:
        ValueError: a file that cannot be read or is no photograph.
    """
    photo = read_image(path)
    if photo.max() < 32:
        raise ValueError(f"{path}: nearly black: no photograph (a label map?)")
    shrink = min(photo.shape[0] / height, photo.shape[1] / width) / 1.5
    if shrink > 1:
        photo = cv2.resize(photo, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    return (np.linspace(0, 1, 256, dtype=np.float32) ** GAMMA)[photo[:, :: rng.choice([1, -1])]]
