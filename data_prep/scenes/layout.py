"""Draws random streets: objects along a curved road, vehicles and people.

Lengths are in metres; x is ahead, y left, z up; s is along the road, d to the left of its centre.
"""

from typing import NamedTuple

import numpy as np

from data_prep.scenes import movers, things
from data_prep.scenes.light import Weather, draw_weather
from data_prep.scenes.road import Road
from data_prep.scenes.world import ROAD, Body, Drive, Look, Part

SIDEWALK = 8  # Cityscapes id
_END = 130.0  # length of the street


def draw_street(rng: np.random.Generator) -> tuple[Road, list[Part], list[Body], Drive, Weather]:
    """Draw a random street: its road, static and moving objects, and the weather.

    Returns:
        :class:`Road`, static parts, bodies, :class:`Drive`, :class:`light.Weather`.
    """
    kind = rng.choice(["town", "suburb", "country"], p=[0.25, 0.45, 0.3])
    bend = rng.choice([1e-4, 2e-3, 6e-3], p=[0.4, 0.35, 0.25])
    half = rng.uniform(3.0, 4.5) + (2.0 if kind != "country" and rng.random() < 0.5 else 0.0)
    road = Road(
        curve=bend * rng.choice([-1, 1]) * rng.uniform(0.5, 1.5),
        half=half,
        dashed=((3.0, 4.5), (2.0, 2.0), (1.0, 0.0), (0.0, 0.0))[
            rng.choice(4, p=[0.4, 0.2, 0.1, 0.3])
        ],
        edge_lines=rng.random() < (0.7 if kind == "country" else 0.3),
        crossing=rng.uniform(8, 50) if kind == "town" and rng.random() < 0.4 else np.inf,
    )
    static, line = _lay_ground(rng, road, kind)
    bodies = []
    ego_lane = -half * rng.uniform(0.25, 0.5)
    for side in (-1, 1):
        _line_side(rng, road, kind, side, line[side], static, bodies)
    _fill_road(rng, road, kind, ego_lane, static, bodies)
    _close_end(rng, road, static)
    return road, static, bodies, _draw_drive(rng, road, ego_lane), draw_weather(rng)


class Strips(NamedTuple):
    """The strips of ground along a road: the road itself, and on each side the rows beyond it."""

    asphalt: Look
    rows: dict[int, list[tuple[float, Look, int]]]  # side -> width, look and label, outwards
    line: dict[int, float]  # side -> the |d| where buildings may begin


def draw_strips(rng: np.random.Generator, half: float, kind: str) -> Strips:
    """Draw verge, pavement and soil beside a road of half width `half`; the soil has no end.

    Sides are left (1) and right (-1).
    """
    asphalt = Look("asphalt", things.grey(rng, 0.07, 0.2, 0.03), (5.0, 5.0))
    material = "paving" if rng.random() < 0.7 else "asphalt"
    stones = Look(material, things.grey(rng, 0.16, 0.4), (2.5, 2.5))
    green = np.array([0.1, 0.13, 0.05]) * np.exp(rng.normal(0, 0.15, 3) + rng.normal(0, 0.25))
    soil = Look("grass", tuple(green), (3.0, 3.0))
    if rng.random() < 0.15:
        soil = Look("gravel", things.grey(rng, 0.15, 0.35), (2.0, 2.0))
    strips = Strips(asphalt, {}, {})
    for side in (1, -1):
        verge = rng.uniform(1, 4) if kind == "suburb" and rng.random() < 0.4 else 0.0
        bare = kind == "country" and rng.random() < 0.8
        pavement = 0.0 if bare else rng.uniform(1.4, 3.5)
        strips.line[side] = half + verge + pavement
        rows = [(verge, soil, things.TERRAIN), (pavement, stones, SIDEWALK)]
        strips.rows[side] = [row for row in rows if row[0]] + [(np.inf, soil, things.TERRAIN)]
    return strips


def _lay_ground(rng, road, kind):
    """Build the ground from discs about the centre of the bend, each below the next inner one.

    This makes a curved kerb an exact circle, and the ground consists of at most eight parts.

    Returns:
        Parts, and for each side, left (1) and right (-1), the |d| where buildings may begin.
    """
    strips = draw_strips(rng, road.half, kind)
    line, edges = strips.line, [(road.half, strips.asphalt, ROAD)]
    for side in (1, -1):
        start, toward_centre = road.half, np.sign(road.curve) == side
        for width, look, label in strips.rows[side]:
            # Discs end at their outer edge, which is the near one on the side of the bend's centre.
            edges.append((-start if toward_centre else start + width, look, label))
            start += width
    ground = []
    # From the plane inwards; the road is at height 0, discs inside it are a kerb higher.
    edges.sort(key=lambda edge: -edge[0])
    names = [label for _, _, label in edges]
    for i, (reach, look, label) in enumerate(edges):
        top = 0.015 * (i - names.index(ROAD))
        top += 0.1 if i > names.index(ROAD) else 0.0
        if np.isinf(reach):
            ground.append(Part("plane", (0, 0, 1), (0, 0, top), look, label, ground=True))
            continue
        size = (1 / abs(road.curve) + reach, 0.2)
        middle = (0, 1 / road.curve, top - 0.2)
        ground.append(Part("cylinder", size, middle, look, label, ground=True))
    return ground + _kerb(rng, road, line), line


