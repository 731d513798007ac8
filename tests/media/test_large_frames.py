"""Full-resolution camera images, shrunk for the network: same predictions, little memory."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from flowseg import runs
from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import CITYSCAPES


def noisy_run():
    """A run whose logits are noise of the input size, with ties."""

    def predict(frames):
        shape = frames["image1"].shape[:3]
        rng = np.random.default_rng(0)
        logits = rng.integers(-9, 9, (*shape, 19)).astype(np.float32)
        return {"seg": logits, "flow": rng.normal(0, 9, (*shape, 2)).astype(np.float32)}

    return runs.Run(SimpleNamespace(predict_on_batch=predict), CITYSCAPES)


def peak(function):
    """Peak memory in bytes of NumPy and OpenCV during `function()`, and its result."""
    tracemalloc.start()
    try:
        result = function()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.33, 1.7])
def test_classes_are_argmax_of_resized_logits(scale):
    image = np.zeros((60, 90, 3), np.uint8)
    logits, flow = noisy_run().predict_logits(image, image, scale)
    seg, same_flow = noisy_run().predict(image, image, scale)
    assert seg.dtype == np.uint8 and (seg == logits.argmax(-1)).all()
    assert (same_flow == flow).all()


def test_peak_memory_of_large_frames():
    image = np.zeros((1200, 1600, 3), np.uint8)
    pixels = 1200 * 1600
    used, (_, flow) = peak(lambda: noisy_run().predict(image, image, 0.2))
    # All logits at once take 76 bytes per pixel, and earlier code held them twice.
    assert used < 45 * pixels
    used, colours = peak(lambda: flow_to_color(flow))
    # Earlier code took 130 bytes per pixel.
    assert used < 45 * pixels and colours.shape == image.shape
    # Rows are coloured a few at a time, with the same colours as a single row.
    max_magnitude = float(np.percentile(np.hypot(flow[..., 0], flow[..., 1]), 99))
    for row in (0, 63, 64, 1199):
        assert (flow_to_color(flow[row : row + 1], max_magnitude)[0] == colours[row]).all()
