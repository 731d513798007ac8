"""Keras layers that estimate flow: match features; update, fill and upsample flow.

They wrap the operators of `flow_ops` and implement the steps of the decoder. All accept heights and
widths that are known only at run time. Layers that carry flow exclude it from mixed precision
(`autocast=False`): pixel coordinates need full float32.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras import initializers, layers, ops

from flowseg.network.flow_ops import Tensor, backward_warp, cost_volume, upsample, upsample_flow
from flowseg.network.layers import Shape, Upsample, scaled_shape


@keras.saving.register_keras_serializable("flowseg")
class UpsampleFlow(Upsample):
    """Upsample flow (B, H, W, 2) -> (B, factor H, factor W, 2), bilinear; scales the vectors."""

    def __init__(self, factor: int, **kwargs: Any):
        super().__init__(factor, autocast=False, **kwargs)

    def call(self, flow: Tensor) -> Tensor:
        return upsample(flow, self.factor) * self.factor


@keras.saving.register_keras_serializable("flowseg")
class ConvexUpsample(Upsample):
    """Upsample flow by learned convex combination; see `flow_ops.upsample_flow`."""

    def __init__(self, factor: int, **kwargs: Any):
        super().__init__(factor, autocast=False, **kwargs)

    def call(self, flow: Tensor, weights: Tensor) -> Tensor:
        return upsample_flow(flow, ops.cast(weights, "float32"), self.factor)

    def compute_output_shape(self, flow_shape: Shape, weights_shape: Shape) -> Shape:
        return scaled_shape(flow_shape, self.factor)


@keras.saving.register_keras_serializable("flowseg")
class UnitFeatures(layers.Layer):
    """Instance-normalise features, then scale them to unit length at each pixel.

    Each channel of each image gets zero mean and unit variance. The correlation of two pixels is
    then the cosine between them, independent of exposure and of the scale of the features.
    """

    def call(self, x: Tensor) -> Tensor:
        x = ops.cast(x, "float32")
        mean, variance = ops.moments(x, axes=(1, 2), keepdims=True)
        x = (x - mean) * ops.rsqrt(variance + 1e-5)
        return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-5)


@keras.saving.register_keras_serializable("flowseg")
class Warp(layers.Layer):
    """Warp features of the second frame to the first; as in RAFT, flow gets no gradient."""

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, features: Tensor, flow: Tensor) -> Tensor:
        return backward_warp(features, ops.stop_gradient(flow))

    def compute_output_shape(self, features_shape: Shape, flow_shape: Shape) -> Shape:
        return features_shape


@keras.saving.register_keras_serializable("flowseg")
class CostVolume(layers.Layer):
    """Cosines of each pixel with its (2r+1)^2 neighbours in the (warped) second frame."""

    def __init__(self, radius: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.radius = radius

    def call(self, features1: Tensor, features2: Tensor) -> Tensor:
        # `cost_volume` is a mean over channels; the cosine of unit vectors is the sum.
        return cost_volume(features1, features2, self.radius) * features1.shape[-1]

    def compute_output_shape(self, features1_shape: Shape, features2_shape: Shape) -> Shape:
        return (*features1_shape[:-1], (2 * self.radius + 1) ** 2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.radius}


@keras.saving.register_keras_serializable("flowseg")
class SoftArgmax(layers.Layer):
    """Correlation (B, H, W, (2r+1)^2) -> expected displacement (B, H, W, 2), |u|, |v| <= r.

    The correlation is box-filtered (5x5) first, so that windows rather than single pixels are
    matched. Then it is standardised over the displacements: where all correlations are nearly
    equal, as on a real road, the mean of a plain softmax would underestimate the displacement. The
    sharpness is learned.
    """

    def __init__(self, radius: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.radius = radius

    def build(self, input_shape: Shape) -> None:
        self.log_sharpness = self.add_weight(
            name="log_sharpness", shape=(), initializer=initializers.Constant(0.7)
        )

    def call(self, cost: Tensor) -> Tensor:
        window = ops.average_pool(cost, 5, 1, "same", data_format="channels_last")
        window -= ops.mean(window, axis=-1, keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(window), axis=-1, keepdims=True) + 1e-4)
        share = ops.softmax(window / deviation * ops.exp(self.log_sharpness), axis=-1)
        radius = self.radius
        shifts = [
            [dx, dy] for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)
        ]
        return ops.matmul(share, ops.convert_to_tensor(shifts, dtype="float32"))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], 2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.radius}


@keras.saving.register_keras_serializable("flowseg")
class LucasKanade(layers.Layer):
    """Features (B, H, W, C) of the first and the warped second frame -> residual flow (B, H, W, 2).

    One damped Gauss-Newton step on the squared difference of the features over a square window
    (Lucas and Kanade 1981), with the gradients of the mean of both frames. It estimates subpixel
    motion, which a correlation does not. The damping is learned; steps are clipped to `limit`
    pixels in x and y. Pixels where the second frame's features are 0 are excluded: there the warp
    sampled outside the image.
    """

    def __init__(self, window: int, limit: float = 1.5, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.window = window
        self.limit = limit

    def build(self, features1_shape: Shape, features2_shape: Shape) -> None:
        self.log_damping = self.add_weight(
            name="log_damping", shape=(), initializer=initializers.Constant(-4.0)
        )

    def call(self, features1: Tensor, features2: Tensor) -> Tensor:
        features1, features2 = (ops.cast(x, "float32") for x in (features1, features2))
        inside = ops.sum(ops.square(features2), axis=-1, keepdims=True) > 1e-6
        change = ops.where(inside, features2 - features1, 0.0)
        middle = ops.where(inside, (features1 + features2) / 2, features1)
        dx, dy = _central_difference(middle, 2), _central_difference(middle, 1)
        pairs = (dx, dx), (dy, dy), (dx, dy), (dx, change), (dy, change)
        means = ops.concatenate([ops.sum(a * b, axis=-1, keepdims=True) for a, b in pairs], axis=-1)
        for size in ((self.window, 1), (1, self.window)):
            means = ops.average_pool(means, size, 1, "same", data_format="channels_last")
        xx, yy, xy, xt, yt = ops.split(means, 5, axis=-1)
        damping = ops.exp(self.log_damping)
        xx, yy = xx + damping, yy + damping
        determinant = xx * yy - xy * xy
        step = ops.concatenate([xy * yt - yy * xt, xy * xt - xx * yt], axis=-1) / determinant
        return ops.clip(step, -self.limit, self.limit)

    def compute_output_shape(self, features1_shape: Shape, features2_shape: Shape) -> Shape:
        return (*features1_shape[:-1], 2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "window": self.window, "limit": self.limit}


@keras.saving.register_keras_serializable("flowseg")
class MoveFlow(layers.Layer):
    """Compute flow + gate * match + residual, in float32 under any dtype policy."""

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, flow: Tensor, match: Tensor, gate: Tensor, residual: Tensor) -> Tensor:
        return flow + match * ops.cast(gate, "float32") + ops.cast(residual, "float32")

    def compute_output_shape(
        self, flow_shape: Shape, match_shape: Shape, gate_shape: Shape, residual_shape: Shape
    ) -> Shape:
        return flow_shape


@keras.saving.register_keras_serializable("flowseg")
class FillFlow(layers.Layer):
    """Flow (B, H, W, 2) and the logit (B, H, W, 1) that it is correct -> flow with pixels filled.

    Pixels that are occluded in the second frame or leave it have no match. They get the weighted
    mean of the trusted flow in squares around them, whose sides are `reaches` pixels. Each square
    has an eighth of the previous one's weight, so that distant flow matters only if no flow nearby
    is trusted.
    Trust is a sigmoid of the logit with learned sharpness and offset; the logit itself is trained
    only by the confidence loss.
    """

    def __init__(self, reaches: Iterable[int], **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.reaches = tuple(reaches)

    def build(self, flow_shape: Shape, logit_shape: Shape) -> None:
        self.sharpness = self.add_weight(
            name="sharpness", shape=(), initializer=initializers.Constant(2.0)
        )
        self.offset = self.add_weight(name="offset_bias", shape=(), initializer="zeros")

    def call(self, flow: Tensor, logit: Tensor) -> Tensor:
        logit = ops.stop_gradient(ops.cast(logit, "float32"))
        trust = ops.sigmoid(logit * self.sharpness + self.offset)
        # Where no pixel is trusted, this gives the plain mean.
        weight = trust + 1e-7
        trusted = ops.concatenate([flow * weight, weight], axis=-1)
        means = [
            ops.average_pool(trusted, reach, 1, "same", data_format="channels_last") / 8**i
            for i, reach in enumerate(self.reaches)
        ]
        total = sum(means)
        around = total[..., :2] / total[..., 2:]
        return trust * flow + (1 - trust) * around

    def compute_output_shape(self, flow_shape: Shape, logit_shape: Shape) -> Shape:
        return flow_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reaches": self.reaches}


@keras.saving.register_keras_serializable("flowseg")
class StartFlow(layers.Layer):
    """Zero flow of the same size as the features."""

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, features: Tensor) -> Tensor:
        return ops.cast(ops.zeros_like(features[..., :2]), "float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], 2)


def _central_difference(x, axis):
    """Central differences along `axis`, with the border replicated."""
    count = ops.shape(x)[axis]

    def part(start, stop):
        # `slice`, not indexing: see `flow_ops.cost_volume`.
        shape = [stop - start if i == axis else n for i, n in enumerate(ops.shape(x))]
        return ops.slice(x, [start if i == axis else 0 for i in range(4)], shape)

    # Not a symmetric pad, which takes TFLite ten times as long.
    after = ops.concatenate([part(1, count), part(count - 1, count)], axis=axis)
    before = ops.concatenate([part(0, 1), part(0, count - 1)], axis=axis)
    return (after - before) / 2
