"""Vehicles, pedestrians and cyclists made of convex parts: x ahead, z up, ground at 0.

Each function draws a random one with `rng`.
"""

import numpy as np

from data_prep.scenes.things import DARK, box, bright, grey
from data_prep.scenes.world import Body, Limb, Look, Part

PERSON, RIDER, CAR, TRUCK, BUS, BICYCLE = 24, 25, 26, 27, 28, 33
_TYRE = Look("grain", (0.02, 0.02, 0.022))
_GLASS = Look("glass", (0.02, 0.025, 0.03), (2.5, 2.5), gloss=0.22)


def _car_colour(rng):
    choice = rng.random()
    if choice < 0.65:
        return grey(rng, *((0.02, 0.05), (0.12, 0.3), (0.5, 0.8))[rng.integers(3)], 0.03)
    return ((0.4, 0.02, 0.02), (0.02, 0.06, 0.35), (0.03, 0.18, 0.06), (0.45, 0.3, 0.06))[
        rng.integers(4)
    ]


def car(rng: np.random.Generator, near: bool = True) -> list[Part]:
    """Draw the parts of a parked or moving car, 3.6 to 4.8 m long; a far one has fewer."""
    length, width = rng.uniform(3.6, 4.8), rng.uniform(0.82, 0.93)
    tall = rng.uniform(1.38, 1.75)
    waist, half = rng.uniform(0.8, 0.98), length / 2
    body = Look("paint", _car_colour(rng), (length, 1.2), gloss=0.25)
    front, back = half - rng.uniform(0.9, 1.3), -half + rng.uniform(0.05, 0.9)
    lean = rng.uniform(0.3, 0.6)
    cabin = (back + 0.1, front - lean)
    parts = [
        box((-half, half), (-width, width), (0.28, waist), CAR, body),
        box(cabin, (-width + 0.1, width - 0.1), (waist, tall - 0.05), CAR, _GLASS),
        box(cabin, (-width + 0.13, width - 0.13), (tall - 0.06, tall), CAR, body),
    ]
    slope = np.arctan2(tall - waist, lean)
    pane = np.hypot(tall - waist, lean) / 2
    middle = (front - lean / 2 - 0.02, 0.0, (tall + waist) / 2 - 0.03)
    parts.append(Part("box", (pane, width - 0.14, 0.02), middle, _GLASS, CAR, (0, slope, 0)))
    for x in (-0.31 * length, 0.31 * length):
        for side in (-1, 1):
            at = (x, side * (width - 0.1), 0.31)
            parts.append(Part("cylinder", (0.31, 0.12), at, _TYRE, CAR, (np.pi / 2, 0, 0)))
    if not near:
        return parts
    red = Look("grain", (0.45, 0.03, 0.03), glow=rng.choice([0.0, 0.0, 1.5]))
    white = Look("grain", (0.7, 0.7, 0.7), gloss=0.2)
    plate = Look("cloth", (0.7, 0.7, 0.66), (0.6, 0.11))
    for side in (-1, 1):
        y = tuple(sorted((side * (width - 0.05), side * (width - 0.35))))
        parts.append(box((-half - 0.02, -half), y, (waist - 0.28, waist - 0.06), CAR, red))
        parts.append(box((half, half + 0.02), y, (waist - 0.28, waist - 0.1), CAR, white))
        at = (cabin[1] - 0.25, side * (width - 0.12), (waist + tall) / 2)
        parts.append(Part("box", (0.04, 0.03, (tall - waist) / 2), at, body, CAR))
    for x in ((-half - 0.025, -half), (half, half + 0.025)):
        parts.append(box(x, (-0.26, 0.26), (0.48, 0.6), CAR, plate))
        parts.append(box(x, (-width + 0.1, width - 0.1), (0.3, 0.42), CAR, DARK))
    return parts


def lorry(rng: np.random.Generator) -> list[Part]:
    """Draw the parts of a lorry, van or bus, all with the label of its kind."""
    kind = rng.choice(["van", "box", "bus"], p=[0.45, 0.4, 0.15])
    label = {"van": CAR, "box": TRUCK, "bus": BUS}[kind]
    length = {"van": 5.2, "box": rng.uniform(6, 10), "bus": 11.5}[kind]
    tall = {"van": rng.uniform(2.0, 2.5), "box": rng.uniform(2.8, 3.8), "bus": 3.1}[kind]
    width, half = {"van": 0.98, "box": 1.22, "bus": 1.26}[kind], length / 2
    colour = _car_colour(rng) if rng.random() < 0.5 else grey(rng, 0.5, 0.8, 0.03)
    material = "shapes" if kind == "box" and rng.random() < 0.5 else "paint"
    body = Look(material, colour, (length, 2.5), gloss=0.12)
    cabin = half - {"van": 1.5, "box": 2.0, "bus": 0.3}[kind]
    parts = [
        box((-half, cabin), (-width, width), (0.5, tall), label, body),
        box((cabin, half), (-width + 0.04, width - 0.04), (0.45, 1.25), label, body),
        box(
            (cabin, half - 0.15), (-width + 0.05, width - 0.05), (1.25, tall * 0.86), label, _GLASS
        ),
        box((-half - 0.02, -half), (-width + 0.1, width - 0.1), (0.4, 0.62), label, DARK),
    ]
    if kind == "bus":
        panes = Look("facade", (0.2, 0.22, 0.25), (4.0, 3.0), gloss=0.1)
        parts.append(
            box((-half + 0.3, half), (-width - 0.01, width + 0.01), (1.2, 2.5), label, panes)
        )
    for x in (-0.3 * length, half - 1.1):
        for side in (-1, 1):
            at = (x, side * (width - 0.14), 0.45)
            parts.append(Part("cylinder", (0.45, 0.15), at, _TYRE, label, (np.pi / 2, 0, 0)))
    return parts


