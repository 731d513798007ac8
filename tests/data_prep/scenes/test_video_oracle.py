"""Tests flow, labels and occlusion of drives against single rays, projection and the warp."""

from typing import NamedTuple

import mujoco
import numpy as np
import pytest

from data_prep.scenes import rays, route, truth, video, video_world
from data_prep.scenes.route import Settings

SKY, SKY_LABEL = -1, 23
SIZE = (96, 312)
PLAIN = Settings(0, 11, *SIZE, effects=False, speed=None, rate=10.0)
# Towns, suburbs and country roads; early and late frames; slow and fast.
CASES = (
    PLAIN,
    PLAIN._replace(drive=1, effects=True),
    PLAIN._replace(drive=2, effects=True, speed=15.0),
    PLAIN._replace(drive=3, seed=2, rate=25.0),
)
FRAMES = (1, 640)


class Moment(NamedTuple):
    """A frame, and the worlds before, at and after it."""

    frame: video.Frame
    drive: route.Route
    before: video_world.View
    now: video_world.View
    after: video_world.View


@pytest.fixture(scope="module")
def moments():
    views_of_frames = []
    for settings, number in [(s, n) for s in CASES for n in FRAMES]:
        drive = route.draw_route(settings)
        frame = next(video.render(settings, [number]))
        views = (video_world.build(drive, number + step) for step in (-1, 0, 1))
        views_of_frames.append(Moment(frame, drive, *views))
    return views_of_frames


def project_point(camera, point, direction):
    """Project a point by K [R|t] to pixel and depth; a direction if `point` is None."""
    matrix = np.array([[camera.focal, 0, camera.centre[0]], [0, camera.focal, camera.centre[1]],
                       [0, 0, 1]])  # fmt: skip
    in_camera = camera.axes @ (direction if point is None else point - camera.position)
    normalised = in_camera / in_camera[2]
    undistorted = np.hypot(*normalised[:2])
    distorted = undistorted
    for _ in range(60 if camera.bend else 0):  # fixed-point iteration of the distortion
        distorted = undistorted * (1 + camera.bend * distorted**2)
    normalised[:2] *= distorted / undistorted
    return (matrix @ normalised)[:2], in_camera[2]


def cast_ray(view, origin, ray):
    """Return geom (-1: none) and distance of one ray in the whole world."""
    geom = np.zeros(1, np.int32)
    model, data = view.world.model, view.world.data
    distance = mujoco.mj_ray(model, data, origin, ray, None, 1, -1, geom)
    return geom[0], distance


def move_point(view, other, geom, point):
    """Move the point with its geom to the world of another frame, from where MuJoCo has it there.

    None: the other world lacks the geom.
    """
    if geom == 0:
        return point
    (there,) = np.nonzero(other.key == view.key[geom])
    if not len(there):
        return None
    turn1 = view.world.data.geom_xmat[geom].reshape(3, 3)
    turn2 = other.world.data.geom_xmat[there[0]].reshape(3, 3)
    offset = point - view.world.data.geom_xpos[geom]
    return turn2 @ turn1.T @ offset + other.world.data.geom_xpos[there[0]]


def label_of_ground(drive, frame, point):
    """Find the strip at a point by a search for the road's nearest point.

    Returns:
        label, and distance to the strip's edge.
    """
    s = drive.driver.s(drive.time(frame)) + np.arange(-100.0, 600.0, 1.0)
    places = np.array([drive.course.at(n, 0.0) for n in s])
    nearest = np.hypot(*(places[:, :2] - point[:2]).T).argmin()
    s = s[nearest] + np.arange(-1, 1, 0.005)
    places = np.array([drive.course.at(n, 0.0) for n in s])
    distances = np.hypot(*(places[:, :2] - point[:2]).T)
    x, y, heading = places[distances.argmin()]
    left = np.cos(heading) * (point[1] - y) - np.sin(heading) * (point[0] - x)
    edge = drive.course.half
    if distances.min() < edge:
        return 7, edge - distances.min()
    for width, _, label in drive.roadside.strips.rows[1 if left > 0 else -1]:
        start, edge = edge, edge + width
        if distances.min() < edge:
            return label, min(distances.min() - start, edge - distances.min())
    raise AssertionError("the last strip has no end")


