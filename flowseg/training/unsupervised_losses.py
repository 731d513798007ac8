"""Losses of pairs without truth: motion that keeps colours, classes that move with it.

Both want flow in both directions, see `model.training_model`. What is hidden in the second frame
is left out of both: where forward and backward flow do not undo each other (UnFlow, Meister, Hur
and Roth, AAAI 2018).
"""

import keras
import numpy as np
from keras import ops

from flowseg.network.flow_ops import backward_warp, pixel_grid
from flowseg.training.losses import masked_mean

# Weight of smoothness beside the photometric part, and how fast it fades with an edge of 0..255
# (UFlow, Jonschkowski et al., ECCV 2020, has 150 for images of 0..1).
_SMOOTH, _EDGE = 1.0, 0.6
# Neighbours of the census transform reach so far.
_REACH = 2


def both_seen(flow: keras.KerasTensor, back: keras.KerasTensor) -> keras.KerasTensor:
    """Where the first frame's pixels are to be seen in the second; no gradient goes through it.

    Args:
        flow: (B, H, W, 2), first to second frame.
        back: (B, H, W, 2), second to first.

    Returns:
        (B, H, W) bool: the way there and back ends within UnFlow's bound, inside the picture. In a
        picture where that holds for less than half of what stays inside, flow is too wrong to tell,
        and all counts: else an untrained network would learn from nothing. (UFlow begins so, too.)
    """
    flow, back = ops.stop_gradient(flow), ops.stop_gradient(back)
    returned = backward_warp(back, flow)
    apart = ops.sum(ops.square(flow + returned), axis=-1)
    length = ops.sum(ops.square(flow), axis=-1) + ops.sum(ops.square(returned), axis=-1)
    near, stays = apart < 0.01 * length + 0.5, inside(flow)
    held = ops.sum(ops.cast(near & stays, "float32"), axis=(1, 2), keepdims=True)
    known = held >= 0.5 * ops.sum(ops.cast(stays, "float32"), axis=(1, 2), keepdims=True)
    return stays & (near | ~known)


def inside(flow: keras.KerasTensor) -> keras.KerasTensor:
    """(B, H, W) bool: whether p + flow(p) is in the picture."""
    height, width = ops.shape(flow)[1:3]
    ends = pixel_grid(height, width) + flow
    most = ops.cast(ops.stack([width - 1, height - 1]), ends.dtype)
    return ops.all((ends >= 0) & (ends <= most), axis=-1)


def census(image: keras.KerasTensor) -> keras.KerasTensor:
    """What each pixel's neighbours have more than it, squashed: nothing that light changes.

    (The soft census transform of UnFlow, here of 5x5.)

    Args:
        image: (B, H, W, 3) RGB 0..255.

    Returns:
        (B, H, W, 24), each over -1 and under 1. A border of 2 pixels compares with what is not
        there.
    """
    grey = ops.mean(image, axis=-1, keepdims=True)
    side = 2 * _REACH + 1
    kernel = np.zeros((side, side, 1, side * side), np.float32)
    for n in range(side * side):
        kernel[n // side, n % side, 0, n] = 1
    kernel[_REACH, _REACH] -= 1
    kernel = np.delete(kernel, side * side // 2, axis=-1)
    more = ops.conv(grey, ops.convert_to_tensor(kernel), padding="same")
    return more / ops.sqrt(0.81 + ops.square(more))


def census_distance(image1: keras.KerasTensor, image2: keras.KerasTensor) -> keras.KerasTensor:
    """(B, H, W) in 0..1: by how many neighbours two images' census differs (soft Hamming)."""
    apart = ops.square(census(image1) - census(image2))
    return ops.mean(apart / (0.1 + apart), axis=-1)


def roughness(flow: keras.KerasTensor, image: keras.KerasTensor) -> keras.KerasTensor:
    """Mean second difference of flow in pixels, where the image has no edge.

    Second, so that a road may flow faster the nearer it is (UFlow has it so for KITTI).

    Args:
        flow: (B, H, W, 2).
        image: (B, H, W, 3) RGB 0..255, on whose edges flow may bend.

    Returns:
        Scalar.
    """
    total = 0.0
    for axis in (1, 2):
        before, middle, after = (
            _shifted(flow, axis, i, ops.shape(flow)[axis] - 2) for i in range(3)
        )
        bend = ops.sqrt(ops.square(before - 2 * middle + after) + 1e-6)
        first, last = (_shifted(image, axis, i, ops.shape(image)[axis] - 2) for i in (0, 2))
        edge = ops.mean(ops.abs(last - first), axis=-1, keepdims=True) / 2
        total += ops.mean(bend * ops.exp(-_EDGE * edge))
    return total / 2


def _shifted(x, axis, begin, length):
    """`length` rows (axis 1) or columns (axis 2) from `begin` on."""
    return x[:, begin : begin + length] if axis == 1 else x[:, :, begin : begin + length]


@keras.saving.register_keras_serializable("flowseg")
class PhotometricLoss(keras.losses.Loss):
    """How unlike the first frame the second one looks when warped by the flow, and roughness.

    `y_true`: (B, H, W, 7): both frames, RGB 0..255, as they were before their colours were
    changed; and 1 where the flow's truth is known, which teaches there instead. `y_pred`:
    (B, H, W, 4): flow, and flow back, in pixels.
    """

    def __init__(self, name="photometric_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Scalar."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        image1, image2, flow = y_true[..., :3], y_true[..., 3:6], y_pred[..., :2]
        seen = both_seen(flow, y_pred[..., 2:]) & (y_true[..., 6] == 0)
        seen = seen & _off_border(seen)
        distance = census_distance(image1, backward_warp(image2, flow))
        # Grows slowly: what cannot be matched is not to rule the step (UFlow).
        distance = (distance + 0.01) ** 0.4
        return masked_mean(distance, seen) + _SMOOTH * roughness(flow, image1)


def _off_border(mask):
    height, width = ops.shape(mask)[1:3]
    rows, columns = ops.arange(height)[:, None], ops.arange(width)[None]
    far = (rows >= _REACH) & (rows < height - _REACH)
    return (far & (columns >= _REACH) & (columns < width - _REACH))[None]


@keras.saving.register_keras_serializable("flowseg")
class ConsistencyLoss(keras.losses.Loss):
    """How differently a point's classes are seen in the two frames (Liu et al., ECCV 2020).

    `y_true`: as for :class:`PhotometricLoss`; what looks otherwise in the second frame, warped by
    the flow, counts less. `y_pred`: (B, H, W, 4 + 2 C): flow, flow back, and the logits of C
    classes in each frame. No gradient goes to the flows, which could hide what does not agree.
    """

    def __init__(self, name="consistency_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Scalar."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        flow, back = (ops.stop_gradient(y_pred[..., i : i + 2]) for i in (0, 2))
        first, second = ops.split(y_pred[..., 4:], 2, axis=-1)
        followed = backward_warp(ops.softmax(second), flow)
        apart = ops.sum(ops.square(ops.softmax(first) - followed), axis=-1)
        like = 1 - census_distance(y_true[..., :3], backward_warp(y_true[..., 3:6], flow))
        return masked_mean(apart * like, both_seen(flow, back))
