"""Tests flow, labels and visibility of synthetic streets against single rays and projection."""

import copy
from typing import NamedTuple

import cv2
import mujoco
import numpy as np
import pytest

from data_prep.scenes import layout, light, rays, sensor, street
from data_prep.scenes.world import Drive, Look, Part

SEEDS = range(6)
SIZE = (96, 312)
SKY, SKY_LABEL = -1, 23


class Frame(NamedTuple):
    """A frame rendered by `make_pair`."""

    world: object
    data: mujoco.MjData  # state at the time of the frame
    camera: object
    hits: rays.Hits


def render_pair(index, effects, size=SIZE):
    """Render a pair and capture its two frames."""
    frames = []

    def capture(world, camera, *args):
        light_of_frame, hits = photograph(world, camera, *args)
        frames.append(Frame(world, copy.copy(world.data), camera, hits))
        return light_of_frame, hits

    photograph, light.photograph = light.photograph, capture
    try:
        pair = street.make_pair(index, 11, *size, effects=effects)
    finally:
        light.photograph = photograph
    return pair, *frames


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "effects"])
def rendered(request):
    """(effects, list of results of `render_pair`)."""
    return request.param, [render_pair(index, request.param) for index in SEEDS]


def lens_of(frame, effects):
    """Return focal length, centre and bend: KITTI's constants, or with effects the drawn values."""
    if effects:
        return frame.camera.focal, *frame.camera.centre, frame.camera.bend
    scale = SIZE[1] / 1242
    return 721.5377 * scale, 609.5593 * scale, 172.8540 / 375 * SIZE[0], 0.0


def ray_of(frame, lens, x, y):
    """Return the unit vector of a pixel in the world, from the pose of MuJoCo's camera site."""
    focal, cx, cy, bend = lens
    x, y = (x - cx) / focal, (y - cy) / focal
    # With distortion, an image radius r belongs to the angle with tangent r / (1 + bend r^2).
    right, down = np.array([x, y]) / (1 + bend * (x * x + y * y))
    turn = frame.data.site_xmat[0].reshape(3, 3)
    ray = turn @ [1, -right, -down]  # its x is ahead, y left, z up
    return ray / np.linalg.norm(ray)


def project_point(frame, lens, point, direction):
    """Project a point by K [R|t] to pixel and depth; a direction if `point` is None."""
    focal, cx, cy, bend = lens
    matrix = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
    turn = frame.data.site_xmat[0].reshape(3, 3)
    rotation = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ turn.T
    in_camera = rotation @ (direction if point is None else point - frame.data.site_xpos[0])
    normalised = in_camera / in_camera[2]
    undistorted = np.hypot(*normalised[:2])
    distorted = undistorted
    for _ in range(60 if bend else 0):  # fixed-point iteration of the distortion
        distorted = undistorted * (1 + bend * distorted**2)
    normalised[:2] *= distorted / undistorted
    return (matrix @ normalised)[:2], in_camera[2]


def cast_ray(frame, origin, ray):
    """Return geom (-1: none) and distance of one ray."""
    geom = np.zeros(1, np.int32)
    distance = mujoco.mj_ray(frame.world.model, frame.data, origin, ray, None, 1, -1, geom)
    return geom[0], distance


def move_point(frame1, frame2, geom, point):
    """Move the point with the body of the geom to the second frame."""
    body = frame1.world.model.geom_bodyid[geom]
    turn1, turn2 = (frame.data.xmat[body].reshape(3, 3) for frame in (frame1, frame2))
    return turn2 @ turn1.T @ (point - frame1.data.xpos[body]) + frame2.data.xpos[body]


