"""The frame pair, with ground truth, that every synthetic world produces."""

from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """Two consecutive frames with the ground truth at image1's pixels.

    Flow has the full precision of the world; only the file format rounds it to 1/64 px.
    """

    image1: np.ndarray  # (H, W, 3) uint8 RGB
    image2: np.ndarray  # (H, W, 3) uint8 RGB
    flow: np.ndarray  # (H, W, 2) float32 (u, v) in px, also at occluded pixels
    valid: np.ndarray  # (H, W) bool: flow is known (False if the point leaves the camera's front)
    visible: np.ndarray  # (H, W) bool: valid, inside image2 and not occluded there
    labels: np.ndarray | None  # (H, W) uint8 Cityscapes ids; None in a world without classes
