"""Made-up frames of Cityscapes' classes with answers to them, in Cityscapes' and KITTI's layout.

Drawn by `RandomState`, whose stream NumPy promises never to change: `tests/reference` holds what
cityscapesscripts says of these frames.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

SIZES = ((48, 64), (36, 80), (48, 64))
# Cityscapes' classes of things; caravan and trailer are not scored.
THINGS = range(24, 34)
BUS, CARAVAN, TRAILER, TRAIN = 28, 29, 30, 31


class CityFrame(NamedTuple):
    """One frame: `truth` and `answer` (H, W) uint8 label ids, 255 = none.

    `number` (H, W): of things, from 0 in each class; -1 where there is none, or a group.
    """

    truth: np.ndarray
    number: np.ndarray
    answer: np.ndarray


def make_frames(seed=6):
    """Frames of every id but a bus, in neither truth nor answer, and a train, answered alone."""
    rng = np.random.RandomState(seed)
    frames = []
    for height, width in SIZES:
        rows, columns = height // 4, width // 4
        ids = rng.randint(0, 35, (rows, columns))
        ids[np.isin(ids, (BUS, TRAIN))] = 7
        ids[ids == 34] = 255
        # As many things of a class as its blocks, some in several; one block in four is a group.
        number = np.where(np.isin(ids, THINGS), rng.randint(0, 4, ids.shape), -1)
        number[rng.rand(*ids.shape) < 0.25] = -1
        truth, number = (np.kron(x, np.ones((4, 4), int)) for x in (ids, number))
        frames.append(CityFrame(np.uint8(truth), number, spoil(np.uint8(truth), rng)))
    return frames


def spoil(truth, rng):
    """Label ids as a method would answer them: edges moved, blocks mistaken, some void.

    Never a caravan or a trailer: see `test_cityscapes_scores`.
    """
    height, width = truth.shape
    answer = np.roll(truth, (1, 2), (0, 1))
    for _ in range(20):
        y, x = rng.randint(0, height), rng.randint(0, width)
        there = np.s_[y : y + height // 5, x : x + width // 9]
        answer[there] = rng.choice([0, 4, 7, 11, 17, 21, 24, 26, 27, TRAIN, 255])
    return np.where(np.isin(answer, (CARAVAN, TRAILER)), np.uint8(255), answer)


def write_answers(folder, names, frames):
    """Write the answers as `<name>/seg.png`, which `flowseg.evaluate --predictions` takes."""
    for name, frame in zip(names, frames, strict=True):
        _save(Path(folder) / name / "seg.png", frame.answer)


def write_cityscapes(folder, frames, split="val", city="aachen"):
    """Write the frames in Cityscapes' layout; instances where any is numbered. Returns the ids."""
    names = [f"{city}_{k:06d}_000019" for k in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        images, truth = (Path(folder) / kind / split / city for kind in ("leftImg8bit", "gtFine"))
        _save(images / f"{name}_leftImg8bit.png", _picture(frame))
        _save(truth / f"{name}_gtFine_labelIds.png", frame.truth)
        if (frame.number >= 0).any():
            _save(truth / f"{name}_gtFine_instanceIds.png", cityscapes_instances(frame))
    return names


def cityscapes_instances(frame):
    """(H, W) uint16: class * 1000 + number, from 0; or the class alone."""
    ids = frame.truth.astype(np.uint16)
    return np.where(frame.number >= 0, ids * 1000 + frame.number, ids).astype(np.uint16)


def write_kitti(folder, frames):
    """Write the same in KITTI's layout: class * 256 + number, from 1. Returns the ids."""
    names = [f"{k:06d}_10" for k in range(len(frames))]
    place = Path(folder) / "training"
    for name, frame in zip(names, frames, strict=True):
        _save(place / "image_2" / f"{name}.png", _picture(frame))
        _save(place / "semantic" / f"{name}.png", frame.truth)
        if (frame.number >= 0).any():
            instances = frame.truth.astype(np.uint16) * 256 + frame.number + 1
            _save(place / "instance" / f"{name}.png", instances.astype(np.uint16))
    return names


def _picture(frame):
    return np.dstack([frame.truth, frame.truth * 3, frame.truth * 7])


def _save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
