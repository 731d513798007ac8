"""Tests of the light of synthetic streets: shadows, paint, haze, and textures on moving parts."""

import cv2
import numpy as np

from data_prep.scenes import light, street, textures
from data_prep.scenes import world as worlds
from data_prep.scenes.camera import kitti_lens
from data_prep.scenes.light import Weather
from data_prep.scenes.road import Road
from data_prep.scenes.world import Body, Drive, Look, Part

PLAIN = Look("grain", (0.3, 0.3, 0.3))
PLANE = Part("plane", (0, 0, 1), (0, 0, 0), PLAIN, 22, ground=True)
ROAD = Road(curve=1e-5, half=4.0, dashed=(0.0, 0.0), edge_lines=False, crossing=np.inf)
WEATHER = Weather(
    sun_direction=np.array([0.0, 0.6, 0.8]),
    sun=np.full(3, 2.0),
    zenith=np.array([0.3, 0.6, 1.0]),
    horizon=np.array([0.9, 1.0, 1.1]),
    ambient=np.full(3, 0.4),
    clouds=0.0,
    cloud_tile=textures.TILES["clouds"][0],
    visibility=1e6,
)
DULL = WEATHER._replace(sun=np.zeros(3))
DRIVE = Drive((0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 1.6, (0.0, 0.0, 0.0), (0.0,) * 6)


def build(static=(), bodies=(), plane=PLANE):
    return worlds.build([plane, *static], list(bodies), DRIVE, np.random.default_rng(0))


def photograph(world, weather=WEATHER, road=ROAD, height=96, width=312):
    camera = street._camera(world, kitti_lens(height, width))
    return light.photograph(world, camera, height, width, weather, road)


def test_shadow_position():
    # The sun, 0.6 to the left and 0.8 up: a wall from x = 8 to 12, 2 m to the left and 3 m tall,
    # casts a shadow 3 * 0.6 / 0.8 = 2.25 m to the right, to y = -0.25.
    wall = Part("box", (2, 0.1, 1.5), (10, 2.1, 1.5), PLAIN, 11)
    world = build([wall])
    bright, hits = photograph(world)
    dark, _ = photograph(world, DULL)
    gain = (bright - dark).min(-1).ravel()
    x, y, _ = hits.point.T
    ground = (world.label[hits.geom] == 22) & (hits.geom >= 0) & (hits.distance < 40)
    inside = ground & (x > 8.3) & (x < 11.7) & (y > -0.1) & (y < 1.95)
    outside = ground & ((x < 7.7) | (x > 12.5) | (y < -0.45) | (y > 2.5))
    assert inside.sum() > 200 and outside.sum() > 3000
    # Edges get more rays, and there are fewer edges in the dark: small texture differences.
    assert np.abs(gain[inside]).max() < 0.01 and gain[outside].min() > 0.1
    # The wall's near side, which faces away from the sun, gets no sunlight.
    side = (world.label[hits.geom] == 11) & (hits.normal[:, 1] < -0.5) & (hits.geom >= 0)
    assert side.sum() > 200 and (np.abs(gain[side]) > 0.01).mean() < 0.1  # except at its rim


def test_paint_is_only_on_the_road():
    road_plane = PLANE._replace(label=worlds.ROAD)
    zebra = ROAD._replace(crossing=12.0)
    differences = []
    for ground in (road_plane, PLANE):
        world = build([Part("box", (0.4, 0.3, 0.2), (12, 1, 0.5), PLAIN, 11)], plane=ground)
        without, hits = photograph(world)
        with_crossing, _ = photograph(world, road=zebra)
        differences.append(np.abs(with_crossing - without).max(-1).ravel())
    on, off = differences
    assert not off.any()
    x, y, _ = hits.point.T
    ground = hits.geom == 0
    # Stripes of half a metre about 0.5, 1.5, ..., from 10.4 to 13.6 m.
    stripe = np.abs(y % 1 - 0.5) < 0.15
    inside = ground & (np.abs(x - 12) < 1.3) & (np.abs(y) < 3.5) & stripe
    outside = (np.abs(x - 12) > 2.2) | (np.abs(y) > 4) | (np.abs(y % 1 - 0.5) > 0.35) | ~ground
    far_from_edges = hits.distance < 30
    assert inside.sum() > 150 and on[inside].min() > 0.1
    assert (on[outside & far_from_edges] > 0.1).mean() < 2e-3


def test_haze_and_sky():
    world = build()
    clear, hits = photograph(world)
    hazy, _ = photograph(world, WEATHER._replace(visibility=50.0))
    share = np.exp(-hits.distance / 50).reshape(96, 312, 1)
    ground = (hits.geom >= 0).reshape(96, 312)
    expected = clear * share + WEATHER.horizon * (1 - share)
    np.testing.assert_allclose(hazy[ground], expected[ground], atol=0.01)
    sky = np.s_[:40]  # the horizon is at row 44
    assert not ground[sky].any()
    assert np.array_equal(hazy[sky], clear[sky])  # the sky's colours already include haze
    rows = clear[sky][:, 20].mean(-1)
    assert (np.diff(rows) > 0).all()  # brighter towards the horizon


def test_texture_moves_with_its_part():
    # A poster moves 0.4 m to the right, to the left, and 1 m nearer.
    poster = Part("box", (0.005, 1, 1), (0, 0, 0), Look("shapes", (0.6, 0.5, 0.4), (2, 2)), 20)
    body = Body((7.95, 0.2, 1.6), 0.0, 0.0, 0.0, [poster])
    for speed, yaw in ((4.0, -np.pi / 2), (4.0, np.pi / 2), (10.0, np.pi)):
        turned = poster._replace(turn=(0, 0, -yaw))
        world = build(bodies=[body._replace(speed=speed, yaw=yaw, parts=[turned])])
        first, hits = photograph(world, DULL)
        before = world.data.geom_xpos[1].copy()
        worlds.advance(world)
        second, _ = photograph(world, DULL)
        motion = world.data.geom_xpos[1] - before
        np.testing.assert_allclose(
            motion, 0.1 * speed * np.array([np.cos(yaw), np.sin(yaw), 0]), atol=1e-6
        )
        # Position of each pixel of its front in the next frame; the camera is at (0.3, 0, 1.6) m.
        lens = kitti_lens(96, 312)
        ahead, left, up = (hits.point + motion - [0.3, 0, 1.6]).T
        x, y = (
            np.float32(c - lens["focal"] * lateral / ahead).reshape(96, 312)
            for lateral, c in zip((left, up), lens["centre"], strict=True)
        )
        front = ((world.label[hits.geom] == 20) & (hits.geom >= 0)).reshape(96, 312)
        front = cv2.erode(np.uint8(front), np.ones((3, 3))) > 0
        moved = cv2.remap(second, x, y, cv2.INTER_LINEAR)
        right, wrong = (np.abs(image - first)[front].mean() for image in (moved, second))
        assert front.sum() > 1000 and right < wrong / 4, (speed, yaw)


def test_ground_texture_uses_world_coordinates():
    """Textures of ground parts do not depend on the part's centre, so that discs join."""
    reference, _ = photograph(build())
    for moved in ((1.23, -0.7, 0.0), (-40.0, 9.1, 0.0)):
        shifted, _ = photograph(build(plane=PLANE._replace(position=moved)))
        np.testing.assert_allclose(reference, shifted, atol=1e-4)
    assert reference[60:].std() > 0.01
    local, _ = photograph(build(plane=PLANE._replace(position=(1.23, -0.7, 0.0), ground=False)))
    assert np.abs(local - reference).max() > 0.02