def sample_pixels(rng, frame, count=300):
    """Sample `count` pixels: two thirds anywhere, one third where instances or flow change."""
    edge = np.zeros(frame.labels.shape, bool)
    edge[:, 1:] |= np.diff(frame.instances.astype(int), axis=1) != 0
    edge[:, 1:] |= np.abs(np.diff(frame.flow, axis=1)).max(-1) > 1
    anywhere = rng.integers(0, edge.size, count * 2 // 3)
    return np.unique([*anywhere, *rng.choice(np.flatnonzero(edge), count // 3)])


def test_truth_by_single_rays(moments):
    errors, wrong, checked, moving, grounds = [], 0, 0, 0, 0
    for frame, drive, before, now, after in moments:
        width = SIZE[1]
        for pixel in sample_pixels(np.random.default_rng(0), frame):
            y, x = divmod(pixel, width)
            ray = rays.rays(now.camera, np.array([x]), np.array([y]))[0]
            geom, distance = cast_ray(now, now.camera.position, ray)
            point = now.camera.position + distance * ray
            if geom == 0:
                if distance < 300 and pixel % 6 == 0:
                    label, margin = label_of_ground(drive, now.frame, point)
                    grounds += 1
                    assert frame.labels[y, x] == label or margin < 0.02
            else:
                assert frame.labels[y, x] == (SKY_LABEL if geom == SKY else now.world.label[geom])
                instance = SKY_LABEL if geom == SKY else now.instance[geom]
                assert frame.instances[y, x] == instance
            for other, flow, valid in (
                (after, frame.flow, frame.valid),
                (before, frame.backward, frame.backward_valid),
            ):
                moved = None if geom == SKY else move_point(now, other, geom, point)
                if geom != SKY and moved is None:
                    continue
                pixel2, depth = project_point(other.camera, moved, ray)
                known = depth > 0.05 and np.abs(pixel2 - (x, y)).max() < 500
                assert valid[y, x] == known
                if known:
                    errors.append(np.abs(flow[y, x] - (pixel2 - (x, y))).max())
                if other is before or not known:
                    continue
                moving += geom > 0 and np.abs(moved - point).max() > 1e-3
                wrong += frame.visible[y, x] != is_in_sight(after, geom, moved, ray, pixel2, now)
                checked += 1
    assert checked > 200 * len(moments) and moving > 60 and grounds > 8 * len(moments)
    assert max(errors) < 0.01
    assert wrong <= 0.005 * checked


def is_in_sight(view, geom, point, ray, pixel, before):
    height, width = SIZE
    inside = (pixel >= 0).all() and pixel[0] <= width - 1 and pixel[1] <= height - 1
    target = ray if point is None else point - view.camera.position
    length = np.linalg.norm(target)
    hit, distance = cast_ray(view, view.camera.position, target / length)
    if geom == SKY:
        return inside and hit == SKY
    return inside and distance > length * (1 - 1e-3) - 1e-3


def test_forward_then_backward_returns_at_the_exact_point(moments):
    shares = []
    for frame, drive, _, now, after in moments:
        y, x = np.nonzero(frame.visible)
        hits = rays.cast(now.world, now.camera, x.astype(float), y.astype(float))
        ends = truth.follow(
            hits,
            truth.poses(now.world),
            video_world.poses(now, drive, now.frame + 1),
            after.camera,
        )
        # What the next frame shows at the exact place, and where its own backward flow leads.
        seen = rays.cast(after.world, after.camera, *ends[:2])
        back = truth.follow(
            seen,
            truth.poses(after.world),
            video_world.poses(after, drive, now.frame),
            now.camera,
        )
        error = np.hypot(back[0] - x, back[1] - y)
        same = video_world.translate(hits.geom, now, after) == seen.geom
        shares.append(same.mean())
        assert error[same].max() < 0.01
    assert min(shares) > 0.995


def test_poses_of_other_frames_equal_their_worlds(moments):
    for _, drive, before, now, after in moments:
        for other in (before, after):
            turns, positions = video_world.poses(now, drive, other.frame)
            there = video_world.translate(np.arange(len(now.key)), now, other)
            known = there >= 0
            assert known.mean() > 0.9
            expected = truth.poses(other.world)
            np.testing.assert_allclose(turns[known], expected[0][there[known]], atol=1e-6)
            np.testing.assert_allclose(positions[known], expected[1][there[known]], atol=1e-7)


def test_near_part_and_whole_world_give_the_same_hits(moments):
    for _, _, _, now, _ in moments[:4]:
        y, x = (n.ravel().astype(float) for n in np.mgrid[: SIZE[0] : 2, : SIZE[1] : 2])
        quick = rays.cast(now.world, now.camera, x, y)
        whole = rays.cast(now.world._replace(near=None), now.camera, x, y)
        for field in quick._fields:
            assert np.array_equal(getattr(quick, field), getattr(whole, field)), field
        assert 20 < len(now.world.near.geom) < 0.6 * len(now.key)
