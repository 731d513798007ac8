"""A camera's full picture, shrunk for the network: the same answers, without gigabytes."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from flowseg import runs
from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import CITYSCAPES


def noisy_run():
    """A run whose logits are noise of the size that it is shown, with ties."""

    def answer(frames):
        shape = frames["image1"].shape[:3]
        rng = np.random.default_rng(0)
        logits = rng.integers(-9, 9, (*shape, 19)).astype(np.float32)
        return {"seg": logits, "flow": rng.normal(0, 9, (*shape, 2)).astype(np.float32)}

    return runs.Run(SimpleNamespace(predict_on_batch=answer), CITYSCAPES)


def peak(ask):
    """Bytes that NumPy and OpenCV held at most while `ask()` ran, and what it gave."""
    tracemalloc.start()
    try:
        given = ask()
        return tracemalloc.get_traced_memory()[1], given
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.33, 1.7])
def test_classes_are_the_largest_of_the_resized_logits(scale):
    image = np.zeros((60, 90, 3), np.uint8)
    logits, flow = noisy_run().predict_logits(image, image, scale)
    seg, same_flow = noisy_run().predict(image, image, scale)
    assert seg.dtype == np.uint8 and (seg == logits.argmax(-1)).all()
    assert (same_flow == flow).all()


def test_large_frames_take_little_more_than_their_answers():
    image = np.zeros((1200, 1600, 3), np.uint8)
    pixels = 1200 * 1600
    taken, (_, flow) = peak(lambda: noisy_run().predict(image, image, 0.2))
    # All logits at once are 76 bytes a pixel, and were held twice.
    assert taken < 45 * pixels
    taken, picture = peak(lambda: flow_to_color(flow))
    # It was 130.
    assert taken < 45 * pixels and picture.shape == image.shape
    # Rows are coloured a few at a time: as they are alone.
    most = float(np.percentile(np.hypot(flow[..., 0], flow[..., 1]), 99))
    for row in (0, 63, 64, 1199):
        assert (flow_to_color(flow[row : row + 1], most)[0] == picture[row]).all()
