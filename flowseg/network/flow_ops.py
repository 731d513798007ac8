"""Flow operators in keras.ops, for any Keras backend: warp, cost volume, upsampling, resizing.

Flow is (B, H, W, 2), (u, v) = (x right, y down), in pixels of its own resolution, image1 to
image2. Heights and widths may be unknown when the graph is built.
"""

import keras
import numpy as np
from keras import ops

# A symbolic tensor, or a tensor of the backend.
Tensor = keras.KerasTensor


def pixel_grid(height: int | Tensor, width: int | Tensor) -> Tensor:
    """Return the (x, y) of every pixel: (1, height, width, 2) float32."""
    x = ops.broadcast_to(ops.arange(width, dtype="float32")[None, :], (height, width))
    y = ops.broadcast_to(ops.arange(height, dtype="float32")[:, None], (height, width))
    return ops.stack([x, y], axis=-1)[None]


def backward_warp(image: Tensor, flow: Tensor) -> Tensor:
    """Sample `image` at p + flow(p), bilinear, 0 outside: image2 warped by flow resembles image1.

    A sample between the border and one pixel beyond fades to 0 (every missing neighbour counts
    as 0). The gather is one flat `take` per corner: it is the fastest form, and needs only built-in
    TFLite operators.

    Args:
        image: (B, H, W, C) float, an image or features of the second frame.
        flow: (B, H, W, 2) in pixels of `image`.

    Returns:
        (B, H, W, C).
    """
    batch, height, width, channels = ops.shape(image)
    flow = ops.cast(flow, "float32")
    x, y = ops.unstack(flow + pixel_grid(height, width), 2, axis=-1)
    # One pixel or more beyond the border, samples are 0. Clipping keeps the indices within int32.
    x = ops.clip(x, -1.0, ops.cast(width, "float32"))
    y = ops.clip(y, -1.0, ops.cast(height, "float32"))
    left, top = ops.floor(x), ops.floor(y)
    to_right, down = (ops.cast(share, image.dtype)[..., None] for share in (x - left, y - top))
    left, top = ops.cast(left, "int32"), ops.cast(top, "int32")
    # Zero padding for pixels outside: one before and two after, because `left + 1` is read too.
    row, rows = width + 3, height + 3
    pixels = ops.pad(image, ((0, 0), (1, 2), (1, 2), (0, 0)))
    pixels = ops.reshape(pixels, (-1, channels))
    first = ops.reshape(ops.arange(batch, dtype="int32") * (rows * row), (-1, 1, 1))
    corner = first + (top + 1) * row + left + 1
    # A NaN flow can become any integer; it must not read outside the array.
    corner = ops.clip(corner, 0, batch * rows * row - row - 2)

    def between(start):
        pixel, after = (ops.take(pixels, corner + offset, axis=0) for offset in (start, start + 1))
        return pixel + (after - pixel) * to_right

    upper, lower = between(0), between(row)
    return upper + (lower - upper) * down


