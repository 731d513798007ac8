"""Static objects beside the road of a drive, in chunks that depend only on the drive and a number.

The densities are those of single streets (`layout`), which have more objects near the camera.
"""

from typing import NamedTuple

import numpy as np

from data_prep.scenes import movers, things
from data_prep.scenes.course import Course
from data_prep.scenes.layout import SIDEWALK, Strips
from data_prep.scenes.things import Look
from data_prep.scenes.world import Part

CHUNK = 60.0  # metres of road
_PARKED = 24  # more than the parked vehicles of a chunk
NUMBERS_PARKED = 600  # instance numbers of parked vehicles; they recur after 1.5 km


class Roadside(NamedTuple):
    """What all chunks of a drive have in common."""

    kind: str  # town, suburb or country
    course: Course
    strips: Strips
    back: dict[int, float]  # side -> the |d| of the fronts of buildings
    row: dict[int, float]  # side -> distance of the trees of an avenue; 0: none
    wall: dict[int, float]  # side -> share of the line of gardens with a wall, fence or hedge
    rail: dict[int, bool]
    parked: bool
    kerb: Look


def draw_roadside(
    rng: np.random.Generator, course: Course, kind: str, strips: Strips, parked: bool
) -> Roadside:
    """Draw what all chunks of a drive have in common."""
    back, row, wall, rail = {}, {}, {}, {}
    for side in (1, -1):
        depth = {"town": rng.uniform(0.4, 3), "suburb": rng.uniform(3, 9), "country": 14.0}[kind]
        back[side] = strips.line[side] + depth
        row[side] = rng.uniform(8, 16) if rng.random() < 0.6 else 0.0
        wall[side] = {"town": 0.1, "suburb": 0.6, "country": 0.2}[kind]
        rail[side] = kind == "country" and bool(rng.random() < 0.4)
    kerb = Look("paving", things.grey(rng, 0.2, 0.45), (1.0, 1.0))
    return Roadside(kind, course, strips, back, row, wall, rail, parked, kerb)


def fill_chunk(
    rng: np.random.Generator, roadside: Roadside, chunk: int
) -> tuple[list[Part], list[int]]:
    """Draw the objects of a chunk of road.

    Returns:
        Parts, and for each the number of its object, or -1 if it is not counted.
    """
    parts, numbers = [], []

    def put(pieces, s, d, yaw=0.0, number=-1):
        x, y, heading = roadside.course.at(s, d)
        parts.extend(things.place(pieces, x, y, heading + yaw))
        numbers.extend([number] * len(pieces))

    for side in (1, -1):
        start = chunk * CHUNK
        _lay_kerb(roadside, side, start, put)
        _build_line(rng, roadside, side, start, put)
        _plant(rng, roadside, side, start, put)
        _park(rng, roadside, side, chunk, put)
    return parts, numbers


def fill_background(rng: np.random.Generator, course: Course, kind: str, chunk: int) -> list[Part]:
    """Draw woods behind the houses of a chunk and, for some chunks, hills at the horizon."""
    parts = []

    def put(size, s, d):
        x, y, heading = course.at(s, d)
        look = things.leaves(rng)._replace(period=(6.0, 6.0))
        part = Part("ellipsoid", size, (0, 0, size[2] * 0.3), look, things.VEGETATION)
        parts.extend(things.place([part], x, y, heading))

    for side in (1, -1):
        for _ in range(rng.poisson({"town": 0.5, "suburb": 1.5, "country": 1.2}[kind])):
            size = (rng.uniform(6, 16), rng.uniform(5, 9), rng.uniform(5, 12))
            put(size, (chunk + rng.random()) * CHUNK, side * rng.uniform(32, 90))
        if rng.random() < 0.2:
            wide = rng.uniform(110, 240)
            size = (wide, wide * rng.uniform(0.5, 0.9), rng.uniform(15, 45))
            put(size, (chunk + rng.random()) * CHUNK, side * (wide + rng.uniform(150, 500)))
    return parts


