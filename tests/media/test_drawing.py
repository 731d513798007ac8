import numpy as np
import pytest

from flowseg.data.flow_io import flow_to_color, read_flow
from flowseg.data.labels import CITYSCAPES, train_id_table
from flowseg.media import drawing, panels
from flowseg.media.frames import read_image

ROAD, CAR, VOID = 0, 13, 255


def test_color_labels_gives_the_palette_and_black_for_void():
    picture = drawing.color_labels(np.array([[ROAD, CAR, VOID]]), CITYSCAPES)
    assert picture.tolist() == [[[128, 64, 128], [0, 0, 142], [0, 0, 0]]]
    assert picture.dtype == np.uint8


def test_overlay_mixes_colours_and_leaves_void_alone():
    image = np.full((1, 4, 3), (100, 200, 50), np.uint8)
    # 40 is no class of the set: as good as void.
    mixed = drawing.overlay_labels(image, np.uint8([[ROAD, CAR, VOID, 40]]), CITYSCAPES, 0.25)
    # 0.75 * (100, 200, 50) + 0.25 * (128, 64, 128), and + 0.25 * (0, 0, 142) = (75, 150, 73)
    assert mixed.tolist() == [[[107, 166, 70], [75, 150, 73], [100, 200, 50], [100, 200, 50]]]
    assert (drawing.overlay_labels(image, np.zeros((1, 4)), CITYSCAPES, 0) == image).all()


def error_colour(error, true_speed, direction=(1, 0)):
    """Colour of one pixel whose truth is (0, true_speed) and whose flow is off by `error` px."""
    truth = np.float32([[[0, true_speed, 1]]])
    flow = truth[..., :2] + error * np.float32(direction)
    return tuple(drawing.flow_error_map(flow, truth)[0, 0].tolist())


@pytest.mark.parametrize(
    ("error", "speed", "colour"),
    [
        (0, 0, (49, 54, 149)),
        # 1 px: 1/3 of an outlier's border, the bin 0.25 to 0.5.
        (1, 0, (171, 217, 233)),
        (2.9, 10, (224, 243, 248)),
        (3.1, 10, (254, 224, 144)),
        # 10 px: 3.33, the bin 2 to 4.
        (10, 20, (253, 174, 97)),
        # At a speed of 400 px the border is 5 %, 20 px: 10 px is 0.5, the bin 0.5 to 1.
        (10, 400, (224, 243, 248)),
        (1000, 20, (165, 0, 38)),
        (np.nan, 20, (165, 0, 38)),
    ],
)
def test_flow_error_has_the_colours_of_the_kitti_kit(error, speed, colour):
    assert error_colour(error, speed) == colour


def test_flow_error_spreads_into_unknown_pixels_only():
    truth = np.zeros((7, 7, 3), np.float32)
    truth[1, 1, 2] = truth[1, 3, 2] = 1
    flow = np.zeros((7, 7, 2), np.float32)
    flow[1, 3] = 10
    flow[5, 5] = 99
    picture = drawing.flow_error_map(flow, truth)
    right, wrong = (49, 54, 149), (244, 109, 67)  # 14.1 px: 4.7, the bin 4 to 8
    assert tuple(picture[1, 1]) == tuple(picture[0, 0]) == tuple(picture[2, 1]) == right
    assert tuple(picture[1, 3]) == tuple(picture[2, 4]) == wrong
    assert tuple(picture[1, 2]) == wrong, "between the two, the worst is shown"
    assert (picture[4:] == 0).all() and (picture[:, 5:] == 0).all()


@pytest.mark.parametrize("size", [60, 101, 200])
def test_color_wheel_points_where_the_flow_goes(size):
    wheel = drawing.color_wheel(size, 12.0)
    middle, end, near = size // 2, round(0.9 * size), round(0.1 * size) - 1
    reach = (end - (size - 1) / 2) / (size / 2 - 1) * 12
    sub_pixel = (middle - (size - 1) / 2) / (size / 2 - 1) * 12
    for place, flow in (
        ((middle, end), (reach, sub_pixel)),
        ((end, middle), (sub_pixel, reach)),
        ((middle, near), (-reach, sub_pixel)),
        ((near, middle), (sub_pixel, -reach)),
    ):
        expected = flow_to_color(np.float32([[flow]]), 12.0)[0, 0].astype(int)
        assert np.abs(wheel[place] - expected).max() <= 4, (place, flow)
    assert tuple(wheel[0, 0]) == drawing.BACKGROUND
    assert wheel.shape[1] == size and wheel.shape[0] > size
    assert has_text(wheel[size:])


def has_text(picture):
    return (picture > 150).all(-1).sum() > 20


def test_legend_shows_every_class_in_its_colour():
    picture = drawing.legend(CITYSCAPES, 900)
    assert picture.shape[1] == 900
    for colour in CITYSCAPES.palette:
        assert (picture == colour).all(-1).sum() > 50, colour
    assert has_text(picture)


def test_legend_of_present_classes_only():
    picture = drawing.legend(CITYSCAPES, 900, [CAR, ROAD])
    assert picture.shape[0] == drawing.legend_row(14)
    assert (picture == CITYSCAPES.palette[CAR]).all(-1).any()
    assert not (picture == CITYSCAPES.palette[1]).all(-1).any()
    assert drawing.legend(CITYSCAPES, 900, []).shape[1] == 900