def _kerb(rng, road, line):
    """Build kerb stones on the outer side of the bend, where the pavement is below the road."""
    side = -int(np.sign(road.curve))
    if line[side] == road.half:
        return []
    look = Look("paving", things.grey(rng, 0.2, 0.45), (1.0, 1.0))
    # Pieces short enough to deviate from the circle by at most 3 cm.
    step = min(np.sqrt(8 * 0.03 / abs(road.curve)), 25.0)
    parts = []
    for s in np.arange(-5, 70, step):
        x, y, yaw = road.at(s, side * (road.half + 0.07))
        size = (step / 2 + 0.01, 0.08, 0.11)
        parts.append(Part("box", size, (x, y, 0.0), look, SIDEWALK, (0, 0, yaw)))
    return parts


def _put(road, parts, s, d, static, yaw=0.0):
    """Add parts at s, d, turned with the road."""
    x, y, heading = road.at(s, d)
    static.extend(things.place(parts, x, y, heading + yaw))


def _line_side(rng, road, kind, side, line, static, bodies):
    """Add all objects along one side beyond the kerb."""
    # Fronts are modelled for the left side and rotated for the right side.
    yaw = 0.0 if side > 0 else np.pi
    town = {"town": 0.8, "suburb": 0.4, "country": 0.08}[kind]
    back = line + {"town": rng.uniform(0, 3), "suburb": rng.uniform(2, 9), "country": 14.0}[kind]
    s = rng.uniform(-8, 4)
    while s < _END:
        length = rng.uniform(7, 22)
        if rng.random() < town:
            tall = rng.uniform(6, 17) if kind == "town" else rng.uniform(3.2, 7.5)
            block = things.building(rng, length, rng.uniform(8, 13), tall, near=s < 40)
            _put(road, block, s + length / 2, side * (back + rng.uniform(0, 1.5)), static, yaw)
        else:
            for _ in range(rng.integers(2, 5)):
                at = s + rng.uniform(0, length), side * (line + rng.uniform(2.0, 12))
                _put(road, things.tree(rng, far=s > 40), *at, static, rng.uniform(0, 6))
        s += length + (0.0 if rng.random() < 0.4 else rng.uniform(1, 8))
    wall = {"town": 0.15, "suburb": 0.6, "country": 0.25}[kind]
    for s in np.arange(rng.uniform(0, 6), 80, 11):
        if rng.random() < wall and back - line > 0.8:
            _put(road, things.barrier(rng, rng.uniform(5, 11)), s, side * (line + 0.5), static, yaw)
    if kind == "country" and rng.random() < 0.4:
        for s in np.arange(2, 90, 12):
            _put(road, things.rail(rng, 12), s, side * (road.half + 0.6), static, yaw)
    row, gap = rng.random() < 0.65, rng.uniform(7, 14)
    place = max(road.half + 0.8, line - 0.5) if kind == "town" else line + rng.uniform(0.6, 3)
    for s in np.arange(rng.uniform(3, 12), 100, gap) if row else ():
        if rng.random() < 0.8:
            _put(road, things.tree(rng, far=s > 35), s, side * (place + rng.normal(0, 0.2)), static)
    for _ in range(rng.poisson({"town": 1, "suburb": 5, "country": 9}[kind])):
        at = rng.uniform(4, 80), side * (line + rng.uniform(1.5, 7))
        _put(road, things.bush(rng), *at, static)
    for _ in range(rng.poisson({"town": 5, "suburb": 4, "country": 3}[kind])):
        at = np.exp(rng.uniform(np.log(7), np.log(70))), side * (road.half + rng.uniform(0.3, 0.9))
        _put(road, things.pole(rng), *at, static, yaw)
    for _ in range(rng.poisson({"town": 3.0, "suburb": 1.2, "country": 0.3}[kind])):
        s, d = (
            np.exp(rng.uniform(np.log(7), np.log(45))),
            side * rng.uniform(road.half + 0.5, line + 0.8),
        )
        x, y, heading = road.at(s, d)
        turn = heading + rng.choice([0, np.pi]) + rng.normal(0, 0.3)
        walk = rng.choice([0.0, rng.uniform(0.8, 1.8)], p=[0.25, 0.75])
        bodies.append(movers.person(rng, x, y, turn, walk, near=s < 22))
    parked = {"town": 0.45, "suburb": 0.3, "country": 0.02}[kind] if road.half > 4 else 0.08
    for s in np.arange(rng.uniform(8, 13), 75, rng.uniform(5.6, 7.5)):
        if rng.random() < parked:
            way = 0 if side < 0 or rng.random() < 0.3 else np.pi
            parts = movers.lorry(rng) if rng.random() < 0.04 else movers.car(rng, near=s < 18)
            _put(road, parts, s, side * (road.half - 1.15), static, way + rng.normal(0, 0.03))


