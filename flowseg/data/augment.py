"""Augments one training example in pure TensorFlow and keeps flow and labels exact.

An example is a dict: `image1`, `image2` (H, W, 3) uint8, `flow` (H, W, 3) float32 (u, v, valid),
`seg` (H, W) int32 train ids. A clip is a dict of `images` (k, H, W, 3), `seg` (k, H, W), `flow` and
`backward_flow` (k - 1, H, W, 3), which `mirror` and `recolour` treat like an example.

All randomness comes from the seed that the caller passes: the same seed gives the same pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Augmentation(NamedTuple):
    """Strength of each augmentation; with all values 0, only the random crop remains.

    Attributes:
        scale: images are scaled by 2^s, s uniform in [enlarge - scale, enlarge + scale].
        stretch: the width is scaled by a further 2^s, s uniform in [-stretch, stretch].
        flip: probability of a horizontal flip.
        colour: strength of brightness, contrast, saturation, hue and gamma jitter; 1 is RAFT's.
        erase: probability of erasing a rectangle of image2, and half of that for a second one.
        enlarge: centre of the scale range; larger images also have larger motion.
    """

    scale: float = 0.0
    stretch: float = 0.0
    flip: float = 0.5
    colour: float = 0.0
    erase: float = 0.0
    enlarge: float = 0.0


# NTSC luminance and the two colour axes, from RGB.
_YIQ = np.float32([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# How each part of an example is resized; flow has a rule of its own.
_IMAGES, _FLOWS, _LABELS = ("image1", "image2", "images"), ("flow", "backward_flow"), ("seg",)
# Share of examples whose two frames are jittered separately (RAFT, Teed and Deng 2020).
_SEPARATE_JITTER = 0.2


def augment(
    example: dict[str, tf.Tensor], seed: tf.Tensor, height: int, width: int, strength: Augmentation
) -> dict[str, tf.Tensor]:
    """Crop, scale, flip, recolour and erase parts of one example.

    Args:
        example: dict as in the module docstring, of any size; other keys are passed through.
        seed: (2,) int tensor.
        height: rows of the result.
        width: columns of the result.
        strength: an :class:`Augmentation`.

    Returns:
        The dict with frames, flow and labels of size (height, width), frames as float32 0..255;
        `plain1` and `plain2` are the frames before colour jitter and erasing.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    sizes = strength.scale, strength.stretch, strength.enlarge
    example = random_crop(example, seeds[0], height, width, *sizes)
    example = _flip(example, seeds[1], strength.flip)
    example |= {"plain1": example["image1"], "plain2": example["image2"]}
    images = [example["image1"], example["image2"]]
    image1, image2 = _change_colours(images, seeds, strength)
    return {**example, "image1": image1, "image2": image2}


