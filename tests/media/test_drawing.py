import numpy as np
import pytest

from flowseg.data.flow_io import flow_to_color, read_flow
from flowseg.data.labels import CITYSCAPES, train_id_table
from flowseg.media import drawing, panels
from flowseg.media.frames import read_image

ROAD, CAR, VOID = 0, 13, 255


def test_color_labels():
    image = drawing.color_labels(np.array([[ROAD, CAR, VOID]]), CITYSCAPES)
    assert image.tolist() == [[[128, 64, 128], [0, 0, 142], [0, 0, 0]]]
    assert image.dtype == np.uint8


def test_overlay_labels():
    image = np.full((1, 4, 3), (100, 200, 50), np.uint8)
    # 40 is not a class of the set, so it counts as void.
    mixed = drawing.overlay_labels(image, np.uint8([[ROAD, CAR, VOID, 40]]), CITYSCAPES, 0.25)
    # 0.75 * (100, 200, 50) + 0.25 * (128, 64, 128), and + 0.25 * (0, 0, 142) = (75, 150, 73)
    assert mixed.tolist() == [[[107, 166, 70], [75, 150, 73], [100, 200, 50], [100, 200, 50]]]
    assert (drawing.overlay_labels(image, np.zeros((1, 4)), CITYSCAPES, 0) == image).all()


def error_colour(error, true_speed, direction=(1, 0)):
    """Colour of one pixel with ground truth (0, true_speed) and a flow error of `error` px."""
    truth = np.float32([[[0, true_speed, 1]]])
    flow = truth[..., :2] + error * np.float32(direction)
    return tuple(drawing.flow_error_map(flow, truth)[0, 0].tolist())


@pytest.mark.parametrize(
    ("error", "speed", "colour"),
    [
        (0, 0, (49, 54, 149)),
        # 1 px: 1/3 of the outlier threshold, the bin 0.25 to 0.5.
        (1, 0, (171, 217, 233)),
        (2.9, 10, (224, 243, 248)),
        (3.1, 10, (254, 224, 144)),
        # 10 px: 3.33, the bin 2 to 4.
        (10, 20, (253, 174, 97)),
        # At a speed of 400 px the threshold is 5 %, 20 px: 10 px is 0.5, the bin 0.5 to 1.
        (10, 400, (224, 243, 248)),
        (1000, 20, (165, 0, 38)),
        (np.nan, 20, (165, 0, 38)),
    ],
)
def test_flow_error_colours(error, speed, colour):
    assert error_colour(error, speed) == colour


def test_flow_error_of_unknown_pixels():
    truth = np.zeros((7, 7, 3), np.float32)
    truth[1, 1, 2] = truth[1, 3, 2] = 1
    flow = np.zeros((7, 7, 2), np.float32)
    flow[1, 3] = 10
    flow[5, 5] = 99
    image = drawing.flow_error_map(flow, truth)
    correct, wrong = (49, 54, 149), (244, 109, 67)  # 14.1 px: 4.7, the bin 4 to 8
    assert tuple(image[1, 1]) == tuple(image[0, 0]) == tuple(image[2, 1]) == correct
    assert tuple(image[1, 3]) == tuple(image[2, 4]) == wrong
    assert tuple(image[1, 2]) == wrong, "between the two, the worst is shown"
    assert (image[4:] == 0).all() and (image[:, 5:] == 0).all()


@pytest.mark.parametrize("size", [60, 101, 200])
def test_color_wheel_directions(size):
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


def has_text(image):
    return (image > 150).all(-1).sum() > 20


def test_legend_of_all_classes():
    image = drawing.legend(CITYSCAPES, 900)
    assert image.shape[1] == 900
    for colour in CITYSCAPES.palette:
        assert (image == colour).all(-1).sum() > 50, colour
    assert has_text(image)


def test_legend_of_present_classes():
    image = drawing.legend(CITYSCAPES, 900, [CAR, ROAD])
    assert image.shape[0] == drawing.legend_row(14)
    assert (image == CITYSCAPES.palette[CAR]).all(-1).any()
    assert not (image == CITYSCAPES.palette[1]).all(-1).any()
    assert drawing.legend(CITYSCAPES, 900, []).shape[1] == 900


