"""Tests of the texture atlas, street objects and road markings."""

import numpy as np
import pytest

from data_prep.scenes import layout, movers, textures, things
from data_prep.scenes.road import Road
from data_prep.scenes.world import Look, Part
from flowseg.data.labels import CITYSCAPES

SIZE = textures.SIZE


def finest(tile):
    """Cut a texture out of the atlas, (SIZE, SIZE, 3) float factors."""
    left = tile * (SIZE + 2) + 1
    return textures.atlas()[1 : SIZE + 1, left : left + SIZE] / 100.0


def sample(tile, u, v, texels=1.0):
    u, v = np.broadcast_arrays(np.float32(u), np.float32(v))
    tiles = np.full(u.size, tile)
    samples = textures.sample(tiles, u.ravel(), v.ravel(), np.full(u.size, texels))
    return samples.reshape(*u.shape, 3)


def test_sample_at_texel_centre():
    column, row = np.array([0, 7, 100, 255]), np.array([3, 255, 0, 128])
    for tile in (0, 9, len(textures.TILES) - 1):
        samples = sample(tile, (column + 0.5) / SIZE, (row + 0.5) / SIZE)
        # u runs along a row and v down a column; swapped axes would return other texels.
        assert np.abs(samples - finest(tile)[row, column]).max() < 1e-6


def test_sample_interpolates_and_wraps():
    tile = textures.TILES["leaves"][0]
    texels = finest(tile)
    halfway = sample(tile, 11.0 / SIZE, 20.5 / SIZE)
    assert np.abs(halfway - texels[20, 10:12].mean(0)).max() < 0.011  # a byte is 0.01
    # Position 0 is between the last and the first texel.
    seam = sample(tile, 0.0, 20.5 / SIZE)
    assert np.abs(seam - texels[20, [-1, 0]].mean(0)).max() < 0.011
    u = np.linspace(0, 1, 57)
    near = sample(tile, u, 0.3)
    assert np.abs(sample(tile, u + 3, -0.7) - near).max() < 0.08  # float32 positions
    assert np.abs(sample(tile, u, 0.6) - near).mean() > 0.1


