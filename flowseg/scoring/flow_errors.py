"""End-point error and outliers of flow in Keras, for losses and streaming scores."""

import keras
from keras import ops


def end_point_error(
    truth: keras.KerasTensor, flow: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """End-point error and validity of each pixel.

    Args:
        truth: (B, H, W, 3) (u, v, valid) in pixels.
        flow: (B, H, W, 2).

    Returns:
        (B, H, W) float32 Euclidean distance (0 where invalid), and (B, H, W) bool valid.
    """
    truth = ops.cast(truth, "float32")
    valid = truth[..., 2] > 0
    difference = ops.where(valid[..., None], ops.cast(flow, "float32") - truth[..., :2], 0.0)
    # The gradient of sqrt is infinite at 0; 1e-12 px^2 keeps it finite and changes no error by more
    # than 1e-6 px.
    squared = ops.sum(ops.square(difference), axis=-1)
    return ops.sqrt(squared + 1e-12) * ops.cast(valid, "float32"), valid


def is_outlier(
    truth: keras.KerasTensor,
    error: keras.KerasTensor,
    valid: keras.KerasTensor,
    tolerance: float = 3.0,
) -> keras.KerasTensor:
    """(B, H, W) bool: valid, and the error is over `tolerance` px and 5 % of the true magnitude.

    See evaluate_scene_flow.cpp of the KITTI 2015 development kit (3 px). NaN counts as an outlier.

    Args:
        truth: (B, H, W, 3) (u, v, valid) in pixels.
        error: (B, H, W), from `end_point_error`.
        valid: (B, H, W) bool, from `end_point_error`.
        tolerance: in pixels.
    """
    truth = ops.where(valid[..., None], ops.cast(truth, "float32")[..., :2], 0.0)
    magnitude = ops.sqrt(ops.sum(ops.square(truth), axis=-1))
    return valid & ~((error <= tolerance) | (error <= 0.05 * magnitude))
