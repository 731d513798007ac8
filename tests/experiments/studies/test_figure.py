"""The stills of the pages: what they show, and how wide they are."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.studies.figure import draw_figure
from flowseg.data.labels import CITYSCAPES
from flowseg.media import drawing

HEIGHT, WIDTH = 60, 200


def run(height=HEIGHT, width=WIDTH):
    """A run that calls everything a road that moves by (3, 4) px."""
    answers = np.zeros((height, width), np.uint8), np.full((height, width, 2), (3, 4), np.float32)
    return SimpleNamespace(label_set=CITYSCAPES, predict=lambda *pair: answers)


def test_errors_stand_below_where_truth_is_given():
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    plain = draw_figure(run(), "frame", image, image, 320)
    assert 310 <= plain.shape[1] <= 320
    truth = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    truth[:, : WIDTH // 2] = (3, 4, 1)
    truth[::4, WIDTH // 2 :] = (33, 44, 1)
    whole = draw_figure(run(), "frame", image, image, 320, truth)
    assert whole.shape[1] == plain.shape[1] and (whole[: len(plain)] == plain).all()
    errors = whole[len(plain) :]
    expected = drawing.flow_error_map(np.full((HEIGHT, WIDTH, 2), (3, 4)), truth)
    right, wrong = expected[0, 0], expected[0, -1]
    assert right[2] > right[0] and wrong[0] > wrong[2]
    middle = errors[len(errors) // 2]
    assert (middle[60] == right).all()
    # Sparse points have grown: more than their quarter of the rows shows them.
    column = errors[:, 260]
    assert (column == wrong).all(-1).mean() > 0.4
    with pytest.raises(ValueError, match="true flow"):
        draw_figure(run(), "frame", image, image, 320, truth[:-1])


def test_frames_of_other_shapes_fit_too():
    image, truth = np.full((90, 120, 3), 90, np.uint8), np.ones((90, 120, 3), np.float32)
    plain = draw_figure(run(90, 120), "frame", image, image, 200)
    whole = draw_figure(run(90, 120), "frame", image, image, 200, truth)
    assert whole.shape[1] == plain.shape[1] > 300 and len(whole) > len(plain) + 90
