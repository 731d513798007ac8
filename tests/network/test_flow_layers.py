"""The layers that estimate flow, each against values computed from its definition."""

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from data_prep.scenes import store
from flowseg.data.flow_io import read_flow
from flowseg.media.frames import read_image
from flowseg.network.backbones import build_encoder
from flowseg.network.flow_layers import (
    FillFlow,
    LucasKanade,
    SoftArgmax,
    UnitFeatures,
    UpsampleFlow,
    Warp,
)


def test_unit_features():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 7, 16)).astype("float32")
    units = ops.convert_to_numpy(UnitFeatures()(x))
    np.testing.assert_allclose(np.linalg.norm(units, axis=-1), 1, atol=1e-3)
    np.testing.assert_allclose(ops.convert_to_numpy(UnitFeatures()(3 * x + 5)), units, atol=1e-3)


def test_soft_argmax():
    # r = 1: entry 3 * (dy + 1) + (dx + 1); the match is at dx = 1, dy = -1: entry 2.
    cost = np.zeros((1, 5, 5, 9), "float32")
    cost[..., 2] = 1
    displacement = ops.convert_to_numpy(SoftArgmax(1)(cost))[0, 2, 2]
    # Standardised, a 1 among eight 0 is 9 / sqrt(8) above the rest.
    other = np.exp(-np.exp(0.7) * 9 / np.sqrt(8))
    np.testing.assert_allclose(
        displacement, np.array([1, -1]) * (1 - other) / (1 + 8 * other), atol=1e-3
    )
    # Weak texture: all correlations are high, the best slightly higher.
    faint = ops.convert_to_numpy(SoftArgmax(1)(0.8 + 0.2 * cost))[0, 2, 2]
    np.testing.assert_allclose(faint, displacement, atol=0.01)
    # Equal correlations give no motion.
    assert np.abs(ops.convert_to_numpy(SoftArgmax(1)(0 * cost + 0.8))).max() < 1e-5


def test_lucas_kanade_on_planes():
    # Feature 0 rises by 0.5 per pixel to the right, feature 1 by 0.25 per pixel down. Moved by
    # (u, v), the second frame is lower by 0.5 u and 0.25 v, and the step is
    # u * 0.5^2 / (0.5^2 + damping), and v accordingly.
    x, y = np.meshgrid(np.arange(40.0), np.arange(30.0))
    u, v = 0.8, -0.6
    first = np.stack([0.5 * x, 0.25 * y], -1)[None] + 100
    second = np.stack([0.5 * (x - u), 0.25 * (y - v)], -1)[None] + 100
    layer = LucasKanade(5)
    step = ops.convert_to_numpy(layer(first, second))[0]
    damping = np.exp(-4.0)
    inside = step[4:-4, 4:-4].reshape(-1, 2)
    expected = [u * 0.25 / (0.25 + damping), v * 0.0625 / (0.0625 + damping)]
    np.testing.assert_allclose(inside, np.broadcast_to(expected, inside.shape), rtol=1e-3)
    layer.log_damping.assign(-20.0)
    inside = ops.convert_to_numpy(layer(first, second))[0, 4:-4, 4:-4].reshape(-1, 2)
    np.testing.assert_allclose(inside, np.broadcast_to([u, v], inside.shape), rtol=1e-3)


def test_lucas_kanade_iterations():
    # Waves of 9 to 16 pixels, shifted exactly; each step starts from the previous residual.
    x, y = np.meshgrid(np.arange(64.0), np.arange(48.0))

    def waves(x, y):
        return np.stack([np.sin(x / 2), np.cos(y / 1.5), np.sin((x + y) / 2.5)], -1)[None]

    flow, truth = np.zeros(2), np.array([0.9, -0.7])
    layer = LucasKanade(7)
    for limit in (0.25, 0.02):
        rest = truth - flow
        flow = flow + ops.convert_to_numpy(layer(waves(x, y), waves(x - rest[0], y - rest[1])))[
            0, 8:-8, 8:-8
        ].mean((0, 1))
        assert np.linalg.norm(truth - flow) < limit
    assert np.abs(ops.convert_to_numpy(layer(waves(x, y), waves(x, y)))).max() == 0


def test_lucas_kanade_excludes_pixels_outside():
    rng = np.random.default_rng(0)
    first = UnitFeatures()(rng.normal(size=(1, 20, 30, 6)).astype("float32"))
    first = ops.convert_to_numpy(first)
    second = first.copy()
    second[:, :, 20:] = 0  # Outside the second frame; everything else is static.
    assert np.abs(ops.convert_to_numpy(LucasKanade(5)(first, second))).max() == 0