def test_legend_with_maximum_height():
    row = drawing.legend_row(14)
    image = drawing.legend(CITYSCAPES, 300, max_height=3 * row)
    assert image.shape == (3 * row, 300, 3)
    shown = [c for c in CITYSCAPES.palette if (image == c).all(-1).sum() > 50]
    # Two columns of three rows: five classes and "+14 more".
    assert shown == list(CITYSCAPES.palette[:5])


def test_shorten():
    text = "Optical flow to the next frame"
    assert drawing.shorten(text, 14, 1000) == text
    short = drawing.shorten(text, 14, 80)
    assert short.endswith("..") and text.startswith(short[:-2])
    assert drawing.text_width(short, 14, 500) <= 80


def test_panel():
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    sizes = [(40, 100), (60, 80), (30, 120)]
    titled = [
        (f"picture {i}", np.full((*size, 3), colour, np.uint8))
        for i, (size, colour) in enumerate(zip(sizes, colours, strict=True))
    ]
    canvas = drawing.panel(titled, 2)
    for size, colour in zip(sizes, colours, strict=True):
        rows, columns = np.nonzero((canvas == colour).all(-1))
        assert len(rows) == size[0] * size[1], "complete, and not covered by text"
        assert np.ptp(rows) + 1 == size[0] and np.ptp(columns) + 1 == size[1]
        assert has_text(canvas[max(0, rows.min() - 45) : rows.min()])
    with pytest.raises(ValueError, match="at least one"):
        drawing.panel([], 2)


def test_panel_of_tiny_image():
    image = np.zeros((8, 10, 3), np.uint8)
    assert drawing.panel([("a very long title", image)], 3).shape[1] < 40


def test_write_png(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    drawing.write_png(tmp_path / "a.png", image)
    assert (read_image(tmp_path / "a.png") == image).all()
    drawing.write_png(tmp_path / "grey.png", image[..., 0])
    assert (read_image(tmp_path / "grey.png") == image[..., :1]).all()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "grey.png"]
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError):
        drawing.write_png(tmp_path / "folder.png", image)
    with pytest.raises(OSError):
        drawing.write_png(tmp_path / "a.png" / "b.png", image)
    assert len(list(tmp_path.iterdir())) == 3


def test_drawings_of_real_frame(samples):
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
    # Truth against itself: only the best colour, on more pixels than the sparse truth has.
    perfect = drawing.flow_error_map(truth[..., :2], truth)
    coloured = perfect.any(-1)
    assert (perfect[coloured] == (49, 54, 149)).all()
    assert coloured.sum() > 1.2 * (truth[..., 2] > 0).sum()
    # Zero flow: warm colours are exactly the outliers that Fl-all counts for zero flow.
    known = truth[..., 2] > 0
    speed = np.hypot(truth[..., 0], truth[..., 1])
    outlier = known & (speed > 3)  # the error equals the speed: always above 5 %
    zero = drawing.flow_error_map(np.zeros_like(truth[..., :2]), truth)
    is_warm = zero[..., 0].astype(int) > zero[..., 2]
    assert (is_warm[known] == outlier[known]).mean() > 0.9999


def test_shrink():
    image = np.full((50, 200, 3), 7, np.uint8)
    assert drawing.shrink(image, 100).shape == (25, 100, 3)
    assert (drawing.shrink(image, 100) == 7).all()
    assert drawing.shrink(image, 200) is image


def test_confusion_matrix_colours():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
    cell = 30
    image = panels.draw_confusion(matrix, ["sky", "a rather long name", "car"], cell)
    assert image.dtype == np.uint8 and image.shape[0] == 4 * cell
    left = image.shape[1] - 3 * cell
    # A corner of each cell, where there are no letters.
    corners = image[cell + 2 :: cell, left + 2 :: cell].astype(int)
    background = np.array(drawing.BACKGROUND)
    correct, wrong = np.array((80, 160, 90)), np.array((210, 80, 70))
    expected = background + [
        [0.75 * (correct - background), 0.25 * (wrong - background), 0 * background],
        [0 * background] * 3,
        [0.5 * (wrong - background), 0 * background, 0.5 * (correct - background)],
    ]
    np.testing.assert_allclose(corners, expected, atol=1)