def _lay_kerb(roadside, side, start, put):
    course = roadside.course
    if roadside.strips.line[side] == course.half:
        return
    # Pieces short enough to deviate from the bend by at most 3 cm.
    curve = np.abs(course.curve(start + np.linspace(0, CHUNK, 13))).max()
    count = int(np.ceil(CHUNK / min(np.sqrt(8 * 0.03 / max(curve, 1e-6)), 20.0)))
    step = CHUNK / count
    stone = Part("box", (step / 2 + 0.02, 0.08, 0.11), (0, 0, 0), roadside.kerb, SIDEWALK)
    for i in range(count):
        put([stone], start + (i + 0.5) * step, side * (course.half + 0.07))


def _build_line(rng, roadside, side, start, put):
    """Add buildings, groups of trees in the gaps between them, and what bounds their gardens."""
    kind, line, back = roadside.kind, roadside.strips.line[side], roadside.back[side]
    # Fronts are modelled for the left side and rotated for the right side.
    yaw = 0.0 if side > 0 else np.pi
    town = {"town": 0.8, "suburb": 0.4, "country": 0.08}[kind]
    s, end = start, start + CHUNK
    while end - s > 6:
        length = min(rng.uniform(7, 22), end - s)
        if rng.random() < town:
            tall = rng.uniform(6, 17) if kind == "town" else rng.uniform(3.2, 7.5)
            block = things.building(rng, length, rng.uniform(8, 13), tall)
            put(block, s + length / 2, side * (back + rng.uniform(0, 1.5)), yaw)
        else:
            for _ in range(rng.integers(1, 4)):
                at = s + rng.uniform(0, length), side * (line + rng.uniform(2.5, 12))
                put(things.tree(rng), *at, rng.uniform(0, 6))
        s += length + (0.0 if rng.random() < 0.4 else rng.uniform(1, 8))
    for s in start + np.arange(6, CHUNK, 12):
        if rng.random() < roadside.wall[side] and back - line > 0.8:
            put(things.barrier(rng, rng.uniform(6, 11)), s, side * (line + 0.5), yaw)
    for s in start + np.arange(6, CHUNK, 12) if roadside.rail[side] else ():
        put(things.rail(rng, 12), s, side * (roadside.course.half + 0.6), yaw)


def _plant(rng, roadside, side, start, put):
    """Add an avenue, bushes and poles."""
    kind, half, line = roadside.kind, roadside.course.half, roadside.strips.line[side]
    gap = roadside.row[side]
    for s in start + np.arange(gap / 2, CHUNK, gap) if gap else ():
        if rng.random() < 0.75:
            place = half + 0.7 if line - half > 2.2 else line + 1.2
            put(things.tree(rng), s, side * (place + rng.normal(0, 0.1)))
    for _ in range(rng.poisson({"town": 1, "suburb": 3, "country": 5}[kind])):
        put(things.bush(rng), start + rng.uniform(0, CHUNK), side * (line + rng.uniform(1.8, 7)))
    yaw = 0.0 if side > 0 else np.pi
    for _ in range(rng.poisson({"town": 3, "suburb": 2.2, "country": 1.5}[kind])):
        put(things.pole(rng), start + rng.uniform(0, CHUNK), side * (half + 0.35), yaw)


def _park(rng, roadside, side, chunk, put):
    share = {"town": 0.45, "suburb": 0.3, "country": 0.0}[roadside.kind] if roadside.parked else 0
    first, gap = rng.uniform(3, 4), rng.uniform(5.6, 7.5)
    for i, s in enumerate(chunk * CHUNK + np.arange(first, CHUNK - 3, gap)):
        if rng.random() < share:
            way = 0 if side < 0 or rng.random() < 0.3 else np.pi
            pieces = movers.car(rng)
            number = (chunk * _PARKED + 2 * i + (side > 0)) % NUMBERS_PARKED
            at = s, side * (roadside.course.half - 1.15)
            put(pieces, *at, way + rng.normal(0, 0.03), number)