def cost_volume(features1: Tensor, features2: Tensor, radius: int) -> Tensor:
    """Correlate each pixel with its neighbourhood in the second frame.

    Entry (2r+1) * (dy + r) + (dx + r) at p is the mean over channels of features1(p) *
    features2(p + (dx, dy)), where features2 is 0 outside (FlowNet's correlation layer with patches
    of one pixel; Dosovitskiy et al. 2015). It is computed as shifted products, because
    `extract_patches` is 190 times slower.

    Args:
        features1: (B, H, W, C).
        features2: (B, H, W, C), often already warped.
        radius: largest displacement r, in pixels.

    Returns:
        (B, H, W, (2r+1)^2), dy outer, dx inner.
    """
    shape = ops.shape(features1)
    padded = ops.pad(features2, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    shifts = range(2 * radius + 1)
    # `slice`, not indexing: the gradient of a strided slice is five times slower on CPU.
    return ops.stack(
        [
            ops.mean(features1 * ops.slice(padded, (0, dy, dx, 0), shape), axis=-1)
            for dy in shifts
            for dx in shifts
        ],
        axis=-1,
    )


def upsample(x: Tensor, factor: int) -> Tensor:
    """Upsample bilinearly by an integer factor, with the pixel centres of `ops.image.resize`.

    Keras 3.15's `ops.image.resize` evaluates `size <= 0` and so fails in a graph whose sizes are
    known only at run time. For such graphs the same sums are computed explicitly, axis by axis.

    Args:
        x: (B, H, W, C).
        factor: integer.

    Returns:
        (B, factor * H, factor * W, C).
    """
    _, height, width, channels = ops.shape(x)
    size = (height * factor, width * factor)
    if all(isinstance(n, int) for n in size):
        return ops.image.resize(x, size, "bilinear", data_format="channels_last")
    for axis in (1, 2):
        first, last = (x[:, :1], x[:, -1:]) if axis == 1 else (x[:, :, :1], x[:, :, -1:])
        inner = (x[:, 1:], x[:, :-1]) if axis == 1 else (x[:, :, 1:], x[:, :, :-1])
        following = ops.concatenate([inner[0], last], axis=axis)
        previous = ops.concatenate([first, inner[1]], axis=axis)
        # Fine pixel k of a coarse pixel is (k + 1/2) / factor - 1/2 coarse pixels from its centre.
        places = [(k + 0.5) / factor - 0.5 for k in range(factor)]
        fine = [
            x * (1 - abs(place)) + (following if place > 0 else previous) * abs(place)
            for place in places
        ]
        shape = (-1, size[0], width, channels) if axis == 1 else (-1, *size, channels)
        x = ops.reshape(ops.stack(fine, axis=axis + 1), shape)
    return x


def resize_flow(flow: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Resize dense flow bilinearly and scale its vectors accordingly.

    Args:
        flow: (B, H, W, 2), known at every pixel. (Sparse ground truth must not be interpolated.)
        height: rows of the result.
        width: columns of the result.

    Returns:
        (B, height, width, 2) in pixels of the new resolution.
    """
    old_height, old_width = ops.shape(flow)[1:3]
    scale_x = ops.cast(width, "float32") / ops.cast(old_width, "float32")
    scale_y = ops.cast(height, "float32") / ops.cast(old_height, "float32")
    resized = ops.image.resize(flow, (height, width), "bilinear", data_format="channels_last")
    return resized * ops.cast(ops.stack([scale_x, scale_y]), flow.dtype)


def upsample_flow(flow: Tensor, weights: Tensor, factor: int) -> Tensor:
    """Learned upsampling: each fine vector is a convex combination of its 3x3 coarse neighbours.

    (RAFT, Teed and Deng 2020.) Neighbours beyond the border repeat the border. The softmax of the
    weights is written out, with constant kernels that gather and sum: a softmax and a product of
    many tiny matrices take TFLite more than twice as long.

    Args:
        flow: (B, H, W, 2) in coarse pixels.
        weights: (B, H, W, factor^2 * 9) logits of the weights: fine row, fine column, neighbour.
            Logits are clipped to at most 80 below the largest at the same coarse pixel.
        factor: integer.

    Returns:
        (B, factor * H, factor * W, 2) in fine pixels.
    """
    batch, height, width, _ = ops.shape(flow)
    gather, add, total = (ops.convert_to_tensor(x, flow.dtype) for x in _mixing(factor))
    padded = ops.concatenate([flow[:, :1], flow, flow[:, -1:]], axis=1)
    padded = ops.concatenate([padded[:, :, :1], padded, padded[:, :, -1:]], axis=2)
    neighbours = ops.conv(padded, gather, padding="valid", data_format="channels_last")
    # One maximum for all fine pixels of a coarse one: a maximum of each nine logits would take as
    # long as avoiding the softmax saves.
    largest = ops.stop_gradient(ops.max(weights, axis=-1, keepdims=True))
    shares = ops.exp(ops.maximum(weights - largest, -80))
    mixed = ops.matmul(ops.concatenate([shares, shares], axis=-1) * neighbours, add)
    fine = mixed / ops.matmul(shares, total) * factor
    fine = ops.reshape(fine, (batch, height, width, factor, factor * 2))
    fine = ops.transpose(fine, (0, 1, 3, 2, 4))
    return ops.reshape(fine, (batch, height * factor, width * factor, 2))


def _mixing(factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernels of `upsample_flow`, which consist of zeros and ones.

    Returns:
        gather: (3, 3, 2, 2 * parts * 9), u's neighbours for each fine pixel (part), then v's.
        add: (2 * parts * 9, parts * 2), sums them over the neighbours, u next to v.
        total: (parts * 9, parts * 2), sums the shares themselves in the same way.
    """
    parts = factor * factor
    gather = np.zeros((3, 3, 2, 2, parts, 9))
    add = np.zeros((2, parts, 9, parts, 2))
    for axis in range(2):
        for neighbour in range(9):
            gather[neighbour // 3, neighbour % 3, axis, axis, :, neighbour] = 1
        for part in range(parts):
            add[axis, part, :, part, axis] = 1
    total = add.sum(0).reshape(parts * 9, parts * 2)
    return gather.reshape(3, 3, 2, -1), add.reshape(2 * parts * 9, parts * 2), total