def test_sample_averages_over_the_pixel():
    tile = textures.TILES["facade"][0]
    blocks = finest(tile).reshape(SIZE // 16, 16, SIZE // 16, 16, 3).mean((1, 3))
    position = (np.arange(SIZE // 16) + 0.5) * 16 / SIZE
    samples = sample(tile, position[None, :], position[:, None], texels=16.0)
    assert np.abs(samples - blocks).max() < 0.02
    far = sample(tile, np.linspace(0, 1, 30), 0.4, texels=1e4)
    assert np.abs(far - finest(tile).mean((0, 1))).max() < 0.15
    assert sample(tile, np.linspace(0, 1, 300), 0.4).std() > 2 * far.std()


def test_textures_are_around_one_and_tile():
    for name, tiles in textures.TILES.items():
        for tile in tiles:
            texels = finest(tile)
            assert 0.2 < texels.mean() < 1.8, name
            assert texels.std() > 0.05, name
            # The step across the seam is no larger than steps inside.
            inside = np.abs(np.diff(texels, axis=1)).mean((0, 2)).max()
            seam = np.abs(texels[:, 0] - texels[:, -1]).mean()
            assert seam < 1.3 * inside + 0.05, name


def test_place_rotates_and_moves():
    # (2, 1, 0.5) rotated by 90 degrees is (-1, 2); then moved by (10, 20).
    part = Part("box", (1, 2, 3), (2, 1, 0.5), Look("grain", (1, 1, 1)), 11, (0.1, 0.2, 0.3))
    (placed,) = things.place([part], 10, 20, np.pi / 2)
    assert placed.position == pytest.approx((9, 22, 0.5))
    assert placed.turn == pytest.approx((0.1, 0.2, 0.3 + np.pi / 2))
    assert placed.size == part.size and placed.label == 11


KINDS = {"box": 3, "ellipsoid": 3, "cylinder": 2, "capsule": 2, "sphere": 1, "plane": 3}


def test_street_parts_are_valid_and_cover_all_classes():
    known, labels = set(sum(CITYSCAPES.ids["cityscapes"], ())), set()
    for index in range(30):
        rng = np.random.default_rng([5, index])
        road, static, bodies, drive, weather = layout.draw_street(rng)
        limbs = [limb for body in bodies for limb in body.limbs]
        groups = [static, *(body.parts for body in bodies), *(limb.parts for limb in limbs)]
        for part in sum(groups, []):
            assert len(part.size) == KINDS[part.kind]  # primitives, which are convex
            assert min(part.size) > 0 or part.kind == "plane"
            assert part.look.material in textures.TILES and part.label in known
            assert np.isfinite([*part.position, *part.turn, *part.size]).all()
            assert all(0 <= c < 1 for c in part.look.colour)
            labels.add(part.label)
        assert np.linalg.norm(weather.sun_direction) == pytest.approx(1)
        assert weather.sun_direction[2] > 0 and drive.speed >= 0
        assert min(*weather.sun, *weather.zenith, *weather.horizon, *weather.ambient) > 0
    # Road, pavement, buildings, walls, fences, poles, lights, signs, plants, grass, people,
    # riders, cars, lorries, buses and bicycles.
    assert labels >= {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 24, 25, 26, 27, 28, 33}


def test_car_wheels():
    for index in range(20):
        parts = movers.car(np.random.default_rng(index))
        wheels = [part for part in parts if part.kind == "cylinder"]
        assert len(wheels) == 4
        for wheel in wheels:
            assert wheel.position[2] == pytest.approx(wheel.size[0])
        # There are wheels on both sides, front and rear.
        assert {tuple(np.sign(wheel.position[:2])) for wheel in wheels} == {
            *((x, y) for x in (-1, 1) for y in (-1, 1))
        }


def test_road_follows_its_circle():
    road = Road(curve=1 / 50, half=4, dashed=(2, 2), edge_lines=False, crossing=np.inf)
    # A quarter of the circle of radius 50 m about (0, 50): at (50, 50), heading along y.
    x, y, heading = road.at(50 * np.pi / 2, 0)
    assert (x, y, heading) == pytest.approx((50, 50, np.pi / 2))
    # 3 m to the left is 3 m nearer to the centre.
    assert road.at(50 * np.pi / 2, 3)[:2] == pytest.approx((47, 50))
    right = road._replace(curve=-1 / 50)
    assert right.at(50 * np.pi / 2, 0) == pytest.approx((50, -50, -np.pi / 2))


@pytest.mark.parametrize("curve", [1e-4, -1e-4, 0.01, -0.01])
def test_paint_positions(curve):
    road = Road(curve=curve, half=4, dashed=(2, 3), edge_lines=True, crossing=30.0)

    def paint(s, d):
        x, y, _ = road.at(s, d)
        return road.paint(np.array([[x, y, 0.0]]), np.array([1e-3]), np.array([1.0]))[0]

    # Dashes of 2 m about s = 0, 5, 10, ...; 14 cm wide.
    assert paint(5.0, 0.0) == pytest.approx(0.85) and paint(10.9, 0.05) == pytest.approx(0.85)
    assert paint(7.5, 0.0) == 0 and paint(5.0, 0.2) == 0
    # Lines 35 cm inside the edges, on both sides.
    for side in (-1, 1):
        assert paint(7.5, side * 3.65) == pytest.approx(0.85) and paint(7.5, side * 3.3) == 0
    # The stripes of the crossing are 50 cm wide, one per metre, 3.2 m long.
    assert paint(31.0, 1.5) == pytest.approx(0.85) and paint(31.0, 1.0) == 0
    assert paint(32.5, 1.5) == 0


def test_distant_paint_is_averaged():
    road = Road(curve=1e-4, half=4, dashed=(2, 3), edge_lines=False, crossing=np.inf)
    s = np.linspace(100, 120, 400)
    points = np.stack([*road.at(s, np.zeros(400))[:2], np.zeros(400)], -1)
    # A pixel 20 cm wide and 10 m long: two fifths are dashes, covering 14 of 20 cm.
    share = road.paint(points, np.full(400, 0.2), np.full(400, 0.02))
    assert share == pytest.approx(np.full(400, 0.85 * 0.4 * 0.7), rel=1e-3)


def test_vehicles_follow_the_bend():
    """A car turns with the curve of the road in either driving direction."""
    counts = {1: 0, -1: 0}
    for index in range(60):
        road, _, bodies, _, _ = layout.draw_street(np.random.default_rng([3, index]))
        for body in bodies:
            if body.limbs or body.speed < 3 or body.parts[0].label not in (26, 27, 28):
                continue
            spoke = np.array(body.position[:2]) - [0, 1 / road.curve]
            heading = np.array([np.cos(body.yaw), np.sin(body.yaw)])
            along = (spoke[0] * heading[1] - spoke[1] * heading[0]) / np.linalg.norm(spoke)
            if abs(along) > 0.95:  # otherwise it crosses the road
                assert np.sign(body.yaw_rate) == np.sign(along)
                counts[int(np.sign(along) * np.sign(road.curve))] += 1
    assert min(counts.values()) > 15
