"""Defines masked losses: cross-entropy of `seg`, end-point error of `flow`, confidence of flow.

A masked mean divides by the number of valid pixels of the whole batch, over all devices, and is 0
(with zero gradients) if there are none. Ground truth is masked before the arithmetic, so that a NaN
in an invalid pixel never reaches the loss.
"""

import keras
from keras import ops

from flowseg.data.labels import IGNORE_LABEL
from flowseg.scoring.flow_errors import end_point_error, is_outlier

FLOW_LOSSES = ("epe", "log")
SEG_LOSSES = ("mean", "balanced")


def masked_mean(values: keras.KerasTensor, mask: keras.KerasTensor) -> keras.KerasTensor:
    """Return the mean of `values` where `mask` (bool, same shape) is true; 0 if it is nowhere true.

    A numeric mask gives a weighted mean. The result has shape (1,). Under a `tf.distribute`
    strategy, where each device has only its part of the batch, the count is the mean over devices,
    so that the mean of the results over devices is the mean over the batch.
    """
    mask = ops.cast(mask, values.dtype)
    # Not a scalar: Keras divides a loss by the number of devices only if it is not a scalar.
    count = _mean_over_devices(ops.reshape(ops.sum(mask), (1,)))
    return ops.sum(values * mask) / ops.where(count > 0, count, 1.0)


def _mean_over_devices(count):
    """Average a vector of counts, which each device computes over its part of the batch."""
    if keras.backend.backend() != "tensorflow":  # On JAX, sums already cover all devices.
        return count
    return ops.moments(count[None], axes=[0], synchronized=True)[0]


@keras.saving.register_keras_serializable("flowseg")
class SegLoss(keras.losses.Loss):
    """Mean cross-entropy over pixels that are not void.

    `y_true`: (B, H, W) train ids, 255 = ignore; `y_pred`: (B, H, W, C) logits. The balanced form
    weights a pixel by 1 / sqrt(number of pixels of its class in the batch), so that rare classes
    are learned sooner.
    """

    def __init__(self, form="mean", name="seg_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        if form not in SEG_LOSSES:
            raise ValueError(f"segmentation loss {form!r}: not one of {', '.join(SEG_LOSSES)}")
        self.form = form

    def call(self, y_true, y_pred):
        """Return the loss, a scalar."""
        y_true = ops.cast(y_true, "int32")
        valid = y_true != IGNORE_LABEL
        labels = ops.where(valid, y_true, 0)
        entropy = ops.sparse_categorical_crossentropy(
            labels, ops.cast(y_pred, "float32"), from_logits=True
        )
        if self.form == "mean":
            return masked_mean(entropy, valid)
        flat_labels, mask = (ops.reshape(x, (-1,)) for x in (labels, ops.cast(valid, "float32")))
        count = ops.segment_sum(mask, flat_labels, num_segments=y_pred.shape[-1])
        weight = ops.rsqrt(ops.maximum(_mean_over_devices(count), 1e-3))
        return masked_mean(entropy, ops.take(weight, labels) * ops.cast(valid, "float32"))

    def get_config(self):
        """Return the configuration, with the form."""
        return {**super().get_config(), "form": self.form}


@keras.saving.register_keras_serializable("flowseg")
class FlowLoss(keras.losses.Loss):
    """Mean end-point error over valid pixels, or the mean of the robust 3 log(1 + epe / 2).

    `y_true`: (B, H, W, 3) (u, v, valid); `y_pred`: (B, H, W, 2), both in pixels. The robust form
    grows slowly with large errors, so that a few hopeless pixels do not dominate the step.
    """

    def __init__(self, form="log", name="flow_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        if form not in FLOW_LOSSES:
            raise ValueError(f"flow loss {form!r}: not one of {', '.join(FLOW_LOSSES)}")
        self.form = form

    def call(self, y_true, y_pred):
        """Return the loss, a scalar."""
        error, valid = end_point_error(y_true, y_pred)
        if self.form == "log":
            error = 3.0 * ops.log1p(error / 2.0)
        return masked_mean(error, valid)

    def get_config(self):
        """Return the configuration, with the form."""
        return {**super().get_config(), "form": self.form}


@keras.saving.register_keras_serializable("flowseg")
class ConfidenceLoss(keras.losses.Loss):
    """Mean binary cross-entropy of "this flow is no outlier" over valid pixels; see `is_outlier`.

    `y_true`: (B, H, W, 3) (u, v, valid); `y_pred`: (B, H, W, 3) (u, v, logit). Confidence is thus
    the probability that the flow is correct by KITTI's rule (or one with another tolerance in
    pixels). No gradient reaches u and v.
    """

    def __init__(self, tolerance=3.0, name="confidence_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.tolerance = tolerance

    def call(self, y_true, y_pred):
        """Return the loss, a scalar."""
        logit = ops.cast(y_pred, "float32")[..., 2]
        error, valid = end_point_error(y_true, ops.stop_gradient(y_pred[..., :2]))
        correct = ops.cast(~is_outlier(y_true, error, valid, self.tolerance), "float32")
        entropy = ops.softplus(logit) - correct * logit
        return masked_mean(entropy, valid)

    def get_config(self):
        """Return the configuration, with the tolerance."""
        return {**super().get_config(), "tolerance": self.tolerance}
