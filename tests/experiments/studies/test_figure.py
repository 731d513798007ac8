"""Figures of predictions: content and width."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.studies.figure import draw_figure
from flowseg.data.labels import CITYSCAPES
from flowseg.media import drawing

HEIGHT, WIDTH = 60, 200


def run(height=HEIGHT, width=WIDTH):
    """A run that predicts road with a flow of (3, 4) px everywhere."""
    predictions = (
        np.zeros((height, width), np.uint8),
        np.full((height, width, 2), (3, 4), np.float32),
    )
    return SimpleNamespace(label_set=CITYSCAPES, predict=lambda *pair, scale: predictions)


def test_flow_errors_are_below_the_predictions():
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    plain = draw_figure(run(), "frame", image, image, 320)
    assert 310 <= plain.shape[1] <= 320
    truth = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    truth[:, : WIDTH // 2] = (3, 4, 1)
    truth[::4, WIDTH // 2 :] = (33, 44, 1)
    picture = draw_figure(run(), "frame", image, image, 320, truth)
    assert picture.shape[1] == plain.shape[1] and (picture[: len(plain)] == plain).all()
    errors = picture[len(plain) :]
    expected = drawing.flow_error_map(np.full((HEIGHT, WIDTH, 2), (3, 4)), truth)
    correct, wrong = expected[0, 0], expected[0, -1]
    assert correct[2] > correct[0] and wrong[0] > wrong[2]
    middle = errors[len(errors) // 2]
    assert (middle[60] == correct).all()
    # Sparse points are dilated: they cover more than their quarter of the rows.
    column = errors[:, 260]
    assert (column == wrong).all(-1).mean() > 0.4
    with pytest.raises(ValueError, match="ground-truth flow"):
        draw_figure(run(), "frame", image, image, 320, truth[:-1])


def test_frames_of_other_shapes():
    image, truth = np.full((90, 120, 3), 90, np.uint8), np.ones((90, 120, 3), np.float32)
    plain = draw_figure(run(90, 120), "frame", image, image, 200)
    picture = draw_figure(run(90, 120), "frame", image, image, 200, truth)
    assert picture.shape[1] == plain.shape[1] > 300 and len(picture) > len(plain) + 90
