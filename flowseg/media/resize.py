"""Resizes frames, flow (with its vectors) and class predictions."""

import cv2
import numpy as np


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly, or by area averaging when shrinking; return the input if of this size."""
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # Some OpenCV versions resize at most four channels: one call per channel.
    planes = [cv2.resize(p, size[::-1], interpolation=method) for p in np.moveaxis(image, -1, 0)]
    return np.stack(planes, -1)


def resize_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize flow and scale its vectors to pixels of the new size."""
    factors = np.float32([size[1] / flow.shape[1], size[0] / flow.shape[0]])
    return resize(flow, size) * factors


def largest_class(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: exactly the `argmax` of the resized logits.

    Classes are resized one at a time: for a full-resolution camera image, all resized logits at
    once take gigabytes.
    """
    if logits.shape[:2] == size:
        return logits.argmax(-1).astype(np.uint8)
    maximum, largest = resize(logits[..., :1], size)[..., 0], np.zeros(size, np.uint8)
    for label in range(1, logits.shape[-1]):
        plane = resize(logits[..., label : label + 1], size)[..., 0]
        largest[plane > maximum] = label
        np.maximum(maximum, plane, out=maximum)
    return largest
