"""What every made world gives: two frames and what is true of them."""

from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """Two frames of one moment and the next, with the truth in image1's pixels.

    The worlds give flow as exactly as they know it; rounding to 1/64 px is the file's.
    """

    image1: np.ndarray  # (H, W, 3) uint8 RGB
    image2: np.ndarray  # (H, W, 3) uint8 RGB
    flow: np.ndarray  # (H, W, 2) float32 (u, v) in px, of hidden places too
    valid: np.ndarray  # (H, W) bool: the flow is known (False where it leaves the camera's front)
    visible: np.ndarray  # (H, W) bool: valid, inside image2 and not hidden there
    labels: np.ndarray | None  # (H, W) uint8 Cityscapes ids; None where a world knows no classes