def augment_clip(
    frames: Sequence[dict[str, tf.Tensor]],
    seed: tf.Tensor,
    height: int,
    width: int,
    strength: Augmentation,
) -> dict[str, tf.Tensor]:
    """Crop, scale, flip and recolour the frames of a clip alike, and erase parts of single ones.

    A clip of two frames gets the pixels that `augment` gives the same pair.

    Args:
        frames: dicts of `image1` (H, W, 3) uint8, `seg` (H, W) int32, and all but the last of
            `flow` and `backward_flow` (H, W, 3) float32; all of one size.
        seed: (2,) int tensor.
        height: rows of the result.
        width: columns of the result.
        strength: an :class:`Augmentation`.

    Returns:
        {"images": (k, height, width, 3) float32 0..255, "seg": (k, height, width), "flow" and
        "backward_flow": (k - 1, height, width, 3)}.
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    sizes = strength.scale, strength.stretch, strength.enlarge
    # Each frame is cropped before they are stacked: full-size clips would take most of the time.
    cropped = [random_crop(frame, seeds[0], height, width, *sizes) for frame in frames]
    clip = {"images": tf.stack([frame["image1"] for frame in cropped])}
    clip["seg"] = tf.stack([frame["seg"] for frame in cropped])
    for key in _FLOWS:
        clip[key] = tf.stack([frame[key] for frame in cropped[:-1]])
    clip = _flip(clip, seeds[1], strength.flip)
    images = _change_colours(tf.unstack(clip["images"]), seeds, strength)
    return {**clip, "images": tf.stack(images)}


def _flip(example, seed, probability):
    return tf.cond(
        tf.random.stateless_uniform((), seed) < probability,
        lambda: mirror(example),
        lambda: example,
    )


def _change_colours(images, seeds, strength):
    """Recolour a list of frames, and erase parts of all but the first."""
    if strength.colour:
        images = tf.unstack(recolour(tf.stack(images), seeds[2], strength.colour))
    if strength.erase:
        images[1:] = [
            erase(image, seeds[3] + i, strength.erase) for i, image in enumerate(images[1:])
        ]
    return images


def random_crop(
    example: dict[str, tf.Tensor],
    seed: tf.Tensor,
    height: int,
    width: int,
    scale: float,
    stretch: float,
    enlarge: float = 0.0,
) -> dict[str, tf.Tensor]:
    """Crop a random rectangle and resize it to (height, width).

    A random scale sets the size of the rectangle, limited to the size of the example: a smaller
    example is enlarged. Frames and flow are resized bilinearly; flow uses only its valid pixels,
    and its vectors are scaled. Labels take the nearest pixel.
    """
    size = tf.shape(example["seg"])
    draw = tf.random.stateless_uniform((4,), seed)
    grow, widen = enlarge + (draw[0] * 2 - 1) * scale, (draw[1] * 2 - 1) * stretch
    requested = tf.cast([height, width], tf.float32) / tf.pow(2.0, [grow, grow + widen])
    region = tf.clip_by_value(tf.cast(tf.round(requested), tf.int32), 1, size)
    # Corners are drawn beyond the borders and clipped to them (RAFT's margins): otherwise crops
    # would rarely contain the outermost pixels, which move most in driving scenes.
    slack, margin = (tf.cast(x, tf.float32) for x in (size - region, region // 4))
    corner = tf.cast(tf.round(draw[2:] * (slack + 2 * margin) - margin), tf.int32)
    corner = tf.clip_by_value(corner, 0, size - region)

    rows = slice(corner[0], corner[0] + region[0])
    columns = slice(corner[1], corner[1] + region[1])

    def resize(x, method):
        return tf.ensure_shape(tf.image.resize(x, (height, width), method), (height, width, None))

    cropped = {}
    for key, x in example.items():
        if key in _IMAGES:
            cropped[key] = resize(x[rows, columns], "bilinear")
        elif key in _FLOWS:
            cropped[key] = _resize_flow(x[rows, columns], height, width)
        elif key in _LABELS:
            cropped[key] = resize(x[rows, columns, None], "nearest")[..., 0]
    return example | cropped


def _resize_flow(flow, height, width):
    """`resize_sparse_flow`, which takes no time where nothing is known, as in unlabelled frames."""
    return tf.cond(
        tf.reduce_any(flow[..., 2] > 0),
        lambda: resize_sparse_flow(flow, height, width),
        lambda: tf.zeros((height, width, 3)),
    )


def resize_sparse_flow(flow: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Resize flow, using only its valid pixels.

    Each new vector is the bilinear mean of the valid ones among its four neighbours, scaled with
    the size; it is valid where they have at least half of the bilinear weight. Where all are
    valid this equals `flow_ops.resize_flow`.

    Args:
        flow: (H, W, 3) float32 (u, v, valid).
        height: rows of the result.
        width: columns of the result.

    Returns:
        (height, width, 3) float32.
    """
    old_size = tf.cast(tf.shape(flow)[:2], tf.float32)
    # In planes, which takes half the time of operations on slices of the last axis.
    u, v, valid = tf.unstack(flow, axis=-1)
    known = valid > 0
    # `where` because an invalid pixel may contain any value, including NaN.
    planes = [tf.where(known, u, 0.0), tf.where(known, v, 0.0), tf.cast(known, tf.float32)]
    planes = [tf.image.resize(x[..., None], (height, width), "bilinear")[..., 0] for x in planes]
    weight = planes[2]
    valid = weight >= 0.5
    divisor = tf.maximum(weight, 0.5)
    u = tf.where(valid, planes[0] / divisor * (width / old_size[1]), 0.0)
    v = tf.where(valid, planes[1] / divisor * (height / old_size[0]), 0.0)
    resized = stack_last([u, v, tf.cast(valid, tf.float32)])
    return tf.ensure_shape(resized, (height, width, 3))


