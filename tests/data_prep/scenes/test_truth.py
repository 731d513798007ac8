"""Tests of flow and visibility of synthetic worlds against closed formulas."""

import numpy as np
import pytest

from data_prep.scenes import light, movers, rays, sensor, street, truth
from data_prep.scenes import world as worlds
from data_prep.scenes.camera import kitti_lens
from data_prep.scenes.road import Road
from data_prep.scenes.world import Body, Drive, Look, Part

GREY = Look("asphalt", (0.2, 0.2, 0.2))
PLANE = Part("plane", (0, 0, 1), (0, 0, 0), GREY, worlds.ROAD, ground=True)
STILL = ((0.0, 0.0, 0.0), (0.0,) * 6)  # no aim, no sway
HEIGHT, WIDTH = 60, 200


def drive(speed=0.0, yaw_rate=0.0, acceleration=0.0):
    aim, sway = STILL
    return Drive((0.0, 0.0), 0.0, speed, yaw_rate, acceleration, 1.65, aim, sway)


def two_moments(static, bodies, car, after=lambda world: None):
    """Return the world at the second frame, cameras, hits of the first frame, and poses."""
    world = worlds.build(static, bodies, car, np.random.default_rng(0))
    lens = kitti_lens(HEIGHT, WIDTH)
    y, x = (n.ravel().astype(float) for n in np.mgrid[:HEIGHT, :WIDTH])
    camera1 = street._camera(world, lens)
    hits = rays.cast(world, camera1, x, y)
    before = truth.poses(world)
    worlds.advance(world)
    return world, (camera1, street._camera(world, lens)), hits, (before, truth.poses(world))


def flow_of(static, bodies, car):
    _, cameras, hits, poses = two_moments(static, bodies, car)
    x, y, depth, _, _ = truth.follow(hits, *poses, cameras[1])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x - columns.ravel(), y - rows.ravel()], -1).reshape(HEIGHT, WIDTH, 2), hits


def test_driving_over_a_plane():
    speed = 7.0
    flow, hits = flow_of([PLANE], [], drive(speed))
    lens = kitti_lens(HEIGHT, WIDTH)
    focal, (cx, cy) = lens["focal"], lens["centre"]
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    ground = y > cy + 2
    # A row y below the horizon shows ground at distance f h / (y - cy), then 0.7 m less.
    depth = focal * 1.65 / (y[ground] - cy)
    nearer = depth / (depth - speed * worlds.INTERVAL)
    u, v = (x[ground] - cx) * (nearer - 1), (y[ground] - cy) * (nearer - 1)
    np.testing.assert_allclose(flow[ground], np.stack([u, v], -1), atol=1e-6)
    assert np.abs(u - v).max() > 10
    # The sky is at infinity and does not move.
    assert np.abs(flow[: int(cy)]).max() < 1e-6


def test_turning_moves_the_sky_by_a_homography():
    rate = 0.4
    flow, hits = flow_of([PLANE], [], drive(yaw_rate=rate))
    lens = kitti_lens(HEIGHT, WIDTH)
    focal, (cx, cy) = lens["focal"], lens["centre"]
    y, x = (n.astype(float) for n in np.mgrid[: int(cy), :WIDTH])
    # Turning left by 0.04 rad moves a direction at angle a to the right to a + 0.04.
    angle = rate * worlds.INTERVAL
    right, ahead = (x - cx) / focal, 1.0
    moved = (
        np.cos(angle) * right + np.sin(angle) * ahead,
        (y - cy) / focal,
        np.cos(angle) * ahead - np.sin(angle) * right,
    )
    expected = [cx + focal * moved[0] / moved[2] - x, cy + focal * moved[1] / moved[2] - y]
    np.testing.assert_allclose(flow[: int(cy)], np.stack(expected, -1), atol=1e-6)
    assert flow[: int(cy), :, 0].min() > 3


def test_static_camera_has_zero_flow():
    crate = Part("box", (1, 1, 1), (9, 1.5, 1), Look("shapes", (0.5, 0.4, 0.3)), 11)
    world, cameras, hits, poses = two_moments([PLANE, crate], [], drive())
    projected = truth.follow(hits, *poses, cameras[1])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    assert np.abs(projected[0] - columns.ravel()).max() < 1e-9
    assert np.abs(projected[1] - rows.ravel()).max() < 1e-9
    weather = light.draw_weather(np.random.default_rng(1))
    road = Road(1e-4, 4, (2, 2), True, 20.0)
    lights = [
        light.photograph(world, camera, HEIGHT, WIDTH, weather, road)[0] for camera in cameras
    ]
    first, second = sensor.expose(lights, sensor.Sensor())
    assert np.array_equal(first, second) and first.std() > 5
    hits2 = rays.cast(world, cameras[1], columns.ravel() * 1.0, rows.ravel() * 1.0)
    assert truth.is_visible(world, cameras[1], hits, projected, hits2, HEIGHT, WIDTH).all()


