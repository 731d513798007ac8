"""Checks frames and frame pairs that callers pass, and streams predictions for a video."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from flowseg.data.images import find_bit_depth, read_image

# A frame as callers pass it: (H, W, 3) RGB, uint8 or floating-point 0..255; or an image file.
Frame = np.ndarray | str | os.PathLike
# (H, W) uint8 train ids and (H, W, 2) float32 flow in pixels.
Prediction = tuple[np.ndarray, np.ndarray]


def as_frame(frame: Frame, name: str, bit_depth: int | None = None) -> np.ndarray:
    """Check a frame and return it as an array.

    Args:
        frame: see `Frame`.
        name: name of the argument, for messages.
        bit_depth: how many bits a 16-bit image file uses, see `images.decode`.

    Returns:
        (H, W, 3) RGB 0..255, uint8, or float32 if floating-point values were passed.

    Raises:
        ValueError: the file cannot be read; or the array has another shape or type, or values that
            are not finite, outside 0..255, or scaled to 0..1.
    """
    if isinstance(frame, (str, os.PathLike)):
        return read_image(frame, bit_depth)
    image = np.asarray(frame)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"{name}: has shape {image.shape}, but a frame is (height, width, 3)")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(
            f"{name}: has values of type {image.dtype}, but a frame is uint8, or floating-point "
            "from 0 to 255"
        )
    if not np.isfinite(image).all():
        raise ValueError(f"{name}: has values that are NaN or infinite")
    low, high = image.min(), image.max()
    if low < 0 or high > 255:
        raise ValueError(
            f"{name}: has values from {low:g} to {high:g}, but a frame is RGB from 0 to 255"
        )
    if high <= 1 and (image % 1).any():
        raise ValueError(
            f"{name}: has values from 0 to 1, but a frame is RGB from 0 to 255: multiply it by 255"
        )
    return image.astype(np.float32)


def read_pair(
    image1: Frame, image2: Frame, bit_depth: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return two frames as arrays of the same size; see `as_frame`.

    Args:
        image1: the earlier frame.
        image2: the later frame.
        bit_depth: how many bits 16-bit image files use, see `images.decode`; default: that of the
            largest value in both files, see `images.find_bit_depth`.

    Raises:
        ValueError: see `as_frame`; or the frames have different sizes.
    """
    frames = {"image1": image1, "image2": image2}
    paths = [frame for frame in frames.values() if isinstance(frame, (str, os.PathLike))]
    bit_depth = bit_depth or find_bit_depth(paths)
    pair = tuple(as_frame(frame, name, bit_depth) for name, frame in frames.items())
    if pair[0].shape != pair[1].shape:
        (name1, size1), (name2, size2) = (
            (frame if isinstance(frame, (str, os.PathLike)) else name, _size_text(image))
            for (name, frame), image in zip(frames.items(), pair, strict=True)
        )
        raise ValueError(
            f"{name1} is {size1} but {name2} is {size2}: both frames must have the same size"
        )
    return pair


def frames_of_one_size(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
    """Yield the frames of a video as arrays; see `as_frame`.

    Files of 16 bits are refused, because their bit depth is that of all frames, which are read one
    by one: pass arrays of `images.read_image(path, bit_depth)` instead.

    Raises:
        ValueError: while iterating: see `as_frame`; or a frame differs in size from the first. The
            message has its number, counted from 0.
    """
    size = None
    for number, frame in enumerate(frames):
        name = f"frame {number}"
        image = as_frame(frame, name)
        size = size or _size_text(image)
        if _size_text(image) != size:
            raise ValueError(
                f"{name}: {_size_text(image)}, but the frames before it have {size}; all frames "
                "must have the same size"
            )
        yield image


def stream(
    frames: Iterable[np.ndarray],
    encode: Callable[[np.ndarray], Any],
    decode: Callable[[Any, Any], Prediction],
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Predict every frame of a video, encoding each frame once.

    The prediction for a frame is yielded once the next frame has been read. At most two frames'
    features are in memory, regardless of the length of the video.

    Args:
        frames: the frames in order.
        encode: a frame -> its features.
        decode: features of two frames -> seg of the first, and flow from the first to the second.

    Yields:
        (seg, flow) of each frame, with the flow to the next frame. The last frame's seg comes from
        the pair (last, previous), and its flow is None; a single frame is paired with itself.
    """
    previous = current = None
    for frame in frames:
        previous = None  # Release it before the next features are computed.
        following = encode(frame)
        if current is not None:
            yield decode(current, following)
        previous, current = current, following
    if current is not None:
        seg, _ = decode(current, current if previous is None else previous)
        yield seg, None


def _size_text(image):
    return f"{image.shape[1]}x{image.shape[0]} px"
