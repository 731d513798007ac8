"""Builds a MuJoCo model from parts and bodies, with tables of the appearance of each part.

A world consists of static parts, bodies that move on their own, and the car that carries the
camera. MuJoCo moves them (rigid bodies, hinges, the car's springs) and finds what each ray hits.
The appearance of the parts is stored in tables here, indexed by MuJoCo's geom number.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from data_prep.scenes import textures

INTERVAL = 0.1  # seconds between the frames, as in KITTI (10 frames per second)
_STEP = 0.02
# The car on its springs: mass (kg), height of its centre above the springs' hinge (m).
_MASS, _CENTRE = 1300.0, 0.5
_WHEELS = 200.0  # mass below the springs, kg
ROAD = 7  # Cityscapes id
_SMOOTH = ("asphalt", "paving", "gravel", "paint", "glass", "sign")  # get little dirt


class Look(NamedTuple):
    """Appearance of a surface."""

    material: str  # a name of `textures.TILES`
    colour: tuple[float, float, float]  # linear albedo
    period: tuple[float, float] = (2.0, 2.0)  # size of a tile in metres, across and up
    gloss: float = 0.0  # share of the sky reflected at perpendicular view
    glow: float = 0.0  # emitted light


class Part(NamedTuple):
    """A convex piece, in the coordinates of its body or of the world."""

    kind: str  # MuJoCo's geom type: plane, box, sphere, ellipsoid, cylinder, capsule
    size: tuple[float, ...]  # as in MuJoCo: half lengths, or radius and half height
    position: tuple[float, float, float]
    look: Look
    label: int  # Cityscapes id
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # radians about x, y, z, in this order
    ground: bool = False  # texture coordinates are the world's x and y: adjacent parts join


class Limb(NamedTuple):
    """Parts on a hinge whose axis lies across the body."""

    position: tuple[float, float, float]
    speed: float  # radians per second
    angle: float  # radians at the first frame
    parts: list[Part]
    # In a drive of many frames the limb swings about `middle` with this angular frequency.
    middle: float = 0.0
    pace: float = 5.5


class Body(NamedTuple):
    """An object that moves on its own."""

    position: tuple[float, float, float]
    yaw: float
    speed: float  # metres per second along its x axis
    yaw_rate: float
    parts: list[Part]
    limbs: Sequence[Limb] = ()
    leg: float = 0.0  # length of a walker's legs, the first limb: the hips drop as they spread


class Drive(NamedTuple):
    """State of the camera's car at the first frame."""

    position: tuple[float, float]
    yaw: float
    speed: float
    yaw_rate: float
    acceleration: float
    height: float  # height of the camera
    aim: tuple[float, float, float]  # roll, pitch, yaw of the camera in the car, radians
    sway: tuple[float, ...]  # height, pitch, roll of the body on its springs, and their rates


class Near(NamedTuple):
    """The part of a world near the camera: most rays need no other, and few parts are fast."""

    origin: np.ndarray  # (3,) from where rays are cast
    radius: float  # all other parts of the world are further away
    model: mujoco.MjModel
    data: mujoco.MjData
    geom: np.ndarray  # geom numbers in the whole world


class World(NamedTuple):
    """The model, and the appearance of each part by geom number."""

    model: mujoco.MjModel
    data: mujoco.MjData
    label: np.ndarray
    colour: np.ndarray
    tile: np.ndarray
    detail: np.ndarray
    stain: np.ndarray
    period: np.ndarray
    offset: np.ndarray
    gloss: np.ndarray
    glow: np.ndarray
    ground: np.ndarray
    road: np.ndarray  # bool: has road markings
    surface: np.ndarray  # parts that join without an edge share an index
    # Of drives only, see `video_world`.
    near: Near | None = None
    # Replaces the geoms (N,) hit at points (N, 3); None: they are kept.
    assign: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


