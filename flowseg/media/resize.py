"""Resizing: of frames, of flow, whose vectors scale with it, and of classes."""

import cv2
import numpy as np


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Averages when it shrinks a frame; the same array when the size is its own."""
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # OpenCV's resize takes many channels, but some versions only four: one call a plane.
    planes = [cv2.resize(p, size[::-1], interpolation=method) for p in np.moveaxis(image, -1, 0)]
    return np.stack(planes, -1)


def resize_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow in the pixels of `size`."""
    factors = np.float32([size[1] / flow.shape[1], size[0] / flow.shape[0]])
    return resize(flow, size) * factors


def largest_class(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: the `argmax` of the resized logits, exactly.

    One class at a time: all at once take gigabytes where a camera's full picture was shrunk for the
    network.
    """
    if logits.shape[:2] == size:
        return logits.argmax(-1).astype(np.uint8)
    most, largest = resize(logits[..., :1], size)[..., 0], np.zeros(size, np.uint8)
    for label in range(1, logits.shape[-1]):
        plane = resize(logits[..., label : label + 1], size)[..., 0]
        largest[plane > most] = label
        np.maximum(most, plane, out=most)
    return largest
