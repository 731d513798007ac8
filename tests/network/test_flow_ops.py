"""flow_ops against values computed by hand and by NumPy, and in graphs of unknown sizes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from flowseg.network import flow_ops


def warp(image, flow):
    """Apply backward_warp to one (H, W, C) image."""
    image, flow = np.float32(image)[None], np.float32(flow)[None]
    return ops.convert_to_numpy(flow_ops.backward_warp(image, flow))[0]


def constant_flow(height, width, u, v):
    return np.broadcast_to(np.float32([u, v]), (height, width, 2))


def test_pixel_grid():
    grid = ops.convert_to_numpy(flow_ops.pixel_grid(2, 3))
    assert grid.shape == (1, 2, 3, 2)
    assert grid[0, 1, 2].tolist() == [2, 1] and grid[0, 0, 1].tolist() == [1, 0]


def test_warp_by_zero_flow():
    image = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    np.testing.assert_array_equal(warp(image, np.zeros((5, 7, 2))), image)


def test_warp_by_whole_pixels():
    image = np.random.default_rng(0).normal(size=(5, 7, 1)).astype(np.float32)
    # Pixel (x, y) of the result is pixel (x + 2, y - 1) of the image, 0 outside.
    expected = np.zeros_like(image)
    expected[1:, :5] = image[:4, 2:]
    np.testing.assert_array_equal(warp(image, constant_flow(5, 7, 2, -1)), expected)


def test_warp_fades_at_the_border():
    image = [[[10.0], [20.0], [30.0]], [[40.0], [50.0], [60.0]]]
    # A quarter pixel to the right: 3/4 of itself and 1/4 of the right neighbour, 0 outside.
    right = warp(image, constant_flow(2, 3, 0.25, 0))[..., 0]
    np.testing.assert_allclose(right, [[12.5, 22.5, 22.5], [42.5, 52.5, 45]], atol=1e-5)
    # Half a pixel up: row 0 keeps half of itself, row 1 is the mean of both.
    up = warp(image, constant_flow(2, 3, 0, -0.5))[..., 0]
    np.testing.assert_allclose(up, [[5, 10, 15], [25, 35, 45]], atol=1e-5)


@pytest.mark.parametrize("far", [(-7, 0), (0, 2), (7, 0), (-9, -9), (1e9, 0), (0, -1e12)])
def test_warp_is_0_outside(far):
    # The image is 7 wide and 2 high: all samples are outside.
    assert not warp(np.ones((2, 7, 1)), constant_flow(2, 7, *far)).any()


def oracle_warp(image, flow):
    """Sum over all pixels (i, j) with weight max(0, 1 - |x' - i|) max(0, 1 - |y' - j|)."""
    height, width = image.shape[:2]
    warped = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            columns = np.maximum(0, 1 - np.abs(x + flow[y, x, 0] - np.arange(width)))
            rows = np.maximum(0, 1 - np.abs(y + flow[y, x, 1] - np.arange(height)))
            warped[y, x] = np.einsum("j,i,jic->c", rows, columns, image)
    return warped


def test_warp_by_nonfinite_flow():
    # Only the affected pixels become NaN: a diverging training must not fail by an invalid index.
    image, flow = np.ones((4, 5, 2), np.float32), np.zeros((4, 5, 2), np.float32)
    flow[1, 2], flow[3, 4] = np.nan, (np.inf, -np.inf)
    warped = warp(image, flow)
    finite = np.ones((4, 5), bool)
    finite[1, 2] = finite[3, 4] = False
    assert (warped[finite] == 1).all() and np.isnan(warped[1, 2]).all()


def test_warp_against_numpy():
    rng = np.random.default_rng(1)
    image, flow = rng.normal(size=(6, 9, 2)), rng.normal(scale=3, size=(6, 9, 2))
    expected = oracle_warp(image, flow)
    assert (expected == 0).any() and (expected != 0).mean() > 0.5  # Some pixels leave the image.
    np.testing.assert_allclose(warp(image, flow), expected, atol=1e-5)


def test_warp_of_batch():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
    flows = rng.normal(scale=2, size=(3, 4, 5, 2)).astype(np.float32)
    together = ops.convert_to_numpy(flow_ops.backward_warp(images, flows))
    single = np.stack([warp(i, f) for i, f in zip(images, flows, strict=True)])
    np.testing.assert_allclose(together, single, atol=1e-6)


def test_warp_gradients():
    # On the plane 3 x + 5 y, one pixel of flow right adds 3, one down adds 5; a sample offset by a
    # quarter pixel weights its four pixels by 3/4 x 3/4, 3/4 x 1/4, ...
    y, x = np.mgrid[:4, :4]
    image = tf.constant((3.0 * x + 5.0 * y)[None, ..., None], tf.float32)
    flow = tf.constant(constant_flow(4, 4, 0.25, 0.25)[None])
    with tf.GradientTape() as tape:
        tape.watch([image, flow])
        sample = flow_ops.backward_warp(image, flow)[0, 1, 1, 0]
    to_image, to_flow = tape.gradient(sample, [image, flow])
    expected = np.zeros((4, 4, 2))
    expected[1, 1] = 3, 5
    np.testing.assert_allclose(to_flow[0], expected, atol=1e-5)
    expected = np.zeros((4, 4))
    expected[1:3, 1:3] = np.float64([[9, 3], [3, 1]]) / 16
    np.testing.assert_allclose(to_image[0, ..., 0], expected, atol=1e-6)


def test_cost_volume_by_hand():
    # One row of two pixels, two channels; radius 1.
    first = np.float32([[[[1, 3], [5, 0]]]])
    second = np.float32([[[[2, 4], [6, 10]]]])
    cost = ops.convert_to_numpy(flow_ops.cost_volume(first, second, 1))[0, 0]
    # Left pixel: itself (1*2 + 3*4) / 2 = 7, right neighbour (1*6 + 3*10) / 2 = 18.
    assert cost[0].tolist() == [0, 0, 0, 0, 7, 18, 0, 0, 0]
    # Right pixel: left neighbour 5*2 / 2 = 5, itself 5*6 / 2 = 15.
    assert cost[1].tolist() == [0, 0, 0, 5, 15, 0, 0, 0, 0]


@pytest.mark.parametrize("radius", [1, 2])
def test_cost_volume_order(radius):
    # The second frame's only bright pixel is at (dx, dy) from pixel (3, 2) of the first.
    first = np.ones((1, 5, 7, 3), np.float32)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            second = np.zeros_like(first)
            second[0, 2 + dy, 3 + dx] = 1
            cost = ops.convert_to_numpy(flow_ops.cost_volume(first, second, radius))[0, 2, 3]
            expected = np.zeros((2 * radius + 1, 2 * radius + 1))
            expected[dy + radius, dx + radius] = 1
            np.testing.assert_allclose(cost, expected.ravel(), atol=1e-6)


def oracle_upsample(x, factor):
    """Interpolate bilinearly at the centres of the fine pixels; the border is repeated."""
    for axis in (1, 2):
        n = x.shape[axis]
        position = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.floor(position).astype(int)
        shape = [-1 if i == axis else 1 for i in range(4)]
        share = (position - low).reshape(shape)
        high = np.minimum(low + 1, n - 1)
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


@pytest.mark.parametrize("factor", [2, 3, 4, 16])
def test_upsample(factor):
    calls = 0

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def dynamic(x):
        nonlocal calls
        calls += 1
        return flow_ops.upsample(x, factor)

    rng = np.random.default_rng(0)
    for shape in ((2, 3, 5, 3), (1, 4, 2, 3), (1, 1, 6, 3), (1, 5, 1, 3), (3, 1, 1, 3)):
        x = rng.normal(size=shape).astype(np.float32)
        expected = oracle_upsample(x, factor)
        static = ops.convert_to_numpy(flow_ops.upsample(x, factor))
        size = (shape[1] * factor, shape[2] * factor)
        resized = keras.ops.image.resize(x, size, "bilinear", data_format="channels_last")
        np.testing.assert_allclose(static, ops.convert_to_numpy(resized), atol=1e-6)
        np.testing.assert_allclose(static, expected, atol=1e-5)
        np.testing.assert_allclose(dynamic(x), expected, atol=1e-5)
    assert calls == 1  # A single trace: the sizes were unknown to the graph.


def test_resize_flow_scales_each_axis():
    flow = np.broadcast_to(np.float32([6, -5]), (2, 4, 10, 2))
    resized = ops.convert_to_numpy(flow_ops.resize_flow(flow, 12, 5))
    # Width 10 -> 5 halves u, height 4 -> 12 triples v.
    np.testing.assert_allclose(resized, np.broadcast_to([3.0, -15.0], (2, 12, 5, 2)), atol=1e-5)


def test_resize_flow_interpolates():
    u = np.float32([[[[0, 1], [4, 1]]]])
    resized = ops.convert_to_numpy(flow_ops.resize_flow(u, 1, 4))
    # Centres of the fine pixels are at -1/4, 1/4, 3/4, 5/4: u = 0, 1, 3, 4, doubled.
    np.testing.assert_allclose(resized[0, 0], [[0, 1], [2, 1], [6, 1], [8, 1]], atol=1e-5)


def upsample_flow(flow, logits, factor):
    logits = np.float32(logits).reshape(*flow.shape[:3], factor * factor * 9)
    return ops.convert_to_numpy(flow_ops.upsample_flow(np.float32(flow), logits, factor))


@pytest.mark.parametrize("factor", [2, 4])
def test_learned_upsampling_of_centre(factor):
    flow = np.random.default_rng(0).normal(size=(2, 3, 5, 2))
    logits = np.zeros((2, 3, 5, factor, factor, 9))
    logits[..., 4] = 50
    nearest = flow.repeat(factor, 1).repeat(factor, 2)
    np.testing.assert_allclose(upsample_flow(flow, logits, factor), nearest * factor, atol=1e-5)


def test_learned_upsampling_of_mean():
    flow = np.random.default_rng(0).normal(size=(2, 3, 5, 2))
    padded = np.pad(flow, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    expected = windows.mean((-2, -1)).repeat(2, 1).repeat(2, 2) * 2
    # Softmax is invariant to a constant offset.
    fine = upsample_flow(flow, np.full((2, 3, 5, 2, 2, 9), 7.0), 2)
    np.testing.assert_allclose(fine, expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 10])
def test_learned_upsampling_equals_softmax(size):
    rng = np.random.default_rng(0)
    flow, logits = rng.normal(size=(2, 3, 5, 2)), size * rng.normal(size=(2, 3, 5, 2, 2, 9))
    # Far from zero, as in trained networks.
    logits -= 100
    padded = np.pad(flow, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    fine = np.einsum("bhwijn,bhwcn->bhiwjc", shares, windows.reshape(2, 3, 5, 2, 9)) * 2
    result = upsample_flow(flow, logits, 2)
    np.testing.assert_allclose(result, fine.reshape(2, 6, 10, 2), atol=1e-4)


def test_learned_upsampling_of_extreme_logits():
    # All logits of some fine pixels are far below those of another, and underflow in float32.
    flow = np.random.default_rng(0).normal(size=(1, 3, 5, 2))
    logits = np.zeros((1, 3, 5, 2, 2, 9))
    logits[..., 0, 0, :] = 1e4
    result = upsample_flow(flow, logits, 2)
    assert np.isfinite(result).all() and np.abs(result).max() <= 2 * np.abs(flow).max() + 1e-4


def test_learned_upsampling_order():
    # Each of the four fine pixels selects a different neighbour: row by row those at (dx, dy) =
    # (-1, 0), (0, -1), (1, 1), (0, 0); neighbours are numbered 3 (dy + 1) + (dx + 1).
    flow = np.random.default_rng(0).normal(size=(1, 4, 6, 2))
    logits = np.zeros((1, 4, 6, 2, 2, 9))
    for fine, (dx, dy) in {
        (0, 0): (-1, 0),
        (0, 1): (0, -1),
        (1, 0): (1, 1),
        (1, 1): (0, 0),
    }.items():
        logits[..., fine[0], fine[1], 3 * (dy + 1) + dx + 1] = 50
    result = upsample_flow(flow, logits, 2)
    for y, x in ((1, 1), (2, 4), (1, 3)):
        square = result[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] / 2
        np.testing.assert_allclose(square[0, 0], flow[0, y, x - 1], atol=1e-5)
        np.testing.assert_allclose(square[0, 1], flow[0, y - 1, x], atol=1e-5)
        np.testing.assert_allclose(square[1, 0], flow[0, y + 1, x + 1], atol=1e-5)
        np.testing.assert_allclose(square[1, 1], flow[0, y, x], atol=1e-5)


def test_unknown_sizes():
    size = [None, None, None]

    @tf.function(
        input_signature=[
            tf.TensorSpec([*size, 4]), tf.TensorSpec([*size, 2]), tf.TensorSpec([*size, 36]),
        ]
    )  # fmt: skip
    def dynamic(features, flow, logits):
        warped = flow_ops.backward_warp(features, flow)
        cost = flow_ops.cost_volume(features, warped, 2)
        return warped, cost, flow_ops.upsample_flow(flow, logits, 2)

    rng = np.random.default_rng(0)
    for shape in ((1, 3, 5), (2, 4, 3)):
        features, flow, logits = (
            rng.normal(size=(*shape, channels)).astype(np.float32) for channels in (4, 2, 36)
        )
        warped = flow_ops.backward_warp(features, flow)
        static = (
            warped,
            flow_ops.cost_volume(features, warped, 2),
            flow_ops.upsample_flow(flow, logits, 2),
        )
        for result, expected in zip(dynamic(features, flow, logits), static, strict=True):
            np.testing.assert_allclose(result, expected, atol=1e-5)