def stack_last(planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """`tf.stack(planes, axis=-1)` in half the time."""
    rank = len(planes[0].shape)
    return tf.transpose(tf.stack(planes), (*range(1, rank + 1), 0))


def mirror(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Flip the example horizontally; u changes sign."""
    flipped = {}
    for key, x in example.items():
        # `tf.reverse` takes a quarter of the time of a slice with a negative step.
        if key in _IMAGES:
            flipped[key] = tf.reverse(x, [len(x.shape) - 2])
        elif key in _FLOWS:
            x = tf.reverse(x, [len(x.shape) - 2])
            # Row by row, which is faster than a factor along the short last axis.
            signs = tf.tile([-1.0, 1.0, 1.0], [tf.shape(x)[-2]])
            rows = tf.reshape(x, tf.concat([tf.shape(x)[:-2], [-1]], 0))
            flipped[key] = tf.ensure_shape(tf.reshape(rows * signs, tf.shape(x)), x.shape)
        elif key in _LABELS:
            flipped[key] = tf.reverse(x, [len(x.shape) - 1])
    return example | flipped


def recolour(images: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Jitter brightness, contrast, saturation, hue and gamma of frames at random.

    With probability 4/5 the frames share the jitter, otherwise each is jittered separately.

    Args:
        images: (k, H, W, 3) float32 0..255; k is static.
        seed: (2,) int tensor.
        strength: 1 is RAFT's jitter.
    """
    count = images.shape[0]
    draws = tf.random.stateless_uniform((count, 5), seed, -1.0, 1.0)
    separate = tf.random.stateless_uniform((), seed + 1) < _SEPARATE_JITTER
    draws = tf.where(separate, draws, draws[:1])

    def jitter(image, draw):
        factors = 1.0 + 0.4 * strength * draw
        image = image * (factors[0] / 255.0)
        mean = tf.tensordot(tf.reduce_mean(image, (0, 1)), _YIQ[0], 1)
        # One matrix for all three: contrast scales about a grey, which saturation and hue keep.
        matrix = _colour_matrix(factors[2], 2 * np.pi * 0.16 * strength * draw[3])
        image = tf.tensordot(image, factors[1] * matrix, 1) + mean * (1.0 - factors[1])
        # exp(gamma * log(x)) is four times as fast as tf.pow.
        gamma = tf.pow(1.25, strength * draw[4])
        return tf.exp(gamma * tf.math.log(tf.clip_by_value(image, 0.0, 1.0))) * 255.0

    return tf.stack([jitter(images[i], draws[i]) for i in range(count)])


def _colour_matrix(saturation, angle):
    """(3, 3) matrix for RGB row vectors: scales saturation, rotates hue, leaves grey unchanged."""
    cosine, sine = saturation * tf.cos(angle), saturation * tf.sin(angle)
    rotation = tf.stack([[1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, -sine, cosine]])
    return tf.constant(_YIQ.T) @ rotation @ tf.constant(np.linalg.inv(_YIQ.T))


def erase(image: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Fill up to two random rectangles with the mean colour (RAFT's eraser augmentation).

    The flow stays correct: the network learns to predict motion where the match is not visible.
    """
    shape = tf.shape(image)
    mean = tf.reduce_mean(image, axis=(0, 1))
    draws = tf.random.stateless_uniform((2, 5), seed)
    row, column = tf.range(shape[0])[:, None], tf.range(shape[1])[None, :]
    erased = tf.zeros(shape[:2], tf.bool)
    for i, threshold in enumerate((probability, probability / 2)):
        limits = tf.cast(shape[:2], tf.float32)
        top, left = tf.unstack(tf.cast(draws[i, :2] * limits, tf.int32))
        tall, wide = tf.unstack(tf.cast((0.1 + 0.15 * draws[i, 2:4]) * limits, tf.int32))
        inside = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)
        erased |= inside & (draws[i, 4] < threshold)
    return tf.where(erased[..., None], mean, image)
