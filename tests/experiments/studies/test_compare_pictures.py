import numpy as np
import pytest

from experiments.studies import compare_sets
from flowseg.data import flow_io
from tests.experiments.studies.test_compare_sets import (
    SKY,
    UNLABELED,
    grey,
    write_labels,
    write_pair,
)


def test_picture_shows_images_classes_and_flow(tmp_path):
    flow, known = np.full((96, 320, 2), (6, 0), np.float32), np.zeros((96, 320), bool)
    # As sparse as laser points.
    known[48::3, ::3] = True
    for name, colour in (("a", (200, 10, 10)), ("b", (10, 10, 200))):
        image = np.full((96, 320, 3), colour, np.uint8)
        write_pair(tmp_path / name, 0, (image, image), flow, known)
        write_labels(tmp_path / name, 0, image, np.full((96, 320), SKY))
    picture = compare_sets.draw({name: [tmp_path / name] for name in "ab"}, width=640)
    assert picture.shape[1] <= 640
    middle = picture[:, [160, 480]].reshape(-1, 2, 3)
    for column, colour in enumerate(((200, 10, 10), (10, 10, 200))):
        shown = (middle[:, column] == colour).all(-1)
        assert 85 <= shown.sum() <= 100
        # Below: an even mix with the sky's blue, then flow to the right, red without gaps.
        end = np.flatnonzero(shown)[-1]
        mixed = (np.array(colour) + (70, 130, 180)) / 2
        np.testing.assert_allclose(middle[end + 40, column], mixed, atol=1)
        red = flow_io.flow_to_color(np.float32([[[12, 0]]]), 12)[0, 0]
        below = middle[end + 97 + 50 : end + 97 + 90, column]
        np.testing.assert_allclose(below, np.tile(red, (40, 1)), atol=1)
    with pytest.raises(ValueError, match="do not fit"):
        compare_sets.draw({str(k): [tmp_path / "a"] for k in range(12)})


def test_picture_has_one_flow_scale(tmp_path, monkeypatch):
    # (6, 8) at 400 px is as fast as (3, 4) at 200 px: 20 px at 800.
    for name, size, speed in (("a", 400, (6, 8)), ("b", 200, (3, 4))):
        flow = np.full((60, size, 2), speed, np.float32)
        write_pair(tmp_path / name, 0, [grey(60, size)] * 2, flow, np.ones((60, size), bool))
    rims = []
    monkeypatch.setattr(
        compare_sets.drawing,
        "color_wheel",
        lambda size, rim: rims.append(rim) or compare_sets.drawing.blank(size, size),
    )
    for sets in ("a", "b", "ab"):
        compare_sets.draw({name: [tmp_path / name] for name in sets}, width=800)
    np.testing.assert_allclose(rims, 20, rtol=1e-5)


def test_picture_of_one_frame_without_flow(kitti_folder, tmp_path):
    write_labels(tmp_path, 0, grey(), np.full((30, 40), UNLABELED))
    picture = compare_sets.draw({"one": [tmp_path], "two": [kitti_folder]})
    assert picture.shape[1] <= 640
    assert compare_sets.draw({"one": [tmp_path]}).size
