"""Tests of the camera: hand-computed projections, and the round trip of rays and pixels."""

import numpy as np
import pytest

from data_prep.scenes.camera import Camera, kitti_lens, project, project_directions, rays

# The camera looks along the world's y; its right is x and its down is -z.
AXES = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
PLACE = np.array([3.0, -4, 1.5])


def looking_along_y(focal=100.0, centre=(50.0, 20.0), bend=0.0):
    return Camera(PLACE, AXES, focal, centre, bend)


def any_camera(rng, bend):
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes *= np.sign(np.linalg.det(axes))
    return Camera(rng.normal(0, 50, 3), axes, **kitti_lens(128, 416, 1.1, (7, -9), bend))


def grid(height, width, margin=0):
    y, x = np.mgrid[-margin : height + margin, -margin : width + margin : 3].astype(float)
    return x.ravel(), y.ravel()


def test_projection():
    # 1 m right, 2 m down, 10 m ahead: 100 * 1/10 right of the centre and 100 * 2/10 below it.
    x, y, depth = project(looking_along_y(), PLACE + [[1, 10, -2], [0, 5, 0]])
    assert x.tolist() == [60, 50] and y.tolist() == [40, 20] and depth.tolist() == [10, 5]


def test_rays():
    # The centre looks ahead; 100 px (the focal length) to the right is 45 degrees to the right;
    # 75 px below is 3 down per 4 ahead.
    directions = rays(looking_along_y(), np.array([50.0, 150, 50]), np.array([20.0, 20, 95]))
    expected = [[0, 1, 0], [0.5**0.5, 0.5**0.5, 0], [0, 0.8, -0.6]]
    np.testing.assert_allclose(directions, expected, atol=1e-15)


@pytest.mark.parametrize(("bend", "ahead"), [(-0.4, 9), (0.4, 11)])
def test_lens_distortion(bend, ahead):
    # A pixel 30 px right and 40 px below the centre is 0.3, 0.4, in total 0.5 focal lengths off.
    # The division model divides by 1 -+ 0.4 * 0.5^2 = 0.9 or 1.1: a ray 3 right, 4 down, 9 or 11
    # ahead.
    camera = looking_along_y(bend=bend)
    direction = np.array([3.0, ahead, -4])
    for projection in (
        project(camera, PLACE + 2 * direction[None]),
        project_directions(camera, direction),
    ):
        np.testing.assert_allclose(np.ravel(projection[:2]), [80, 60], atol=1e-12)
    (ray,) = rays(camera, np.array([80.0]), np.array([60.0]))
    np.testing.assert_allclose(ray, direction / np.linalg.norm(direction), atol=1e-15)


@pytest.mark.parametrize("bend", [0.0, -0.03, 0.01, -0.3])
def test_rays_project_to_their_pixels(bend):
    rng = np.random.default_rng(0)
    for _ in range(5):
        camera = any_camera(rng, bend)
        x, y = grid(128, 416, margin=60)
        direction = rays(camera, x, y)
        np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1, atol=1e-12)
        distance = rng.uniform(0.1, 300, (len(x), 1))
        points = camera.position + distance * direction
        for projection in (project(camera, points), project_directions(camera, direction)):
            assert np.abs(projection[0] - x).max() < 1e-9 and np.abs(projection[1] - y).max() < 1e-9
        depth = project(camera, points)[2]
        np.testing.assert_allclose(depth, (distance * direction) @ camera.axes[2], atol=1e-9)


def test_directions_are_points_at_infinity():
    rng = np.random.default_rng(1)
    camera = any_camera(rng, -0.02)
    direction = rays(camera, *grid(128, 416))
    far = project(camera, camera.position + 1e9 * direction)
    for projection, limit in zip(project_directions(camera, direction)[:2], far, strict=False):
        np.testing.assert_allclose(projection, limit, atol=1e-4)


@pytest.mark.parametrize("bend", [0.0, -0.03, 0.01])
def test_behind_the_camera(bend):
    points = PLACE + [[1, -10, -2], [0, -1e-3, 0], [3, 0, 1], [0, 0, 0], [0, 1e-3, 0]]
    x, y, depth = project(looking_along_y(bend=bend), points)
    np.testing.assert_allclose(depth, [-10, -1e-3, 0, 0, 1e-3], atol=1e-12)
    assert np.isfinite([x, y]).all()


def test_kitti_lens():
    lens = kitti_lens(375, 1242)
    assert lens["focal"] == pytest.approx(721.5377, abs=1e-9)
    assert lens["centre"] == pytest.approx((609.5593, 172.8540), abs=1e-9)
    assert lens["bend"] == 0


def test_lens_scales_with_size():
    # A third of the width: a third of the focal length and of the centre's x at any height.
    # The horizon keeps its relative height: 172.854 of 375 rows is 59.0008 of 128.
    for height, horizon in ((125, 57.618), (128, 59.00083)):
        lens = kitti_lens(height, 414)
        assert lens["focal"] == pytest.approx(240.51257, abs=1e-4)
        assert lens["centre"] == pytest.approx((203.18643, horizon), abs=1e-4)
    # Zoom only changes the focal length; a shift of 6, -9 px at KITTI's width is 2, -3 px here.
    varied = kitti_lens(128, 414, zoom=1.5, shift=(6, -9), bend=-0.01)
    assert varied["focal"] == pytest.approx(360.76885, abs=1e-4)
    assert varied["centre"] == pytest.approx((205.18643, 56.00083), abs=1e-4)
    assert varied["bend"] == -0.01


@pytest.mark.parametrize(("height", "width"), [(375, 1242), (128, 416), (96, 312), (200, 300)])
def test_pixels_are_square_at_any_size(height, width):
    camera = Camera(PLACE, AXES, **kitti_lens(height, width))
    middle = np.array(camera.centre)
    # Equal distances below and right of the centre have equal angles.
    right, below = rays(camera, *(middle + [[40, 0], [0, 40]]).T)
    assert right[0] == pytest.approx(-below[2], abs=1e-12) and right[0] > 0.04
    # The left border has the same angle as KITTI's: 609.5593 / 721.5377.
    (border,) = rays(camera, np.zeros(1), middle[1:])
    assert border[0] / border[1] == pytest.approx(-609.5593 / 721.5377, abs=1e-12)