def sample_pixels(rng, pair, count=300):
    """Sample `count` pixels: two thirds anywhere, one third where labels or flow change."""
    labels, flow = pair.labels.astype(int), pair.flow
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= np.diff(labels, axis=1) != 0
    edge[:, 1:] |= np.abs(np.diff(flow, axis=1)).max(-1) > 1
    anywhere = rng.integers(0, labels.size, count * 2 // 3)
    return np.unique([*anywhere, *rng.choice(np.flatnonzero(edge), count // 3)])


def test_flow_labels_and_visibility_by_single_rays(rendered):
    effects, pairs = rendered
    errors, wrong, checked, moving = [], 0, 0, 0
    for pair, frame1, frame2 in pairs:
        lens = lens_of(frame1, effects)
        height, width = pair.labels.shape
        origin1, origin2 = frame1.data.site_xpos[0], frame2.data.site_xpos[0]
        for pixel in sample_pixels(np.random.default_rng(0), pair):
            y, x = divmod(pixel, width)
            ray = ray_of(frame1, lens, x, y)
            geom, distance = cast_ray(frame1, origin1, ray)
            label = SKY_LABEL if geom == SKY else frame1.world.label[geom]
            assert pair.labels[y, x] == label, (x, y)
            point = (
                None if geom == SKY else move_point(frame1, frame2, geom, origin1 + distance * ray)
            )
            pixel2, depth = project_point(frame2, lens, point, ray)
            known = depth > 0.05 and np.abs(pixel2 - (x, y)).max() < 500
            assert pair.valid[y, x] == known
            if not known:
                assert not pair.visible[y, x]
                continue
            errors.append(np.abs(pair.flow[y, x] - (pixel2 - (x, y))).max())
            moving += geom != SKY and frame1.world.model.geom_bodyid[geom] > 0
            inside = (pixel2 >= 0).all() and pixel2[0] <= width - 1 and pixel2[1] <= height - 1
            target = ray if point is None else point - origin2
            length = np.linalg.norm(target)
            hit, hit_distance = cast_ray(frame2, origin2, target / length)
            if geom == SKY:
                in_sight = hit == SKY
            else:  # anything in front of the point occludes it, including its own body
                in_sight = hit_distance > length * (1 - 1e-3) - 1e-3
            wrong += (inside and in_sight) != pair.visible[y, x]
            checked += 1
    assert checked > 250 * len(SEEDS) and moving > 60
    assert max(errors) < 0.01
    assert wrong <= 0.005 * checked


def test_shares_of_occluded_pixels(rendered):
    """Occluded pixels inside and outside the frame are frequent enough for the test above."""
    shares = [1 - pair.visible.mean() for pair, *_ in rendered[1]]
    assert 0.02 < np.mean(shares) < 0.3
    inside_occluded = 0
    for pair, *_ in rendered[1]:
        height, width = pair.labels.shape
        y, x = np.mgrid[:height, :width]
        ends = np.stack([x, y], -1) + pair.flow
        inside = (ends >= 0).all(-1) & (ends <= (width - 1, height - 1)).all(-1)
        assert not (pair.visible & ~inside).any()
        inside_occluded += (inside & pair.valid & ~pair.visible).sum()
    assert inside_occluded > 300 * len(SEEDS)


def test_cast_all_equals_cast(rendered):
    """`cast_all` interpolates many pixels from neighbours; `cast` casts a ray for each."""
    height, width = SIZE
    y, x = (n.ravel().astype(float) for n in np.mgrid[:height, :width])
    differing = 0
    for _, frame1, frame2 in rendered[1]:
        for frame in (frame1, frame2):
            world = frame.world._replace(data=frame.data)
            full = rays.cast(world, frame.camera, x, y)
            same = full.geom == frame.hits.geom
            differing += (~same).sum()
            near = same & (full.distance < 1e3)
            assert np.abs(full.distance - frame.hits.distance)[near].max() < 1e-6
            np.testing.assert_allclose(frame.hits.distance[same], full.distance[same], rtol=1e-6)
            np.testing.assert_allclose(frame.hits.point[near], full.point[near], atol=1e-6)
            assert np.abs(full.normal - frame.hits.normal)[same].max() < 1e-6
            assert np.array_equal(full.direction, frame.hits.direction)
    assert differing <= 1e-3 * height * width * 2 * len(SEEDS)


def test_inverse_depth_is_linear_within_a_face():
    """In a row of a pinhole camera, 1 / depth of a plane is linear.

    So 1 / depth of three neighbours on a geom with equal normals is linear; it deviates only where
    the geom or the face changes.
    """
    height, width = SIZE
    discontinuities = within = 0
    for index in range(4):
        pair, frame, _ = render_pair(index, effects=False)
        hits = frame.hits
        depth = (hits.point - frame.data.site_xpos[0]) @ frame.camera.axes[2]
        inverse = np.where(hits.geom == SKY, 0, 1 / depth).reshape(height, width)
        geom, normal = hits.geom.reshape(height, width), hits.normal.reshape(height, width, 3)
        for axis in (0, 1):
            bend = np.abs(np.diff(inverse, 2, axis))
            changes = (np.diff(geom, axis=axis) != 0) | (np.diff(normal, axis=axis) != 0).any(-1)
            a, b = ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]))[axis]
            edge = changes[a] | changes[b]
            assert bend[~edge].max() < 1e-9
            discontinuities += (bend[edge] > 1e-3).sum()
            within += (~edge).sum()
        # Labels change only where the geom changes.
        labels = pair.labels.astype(int)
        assert not (np.diff(labels, axis=1) != 0)[np.diff(geom, axis=1) == 0].any()
        assert not (np.diff(labels, axis=0) != 0)[np.diff(geom, axis=0) == 0].any()
    assert discontinuities > 2000 and within > 0.5 * 8 * height * width


def test_flow_behind_the_camera_is_invalid(monkeypatch):
    """At 10 m per 0.1 s, near ground pixels end up beside and behind the camera."""
    road, _, _, _, weather = layout.draw_street(np.random.default_rng(0))
    plane = Part("plane", (0, 0, 1), (0, 0, 0), Look("asphalt", (0.2, 0.2, 0.2)), 7, ground=True)
    drive = Drive((0.0, 0.0), 0.0, 100.0, 0.0, 0.0, 1.65, (0.0, 0.0, 0.0), (0.0,) * 6)
    monkeypatch.setattr(layout, "draw_street", lambda rng: (road, [plane], [], drive, weather))
    pair = street.make_pair(0, 0, *SIZE, effects=False)
    focal, cx, cy, _ = lens_of(None, effects=False)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    ground = y > cy + 1
    depth = focal * 1.65 / np.where(ground, y - cy, 1)
    stretch = depth / (depth - 10) - 1
    u, v = (x - cx) * stretch, (y - cy) * stretch
    known = (depth > 10.05) & (np.abs(u) < 500) & (np.abs(v) < 500)
    assert np.array_equal(pair.valid[ground], known[ground]) and pair.valid[: int(cy)].all()
    assert 0.2 < known[ground].mean() < 0.6 and (depth[ground & ~known] > 10.05).any()
    np.testing.assert_allclose(pair.flow[ground & known, 0], u[ground & known], rtol=2e-6)
    np.testing.assert_allclose(pair.flow[ground & known, 1], v[ground & known], rtol=2e-6)
    assert not pair.flow[~pair.valid].any() and not pair.visible[~pair.valid].any()


def test_motion_blur_of_both_frames(monkeypatch):
    """The motion of a pixel until frame 2 equals the backward motion at its position in frame 2."""
    calls = []
    monkeypatch.setattr(sensor, "draw", lambda rng, width: sensor.Sensor(shutter=0.1))
    monkeypatch.setattr(sensor, "expose", lambda *args: calls.append(args) or args[0])
    errors, flows = [], []
    for index in range(3):
        pair = street.make_pair(index, 11, *SIZE, effects=True)
        _, kind, _, (motion1, motion2) = calls.pop()
        assert kind.shutter == 0.1
        assert np.array_equal(motion1, pair.flow.clip(-200, 200))
        y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
        ends = cv2.remap(motion2, x + pair.flow[..., 0], y + pair.flow[..., 1], cv2.INTER_LINEAR)
        errors.append(np.abs(ends - pair.flow).max(-1)[pair.visible])
        flows.append(np.abs(pair.flow).max(-1)[pair.visible])
    assert np.median(np.concatenate(flows)) > 0.5
    assert np.median(np.concatenate(errors)) < 0.01
    assert (np.concatenate(errors) < 0.3).mean() > 0.85