def test_lucas_kanade_limit():
    x = np.broadcast_to(np.arange(20.0)[None, :, None], (1, 20, 20, 1)) + 100
    step = ops.convert_to_numpy(LucasKanade(3, limit=1.5)(x, x - 9))[0, 5:-5, 5:-5]
    np.testing.assert_allclose(step[..., 0], 1.5)
    np.testing.assert_allclose(step[..., 1], 0, atol=1e-6)


def dis_flow(pair, truth):
    """Flow by OpenCV's DIS, stopped at a quarter of the resolution."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(2)
    return dis.calc(*(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in pair), None)


def offset_flow(pair, truth):
    return truth[..., :2] + np.float32([1.2, -0.8])


def step_errors(folder, name, start):
    """Return the AEPE of `start`'s flow at half resolution before and after one step there.

    The step is untrained: it uses random projections of ImageNet features.
    """
    pair = [read_image(folder / "image_2" / f"{name}_1{i}.png") for i in (0, 1)]
    truth = read_flow(folder / "flow_occ" / f"{name}_10.png")
    height, width = (n // 32 * 32 for n in truth.shape[:2])
    pair, truth = [x[:height, :width] for x in pair], truth[:height, :width]
    half = cv2.resize(start(pair, truth), (width // 2, height // 2))[None] / 2
    keras.utils.set_random_seed(1)
    encoder = build_encoder("efficientnet_lite0", "imagenet")
    features = keras.layers.Conv2D(12, 1)(encoder.output["stride2"])
    network = keras.Model(encoder.input, UnitFeatures()(features))
    first, second = (network(np.float32(x)[None]) for x in pair)
    moved = half + LucasKanade(9)(first, Warp()(second, half))
    valid = truth[..., 2] > 0
    return [
        np.linalg.norm(np.asarray(UpsampleFlow(2)(x))[0] - truth[..., :2], axis=-1)[valid].mean()
        for x in (half, moved)
    ]


@pytest.mark.parametrize("name", ["000002", "000003"])
def test_untrained_step_on_real_roads(name, samples):
    folder = samples / "kitti/data_scene_flow/training"
    before, after = step_errors(folder, name, dis_flow)
    assert after < 0.97 * before


def test_untrained_step_on_synthetic_roads(tmp_path):
    store.write_pairs(tmp_path, "street", 2, seed=5, height=256, width=832)
    for name in ("000000", "000001"):
        folder = tmp_path / "data_scene_flow/training"
        before, after = step_errors(folder, name, offset_flow)
        assert after < 0.7 * before


def test_fill_flow():
    fill, certain = FillFlow((3, 9)), 20.0
    flow = np.random.default_rng(0).normal(size=(1, 21, 21, 2)).astype("float32")
    logit = np.full((1, 21, 21, 1), certain, "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(fill(flow, logit)), flow, atol=1e-5)
    # Only two vectors are trusted: (4, 8) next to pixel (10, 10), and (0, 16) three pixels further.
    # The mean over 3x3 contains the first, that over 9x9, weighted by an eighth, both:
    # first (1/9 + 1/648) + second 1/648, over 74/648, is (73 first + second) / 74.
    flow[:], logit[:] = 50, -certain
    for column, vector in ((11, (4, 8)), (14, (0, 16))):
        flow[0, 10, column], logit[0, 10, column] = vector, certain
    filled = ops.convert_to_numpy(fill(flow, logit))[0]
    np.testing.assert_allclose(filled[10, 10], [4 * 73 / 74, (8 * 73 + 16) / 74], rtol=2e-3)
    # Where the small square contains neither, the large one decides; trusted flow is unchanged.
    np.testing.assert_allclose(filled[7, 10], [2, 12], rtol=5e-3)
    np.testing.assert_allclose(filled[10, 14], [0, 16], atol=1e-5)
    # Where nothing is trusted, the plain mean: uniform motion is unchanged.
    flow[:], logit[:] = (10, -3), -certain
    np.testing.assert_allclose(ops.convert_to_numpy(fill(flow, logit)), flow, rtol=1e-3)


def test_fill_flow_gradients():
    rng = np.random.default_rng(0)
    flow, logit = (tf.constant(rng.normal(size=(1, 9, 9, n)), tf.float32) for n in (2, 1))
    fill = FillFlow((3, 7))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((flow, logit))
        loss = tf.reduce_sum(fill(flow, logit) ** 2)
    assert tape.gradient(loss, logit) is None
    for variable in (flow, *(weight.value for weight in fill.trainable_weights)):
        assert np.abs(tape.gradient(loss, variable)).max() > 1e-3
