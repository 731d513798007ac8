import subprocess
import sys

import cv2
import numpy as np
import pytest

from data_prep.scenes import layers
from data_prep.scenes.photos import find_photos
from tests.conftest import ROOT

SIZE = (96, 240)


def write_photos(folder):
    """Five photographs of several sizes and kinds, with detail of all sizes and hard edges."""
    rng = np.random.default_rng(0)
    kinds = [(200, 300, "png"), (120, 260, "png"), (300, 300, "jpg"), (64, 80, "ppm")]
    for i, (height, width, suffix) in enumerate([*kinds, (90, 400, "PNG")]):
        photo = sum(
            cv2.resize(rng.normal(0, 40, (height // n + 2, width // n + 2, 3)), (width, height))
            for n in (3, 9, 40)
        )
        for _ in range(12):
            x, y = rng.uniform(0, (width, height)).astype(int)
            cv2.rectangle(photo, (x, y), (x + 25, y + 12), rng.normal(0, 90, 3).tolist(), -1)
        path = str(folder / f"{i}.{suffix}")
        assert cv2.imwrite(path, np.uint8(np.clip(photo + 120, 0, 255)))
    return find_photos(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


def draw_worlds(count, height, width, seed=0):
    picture = np.full((200, 300, 3), 0.2, np.float32)
    for i in range(count):
        yield layers.draw_layers(np.random.default_rng([seed, i]), height, width, [picture])


def differences(pair, flow=None):
    """Mean difference of the frames where visible: warped by the flow, and as they are."""
    flow = pair.flow if flow is None else flow
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    first, second = pair.image1.astype(np.float32), pair.image2.astype(np.float32)
    warped = cv2.remap(second, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
    return [np.abs(image - first)[pair.visible].mean() for image in (warped, second)]


def sharpness(image):
    return np.abs(cv2.Laplacian(image.mean(-1), cv2.CV_64F)).mean()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_pair_has_the_agreed_form(photos):
    pair = layers.make_pair(0, 0, *SIZE, photos)
    assert pair.image1.shape == pair.image2.shape == (*SIZE, 3)
    assert pair.image1.dtype == pair.image2.dtype == np.uint8
    assert pair.flow.shape == (*SIZE, 2) and pair.flow.dtype == np.float32
    assert pair.valid.shape == pair.visible.shape == SIZE
    assert pair.valid.dtype == pair.visible.dtype == bool
    assert pair.labels is None
    assert pair.valid.all() and not (pair.visible & ~pair.valid).any()


def test_a_pair_depends_on_its_arguments_alone(photos):
    later = layers.make_pair(3, 7, *SIZE, photos)
    layers.make_pair(2, 7, *SIZE, photos)
    np.random.seed(1)
    assert same(later, layers.make_pair(3, 7, *SIZE, [str(path) for path in photos]))
    for other in ((4, 7), (3, 8)):
        pair = layers.make_pair(*other, *SIZE, photos)
        assert not np.array_equal(pair.image1, later.image1)
        assert not np.array_equal(pair.flow, later.flow)


def test_effects_change_the_light_alone(photos):
    plain, lively = (layers.make_pair(1, 0, *SIZE, photos, effects=e) for e in (False, True))
    assert same(plain[2:5], lively[2:5])
    assert not np.array_equal(plain.image1, lively.image1)


def contrast(image):
    # Of what no lens blurs.
    large = cv2.resize(image, (30, 12), interpolation=cv2.INTER_AREA)
    return large.std() / large.mean()


def test_a_camera_keeps_the_contrast_of_the_photographs(photos):
    ratios = []
    for i in range(9):
        plain, taken = (layers.make_pair(i, 0, *SIZE, photos, effects=e) for e in (False, True))
        ratios.append(contrast(taken.image1) / contrast(plain.image1))
    assert 0.85 < np.median(ratios) < 1.18


def test_without_effects_the_light_is_the_photographs_own(tmp_path):
    path = tmp_path / "flat.png"
    cv2.imwrite(str(path), np.full((200, 300, 3), 120, np.uint8))
    means = []
    for i in range(6):
        pair = layers.make_pair(i, 0, *SIZE, [path], effects=False)
        means.append(pair.image1.mean())
        # The ground keeps its colour from frame to frame.
        ground, later = (np.median(image, (0, 1)) for image in pair[:2])
        assert np.abs(ground - later).max() <= 1
    assert np.mean(means) == pytest.approx(120, abs=12)


def test_no_frame_has_detail_that_the_other_lacks():
    """A texture has at most a pixel for each pixel of either frame."""
    for layer in (layer for world in draw_worlds(30, 128, 416) for layer in world):
        density = np.linalg.det(layer.look[:, :2]) ** 0.5
        zoom = np.linalg.det(layer.matrix[:, :2]) ** 0.5
        assert 0.5 < density <= 1 + 1e-9 and density / zoom <= 1 + 1e-9


def check_photometry(photos):
    pairs = [layers.make_pair(i, 0, *SIZE, photos, effects=False) for i in range(9)]
    warped, unwarped, swapped = np.transpose(
        [(*differences(p), differences(p, p.flow[..., ::-1].copy())[0]) for p in pairs]
    )
    assert np.median(unwarped / warped) > 5
    assert np.median(swapped / warped) > 5  # (u, v), not (v, u)
    ratio = np.median([sharpness(p.image1) / sharpness(p.image2) for p in pairs])
    assert ratio == pytest.approx(1, abs=0.06)


def test_the_flow_takes_image1_to_image2(photos):
    check_photometry(photos)


def test_the_flow_takes_image1_to_image2_with_real_photographs(samples):
    check_photometry(find_photos(samples / "camvid" / "train"))


def test_a_label_map_is_no_photograph(samples):
    with pytest.raises(ValueError, match=r"trainannot.*label map"):
        layers.make_pair(0, 0, *SIZE, find_photos(samples / "camvid" / "trainannot"))


def make_layer(light, matrix, box=None, waves=()):
    """A layer of one light that is where `box` (left, top, right, bottom; px) is, or everywhere."""
    left, top, right, bottom = box or (-999, -999, 999, 999)
    return layers.Layer(
        texture=np.full((4, 4, 3), light, np.float32),
        look=np.eye(2, 3),
        gains=np.ones((2, 3)),
        matrix=np.array(matrix, float),
        waves=np.array(waves, float).reshape(-1, 5),
        distance=lambda x, y: np.minimum.reduce([x - left, right - x, y - top, bottom - y]),
        box=np.array([[left, top], [right, bottom]]),
    )


def test_a_square_that_moves_by_hand():
    """A bright square goes 7 px right and 2 px up before a ground that goes 1 px down.

    Five of the seven, and three up, by a wave that is 1 everywhere.
    """
    ground = make_layer(0.1, [[1, 0, 0], [0, 1, 1]])
    wave = (0, 0, np.pi / 2, 5, -3)
    square = make_layer(1, [[1, 0, 2], [0, 1, 1]], (9.5, 9.5, 19.5, 14.5), [wave])
    both = [ground, square]
    light, flow, top = layers.render(both, 24, 40, 0)
    light2, motion2, top2 = layers.render(both, 24, 40, 1)

    before, after = np.zeros((2, 24, 40), bool)
    before[10:15, 10:20] = True
    after[8:13, 17:27] = True
    assert np.array_equal(top, before) and np.array_equal(top2, after)
    assert (flow[before] == [7, -2]).all() and (flow[~before] == [0, 1]).all()
    assert np.allclose(motion2[after], [7, -2]) and np.allclose(motion2[~after], [0, 1])
    for seen, where in ((light, before), (light2, after)):
        assert np.allclose(seen[where], 1) and np.allclose(seen[~where], 0.1)

    hidden = np.roll(after, -1, 0) & ~before  # ground that goes below the square
    hidden[-1] = True  # and what leaves below
    assert np.array_equal(layers.find_visible(both, flow, top), ~hidden)


def test_an_edge_within_a_pixel_covers_its_share():
    """Of the pixels on either side of x = 9.8 and, after a zoom by two, of x = 19.6."""
    layer = make_layer(1, [[2, 0, 0], [0, 2, 0]], box=(-99, -99, 9.8, 99))
    for frame, shares in ((0, [1, 1, 0.3, 0]), (1, [1, 1, 0.1, 0])):
        light, _, top = layers.render([make_layer(0, np.eye(2, 3)), layer], 4, 30, frame)
        start = 8 if frame == 0 else 18
        assert np.allclose(light[2, start : start + 4, 0], shares, atol=1e-5)
        assert top[2, start : start + 4].tolist() == [1, 1, 0, 0]


def test_a_motion_by_hand():
    """A quarter turn from x to y, and a wave that is 1 at one place and 0 at the other."""
    wave = (np.pi / 20, 0, 0, 0.5, -0.25)
    layer = make_layer(1, [[0, -1, 3], [1, 0, 10]], waves=[wave])
    x, y = layers.move(layer, np.array([10.0, 20.0]), np.array([4.0, 4.0]))
    assert np.allclose(x, [-4 + 3 + 0.5, -4 + 3]) and np.allclose(y, [10 + 10 - 0.25, 20 + 10])


def test_motions_can_be_turned_round_everywhere():
    count = 0
    for height, width in ((128, 416), (375, 1242)):
        y, x = np.mgrid[-height : 2 * height : 23, -width : 2 * width : 31].astype(float)
        for layer in (layer for world in draw_worlds(15, height, width) for layer in world):
            count += 1
            # The steps of the search shrink by this much at least.
            slopes = (np.hypot(*layer.waves[:, :2].T) * np.hypot(*layer.waves[:, 3:].T)).sum()
            assert slopes * np.linalg.norm(np.linalg.inv(layer.matrix[:, :2]), 2) < 1 / 3
            assert np.abs(layers.move(layer, *layers.move_back(layer, x, y)) - [x, y]).max() < 1e-5
            assert np.abs(layers.move_back(layer, *layers.move(layer, x, y)) - [x, y]).max() < 1e-5
    assert count > 150


def test_edges_are_a_pixel_soft():
    """Close to its edge, a shape's distance grows by one a pixel."""
    y, x = np.mgrid[:128:0.5, :416:0.5]
    slopes = []
    for world in draw_worlds(8, 128, 416):
        for layer in world[1:]:
            distance = layer.distance(x, y)
            down, across = np.gradient(distance, 0.5)
            slopes.append(np.hypot(across, down)[np.abs(distance) < 0.5])
            inside = np.argwhere(distance >= 0)[:, ::-1] / 2
            assert (inside >= layer.box[0]).all() and (inside <= layer.box[1]).all()
    slopes = np.concatenate(slopes)
    assert len(slopes) > 1000 and (np.abs(slopes - 1) < 0.05).mean() > 0.95


def splat(layer, height, width, cell=0.25):
    """(bool, bool) where the layer surely is and surely may be in frame 2, in cells.

    By the forward motion of dense points alone.
    """
    (left, top), (right, bottom) = layer.box
    x, y = np.meshgrid(np.arange(left, right, 0.1), np.arange(top, bottom, 0.1))
    there = layer.distance(x, y) >= 0
    x, y = np.floor(layers.move(layer, x[there], y[there]) / cell).astype(int)
    cells = np.zeros((int(height / cell), int(width / cell)), np.uint8)
    seen = (x >= 0) & (y >= 0) & (x < cells.shape[1]) & (y < cells.shape[0])
    cells[y[seen], x[seen]] = 1
    around = np.ones((3, 3), np.uint8)
    return cv2.erode(cells, around) > 0, cv2.dilate(cells, around) > 0


def test_visible_is_what_no_upper_layer_covers():
    height, width = 64, 160
    y, x = np.mgrid[:height, :width]
    doubtful = hidden = 0
    for world in draw_worlds(6, height, width, seed=1):
        _, flow, top = layers.render(world, height, width, 0)
        visible = layers.find_visible(world, flow, top)
        ends = x + flow[..., 0], y + flow[..., 1]
        inside = (ends[0] >= 0) & (ends[1] >= 0) & (ends[0] <= width - 1) & (ends[1] <= height - 1)
        assert not visible[~inside].any()
        column, row = (np.floor(np.where(inside, end, 0) / 0.25).astype(int) for end in ends)
        surely, maybe = np.zeros((2, height, width), bool)
        for i, layer in enumerate(world[1:], 1):
            sure, may = splat(layer, height, width)
            surely |= sure[row, column] & (top < i)
            maybe |= may[row, column] & (top < i)
        assert not (visible & surely).any()
        assert visible[inside & ~maybe].all()
        doubtful += (maybe & ~surely & inside).sum()
        hidden += (inside & ~visible).sum()
    assert hidden > 300 and doubtful < 0.05 * 6 * height * width


@pytest.mark.parametrize(("height", "width"), [(128, 416), (375, 1242)])
def test_flows_are_as_large_as_on_the_road(height, width):
    y, x = np.mgrid[: height : height / 16, : width : width / 40]
    speeds = []
    for world in draw_worlds(150, height, width):
        flow = np.zeros((2, *x.shape))
        for layer in world:
            there = layer.distance(x, y) >= 0
            flow[:, there] = (layers.move(layer, x, y) - [x, y])[:, there]
        speeds.append(np.hypot(*flow).ravel() / width * 1242)
    speeds = np.array(speeds)
    assert 15 < speeds.mean() < 28 and 10 < np.median(speeds) < 22
    assert 80 < np.percentile(speeds, 99) < 180
    assert 0.03 < (speeds.mean(1) < 1.5).mean() < 0.3


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone", "labels"])
def test_a_broken_photograph_is_named(photos, tmp_path, damage):
    path = tmp_path / "broken.png"
    data = photos[0].read_bytes()
    content = {"cut": data[: len(data) // 2], "empty": b"", "text": b"no picture", "gone": None}
    content["labels"] = cv2.imencode(".png", np.arange(12, dtype=np.uint8)[:, None])[1].tobytes()
    if content[damage] is not None:
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"broken\.png"):
        layers.make_pair(0, 0, *SIZE, [path])


def test_no_photographs_are_an_error():
    with pytest.raises(ValueError, match="needs photographs"):
        layers.make_pair(0, 0, *SIZE, ())


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 40, 3), (900, 1600), (40, 30, 3)])
def test_photographs_of_any_size_will_do(tmp_path, shape):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(100, 256, shape, np.uint8))
    for size in ((16, 16), (40, 130)):
        pair = layers.make_pair(0, 0, *size, [path])
        assert pair.image1.shape == (*size, 3) and np.isfinite(pair.flow).all()


def test_workers_start_without_tensorflow():
    code = "import sys, data_prep.scenes.layers; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0
