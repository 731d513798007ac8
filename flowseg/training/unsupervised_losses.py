"""Defines losses for pairs without ground truth: photometric, and class consistency along flow.

Both need flow in both directions; see `model.training_model`. Both exclude pixels that are occluded
in the second frame, where forward and backward flow are inconsistent (UnFlow, Meister, Hur and
Roth, AAAI 2018).
"""

import keras
import numpy as np
from keras import ops

from flowseg.network.flow_ops import backward_warp, pixel_grid
from flowseg.training.losses import masked_mean

# Weight of smoothness relative to the photometric term, and the rate at which that weight decays
# with edge strength in 0..255 (UFlow, Jonschkowski et al., ECCV 2020, uses 150 for images in 0..1).
_SMOOTH, _EDGE = 1.0, 0.6
# Radius of the census transform's neighbourhood.
_REACH = 2


def visible_in_both(flow: keras.KerasTensor, back: keras.KerasTensor) -> keras.KerasTensor:
    """Return the mask of pixels that are visible in both frames; passes no gradient.

    Args:
        flow: (B, H, W, 2), first to second frame.
        back: (B, H, W, 2), second to first.

    Returns:
        (B, H, W) bool: true where the flow ends inside the image, and forward and backward flow
        agree within UnFlow's bound. If they agree for less than half of the pixels that stay inside
        an image, flow is too inaccurate to detect occlusions, and all pixels that stay inside are
        used: otherwise an untrained network would have nothing to learn from. (UFlow also starts
        without occlusion masks.)
    """
    flow, back = ops.stop_gradient(flow), ops.stop_gradient(back)
    returned = backward_warp(back, flow)
    error = ops.sum(ops.square(flow + returned), axis=-1)
    length = ops.sum(ops.square(flow), axis=-1) + ops.sum(ops.square(returned), axis=-1)
    consistent, stays = error < 0.01 * length + 0.5, inside(flow)
    count = ops.sum(ops.cast(consistent & stays, "float32"), axis=(1, 2), keepdims=True)
    reliable = count >= 0.5 * ops.sum(ops.cast(stays, "float32"), axis=(1, 2), keepdims=True)
    return stays & (consistent | ~reliable)


def inside(flow: keras.KerasTensor) -> keras.KerasTensor:
    """Return whether p + flow(p) is in the image, (B, H, W) bool."""
    height, width = ops.shape(flow)[1:3]
    ends = pixel_grid(height, width) + flow
    limit = ops.cast(ops.stack([width - 1, height - 1]), ends.dtype)
    return ops.all((ends >= 0) & (ends <= limit), axis=-1)


def census(image: keras.KerasTensor) -> keras.KerasTensor:
    """Soft census transform: squashed differences to each neighbour, robust to illumination.

    This is UnFlow's transform, here in a 5x5 neighbourhood.

    Args:
        image: (B, H, W, 3) RGB 0..255.

    Returns:
        (B, H, W, 24), each between -1 and 1. A border of 2 pixels is invalid, because some
        neighbours are outside the image.
    """
    grey = ops.mean(image, axis=-1, keepdims=True)
    side = 2 * _REACH + 1
    kernel = np.zeros((side, side, 1, side * side), np.float32)
    for n in range(side * side):
        kernel[n // side, n % side, 0, n] = 1
    kernel[_REACH, _REACH] -= 1
    kernel = np.delete(kernel, side * side // 2, axis=-1)
    difference = ops.conv(grey, ops.convert_to_tensor(kernel), padding="same")
    return difference / ops.sqrt(0.81 + ops.square(difference))


def census_distance(image1: keras.KerasTensor, image2: keras.KerasTensor) -> keras.KerasTensor:
    """Return the soft Hamming distance between two images' census: (B, H, W) in 0..1."""
    squared = ops.square(census(image1) - census(image2))
    return ops.mean(squared / (0.1 + squared), axis=-1)


def roughness(flow: keras.KerasTensor, image: keras.KerasTensor) -> keras.KerasTensor:
    """Mean second difference of flow in pixels, weighted down at edges of the image.

    A second-order penalty permits flow that grows steadily towards the camera, as on a road (UFlow
    uses it for KITTI).

    Args:
        flow: (B, H, W, 2).
        image: (B, H, W, 3) RGB 0..255, at whose edges flow may bend.

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
    """Return `length` rows (axis 1) or columns (axis 2) from `begin` on."""
    return x[:, begin : begin + length] if axis == 1 else x[:, :, begin : begin + length]


@keras.saving.register_keras_serializable("flowseg")
class PhotometricLoss(keras.losses.Loss):
    """Census distance between the first frame and the warped second frame, plus roughness.

    `y_true`: (B, H, W, 7): both frames, RGB 0..255, before colour augmentation, and a channel that
    is 1 where flow has ground truth, which supervises those pixels instead. `y_pred`: (B, H, W, 4):
    forward and backward flow, in pixels.
    """

    def __init__(self, name="photometric_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Return the loss, a scalar."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        image1, image2, flow = y_true[..., :3], y_true[..., 3:6], y_pred[..., :2]
        visible = visible_in_both(flow, y_pred[..., 2:]) & (y_true[..., 6] == 0)
        visible = visible & _off_border(visible)
        distance = census_distance(image1, backward_warp(image2, flow))
        # Grows slowly, so that pixels without a match do not dominate the step (UFlow).
        distance = (distance + 0.01) ** 0.4
        return masked_mean(distance, visible) + _SMOOTH * roughness(flow, image1)


def _off_border(mask):
    height, width = ops.shape(mask)[1:3]
    rows, columns = ops.arange(height)[:, None], ops.arange(width)[None]
    inner = (rows >= _REACH) & (rows < height - _REACH)
    return (inner & (columns >= _REACH) & (columns < width - _REACH))[None]


@keras.saving.register_keras_serializable("flowseg")
class ConsistencyLoss(keras.losses.Loss):
    """Difference between a point's class probabilities in the two frames (Liu et al., ECCV 2020).

    `y_true`: as for :class:`PhotometricLoss`; pixels weigh less where the warped second frame looks
    different. `y_pred`: (B, H, W, 4 + 2 C): forward flow, backward flow, and the logits of C
    classes in each frame. No gradient reaches the flow, which could otherwise change to agree.
    """

    def __init__(self, name="consistency_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        """Return the loss, a scalar."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        flow, back = (ops.stop_gradient(y_pred[..., i : i + 2]) for i in (0, 2))
        first, second = ops.split(y_pred[..., 4:], 2, axis=-1)
        warped = backward_warp(ops.softmax(second), flow)
        squared = ops.sum(ops.square(ops.softmax(first) - warped), axis=-1)
        similarity = 1 - census_distance(y_true[..., :3], backward_warp(y_true[..., 3:6], flow))
        return masked_mean(squared * similarity, visible_in_both(flow, back))
