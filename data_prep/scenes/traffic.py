"""People and vehicles that move through a drive: streams without end, each a formula of time.

The members of a stream have the same speed, so that none runs into another, and member j depends
only on the drive, the stream and j.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_prep.scenes import movers
from data_prep.scenes.driver import Driver, Wave, turn
from data_prep.scenes.roadside import NUMBERS_PARKED, Roadside
from data_prep.scenes.world import Body, Part


class Stream(NamedTuple):
    """People or vehicles in a row with one speed."""

    kind: str  # oncoming, ahead, cyclist or walker
    side: float  # distance to the left of the centre line, m
    gap: float  # mean distance between members, m
    share: float  # of the members that exist
    speed: float  # along the road, m/s; negative: towards the camera
    numbers: tuple[int, int]  # first instance number, how many
    distance: float  # members are generated up to this distance ahead of the camera, m


class Rig(NamedTuple):
    """A mover taken apart: its geoms in the coordinates of the body or of their limb."""

    body: Body
    parts: list[Part]
    turns: np.ndarray  # (n, 3, 3)
    offsets: np.ndarray  # (n, 3)
    limb: np.ndarray  # (n,) index of the limb, -1: the body
    chance: np.ndarray  # (5,) random numbers in 0..1 that vary its path


def draw_streams(rng: np.random.Generator, roadside: Roadside, lane: float) -> list[Stream]:
    """Draw the streams of a drive whose driver keeps to `lane`."""
    kind, half, line = roadside.kind, roadside.course.half, roadside.strips.line
    streams = []
    if rng.random() < 0.8:
        speed, gap = -np.clip(rng.normal(9, 3), 4, 16), rng.uniform(25, 80)
        numbers = (NUMBERS_PARKED, 300)
        streams.append(Stream("oncoming", -lane, gap, 0.7, speed, numbers, 450.0))
    if rng.random() < 0.6:
        gap, numbers = rng.uniform(18, 40), (NUMBERS_PARKED + 300, 3)
        streams.append(Stream("ahead", lane, gap, 0.8, 0.0, numbers, 450.0))
    for i, side in enumerate((1, -1)):
        place = side * (half - (2.7 if roadside.parked else 0.6))
        clear = abs(abs(place) - abs(lane)) > 1.5
        if rng.random() < (0.25 if kind == "country" else 0.5) and clear:
            speed, gap = -side * rng.uniform(3, 6), rng.uniform(50, 120)
            streams.append(Stream("cyclist", place, gap, 0.6, speed, (500 * i, 500), 220.0))
    for i, side in enumerate((1, -1)):
        width = line[side] - half
        if width < 1.2:
            continue
        gap = {"town": 16, "suburb": 40, "country": 80}[kind] * rng.uniform(0.8, 1.4)
        places = half + 0.8 + (width - 1.2) * np.array([0.15, 0.5, 0.85])
        for j, speed in enumerate((rng.uniform(1, 1.5), 0.0, -rng.uniform(1, 1.5))):
            numbers = (160 * (3 * i + j), 160)
            streams.append(Stream("walker", side * places[j], gap, 0.6, speed, numbers, 220.0))
    return streams


def members(
    seed: tuple[int, ...], stream: Stream, driver: Driver, time: float, behind: float
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield number j and generator seed of the members of a stream near the camera at a time.

    Args:
        seed: seed of the stream.
        stream: the stream.
        driver: driver of the camera's car.
        time: seconds after the first frame.
        behind: members further behind the camera are left out, m.
    """
    if stream.kind == "ahead":
        first, last = 0, stream.numbers[1]
    else:
        middle = driver.s(time) - stream.speed * time
        first = int(np.floor((middle - behind) / stream.gap))
        last = int(np.ceil((middle + stream.distance) / stream.gap))
    for j in range(first, last):
        key = (*seed, j + 2**31)
        if _luck(key) < stream.share:
            yield j, key


@functools.lru_cache(maxsize=4096)
def _luck(key):
    return np.random.default_rng((*key, 0)).random()


def make_rig(key: tuple[int, ...], stream: Stream) -> Rig:
    """Draw a member of a stream, as yielded by `members`."""
    rng = np.random.default_rng((*key, 1))
    if stream.kind == "walker":
        body = movers.person(rng, 0.0, 0.0, 0.0, abs(stream.speed))
    elif stream.kind == "cyclist":
        body = movers.cyclist(rng, 0.0, 0.0, 0.0, abs(stream.speed))
    else:
        pieces = movers.lorry(rng) if rng.random() < 0.1 else movers.car(rng)
        body = Body((0.0, 0.0, 0.0), 0.0, stream.speed, 0.0, pieces)
    parts = [*body.parts, *(part for limb in body.limbs for part in limb.parts)]
    limb = [-1] * len(body.parts) + [i for i, n in enumerate(body.limbs) for _ in n.parts]
    turns = np.stack([turn(*part.turn) for part in parts])
    offsets = np.array([part.position for part in parts])
    return Rig(body, parts, turns, offsets, np.array(limb), rng.random(5))


def pose(
    rig: Rig,
    stream: Stream,
    j: int,
    roadside: Roadside,
    driver: Driver,
    time: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (n, 3, 3) and positions (n, 3) of the geoms of a member at a time."""
    shift, size, period, phase, shade = rig.chance
    drift = Wave(0.12 * size, 2 * np.pi / (6 + 8 * period), 2 * np.pi * phase)
    if stream.kind == "ahead":
        # A car ahead keeps its distance, more at higher speeds, within a slow variation.
        near = 10 + 0.9 * driver.speed + stream.gap * (j + 0.4 * shift)
        s = driver.s(time) + near + stream.gap * 0.15 * np.sin(2 * np.pi * (time / 25 + shade))
        speed = driver.velocity(time)
    else:
        s, speed = stream.gap * (j + 0.6 * shift) + stream.speed * time, stream.speed
    moving = abs(stream.speed) > 0 or stream.kind == "ahead"
    d = stream.side + (drift.at(time) if moving else 0.3 * (size - 0.5))
    x, y, yaw = roadside.course.at(s, d)
    if not moving:
        yaw += 2 * np.pi * phase
    else:
        yaw += np.arctan2(drift.slope(time), abs(speed)) * np.sign(speed)
        yaw += np.pi if speed < 0 else 0.0
    return _place(rig, time, x, y, yaw)


def _place(rig, time, x, y, yaw):
    body = turn(0.0, 0.0, yaw)
    turns, offsets = rig.turns.copy(), rig.offsets.copy()
    drop = 0.0
    for i, limb in enumerate(rig.body.limbs):
        # The swing of which angle and speed at time 0 are given.
        angle = limb.middle + (limb.angle - limb.middle) * np.cos(limb.pace * time)
        angle += limb.speed / limb.pace * np.sin(limb.pace * time)
        swing, of_limb = turn(0.0, angle, 0.0), rig.limb == i
        turns[of_limb] = swing @ turns[of_limb]
        offsets[of_limb] = offsets[of_limb] @ swing.T + limb.position
        if i == 0:
            drop = rig.body.leg * (1 - np.cos(angle))
    return body @ turns, offsets @ body.T + [x, y, -drop]
