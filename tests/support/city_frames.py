"""Synthetic frames of Cityscapes' classes with predictions, in Cityscapes' and KITTI's layout.

Drawn by `RandomState`, whose stream NumPy guarantees never to change: `tests/reference` contains
the scores of cityscapesscripts for these frames.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

SIZES = ((48, 64), (36, 80), (48, 64))
# Cityscapes' classes with instances; caravan and trailer are not scored.
THINGS = range(24, 34)
BUS, CARAVAN, TRAILER, TRAIN = 28, 29, 30, 31


class CityFrame(NamedTuple):
    """One frame: `truth` and `prediction` (H, W) uint8 label ids, 255 = none.

    `number` (H, W): instance number, from 0 in each class; -1 for no instance or a group.
    """

    truth: np.ndarray
    number: np.ndarray
    prediction: np.ndarray


def make_frames(seed=6):
    """Create frames with all ids; bus does not occur, and train occurs only in predictions."""
    rng = np.random.RandomState(seed)
    frames = []
    for height, width in SIZES:
        rows, columns = height // 4, width // 4
        ids = rng.randint(0, 35, (rows, columns))
        ids[np.isin(ids, (BUS, TRAIN))] = 7
        ids[ids == 34] = 255
        # Instances consist of one or more blocks; one block in four is a group.
        number = np.where(np.isin(ids, THINGS), rng.randint(0, 4, ids.shape), -1)
        number[rng.rand(*ids.shape) < 0.25] = -1
        truth, number = (np.kron(x, np.ones((4, 4), int)) for x in (ids, number))
        frames.append(CityFrame(np.uint8(truth), number, distort(np.uint8(truth), rng)))
    return frames


def distort(truth, rng):
    """Turn label ids into imperfect predictions: shifted edges, wrong blocks, some void.

    They contain no caravan or trailer: see `test_cityscapes_scores`.
    """
    height, width = truth.shape
    prediction = np.roll(truth, (1, 2), (0, 1))
    for _ in range(20):
        y, x = rng.randint(0, height), rng.randint(0, width)
        block = np.s_[y : y + height // 5, x : x + width // 9]
        prediction[block] = rng.choice([0, 4, 7, 11, 17, 21, 24, 26, 27, TRAIN, 255])
    return np.where(np.isin(prediction, (CARAVAN, TRAILER)), np.uint8(255), prediction)


def write_predictions(folder, names, frames):
    """Write the predictions as `<name>/seg.png`, for `flowseg.evaluate --predictions`."""
    for name, frame in zip(names, frames, strict=True):
        _save(Path(folder) / name / "seg.png", frame.prediction)


def write_cityscapes(folder, frames, split="val", city="aachen"):
    """Write the frames in Cityscapes' layout, with instances if there are any; return the ids."""
    names = [f"{city}_{k:06d}_000019" for k in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        images, truth = (Path(folder) / kind / split / city for kind in ("leftImg8bit", "gtFine"))
        _save(images / f"{name}_leftImg8bit.png", _image(frame))
        _save(truth / f"{name}_gtFine_labelIds.png", frame.truth)
        if (frame.number >= 0).any():
            _save(truth / f"{name}_gtFine_instanceIds.png", cityscapes_instances(frame))
    return names


def cityscapes_instances(frame):
    """Return (H, W) uint16: class * 1000 + number, from 0; or only the class."""
    ids = frame.truth.astype(np.uint16)
    return np.where(frame.number >= 0, ids * 1000 + frame.number, ids).astype(np.uint16)


def write_kitti(folder, frames):
    """Write the frames in KITTI's layout: class * 256 + number, from 1; return the ids."""
    names = [f"{k:06d}_10" for k in range(len(frames))]
    training = Path(folder) / "training"
    for name, frame in zip(names, frames, strict=True):
        _save(training / "image_2" / f"{name}.png", _image(frame))
        _save(training / "semantic" / f"{name}.png", frame.truth)
        if (frame.number >= 0).any():
            instances = frame.truth.astype(np.uint16) * 256 + frame.number + 1
            _save(training / "instance" / f"{name}.png", instances.astype(np.uint16))
    return names


def _image(frame):
    return np.dstack([frame.truth, frame.truth * 3, frame.truth * 7])


def _save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
