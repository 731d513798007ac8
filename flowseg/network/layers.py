"""Defines general Keras layers: upsampling, feature exchange, padding and cropping.

All layers accept heights and widths that are known only at run time. Layers specific to flow are in
`flow_layers`.
"""

from typing import Any

import keras
from keras import layers, ops

from flowseg.network.flow_ops import Tensor, upsample

# (B, H, W, C); None where a size is known only at run time.
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("flowseg")
class Upsample(layers.Layer):
    """Upsample (B, H, W, C) -> (B, factor H, factor W, C) bilinearly; sizes may be unknown."""

    def __init__(self, factor: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x: Tensor) -> Tensor:
        return upsample(x, self.factor)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return scaled_shape(input_shape, self.factor)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("flowseg")
class HandOver(layers.Conv2D):
    """Project the other stream's features (B, H, W, C) to `filters` channels at each pixel.

    The kernel is initialised with zeros, so that training starts as if there were no exchange. No
    gradient flows back: each stream's features are trained only by its own task.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 1,
        kernel_initializer: str = "zeros",
        **kwargs: Any,
    ):
        super().__init__(filters, kernel_size, kernel_initializer=kernel_initializer, **kwargs)

    def call(self, features: Tensor) -> Tensor:
        return super().call(ops.stop_gradient(features))


@keras.saving.register_keras_serializable("flowseg")
class PadToMultiple(layers.Layer):
    """Pad height and width to multiples of `multiple`, equally on both sides, by replication.

    An odd row or column is added at the bottom or right. Padding only the bottom would put all of
    it next to the road, where motion in a driving scene is largest.
    """

    def __init__(self, multiple: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, image: Tensor) -> Tensor:
        for axis in (1, 2):
            size = ops.shape(image)[axis]
            padded = (size + self.multiple - 1) // self.multiple * self.multiple
            if isinstance(size, int) and padded == size:
                continue
            index = ops.arange(padded, dtype="int32") - (padded - size) // 2
            image = ops.take(image, ops.clip(index, 0, size - 1), axis=axis)
        return image

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        sizes = (n and -(-n // self.multiple) * self.multiple for n in (height, width))
        return (batch, *sizes, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable("flowseg")
class CropLike(layers.Layer):
    """Crop the centre of `x` to the size of `image`: undoes `PadToMultiple`."""

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def call(self, x: Tensor, image: Tensor) -> Tensor:
        known = tuple(image.shape[1:3])
        if None not in known and known == tuple(x.shape[1:3]):
            return x  # Slicing everything would cost time: the gradient of a slice copies it.
        batch, height, width, channels = (*ops.shape(image)[:3], x.shape[-1])
        top, left = ((a - b) // 2 for a, b in zip(ops.shape(x)[1:3], (height, width), strict=True))
        # `slice`, not indexing: see `flow_ops.cost_volume`.
        return ops.slice(x, (0, top, left, 0), (batch, height, width, channels))

    def compute_output_shape(self, x_shape: Shape, image_shape: Shape) -> Shape:
        return (x_shape[0], *image_shape[1:3], x_shape[3])


def scaled_shape(shape: Shape, factor: int) -> Shape:
    """Multiply the height and width of (B, H, W, C) by `factor`; None stays None."""
    batch, height, width, channels = shape
    sizes = (None if n is None else n * factor for n in (height, width))
    return (batch, *sizes, channels)
