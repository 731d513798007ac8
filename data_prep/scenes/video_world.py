"""The world of a frame of a drive: the parts near the camera, where they are at its time."""

import functools
from typing import NamedTuple

import mujoco
import numpy as np

from data_prep.scenes import traffic, truth
from data_prep.scenes import world as worlds
from data_prep.scenes.camera import Camera
from data_prep.scenes.course import Course
from data_prep.scenes.rays import SKY
from data_prep.scenes.roadside import CHUNK
from data_prep.scenes.route import (
    Route,
    background,
    chunk,
    ground,
    sizes,
    stream_seed,
)

# Metres of road behind and ahead of the camera along which objects are generated. Those behind cast
# shadows; those that appear ahead are a few pixels high, and mostly occluded.
BEHIND, AHEAD, AHEAD_BACKGROUND = 60.0, 400.0, 1500.0
_NEAR = 30.0  # m; see `world.Near`
_SMALLEST = 0.35  # px; thinner parts are left out
_PER_OBJECT = 4096  # more than the parts of a chunk or mover


class Mover(NamedTuple):
    """A person or vehicle in the world of a frame."""

    first: int  # geom
    rig: traffic.Rig
    stream: traffic.Stream
    member: int


class View(NamedTuple):
    """The world of a frame. Geoms are in the order of the tables of `world`."""

    frame: int
    course: Course
    world: worlds.World
    camera: Camera
    movers: list[Mover]
    key: np.ndarray  # (G,) identity of each geom: equal in the worlds of all frames
    instance: np.ndarray  # (G,) Cityscapes's class * 1000 + number; the class if not counted


def build(route: Route, frame: int) -> View:
    """Build the world of a frame."""
    camera, time = route.camera(frame), route.time(frame)
    s = route.driver.s(time)
    base = ground(route)
    pieces = [(base, np.arange(len(base.xml)))]
    for generate, ahead in ((chunk, AHEAD), (background, AHEAD_BACKGROUND)):
        for number in range(int((s - BEHIND) // CHUNK), int((s + ahead) // CHUNK) + 1):
            static = generate(route, number)
            distance = np.linalg.norm(static.position - camera.position, axis=1)
            shown = 2 * static.size * camera.focal > _SMALLEST * distance
            pieces.append((static, np.flatnonzero(shown)))
    tables, xml, keys, numbers = [], [], [], []
    count = 0
    for static, shown in pieces:
        if not len(shown):
            continue
        xml += static.xml[shown].tolist()
        tables.append(_select(static.tables, shown, count))
        first = 2**60 if static.key is None else (static.key + 2**20) * _PER_OBJECT
        keys.append(first + shown)
        numbers.append(static.numbers[shown])
        count += len(shown)
    movers = []
    for index, stream in enumerate(route.streams):
        seed = stream_seed(route, index)
        for member, key in traffic.members(seed, stream, route.driver, time, BEHIND):
            rig, rig_tables, size = _rig(key, stream)
            turns, positions = _pose(route, rig, stream, member, time)
            # All parts of a mover, or none: limbs would otherwise vanish alone.
            near = np.linalg.norm(positions[0] - camera.position)
            if 2 * size * camera.focal < _SMALLEST * near:
                continue
            movers.append(Mover(count, rig, stream, member))
            xml += _place(rig.parts, turns, positions)
            tables.append(_select(rig_tables, np.arange(len(rig.parts)), count))
            keys.append(2**50 + (index * 2**32 + member + 2**31) * 64 + np.arange(len(rig.parts)))
            first, many = stream.numbers
            numbers.append(np.full(len(rig.parts), first + member % many))
            count += len(rig.parts)
    joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    model, data = _compile(xml)
    distance = np.linalg.norm(data.geom_xpos - camera.position, axis=1) - model.geom_rbound
    geom = np.flatnonzero((distance < _NEAR) | (joined["ground"]))
    near = worlds.Near(camera.position, _NEAR, *_compile([xml[i] for i in geom]), geom)
    key, number = np.concatenate(keys), np.concatenate(numbers)
    instance = np.where(number >= 0, joined["label"].astype(int) * 1000 + number, joined["label"])
    course = route.course.up_to(s)
    assign = functools.partial(_assign_strips, route.roadside.strips.rows, course)
    world = worlds.World(model, data, **joined, near=near, assign=assign)
    return View(frame, course, world, camera, movers, key, instance)


def poses(view: View, route: Route, frame: int) -> truth.Poses:
    """Return rotations (G, 3, 3) and positions (G, 3) of the view's geoms at another frame."""
    turns, positions = truth.poses(view.world)
    for mover in view.movers:
        parts = slice(mover.first, mover.first + len(mover.rig.parts))
        turns[parts], positions[parts] = _pose(
            route, mover.rig, mover.stream, mover.member, route.time(frame)
        )
    return turns, positions


def translate(geom: np.ndarray, view: View, other: View) -> np.ndarray:
    """Return the numbers in `other` of geoms (N,) of `view`; -2: not there. Sky stays -1."""
    order = np.argsort(other.key)
    place = np.minimum(np.searchsorted(other.key, view.key, sorter=order), len(order) - 1)
    table = np.where(other.key[order[place]] == view.key, order[place], -2)
    return np.where(geom == SKY, SKY, table[geom])


def _pose(route, rig, stream, member, time):
    return traffic.pose(rig, stream, member, route.roadside, route.driver, time)


@functools.lru_cache(maxsize=256)
def _rig(key, stream):
    """Return a member of a stream, the tables of its parts, and the size of its largest part."""
    rig = traffic.make_rig(key, stream)
    tables = worlds.tables(rig.parts, np.random.default_rng((*key, 3)))
    return rig, tables, sizes(rig.parts).max()


def _select(tables, shown, first):
    """Select rows of tables; surfaces are geoms, of which the first gets the number `first`."""
    selected = {name: table[shown] for name, table in tables.items()}
    # A surface is named by one of its geoms, which may have been left out.
    return selected | {"surface": first + np.searchsorted(shown, selected["surface"])}


def _place(parts, turns, positions):
    """Return the XML of parts with the given poses."""
    lines, quaternion = [], np.zeros(4)
    for part, rotation, position in zip(parts, turns, positions, strict=True):
        mujoco.mju_mat2Quat(quaternion, rotation.ravel())
        lines.append(
            f'<geom type="{part.kind}" size="{worlds.text(part.size)}" '
            f'pos="{worlds.text(position)}" quat="{worlds.text(quaternion)}" user="0"/>'
        )
    return lines


def _compile(xml):
    # All parts belong to the world's body, which has the fastest tree of bounding volumes. Contacts
    # are disabled globally, see `world.build`.
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><option><flag contact="disable"/></option>'
        '<compiler angle="radian" eulerseq="XYZ"/><size nuser_geom="1"/>'
        f"<worldbody>{''.join(xml)}</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return model, data


def _assign_strips(rows, course, geom, point):
    """Replace the plane of the road, geom 0, by the plane of the strip at each point."""
    on_ground = np.flatnonzero(geom == 0)
    _, d = course.locate(point[on_ground])
    strip, first = np.zeros(len(d), geom.dtype), 1
    for side in (1, -1):
        outer = course.half
        for number, (width, _, _) in enumerate(rows[side], first):
            strip[side * d > outer] = number
            outer += width
        first += len(rows[side])
    assigned = geom.copy()
    assigned[on_ground] = strip
    return assigned
