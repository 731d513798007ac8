"""TFLite files: FLOPs by hand, an encoder that is entirely int8, and latencies."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

# isort: split
import keras
from keras import layers, ops

from experiments.exports import litert
from flowseg.errors import ArgumentError
from flowseg.network.backbones import build_encoder

SIZE = (64, 64)


@pytest.fixture(scope="module")
def tiny():
    """TFLite file with one operator of each kind, for frames of 16x24."""
    image = keras.Input((16, 24, 3))
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False)(image)
    x = layers.BatchNormalization()(x)  # folded into the convolution
    x = layers.DepthwiseConv2D(5, padding="same")(x)
    x = layers.Conv2D(4, 1, groups=2, activation="relu")(x)
    x = layers.BatchNormalization()(x)  # cannot be folded after a ReLU
    flat = ops.reshape(x, (-1, 96, 4))
    product = ops.matmul(flat, ops.transpose(flat, (0, 2, 1)))
    head = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    return litert.convert(keras.Model(image, {"product": product, "head": head}), 16, 24)


@pytest.fixture(scope="module")
def encoder():
    """An encoder whose random weights preserve the scale of activations, unlike Keras's."""
    model = build_encoder("efficientnet_lite0")
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            shape = layer.kernel.shape
            summed = np.prod(shape[:2] if isinstance(layer, layers.DepthwiseConv2D) else shape[:3])
            layer.set_weights([rng.normal(0, (2 / summed) ** 0.5, shape)])
    return model


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    coarse = np.float32(rng.uniform(0, 255, (5, 8, 8, 3)))
    return np.stack([cv2.resize(frame, SIZE) for frame in coarse])


@pytest.fixture(scope="module")
def int8_file(encoder, frames):
    return litert.convert(encoder, *SIZE, frames[:3])


def test_flops_by_hand(tiny):
    pixels = 8 * 12
    macs = {
        "conv": pixels * 8 * (3 * 3 * 3),
        "depthwise": pixels * 8 * (5 * 5),
        "grouped": pixels * 4 * (8 // 2),
        "product": pixels * pixels * 4,
        "dense": 4 * 5,
    }
    assert litert.flops(litert.operators(tiny)) == 2 * sum(macs.values())


def lite0_macs(height, width, stages=7):
    """Multiply-adds of EfficientNet-Lite0 without its head, from the paper's table of stages."""
    table = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    pixels, before = height * width // 4, 32
    macs = pixels * before * 27
    for repeats, kernel, stride, expansion, channels in table[:stages]:
        for repeat in range(repeats):
            inner = before * expansion
            macs += pixels * before * inner if expansion > 1 else 0
            pixels //= stride**2 if repeat == 0 else 1
            macs += pixels * inner * (kernel**2 + channels)
            before = channels
    return macs


def test_encoder_flops_grow_with_area(encoder, int8_file):
    assert litert.flops(litert.operators(int8_file)) == 2 * lite0_macs(*SIZE)
    # Only down to stride 8, which takes a fifth of the time.
    part = keras.Model(encoder.input, {"stride8": encoder.output["stride8"]})
    large = litert.flops(litert.operators(litert.convert(part, 64, 160)))
    assert large == 2 * lite0_macs(*SIZE, stages=3) * 160 / 64


def test_sqnr_and_cosine():
    expected = np.float32([[3, 4], [0, 0]])
    assert litert.sqnr(expected, expected * 1.1) == pytest.approx(20, abs=1e-4)
    assert litert.sqnr(expected, expected * 2) == pytest.approx(0)
    assert litert.sqnr(expected, expected) == np.inf
    # A small difference between large numbers must not be lost.
    assert litert.sqnr(np.full(9, 1e4), np.full(9, 1e4 + 1)) == pytest.approx(80)
    expected = np.float32([[1, 0], [0, 2], [0, 3], [0, 0]])
    actual = np.float32([[1, 1], [0, 5], [0, 0], [4, 4]])
    # Rotated by 45 degrees, unchanged, zero; a pixel without direction is ignored.
    assert litert.cosine(expected, actual) == pytest.approx((0.5**0.5 + 1 + 0) / 3)


def test_int8_encoder_is_entirely_int8(encoder, frames, int8_file):
    operators = litert.operators(int8_file)
    names = [operator.name for operator in operators]
    assert (names.count("CONV_2D"), names.count("DEPTHWISE_CONV_2D")) == (32, 16)
    assert litert.floats_left(operators) == []
    assert litert.norms_left(operators) == []
    # One byte per weight, plus biases, scales and the graph.
    assert 0.95 < len(int8_file) / encoder.count_params() < 1.25
    outputs = litert.features(int8_file, frames[3:])
    expected = encoder.predict_on_batch(frames[3:])
    assert {name: x.shape for name, x in outputs.items()} == {
        name: x.shape for name, x in expected.items()
    }
    for name, x in expected.items():
        assert 10 < litert.sqnr(x, outputs[name]) < 60, name


def test_remaining_floats_and_norms_are_listed(tiny):
    operators = litert.operators(tiny)
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} < set(litert.floats_left(operators))
    # The norm after the ReLU; a norm with initial statistics leaves one operator only.
    assert litert.norms_left(operators) == ["MUL"]


def test_missing_weights_are_an_error(monkeypatch):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, {"x": layers.Conv2D(2, 1)(image)})
    # 3 x 2 weights of four bytes need more.
    empty = SimpleNamespace(convert=lambda: b"bytes without weights")
    lite = litert.tf.lite.TFLiteConverter
    monkeypatch.setattr(lite, "from_saved_model", lambda folder: empty)
    with pytest.raises(ValueError, match="the weights are missing"):
        litert.convert(model, 8, 8)


def test_latencies_in_turn_without_the_first_round(tiny, monkeypatch):
    clock = iter(np.cumsum([0, 5, 0, 5, 0, 0.1, 0, 0.2, 0, 0.3, 0, 0.9]))
    monkeypatch.setattr(litert, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    latencies = litert.latencies(dict.fromkeys("ab", tiny), np.zeros((16, 24, 3), np.float32), 1, 2)
    assert latencies == {"a": pytest.approx([100, 300]), "b": pytest.approx([200, 900])}


def test_invalid_size_names_both_arguments():
    litert.check_size(64, 96)
    for size in ((65, 96), (64, 100)):
        with pytest.raises(
            ArgumentError, match="^height and width: .* are not multiples of 32"
        ) as e:
            litert.check_size(*size)
        assert e.value.with_flags().startswith("--height and --width: ")
