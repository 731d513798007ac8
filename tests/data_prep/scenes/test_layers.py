"""Tests of the layers world: motion, rendering, visibility and photographs."""

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
    """Write five photographs of different sizes and formats, with hard edges and detail."""
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
    image = np.full((200, 300, 3), 0.2, np.float32)
    for i in range(count):
        yield layers.draw_layers(np.random.default_rng([seed, i]), height, width, [image])


def differences(pair, flow=None):
    """Return the mean difference of the visible pixels: warped by the flow, and not warped."""
    flow = pair.flow if flow is None else flow
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    first, second = pair.image1.astype(np.float32), pair.image2.astype(np.float32)
    warped = cv2.remap(second, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
    return [np.abs(image - first)[pair.visible].mean() for image in (warped, second)]


def sharpness(image):
    return np.abs(cv2.Laplacian(image.mean(-1), cv2.CV_64F)).mean()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_pair_shapes_and_types(photos):
    pair = layers.make_pair(0, 0, *SIZE, photos)
    assert pair.image1.shape == pair.image2.shape == (*SIZE, 3)
    assert pair.image1.dtype == pair.image2.dtype == np.uint8
    assert pair.flow.shape == (*SIZE, 2) and pair.flow.dtype == np.float32
    assert pair.valid.shape == pair.visible.shape == SIZE
    assert pair.valid.dtype == pair.visible.dtype == bool
    assert pair.labels is None
    assert pair.valid.all() and not (pair.visible & ~pair.valid).any()


def test_pair_depends_only_on_arguments(photos):
    later = layers.make_pair(3, 7, *SIZE, photos)
    layers.make_pair(2, 7, *SIZE, photos)
    np.random.seed(1)
    assert same(later, layers.make_pair(3, 7, *SIZE, [str(path) for path in photos]))
    for other in ((4, 7), (3, 8)):
        pair = layers.make_pair(*other, *SIZE, photos)
        assert not np.array_equal(pair.image1, later.image1)
        assert not np.array_equal(pair.flow, later.flow)


def test_motion_multiplies_distances(photos):
    near, far = (
        [layers.make_pair(i, 0, *SIZE, photos, motion=m) for i in range(6)] for m in (1, 4)
    )
    assert same(near[0], layers.make_pair(0, 0, *SIZE, photos))
    near, far = (np.concatenate([lengths(p.flow) for p in pairs]) for pairs in (near, far))
    # Turns, zoom and waves stay, and a patch's own motion is at most a quarter of the width.
    assert 2 < np.median(far) / np.median(near) < 4.5
    assert np.percentile(far, 99) < SIZE[1] / 2


def lengths(flow):
    return np.hypot(flow[..., 0], flow[..., 1]).ravel()


def test_effects_only_change_the_light(photos):
    plain, processed = (layers.make_pair(1, 0, *SIZE, photos, effects=e) for e in (False, True))
    assert same(plain[2:5], processed[2:5])
    assert not np.array_equal(plain.image1, processed.image1)


def contrast(image):
    # Only of large structures, which a lens does not blur.
    large = cv2.resize(image, (30, 12), interpolation=cv2.INTER_AREA)
    return large.std() / large.mean()


def test_effects_keep_contrast(photos):
    ratios = []
    for i in range(9):
        plain, processed = (layers.make_pair(i, 0, *SIZE, photos, effects=e) for e in (False, True))
        ratios.append(contrast(processed.image1) / contrast(plain.image1))
    assert 0.85 < np.median(ratios) < 1.18


def test_no_effects_keep_brightness_and_colour(tmp_path):
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


def test_texture_resolution():
    """A texture has at most one texel per pixel in each frame."""
    for layer in (layer for world in draw_worlds(30, 128, 416) for layer in world):
        density = np.linalg.det(layer.texture_map[:, :2]) ** 0.5
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


def test_flow_warps_image2_to_image1(photos):
    check_photometry(photos)


def test_flow_warps_image2_to_image1_with_real_photographs(samples):
    check_photometry(find_photos(samples / "camvid" / "train"))


def test_label_map_is_rejected(samples):
    with pytest.raises(ValueError, match=r"trainannot.*label map"):
        layers.make_pair(0, 0, *SIZE, find_photos(samples / "camvid" / "trainannot"))


def make_layer(light, matrix, box=None, waves=()):
    """Make a uniform layer that covers `box` (left, top, right, bottom; px), or everything."""
    left, top, right, bottom = box or (-999, -999, 999, 999)
    return layers.Layer(
        texture=np.full((4, 4, 3), light, np.float32),
        texture_map=np.eye(2, 3),
        gains=np.ones((2, 3)),
        matrix=np.array(matrix, float),
        waves=np.array(waves, float).reshape(-1, 5),
        distance=lambda x, y: np.minimum.reduce([x - left, right - x, y - top, bottom - y]),
        box=np.array([[left, top], [right, bottom]]),
    )


def test_moving_square():
    """A bright square moves 7 px right and 2 px up over a background that moves 1 px down.

    A wave that is 1 everywhere contributes 5 px right and 3 px up.
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
    for rendered, mask in ((light, before), (light2, after)):
        assert np.allclose(rendered[mask], 1) and np.allclose(rendered[~mask], 0.1)

    occluded = np.roll(after, -1, 0) & ~before  # background that moves below the square
    occluded[-1] = True  # and pixels that leave the frame at the bottom
    assert np.array_equal(layers.find_visible(both, flow, top), ~occluded)


def test_edge_coverage():
    """Check the pixels around x = 9.8 and, after a zoom by two, around x = 19.6."""
    layer = make_layer(1, [[2, 0, 0], [0, 2, 0]], box=(-99, -99, 9.8, 99))
    for frame, shares in ((0, [1, 1, 0.3, 0]), (1, [1, 1, 0.1, 0])):
        light, _, top = layers.render([make_layer(0, np.eye(2, 3)), layer], 4, 30, frame)
        start = 8 if frame == 0 else 18
        assert np.allclose(light[2, start : start + 4, 0], shares, atol=1e-5)
        assert top[2, start : start + 4].tolist() == [1, 1, 0, 0]


def test_motion():
    """A quarter turn from x to y, and a wave that is 1 at one point and 0 at the other."""
    wave = (np.pi / 20, 0, 0, 0.5, -0.25)
    layer = make_layer(1, [[0, -1, 3], [1, 0, 10]], waves=[wave])
    x, y = layers.move(layer, np.array([10.0, 20.0]), np.array([4.0, 4.0]))
    assert np.allclose(x, [-4 + 3 + 0.5, -4 + 3]) and np.allclose(y, [10 + 10 - 0.25, 20 + 10])


def test_motions_are_invertible():
    count = 0
    for height, width in ((128, 416), (375, 1242)):
        y, x = np.mgrid[-height : 2 * height : 23, -width : 2 * width : 31].astype(float)
        for layer in (layer for world in draw_worlds(15, height, width) for layer in world):
            count += 1
            # Upper bound of the contraction of the iteration.
            slopes = (np.hypot(*layer.waves[:, :2].T) * np.hypot(*layer.waves[:, 3:].T)).sum()
            assert slopes * np.linalg.norm(np.linalg.inv(layer.matrix[:, :2]), 2) < 1 / 3
            assert np.abs(layers.move(layer, *layers.move_back(layer, x, y)) - [x, y]).max() < 1e-5
            assert np.abs(layers.move_back(layer, *layers.move(layer, x, y)) - [x, y]).max() < 1e-5
    assert count > 150


def test_edges_are_one_pixel_soft():
    """Near the edge, a shape's distance increases by one per pixel."""
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
    """Return cells of frame 2 that the layer surely covers, and cells that it may cover.

    Both are (rows, columns) bool, from forward motion of dense points.
    """
    (left, top), (right, bottom) = layer.box
    x, y = np.meshgrid(np.arange(left, right, 0.1), np.arange(top, bottom, 0.1))
    inside = layer.distance(x, y) >= 0
    x, y = np.floor(layers.move(layer, x[inside], y[inside]) / cell).astype(int)
    cells = np.zeros((int(height / cell), int(width / cell)), np.uint8)
    in_frame = (x >= 0) & (y >= 0) & (x < cells.shape[1]) & (y < cells.shape[0])
    cells[y[in_frame], x[in_frame]] = 1
    kernel = np.ones((3, 3), np.uint8)
    return cv2.erode(cells, kernel) > 0, cv2.dilate(cells, kernel) > 0


def test_visibility_by_forward_motion():
    height, width = 64, 160
    y, x = np.mgrid[:height, :width]
    doubtful = occluded = 0
    for world in draw_worlds(6, height, width, seed=1):
        _, flow, top = layers.render(world, height, width, 0)
        visible = layers.find_visible(world, flow, top)
        ends = x + flow[..., 0], y + flow[..., 1]
        inside = (ends[0] >= 0) & (ends[1] >= 0) & (ends[0] <= width - 1) & (ends[1] <= height - 1)
        assert not visible[~inside].any()
        column, row = (np.floor(np.where(inside, end, 0) / 0.25).astype(int) for end in ends)
        surely_covered, maybe_covered = np.zeros((2, height, width), bool)
        for i, layer in enumerate(world[1:], 1):
            covered, possible = splat(layer, height, width)
            surely_covered |= covered[row, column] & (top < i)
            maybe_covered |= possible[row, column] & (top < i)
        assert not (visible & surely_covered).any()
        assert visible[inside & ~maybe_covered].all()
        doubtful += (maybe_covered & ~surely_covered & inside).sum()
        occluded += (inside & ~visible).sum()
    assert occluded > 300 and doubtful < 0.05 * 6 * height * width


@pytest.mark.parametrize(("height", "width"), [(128, 416), (375, 1242)])
def test_flow_magnitudes_resemble_driving(height, width):
    y, x = np.mgrid[: height : height / 16, : width : width / 40]
    speeds = []
    for world in draw_worlds(150, height, width):
        flow = np.zeros((2, *x.shape))
        for layer in world:
            inside = layer.distance(x, y) >= 0
            flow[:, inside] = (layers.move(layer, x, y) - [x, y])[:, inside]
        speeds.append(np.hypot(*flow).ravel() / width * 1242)
    speeds = np.array(speeds)
    assert 15 < speeds.mean() < 28 and 10 < np.median(speeds) < 22
    assert 80 < np.percentile(speeds, 99) < 180
    assert 0.03 < (speeds.mean(1) < 1.5).mean() < 0.3


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone", "labels"])
def test_damaged_photograph_is_named(photos, tmp_path, damage):
    path = tmp_path / "broken.png"
    data = photos[0].read_bytes()
    content = {"cut": data[: len(data) // 2], "empty": b"", "text": b"no picture", "gone": None}
    content["labels"] = cv2.imencode(".png", np.arange(12, dtype=np.uint8)[:, None])[1].tobytes()
    if content[damage] is not None:
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"broken\.png"):
        layers.make_pair(0, 0, *SIZE, [path])


def test_no_photographs():
    with pytest.raises(ValueError, match="requires photographs"):
        layers.make_pair(0, 0, *SIZE, ())


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 40, 3), (900, 1600), (40, 30, 3)])
def test_photographs_of_any_size(tmp_path, shape):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(100, 256, shape, np.uint8))
    for size in ((16, 16), (40, 130)):
        pair = layers.make_pair(0, 0, *size, [path])
        assert pair.image1.shape == (*size, 3) and np.isfinite(pair.flow).all()


def test_workers_start_without_tensorflow():
    code = "import sys, data_prep.scenes.layers; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0
