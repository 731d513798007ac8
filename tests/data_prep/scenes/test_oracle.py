"""Flow, labels and visibility of made streets, against single rays and plain projection."""

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
    """What `make_pair` photographed."""

    world: object
    data: mujoco.MjData  # as it was then
    camera: object
    hits: rays.Hits


def open_pair(index, effects, size=SIZE):
    """A pair and the two frames that it was made of."""
    frames = []

    def spy(world, camera, *more):
        shown, hits = photograph(world, camera, *more)
        frames.append(Frame(world, copy.copy(world.data), camera, hits))
        return shown, hits

    photograph, light.photograph = light.photograph, spy
    try:
        pair = street.make_pair(index, 11, *size, effects=effects)
    finally:
        light.photograph = photograph
    return pair, *frames


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "effects"])
def opened(request):
    """(effects, list of `open_pair`)."""
    return request.param, [open_pair(index, request.param) for index in SEEDS]


def lens_of(frame, effects):
    """Focal length, centre and bend: KITTI's by hand, or, where they were drawn, as drawn."""
    if effects:
        return frame.camera.focal, *frame.camera.centre, frame.camera.bend
    scale = SIZE[1] / 1242
    return 721.5377 * scale, 609.5593 * scale, 172.8540 / 375 * SIZE[0], 0.0


def ray_of(frame, lens, x, y):
    """Unit vector in the world, from the site that MuJoCo carries along."""
    focal, cx, cy, bend = lens
    x, y = (x - cx) / focal, (y - cy) / focal
    # Bent: a drawn radius r belongs to the angle whose tangent is r / (1 + bend r^2).
    right, down = np.array([x, y]) / (1 + bend * (x * x + y * y))
    turn = frame.data.site_xmat[0].reshape(3, 3)
    ray = turn @ [1, -right, -down]  # its x is ahead, y left, z up
    return ray / np.linalg.norm(ray)


def draw_point(frame, lens, point, direction):
    """Pixel and depth of a point by K [R|t]; of a mere direction where `point` is None."""
    focal, cx, cy, bend = lens
    matrix = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
    turn = frame.data.site_xmat[0].reshape(3, 3)
    rotation = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ turn.T
    seen = rotation @ (direction if point is None else point - frame.data.site_xpos[0])
    flat = seen / seen[2]
    undrawn = np.hypot(*flat[:2])
    drawn = undrawn
    for _ in range(60 if bend else 0):  # drawn = undrawn (1 + bend drawn^2), by iteration
        drawn = undrawn * (1 + bend * drawn**2)
    flat[:2] *= drawn / undrawn
    return (matrix @ flat)[:2], seen[2]


def shoot(frame, origin, ray):
    """Geom (-1: none) and distance of one ray."""
    geom = np.zeros(1, np.int32)
    distance = mujoco.mj_ray(frame.world.model, frame.data, origin, ray, None, 1, -1, geom)
    return geom[0], distance


def carry(frame1, frame2, geom, point):
    """The point once the body of the geom has gone on."""
    body = frame1.world.model.geom_bodyid[geom]
    turn1, turn2 = (frame.data.xmat[body].reshape(3, 3) for frame in (frame1, frame2))
    return turn2 @ turn1.T @ (point - frame1.data.xpos[body]) + frame2.data.xpos[body]


