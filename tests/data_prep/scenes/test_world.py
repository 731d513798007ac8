"""Tests of small synthetic worlds: poses, motion, and occlusion."""

import mujoco
import numpy as np
import pytest

from data_prep.scenes import layout, movers, rays, street, things, truth
from data_prep.scenes import world as worlds
from data_prep.scenes.camera import kitti_lens
from data_prep.scenes.world import Body, Drive, Limb, Look, Part

PLAIN = Look("grain", (0.3, 0.3, 0.3))
PLANE = Part("plane", (0, 0, 1), (0, 0, 0), PLAIN, 22, ground=True)
DRIVE = Drive((0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 1.6, (0.0, 0.0, 0.0), (0.0,) * 6)


def build(static=(), bodies=(), **drive):
    return worlds.build(
        [PLANE, *static], list(bodies), DRIVE._replace(**drive), np.random.default_rng(0)
    )


def turns(x, y, z):
    """Return the rotation about the fixed axes x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def find(world, label):
    """Return position and rotation of the only geom with a label."""
    (geom,) = np.flatnonzero(world.label == label)
    return world.data.geom_xpos[geom].copy(), world.data.geom_xmat[geom].reshape(3, 3).copy()


def box(label, position=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)):
    return Part("box", (0.4, 0.3, 0.2), position, PLAIN, label, turn)


def test_parts_turn_about_x_then_y_then_z():
    turn = (0.3, -0.5, 0.8)
    part = box(11, (2, -1, 3), turn)
    placed = things.place([part], 5, -4, 0.7)[0]._replace(label=12)
    world = build([part, placed])
    position, rotation = find(world, 11)
    np.testing.assert_allclose(position, [2, -1, 3], atol=1e-9)
    np.testing.assert_allclose(rotation, turns(*turn), atol=1e-8)
    # `place` rotates the part's position and orientation about the vertical axis.
    position, rotation = find(world, 12)
    yaw_rotation = turns(0, 0, 0.7)
    np.testing.assert_allclose(position, yaw_rotation @ [2, -1, 3] + [5, -4, 0], atol=1e-9)
    np.testing.assert_allclose(rotation, yaw_rotation @ turns(*turn), atol=1e-8)


def test_bodies_and_limbs_move():
    """Labels identify the parts; the limb of the first body comes between the two bodies."""
    limb = Limb((0.1, 0.2, 0.9), -3.0, 0.4, [box(25, (0.05, 0, -0.4)), box(24, (0, 0, -0.1))])
    first = Body((10, 3, 0.5), 2.0, 8.0, 0.6, [box(26, (1, 0.5, 0.7), (0.1, 0, 0))], [limb])
    second = Body((20, -5, 0), -1.0, -2.0, -0.9, [box(27), box(28, (0, 0, 2))])
    world = build([box(17, (30, 1, 1))], [first, second])
    assert world.label.tolist() == [22, 17, 26, 25, 24, 27, 28]
    for time in (0, worlds.INTERVAL):
        poses = []
        for body in (first, second):
            path = body.speed * time * np.array([np.cos(body.yaw), np.sin(body.yaw), 0])
            poses.append(
                (np.add(body.position, path), turns(0, 0, body.yaw + time * body.yaw_rate))
            )
        joint = turns(0, limb.angle + limb.speed * time, 0)
        for label, (body_position, turn), parent, part in (
            (26, poses[0], (np.zeros(3), np.eye(3)), first.parts[0]),
            (25, poses[0], (limb.position, joint), limb.parts[0]),
            (24, poses[0], (limb.position, joint), limb.parts[1]),
            (27, poses[1], (np.zeros(3), np.eye(3)), second.parts[0]),
            (28, poses[1], (np.zeros(3), np.eye(3)), second.parts[1]),
        ):
            position, rotation = find(world, label)
            local = np.add(parent[0], parent[1] @ part.position)
            np.testing.assert_allclose(position, body_position + turn @ local, atol=2e-6)
            np.testing.assert_allclose(rotation, turn @ parent[1] @ turns(*part.turn), atol=2e-6)
        np.testing.assert_allclose(find(world, 17)[0], [30, 1, 1], atol=1e-9)
        worlds.advance(world)


def test_camera_pose():
    aim = (0.02, 0.05, -0.03)
    world = build(position=(3.0, -2.0), yaw=0.5, aim=aim, sway=(0.04, 0.0, 0.0, 0, 0, 0))
    camera = street._camera(world, kitti_lens(96, 312))
    # 0.3 m ahead of the car's centre; raised by 4 cm on its springs.
    expected = [3 + 0.3 * np.cos(0.5), -2 + 0.3 * np.sin(0.5), 1.64]
    np.testing.assert_allclose(camera.position, expected, atol=1e-9)
    right, down, ahead = (turns(0, 0, 0.5) @ turns(*aim)).T[[1, 2, 0]] * [[-1], [-1], [1]]
    np.testing.assert_allclose(camera.axes, [right, down, ahead], atol=1e-8)
    # With a pitch of 0.05 the camera points down: its forward axis has negative z.
    assert camera.axes[2, 2] == pytest.approx(-np.sin(0.05), abs=1e-3)


def test_springs_are_damped():
    world = build(sway=(0.02, 0.0, 0.0, 0.0, 0.1, 0.0))
    heights, pitches = [], []
    for _ in range(31):
        heights.append(world.data.site_xpos[0, 2] - 1.6)
        pitches.append(world.data.site_xmat[0].reshape(3, 3)[2, 0])
        worlds.advance(world)
    # Up and down: m z'' = -k z - c z' with m = 1300, k = 66 * 1950 and c = 5 * 1950.
    damping, stiffness = 5 * 1.5 / 2, 66 * 1.5
    frequency = np.sqrt(stiffness - damping**2)
    time = 0.1 * np.arange(31)
    expected = np.cos(frequency * time) + damping / frequency * np.sin(frequency * time)
    expected = 0.02 * np.exp(-damping * time) * expected
    # Pitch shares the car's mass with heave, and MuJoCo's steps are finite.
    assert np.abs(np.array(heights) - expected)[:4].max() < 0.004
    assert min(heights) < -0.004 and abs(heights[-1]) < 1e-4
    # At a pitch rate of 0.1 rad per second, the nose is down by most of 0.01 rad in the next frame.
    assert pitches[0] == 0 and -0.01 < pitches[1] < -0.004 and abs(pitches[-1]) < 1e-4


@pytest.mark.parametrize("acceleration", [-4.0, 2.0])
def test_acceleration(acceleration):
    world = build(speed=8.0, acceleration=acceleration, yaw=0.4)
    speeds = [np.array(world.data.qvel[-6:-4])]
    worlds.advance(world)
    speeds.append(np.array(world.data.qvel[-6:-4]))
    ahead, aside = np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]])
    assert speeds[0] @ ahead == pytest.approx(8) and np.abs(np.array(speeds) @ aside).max() < 1e-9
    # The chassis brakes before the sprung body: by 1 to 2 times the acceleration times 0.1 s.
    assert 1 < (speeds[1] - speeds[0]) @ ahead / (acceleration * 0.1) < 2
    # Braking lowers the nose, acceleration lifts it: the body's 1300 kg, 0.5 m above the hinge of
    # 1950 + 1300 * 0.5^2 = 2275 kg m^2, turn it by at most 650 a / 2275 * 0.1^2 / 2.
    pitch = world.data.site_xmat[0].reshape(3, 3)[2, 0]
    assert 0.4 < pitch / (650 * acceleration / 2275 * 0.1**2 / 2) < 1.3


def test_ground_of_same_label_shares_its_look():
    ground = [
        Part("cylinder", (r, 0.1), (0, 0, -0.05), PLAIN, label, ground=True)
        for r, label in ((50, 22), (40, 8), (30, 22), (20, 8), (10, worlds.ROAD))
    ]
    world = build([*ground, box(8, (5, 5, 5)), box(22, (6, 6, 6))])
    assert world.surface.tolist() == [0, 0, 2, 0, 2, 5, 6, 7]
    for table in (world.tile, world.detail, world.stain, world.offset[:, 0]):
        assert len({*table[[0, 1, 3]]}) == len({*table[[2, 4]]}) == 1
    assert world.ground.tolist() == [True] * 6 + [False] * 2
    assert world.road.tolist() == [False] * 5 + [True] + [False] * 2


def follow_label(static, bodies, label, height=60, width=200, **drive):
    """Return flow, visibility and normal of the pixels that show `label` and stay inside."""
    world = build(static, bodies, **drive)
    lens = kitti_lens(height, width)
    y, x = (n.ravel().astype(float) for n in np.mgrid[:height, :width])
    hits = rays.cast(world, street._camera(world, lens), x, y)
    before = truth.poses(world)
    worlds.advance(world)
    camera = street._camera(world, lens)
    projected = truth.follow(hits, before, truth.poses(world), camera)
    hits2 = rays.cast(world, camera, x, y)
    visible = truth.is_visible(world, camera, hits, projected, hits2, height, width)
    shown = (world.label[hits.geom] == label) & (hits.geom >= 0)
    shown &= (
        (projected[0] > 0)
        & (projected[0] < width - 1)
        & (projected[1] > 0)
        & (projected[1] < height - 1)
    )
    return (
        np.stack([projected[0] - x, projected[1] - y], -1)[shown],
        visible[shown],
        hits.normal[shown],
    )


@pytest.mark.parametrize("quarter", [1, -1])
def test_face_that_turns_away_is_occluded(quarter):
    # A crate straight ahead makes a quarter turn, so that its front becomes a side. All pixels
    # around are the same crate, but nothing of the front is visible.
    crate = Part("box", (0.5, 0.5, 0.5), (0, 0, 0), PLAIN, 11)
    body = Body((6, 0, 1.6), 0.0, 0.0, quarter * np.pi / 2 / worlds.INTERVAL, [crate])
    _, visible, normal = follow_label([], [body], 11)
    assert (normal[:, 0] < -0.99).all() and len(visible) > 100 and not visible.any()
    # After a turn by 15 degrees all of it is visible.
    _, visible, _ = follow_label([], [body._replace(yaw_rate=body.yaw_rate / 6)], 11)
    assert visible.all()


def test_sheet_occludes_wall_behind_it():
    # A sheet 5 cm in front of a wall at 8 m moves 0.4 m to the right, by its full width.
    wall = Part("box", (0.5, 20, 10), (8.5, 0, 0), PLAIN, 12)
    sheet = Part("box", (0.2, 0.005, 1), (0, 0, 0), PLAIN, 26)
    body = Body((7.945, 0.2, 1.6), -np.pi / 2, 4.0, 0.0, [sheet])
    flow, visible, _ = follow_label([wall], [body], 12)
    assert np.abs(flow).max() < 1e-9
    # The camera is at 0.3 m, the sheet's face 7.64 m from it: with a focal length of 116.19 px
    # its 0.4 by 2 m cover 6.08 by 30.4 px of the wall.
    assert (~visible).sum() == pytest.approx(6.08 * 30.4, abs=20)
    flow, visible, _ = follow_label([wall], [body], 26)
    np.testing.assert_allclose(flow, [[0.4 * 116.1888 / 7.64, 0]] * len(flow), atol=1e-3)
    assert visible.all()


def test_vehicles_follow_the_bend():
    """A car turns with the curve of the road in either driving direction."""
    counts = {1: 0, -1: 0}
    for index in range(60):
        rng = np.random.default_rng([3, index])
        road, _, bodies, _, _ = layout.draw_street(rng)
        for body in bodies:
            if body.limbs or body.yaw_rate == 0 or body.speed < 3 or body.parts[0].label == 24:
                continue
            centre = np.array([0, 1 / road.curve])
            spoke = np.array(body.position[:2]) - centre
            heading = np.array([np.cos(body.yaw), np.sin(body.yaw)])
            along = (spoke[0] * heading[1] - spoke[1] * heading[0]) / np.linalg.norm(spoke)
            if abs(along) < 0.95:
                continue  # it crosses the road
            assert np.sign(body.yaw_rate) == np.sign(along), (index, body.yaw_rate, along)
            counts[int(np.sign(along) * np.sign(road.curve))] += 1
    assert min(counts.values()) > 15


def lowest(part, position=(0, 0, 0), turn=(0, 0, 0)):
    """Return the lowest height of a part whose frame is at `position`, rotated by `turn`."""
    frame = turns(*turn)
    down = (frame @ turns(*part.turn))[2]  # the world's up axis in the part's own axes
    radius, *half = part.size
    reach = {
        "box": lambda: np.abs(down) @ part.size,
        "ellipsoid": lambda: np.linalg.norm(down * part.size),
        "sphere": lambda: radius,
        "capsule": lambda: radius + half[0] * abs(down[2]),
        "cylinder": lambda: radius * np.hypot(*down[:2]) + half[0] * abs(down[2]),
    }[part.kind]()
    return position[2] + (frame @ part.position)[2] - reach


def test_objects_stand_on_the_ground():
    makers = {
        "tree": lambda rng: things.tree(rng),
        "bush": lambda rng: things.bush(rng),
        "building": lambda rng: things.building(rng, 12, 9, rng.uniform(4, 12)),
        "barrier": lambda rng: things.barrier(rng, 8),
        "rail": lambda rng: things.rail(rng, 12),
        "pole": lambda rng: things.pole(rng),
        "car": lambda rng: movers.car(rng),
        "far car": lambda rng: movers.car(rng, near=False),
        "lorry": lambda rng: movers.lorry(rng),
        "walker": lambda rng: movers.person(rng, 0, 0, 0, 1.4),
        "far walker": lambda rng: movers.person(rng, 0, 0, 0, 1.4, near=False),
        "cyclist": lambda rng: movers.cyclist(rng, 0, 0, 0, 4),
    }
    for name, make in makers.items():
        for index in range(20):
            thing = make(np.random.default_rng(index))
            parts, limbs = (thing.parts, thing.limbs) if isinstance(thing, Body) else (thing, [])
            foot = min(
                *(lowest(part) for part in parts),
                *(lowest(n, m.position, (0, m.angle, 0)) for m in limbs for n in m.parts),
                1e9,
            )
            # Ellipsoids of leaves and a roof's prism may be partly below the ground; straight legs
            # in mid-stride are above it.
            deepest = {"bush": -1.3, "building": -5}.get(name, -0.15)
            assert deepest < foot < 0.16, (name, index, foot)


def test_turns_agree_with_mujoco():
    """`turns` equals MuJoCo's euler XYZ, independently of the worlds of this file."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><compiler angle="radian" eulerseq="XYZ"/><worldbody>'
        '<site euler="0.3 -0.5 0.8"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    expected = turns(0.3, -0.5, 0.8)
    np.testing.assert_allclose(data.site_xmat[0].reshape(3, 3), expected, atol=1e-12)