def build(
    static: Sequence[Part], bodies: Sequence[Body], drive: Drive, rng: np.random.Generator
) -> World:
    """Compile a world.

    Args:
        static: list of :class:`Part` that never move.
        bodies: list of :class:`Body`.
        drive: the :class:`Drive` of the camera's car.
        rng: numpy Generator that selects each part's textures and their offsets.
    """
    parts, lines, speeds = [], [], []

    def geoms(pieces):
        for part in pieces:
            lines.append(geom_xml(part, len(parts)))
            parts.append(part)

    geoms(static)
    for body in bodies:
        lines.append(f'<body pos="{text(body.position)}" euler="0 0 {body.yaw:.9f}">')
        lines.append('<freejoint/><inertial pos="0 0 0" mass="1e3" diaginertia="1e3 1e3 1e3"/>')
        ahead = body.speed * np.array([np.cos(body.yaw), np.sin(body.yaw)])
        speeds += [*ahead, 0, 0, 0, body.yaw_rate]
        geoms(body.parts)
        for limb in body.limbs:
            lines.append(f'<body pos="{text(limb.position)}" euler="0 {limb.angle:.9f} 0">')
            lines.append('<joint type="hinge" axis="0 1 0"/>')
            # So light that its swing does not move the body.
            lines.append('<inertial pos="0 0 0" mass="1e-3" diaginertia="1e-3 1e-3 1e-3"/>')
            speeds.append(limb.speed)
            geoms(limb.parts)
            lines.append("</body>")
        lines.append("</body>")
    lines.append(_car_xml(drive))
    model = mujoco.MjModel.from_xml_string(
        # Contacts are disabled globally instead of per geom: geoms that cannot touch are excluded
        # from MuJoCo's bounding volume hierarchy, which makes ray casting twice as slow.
        f'<mujoco><option gravity="0 0 0" timestep="{_STEP}"><flag contact="disable"/></option>'
        '<compiler angle="radian" eulerseq="XYZ"/><size nuser_geom="1"/>'
        f"<worldbody>{''.join(lines)}</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    _start(model, data, drive, speeds)
    order = model.geom_user[:, 0].astype(int)
    return World(model, data, **tables([parts[i] for i in order], rng))


def text(numbers: Sequence[float]) -> str:
    """Format numbers for MuJoCo's XML."""
    return ("%.9f " * len(numbers))[:-1] % tuple(numbers)


def geom_xml(part: Part, number: int) -> str:
    """Return the XML of a part, with its number as user data."""
    return (
        f'<geom type="{part.kind}" size="{text(part.size)}" pos="{text(part.position)}" '
        f'euler="{text(part.turn)}" user="{number}"/>'
    )


def _car_xml(drive):
    """Return the XML of the camera's car: slides and a hinge, and a sprung body above them."""
    inertia = _MASS * 1.5
    spring = f'stiffness="{inertia * 66:.0f}" damping="{inertia * 5:.0f}"'
    return (
        f'<body pos="{text(drive.position)} 0"><joint type="slide" axis="1 0 0"/>'
        '<joint type="slide" axis="0 1 0"/>'
        '<joint type="hinge" axis="0 0 1"/>'
        f'<inertial pos="0 0 0" mass="{_WHEELS}" diaginertia="300 300 300"/>'
        f'<body pos="0 0 0.5"><joint type="slide" axis="0 0 1" {spring}/>'
        f'<joint type="hinge" axis="0 1 0" {spring}/><joint type="hinge" axis="1 0 0" {spring}/>'
        f'<inertial pos="0 0 {_CENTRE}" mass="{_MASS}" '
        f'diaginertia="{inertia} {inertia} {inertia}"/>'
        f'<site name="camera" pos="0.3 0 {drive.height - 0.5:.9f}" euler="{text(drive.aim)}"/>'
        "</body></body>"
    )


def _start(model, data, drive, speeds):
    """Set positions and speeds of the first frame."""
    dofs = model.nv - 6
    if dofs != len(speeds):
        raise AssertionError("MuJoCo numbers the joints in a different order than written")
    # The camera's car comes last: x, y, yaw, height, pitch, roll.
    data.qpos[-6:] = [0, 0, drive.yaw, *drive.sway[:3]]
    ahead = np.array([np.cos(drive.yaw), np.sin(drive.yaw)])
    data.qvel[:dofs] = speeds
    data.qvel[-6:] = [*(drive.speed * ahead), drive.yaw_rate, *drive.sway[3:]]
    # Braking or engine force along the car, and the centripetal force of a turn across it.
    across = drive.speed * drive.yaw_rate * np.array([-ahead[1], ahead[0]])
    force = (drive.acceleration * ahead + across) * (_MASS + _WHEELS)
    data.qfrc_applied[-6:-4] = force
    mujoco.mj_kinematics(model, data)


def advance(world: World) -> None:
    """Advance the world to the next frame."""
    for _ in range(round(INTERVAL / _STEP)):
        mujoco.mj_step(world.model, world.data)
    mujoco.mj_kinematics(world.model, world.data)


def tables(parts: Sequence[Part], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the tables of :class:`World` for parts in this order, with random textures."""
    looks = [part.look for part in parts]
    count = len(parts)
    ground = np.array([part.ground for part in parts])
    surface = np.arange(count)
    for label in {part.label for part in parts if part.ground}:
        same = ground & (np.array([part.label for part in parts]) == label)
        surface[same] = surface[same].min()

    def choose(names):
        tiles_of_part = [textures.TILES[name] for name in names]
        draws = rng.random(count)
        return np.array(
            [tiles[int(n * len(tiles))] for tiles, n in zip(tiles_of_part, draws, strict=True)]
        )

    columns = {
        "label": np.array([part.label for part in parts], np.uint8),
        "colour": np.array([look.colour for look in looks], np.float32),
        "tile": choose(look.material for look in looks),
        "detail": choose(["grain"] * count),
        "stain": choose("stain" if look.material in _SMOOTH else "rough" for look in looks),
        "period": np.array([look.period for look in looks], np.float32),
        "offset": rng.random((count, 2)).astype(np.float32),
        "gloss": np.array([look.gloss for look in looks], np.float32),
        "glow": np.array([look.glow for look in looks], np.float32),
    }
    # Parts of one surface share their appearance: otherwise a pavement's pieces would differ.
    columns = {name: table[surface] for name, table in columns.items()}
    road = ground & (columns["label"] == ROAD)
    return columns | {"ground": ground, "road": road, "surface": surface}