def sample_pixels(rng, pair, count=300):
    """Pixels of all kinds: anywhere, and as many again where labels change or motion is odd."""
    labels, flow = pair.labels.astype(int), pair.flow
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= np.diff(labels, axis=1) != 0
    edge[:, 1:] |= np.abs(np.diff(flow, axis=1)).max(-1) > 1
    anywhere = rng.integers(0, labels.size, count * 2 // 3)
    return np.unique([*anywhere, *rng.choice(np.flatnonzero(edge), count // 3)])


def test_flow_labels_and_sight_by_single_rays(opened):
    effects, pairs = opened
    errors, wrong, decided, moving = [], 0, 0, 0
    for pair, frame1, frame2 in pairs:
        lens = lens_of(frame1, effects)
        height, width = pair.labels.shape
        eye1, eye2 = frame1.data.site_xpos[0], frame2.data.site_xpos[0]
        for pixel in sample_pixels(np.random.default_rng(0), pair):
            y, x = divmod(pixel, width)
            ray = ray_of(frame1, lens, x, y)
            geom, distance = shoot(frame1, eye1, ray)
            label = SKY_LABEL if geom == SKY else frame1.world.label[geom]
            assert pair.labels[y, x] == label, (x, y)
            point = None if geom == SKY else carry(frame1, frame2, geom, eye1 + distance * ray)
            place, depth = draw_point(frame2, lens, point, ray)
            known = depth > 0.05 and np.abs(place - (x, y)).max() < 500
            assert pair.valid[y, x] == known
            if not known:
                assert not pair.visible[y, x]
                continue
            errors.append(np.abs(pair.flow[y, x] - (place - (x, y))).max())
            moving += geom != SKY and frame1.world.model.geom_bodyid[geom] > 0
            inside = (place >= 0).all() and place[0] <= width - 1 and place[1] <= height - 1
            target = ray if point is None else point - eye2
            length = np.linalg.norm(target)
            met, first = shoot(frame2, eye2, target / length)
            if geom == SKY:
                sight = met == SKY
            else:  # whatever lies before the place hides it, its own body's near side too
                sight = first > length * (1 - 1e-3) - 1e-3
            wrong += (inside and sight) != pair.visible[y, x]
            decided += 1
    assert decided > 250 * len(SEEDS) and moving > 60
    assert max(errors) < 0.01
    assert wrong <= 0.005 * decided


def test_what_is_hidden_is_behind_something_or_outside(opened):
    """Enough of both kinds, so that the test above tells them apart."""
    shares = [1 - pair.visible.mean() for pair, *_ in opened[1]]
    assert 0.02 < np.mean(shares) < 0.3
    inside_hidden = 0
    for pair, *_ in opened[1]:
        height, width = pair.labels.shape
        y, x = np.mgrid[:height, :width]
        ends = np.stack([x, y], -1) + pair.flow
        inside = (ends >= 0).all(-1) & (ends <= (width - 1, height - 1)).all(-1)
        assert not (pair.visible & ~inside).any()
        inside_hidden += (inside & pair.valid & ~pair.visible).sum()
    assert inside_hidden > 300 * len(SEEDS)


def test_a_frame_at_fewer_rays_is_the_frame(opened):
    """`cast_all` fills in most pixels by their neighbours; `cast` asks MuJoCo for every one."""
    height, width = SIZE
    y, x = (n.ravel().astype(float) for n in np.mgrid[:height, :width])
    unlike = 0
    for _, frame1, frame2 in opened[1]:
        for frame in (frame1, frame2):
            world = frame.world._replace(data=frame.data)
            full = rays.cast(world, frame.camera, x, y)
            same = full.geom == frame.hits.geom
            unlike += (~same).sum()
            near = same & (full.distance < 1e3)
            assert np.abs(full.distance - frame.hits.distance)[near].max() < 1e-6
            np.testing.assert_allclose(frame.hits.distance[same], full.distance[same], rtol=1e-6)
            np.testing.assert_allclose(frame.hits.point[near], full.point[near], atol=1e-6)
            assert np.abs(full.normal - frame.hits.normal)[same].max() < 1e-6
            assert np.array_equal(full.direction, frame.hits.direction)
    assert unlike <= 1e-3 * height * width * 2 * len(SEEDS)


def test_depth_is_one_plane_within_a_face():
    """Along a row of a pinhole, 1 / depth of a plane grows evenly.

    So three neighbours on one geom with one normal lie on one line: depth leaves it only where the
    geom or the face changes.
    """
    height, width = SIZE
    broken = within = 0
    for index in range(4):
        pair, frame, _ = open_pair(index, effects=False)
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
            broken += (bend[edge] > 1e-3).sum()
            within += (~edge).sum()
        # Labels change only where the geom does.
        labels = pair.labels.astype(int)
        assert not (np.diff(labels, axis=1) != 0)[np.diff(geom, axis=1) == 0].any()
        assert not (np.diff(labels, axis=0) != 0)[np.diff(geom, axis=0) == 0].any()
    assert broken > 2000 and within > 0.5 * 8 * height * width


def test_what_leaves_the_cameras_front_is_not_valid(monkeypatch):
    """10 m in a tenth of a second: the ground's nearer pixels end beside and behind the camera."""
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


def test_each_frame_blurs_along_its_own_motion(monkeypatch):
    """What a pixel of frame 1 does until frame 2 its place in frame 2 has done since frame 1."""
    taken = []
    monkeypatch.setattr(sensor, "draw", lambda rng, width: sensor.Sensor(shutter=0.1))
    monkeypatch.setattr(sensor, "expose", lambda *given: taken.append(given) or given[0])
    errors, flows = [], []
    for index in range(3):
        pair = street.make_pair(index, 11, *SIZE, effects=True)
        _, kind, _, (motion1, motion2) = taken.pop()
        assert kind.shutter == 0.1
        assert np.array_equal(motion1, pair.flow.clip(-200, 200))
        y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
        ends = cv2.remap(motion2, x + pair.flow[..., 0], y + pair.flow[..., 1], cv2.INTER_LINEAR)
        errors.append(np.abs(ends - pair.flow).max(-1)[pair.visible])
        flows.append(np.abs(pair.flow).max(-1)[pair.visible])
    assert np.median(np.concatenate(flows)) > 0.5
    assert np.median(np.concatenate(errors)) < 0.01
    assert (np.concatenate(errors) < 0.3).mean() > 0.85