def _skin(rng):
    return Look("grain", tuple(np.array([0.5, 0.33, 0.25]) * rng.uniform(0.25, 1.1)))


def person(
    rng: np.random.Generator, x: float, y: float, yaw: float, speed: float, near: bool = True
) -> Body:
    """Draw a walking person with swinging arms and legs, which are rigid far away."""
    tall = rng.uniform(1.5, 1.92)
    coat, trousers = (Look("cloth", bright(rng), (0.6, 0.5)) for _ in range(2))
    shoulder, hip, wide = 0.8 * tall, 0.5 * tall, 0.12 * tall
    parts = [
        Part("ellipsoid", (0.075 * tall, wide, 0.19 * tall), (0, 0, 0.66 * tall), coat, PERSON),
        Part(
            "ellipsoid",
            (0.06 * tall, 0.05 * tall, 0.075 * tall),
            (0, 0, 0.925 * tall),
            _skin(rng),
            PERSON,
        ),
        Part(
            "ellipsoid",
            (0.062 * tall, 0.055 * tall, 0.05 * tall),
            (-0.01, 0, 0.96 * tall),
            DARK,
            PERSON,
        ),
    ]
    if rng.random() < 0.4:
        bag = Look("cloth", bright(rng), (0.5, 0.5))
        parts.append(box((-0.3, -0.1), (-0.15, 0.15), (0.55 * tall, 0.8 * tall), PERSON, bag))
    phase, swing = rng.uniform(0, 2 * np.pi), min(0.5, 0.35 * abs(speed))
    limbs = []
    for side in (-1, 1):
        for at, long, thick, look, phase_sign in (
            ((0, side * 0.055 * tall, hip), 0.48 * tall, 0.045 * tall, trousers, 1),
            ((0, side * (wide + 0.02), shoulder), 0.36 * tall, 0.03 * tall, coat, -1),
        ):
            angle = phase_sign * side * swing * np.sin(phase)
            rate = phase_sign * side * swing * 5.5 * np.cos(phase)
            piece = Part("capsule", (thick, long / 2 - thick), (0, 0, -long / 2), look, PERSON)
            limbs.append(Limb(at, rate, angle, [piece]))
    turn = rng.normal(0, 0.1)
    # The hips are lower in mid-stride, so that the feet stay on the ground.
    place = (x, y, -0.48 * tall * (1 - np.cos(swing * np.sin(phase))))
    if near:
        return Body(place, yaw, speed, turn, parts, limbs, leg=0.48 * tall)
    still = [
        piece._replace(position=tuple(np.add(limb.position, piece.position)))
        for limb in limbs
        for piece in limb.parts
    ]
    return Body(place, yaw, speed, turn, parts + still)


def cyclist(rng: np.random.Generator, x: float, y: float, yaw: float, speed: float) -> Body:
    """Draw a bicycle with its rider."""
    coat, trousers = (Look("cloth", bright(rng), (0.6, 0.5)) for _ in range(2))
    frame = Look("grain", bright(rng))
    parts = []
    for wheel in (-0.52, 0.52):
        parts.append(
            Part("cylinder", (0.34, 0.018), (wheel, 0, 0.34), _TYRE, BICYCLE, (np.pi / 2, 0, 0))
        )
    parts += [
        Part("capsule", (0.022, 0.38), (0.1, 0, 0.62), frame, BICYCLE, (0, 1.0, 0)),
        Part("capsule", (0.02, 0.3), (0.43, 0, 0.68), frame, BICYCLE, (0, -0.3, 0)),
        Part("capsule", (0.018, 0.27), (0.38, 0, 1.0), DARK, BICYCLE, (np.pi / 2, 0, 0)),
        Part("ellipsoid", (0.15, 0.2, 0.36), (0.02, 0, 1.22), coat, RIDER, (0, 0.5, 0)),
        Part("ellipsoid", (0.11, 0.09, 0.14), (0.24, 0, 1.66), _skin(rng), RIDER),
    ]
    if rng.random() < 0.6:
        helmet = Look("sign", bright(rng), (0.3, 0.3))
        parts.append(Part("ellipsoid", (0.14, 0.1, 0.09), (0.23, 0, 1.75), helmet, RIDER))
    limbs = []
    phase = rng.uniform(0, 2 * np.pi)
    for side in (-1, 1):
        angle = -0.55 + 0.35 * side * np.sin(phase)
        leg = Part("capsule", (0.065, 0.36), (0, 0, -0.4), trousers, RIDER)
        rate = side * 2.0 * np.cos(phase)
        hip = (-0.12, side * 0.11, 0.98)
        limbs.append(Limb(hip, rate, angle, [leg], middle=-0.55, pace=2.0 / 0.35))
        arm = Part("capsule", (0.045, 0.24), (0.27, side * 0.17, 1.22), coat, RIDER, (0, 2.2, 0))
        parts.append(arm)
    return Body((x, y, 0.0), yaw, speed, 0.0, parts, limbs)
