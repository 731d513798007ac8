"""Keras layers that start flow coarser than the features: average cells, choose among flows."""

from typing import Any

import keras
from keras import initializers, layers, ops

from flowseg.network.flow_ops import Tensor, backward_warp
from flowseg.network.layers import Shape


@keras.saving.register_keras_serializable("flowseg")
class AverageCells(layers.Layer):
    """Average over cells of `size` x `size` pixels; the last ones are padded by replication.

    (B, H, W, C) -> (B, ceil(H / size), ceil(W / size), C), also for sizes known only at run time.
    """

    def __init__(self, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size

    def call(self, x: Tensor) -> Tensor:
        for axis in (1, 2):
            count = ops.shape(x)[axis]
            padded = (count + self.size - 1) // self.size * self.size
            if isinstance(count, int) and padded == count:
                continue
            index = ops.minimum(ops.arange(padded, dtype="int32"), count - 1)
            x = ops.take(x, index, axis=axis)
        return ops.average_pool(x, self.size, self.size, data_format="channels_last")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (batch, *(n and -(-n // self.size) for n in (height, width)), channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("flowseg")
class CropEnd(layers.Layer):
    """Crop rows and columns at the end of `x` to the size of `like`: undoes `AverageCells`."""

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, x: Tensor, like: Tensor) -> Tensor:
        known = tuple(like.shape[1:3])
        if None not in known and known == tuple(x.shape[1:3]):
            return x
        height, width = ops.shape(like)[1:3]
        return x[:, :height, :width]

    def compute_output_shape(self, x_shape: Shape, like_shape: Shape) -> Shape:
        return (x_shape[0], *like_shape[1:3], x_shape[3])


@keras.saving.register_keras_serializable("flowseg")
class ChooseFlow(layers.Layer):
    """Choose among flows at each pixel, by how well each matches the features of the two frames.

    A softmax over the mean cosines of a square window, with learned sharpness, and the logits of
    `preference`, (B, H, W, number of flows), gives the share of each flow.

    Args:
        window: side of the square, in pixels.
    """

    def __init__(self, window: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.window = window

    def build(
        self,
        target_shape: Shape,
        source_shape: Shape,
        flows_shape: list[Shape],
        preference_shape: Shape,
    ) -> None:
        self.log_sharpness = self.add_weight(
            name="log_sharpness", shape=(), initializer=initializers.Constant(2.5)
        )

    def call(
        self, target: Tensor, source: Tensor, flows: list[Tensor], preference: Tensor
    ) -> Tensor:
        cosines = [
            ops.sum(target * backward_warp(source, ops.stop_gradient(flow)), axis=-1, keepdims=True)
            for flow in flows
        ]
        cosines = ops.concatenate(cosines, axis=-1)
        cosines = ops.average_pool(cosines, self.window, 1, "same", data_format="channels_last")
        logits = cosines * ops.exp(self.log_sharpness) + ops.cast(preference, "float32")
        shares = ops.split(ops.softmax(logits, axis=-1), len(flows), axis=-1)
        return sum(share * flow for share, flow in zip(shares, flows, strict=True))

    def compute_output_shape(
        self,
        target_shape: Shape,
        source_shape: Shape,
        flows_shape: list[Shape],
        preference_shape: Shape,
    ) -> Shape:
        return flows_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "window": self.window}