def test_moving_crate_occludes_wall():
    """A crate 10 m ahead moves 1 m to the left and occludes the wall behind it."""
    wall = Part("box", (0.5, 50, 20), (20.5, 0, 0), Look("brick", (0.4, 0.3, 0.3)), 12)
    crate = Part("box", (0.5, 1, 1), (0, 0, 1.65), GREY, 26)
    body = Body((10.8, 0, 0), np.pi / 2, 10.0, 0.0, [crate._replace(turn=(0, 0, -np.pi / 2))])
    world, cameras, hits, poses = two_moments([PLANE, wall], [body], drive())
    projected = truth.follow(hits, *poses, cameras[1])
    rows, columns = (n.ravel().astype(float) for n in np.mgrid[:HEIGHT, :WIDTH])
    hits2 = rays.cast(world, cameras[1], columns, rows)
    visible = truth.is_visible(world, cameras[1], hits, projected, hits2, HEIGHT, WIDTH)
    lens = kitti_lens(HEIGHT, WIDTH)
    focal, (cx, cy) = lens["focal"], lens["centre"]
    row = round(cy) * WIDTH
    # The camera is 0.3 m ahead of its car's centre. The crate's front, 10 m ahead, spans 1 m to
    # each side; then from 2 m left to the middle.
    on_crate = np.abs(columns[:WIDTH] - cx) < focal / 10
    newly_covered = (columns[:WIDTH] > cx - focal * 2 / 10) & (columns[:WIDTH] < cx)
    assert np.array_equal(world.label[hits.geom[row : row + WIDTH]] == 26, on_crate)
    expected = on_crate | ~newly_covered
    np.testing.assert_array_equal(visible[row : row + WIDTH], expected)
    crate_flow = (projected[0] - columns)[row : row + WIDTH][on_crate]
    np.testing.assert_allclose(crate_flow, -focal / 10, atol=1e-6)


def test_bodies_move_by_their_speed():
    car = Body((10, 3, 0), 0.3, 8.0, 0.5, movers.car(np.random.default_rng(0)))
    walker = movers.person(np.random.default_rng(1), 12, -2, 1.0, 1.5)
    far = movers.person(np.random.default_rng(1), 30, -2, 1.0, 1.5, near=False)
    assert walker.limbs and not far.limbs
    world = worlds.build([PLANE], [car, walker, far], drive(5.0), np.random.default_rng(0))
    data = world.data
    first = data.xpos.copy(), data.xmat.copy(), data.qpos.copy()
    worlds.advance(world)
    # Bodies are in the order of writing, each followed by its limbs. 0 is the world.
    for body, number in ((car, 1), (walker, 2), (far, 2 + 1 + len(walker.limbs))):
        ahead = np.array([np.cos(body.yaw), np.sin(body.yaw), 0])
        expected = first[0][number] + body.speed * 0.1 * ahead
        np.testing.assert_allclose(data.xpos[number], expected, atol=1e-5)
        angles = [np.arctan2(xmat[number][3], xmat[number][0]) for xmat in (first[1], data.xmat)]
        assert angles[1] - angles[0] == pytest.approx(0.1 * body.yaw_rate, abs=1e-6)
    # A free joint has 7 values, followed by the limbs' angles.
    limb_motion = (data.qpos - first[2])[14 : 14 + len(walker.limbs)]
    expected = [0.1 * limb.speed for limb in walker.limbs]
    np.testing.assert_allclose(limb_motion, expected, atol=1e-3)
    assert np.abs(expected).max() > 0.02


def test_camera_car_drives_and_brakes():
    def path(car):
        world = worlds.build([PLANE], [], car, np.random.default_rng(0))
        start = world.data.site_xpos[0].copy()
        worlds.advance(world)
        turn = world.data.site_xmat[0].reshape(3, 3)
        return world.data.site_xpos[0] - start, turn

    motion, turn = path(drive(8.0))
    np.testing.assert_allclose(motion, [0.8, 0, 0], atol=1e-9)
    np.testing.assert_allclose(turn, np.eye(3), atol=1e-9)
    # The braking distance is about 1/2 a t^2, as MuJoCo's steps are finite; the nose goes down.
    braked, turn = path(drive(8.0, acceleration=-4.0))
    assert 0.5 * 4 * 0.1**2 * 0.7 < 0.8 - braked[0] < 0.5 * 4 * 0.1**2 * 1.6
    assert turn[2, 0] < -1e-3  # the car's forward axis points below the horizon
    motion, turn = path(drive(8.0, yaw_rate=0.5))
    assert np.arctan2(turn[1, 0], turn[0, 0]) == pytest.approx(0.05, abs=1e-3)
    # On a circle to the left: lateral motion v w t^2 / 2, plus that of the camera's 0.3 m ahead.
    assert motion[1] == pytest.approx(8 * 0.5 * 0.1**2 / 2 + 0.3 * np.sin(0.05), rel=0.15)