def _fill_road(rng, road, kind, ego_lane, static, bodies):
    """Add vehicles, cyclists and pedestrians who cross the road."""

    def drive_on(parts, s, d, speed, yaw):
        x, y, heading = road.at(s, d)
        # Follows the bend of the road, which is reversed for oncoming vehicles.
        turn = speed * road.curve * np.cos(yaw)
        bodies.append(Body((x, y, 0.0), heading + yaw, speed, turn, parts))

    def vehicle(s):
        return movers.lorry(rng) if rng.random() < 0.06 else movers.car(rng, near=s < 18)

    ahead = np.cumsum(rng.uniform(9, 45, 3)) if rng.random() < 0.6 else ()
    for s in ahead:
        drive_on(vehicle(s), s, ego_lane + rng.normal(0, 0.15), max(0, rng.normal(9, 5)), 0.0)
    coming = np.cumsum(rng.uniform(8, 50, 3)) if rng.random() < 0.6 else ()
    for s in coming:
        drive_on(vehicle(s), s, -ego_lane + rng.normal(0, 0.15), max(0, rng.normal(9, 4)), np.pi)
    if kind == "town" and rng.random() < 0.25:
        s = rng.uniform(14, 40)
        turn = rng.choice([-1, 1]) * np.pi / 2
        drive_on(vehicle(s), s, rng.uniform(-3, 3), rng.uniform(1, 8), turn + rng.normal(0, 0.3))
    for _ in range(rng.poisson(0.7 if kind != "country" else 0.3)):
        side = rng.choice([-1, 1])
        x, y, heading = road.at(
            np.exp(rng.uniform(np.log(7), np.log(40))), side * (road.half - 0.6)
        )
        bodies.append(
            movers.cyclist(rng, x, y, heading + (np.pi if side > 0 else 0), rng.uniform(2, 7))
        )
    for _ in range(rng.poisson(0.5 if kind == "town" else 0.1)):
        x, y, heading = road.at(rng.uniform(9, 35), rng.uniform(-road.half, road.half))
        turn = heading + rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.2)
        bodies.append(movers.person(rng, x, y, turn, rng.uniform(0.8, 1.8)))


def _close_end(rng, road, static):
    """Close the view at the end of the street with woods and houses in the far background."""
    for d in np.arange(-75, 76, 11):
        s = _END + rng.uniform(-5, 25)
        if abs(d) < 12 and rng.random() < 0.5:
            s += 30
        if rng.random() < 0.7:
            look, tall = things.leaves(rng), rng.uniform(4, 11)
            part = Part(
                "ellipsoid",
                (8, 8, tall),
                (0, 0, tall * 0.4),
                look._replace(period=(6, 6)),
                things.VEGETATION,
            )
            _put(road, [part], s, d, static)
        else:
            block = things.building(rng, length=14, depth=8, tall=rng.uniform(4, 12), near=False)
            _put(road, block, s, d, static, -np.pi / 2)


def _draw_drive(rng, road, ego_lane):
    x, y, heading = road.at(0.0, ego_lane)
    speed = rng.choice([0.0, rng.uniform(1, 4), rng.normal(5.5, 2.3)], p=[0.06, 0.34, 0.6])
    speed = float(np.clip(speed, 0, 14))
    turn = (
        speed * road.curve
        + rng.normal(0, 0.05)
        + rng.choice([0, rng.normal(0, 0.25)], p=[0.75, 0.25])
    )
    return Drive(
        position=(x, y),
        yaw=heading + rng.normal(0, 0.03),
        speed=speed,
        yaw_rate=turn if speed > 0.5 else 0.0,
        acceleration=rng.normal(0, 1.0) if speed > 2 else 0.0,
        height=rng.normal(1.65, 0.05),
        aim=tuple(rng.normal(0, (0.006, 0.01, 0.012))),
        sway=(
            *rng.normal(0, (0.01, 0.003, 0.003)),
            *rng.normal(0, (0.06, 0.018, 0.014)) * min(1, speed / 6),
        ),
    )