def test_legend_stays_in_its_height_and_counts_the_rest():
    row = drawing.legend_row(14)
    picture = drawing.legend(CITYSCAPES, 300, max_height=3 * row)
    assert picture.shape == (3 * row, 300, 3)
    shown = [c for c in CITYSCAPES.palette if (picture == c).all(-1).sum() > 50]
    # Two columns of three rows: five classes and "+14 more".
    assert shown == list(CITYSCAPES.palette[:5])


def test_shorten_keeps_what_fits():
    text = "Optical flow to the next frame"
    assert drawing.shorten(text, 14, 1000) == text
    short = drawing.shorten(text, 14, 80)
    assert short.endswith("..") and text.startswith(short[:-2])
    assert drawing.text_width(short, 14, 500) <= 80


def test_panel_holds_every_picture_whole_and_titled():
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    sizes = [(40, 100), (60, 80), (30, 120)]
    titled = [
        (f"picture {i}", np.full((*size, 3), colour, np.uint8))
        for i, (size, colour) in enumerate(zip(sizes, colours, strict=True))
    ]
    canvas = drawing.panel(titled, 2)
    for size, colour in zip(sizes, colours, strict=True):
        rows, columns = np.nonzero((canvas == colour).all(-1))
        assert len(rows) == size[0] * size[1], "whole, and not covered by text"
        assert np.ptp(rows) + 1 == size[0] and np.ptp(columns) + 1 == size[1]
        assert has_text(canvas[max(0, rows.min() - 45) : rows.min()])
    with pytest.raises(ValueError, match="at least one"):
        drawing.panel([], 2)


def test_panel_of_tiny_pictures_does_not_fail():
    picture = np.zeros((8, 10, 3), np.uint8)
    assert drawing.panel([("a very long title", picture)], 3).shape[1] < 40


def test_write_png_reads_back_and_leaves_no_temporary_file(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    drawing.write_png(tmp_path / "a.png", picture)
    assert (read_image(tmp_path / "a.png") == picture).all()
    drawing.write_png(tmp_path / "grey.png", picture[..., 0])
    assert (read_image(tmp_path / "grey.png") == picture[..., :1]).all()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "grey.png"]
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError):
        drawing.write_png(tmp_path / "folder.png", picture)
    with pytest.raises(OSError):
        drawing.write_png(tmp_path / "a.png" / "b.png", picture)
    assert len(list(tmp_path.iterdir())) == 3


def test_pictures_of_a_real_frame(samples):
    flow_folder = samples / "kitti/data_scene_flow/training"
    semantics = samples / "kitti/data_semantics/training"
    image = read_image(flow_folder / "image_2/000002_10.png")
    truth = read_flow(flow_folder / "flow_occ/000002_10.png")
    labels = read_image(semantics / "semantic/000002_10.png")[..., 0]
    ids = train_id_table(CITYSCAPES, "cityscapes")[labels]
    overlay = drawing.overlay_labels(image, ids, CITYSCAPES)
    void = ids == VOID
    assert void.any() and (overlay[void] == image[void]).all()
    assert (overlay[~void] != image[~void]).any(-1).mean() > 0.9
    # Truth against itself: nothing but the best colour, and more pixels than the sparse truth.
    perfect = drawing.flow_error_map(truth[..., :2], truth)
    shown = perfect.any(-1)
    assert (perfect[shown] == (49, 54, 149)).all()
    assert shown.sum() > 1.2 * (truth[..., 2] > 0).sum()
    # Zero flow: the share of warm colours is KITTI's Fl-all of zero flow, counted by hand.
    known = truth[..., 2] > 0
    speed = np.hypot(truth[..., 0], truth[..., 1])
    outlier = known & (speed > 3)  # the whole speed is the error: always over 5 %
    zero = drawing.flow_error_map(np.zeros_like(truth[..., :2]), truth)
    warm = zero[..., 0].astype(int) > zero[..., 2]
    assert (warm[known] == outlier[known]).mean() > 0.9999


def test_shrink_keeps_the_aspect_and_what_is_small():
    picture = np.full((50, 200, 3), 7, np.uint8)
    assert drawing.shrink(picture, 100).shape == (25, 100, 3)
    assert (drawing.shrink(picture, 100) == 7).all()
    assert drawing.shrink(picture, 200) is picture


def test_a_confusion_matrix_is_coloured_by_row():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    cell = 30
    picture = panels.draw_confusion(matrix, ["sky", "a rather long name", "car"], cell)
    assert picture.dtype == np.uint8 and picture.shape[0] == 4 * cell
    left = picture.shape[1] - 3 * cell
    # A corner of each cell, where no letters stand.
    corners = picture[cell + 2 :: cell, left + 2 :: cell].astype(int)
    ground = np.array(drawing.BACKGROUND)
    right, wrong = np.array((80, 160, 90)), np.array((210, 80, 70))
    expected = ground + [
        [0.75 * (right - ground), 0.25 * (wrong - ground), 0 * ground],
        [0 * ground] * 3,
        [0.5 * (wrong - ground), 0 * ground, 0.5 * (right - ground)],
    ]
    np.testing.assert_allclose(corners, expected, atol=1)
