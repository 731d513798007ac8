"""Static objects of a street, made of convex parts: x ahead, z up, on the ground at 0.

Each function draws a random object with `rng` and returns its parts.
"""

from collections.abc import Iterable

import numpy as np

from data_prep.scenes.world import Look, Part

BUILDING, WALL, FENCE, POLE, LIGHT, SIGN = 11, 12, 13, 17, 19, 20
VEGETATION, TERRAIN = 21, 22

_METAL = Look("stain", (0.25, 0.25, 0.26), (0.8, 2.0))
Colour = tuple[float, float, float]
Extent = tuple[float, float]  # from, to
DARK = Look("grain", (0.04, 0.04, 0.045))


def place(parts: Iterable[Part], x: float, y: float, yaw: float) -> list[Part]:
    """Return the parts turned by `yaw` and moved to x, y."""
    c, s = np.cos(yaw), np.sin(yaw)
    return [
        part._replace(
            position=(
                x + c * part.position[0] - s * part.position[1],
                y + s * part.position[0] + c * part.position[1],
                part.position[2],
            ),
            turn=(*part.turn[:2], part.turn[2] + yaw),
        )
        for part in parts
    ]


def box(x: Extent, y: Extent, z: Extent, label: int, look: Look) -> Part:
    """Return a box with the given extents, each (from, to)."""
    extents = (x, y, z)
    half = tuple((high - low) / 2 for low, high in extents)
    middle = tuple((high + low) / 2 for low, high in extents)
    return Part("box", half, middle, look, label)


def grey(rng: np.random.Generator, low: float, high: float, tint: float = 0.08) -> Colour:
    """Draw a greyish colour between two brightnesses."""
    tone = np.exp(rng.uniform(np.log(low), np.log(high)))
    return tuple(np.clip(tone * (1 + tint * rng.standard_normal(3)), 0.01, 0.95))


def warm(rng: np.random.Generator, low: float, high: float) -> Colour:
    """Draw a colour of plaster or brick: white, cream, ochre or red."""
    tone, red = np.exp(rng.uniform(np.log(low), np.log(high))), rng.beta(1.2, 1.5)
    return tuple(np.clip(tone * np.array([1 + 0.25 * red, 1 - 0.2 * red, 1 - 0.6 * red]), 0, 0.9))


def bright(rng: np.random.Generator) -> Colour:
    """Draw any colour, as on clothes and signs."""
    if rng.random() < 0.5:
        return grey(rng, 0.02, 0.5)
    return tuple(np.clip(rng.dirichlet((0.6, 0.6, 0.6)) * rng.uniform(0.2, 0.9), 0.02, 0.8))


def tree(rng: np.random.Generator, far: bool = False) -> list[Part]:
    """Draw a tree: a trunk and overlapping ellipsoids of leaves, fewer if far away."""
    tall = rng.uniform(4, 13)
    trunk = 0.03 * tall * rng.uniform(0.6, 1.2)
    clear = tall * rng.uniform(0.15, 0.4)
    bark = Look("bark", tuple(np.array([0.13, 0.1, 0.075]) * rng.uniform(0.5, 1.6)), (1.2, 1.2))
    parts = [Part("cylinder", (trunk, clear * 0.75), (0, 0, clear * 0.75), bark, VEGETATION)]
    look, wide = leaves(rng), tall * rng.uniform(0.2, 0.34)
    middle = (clear + tall) / 2
    for i in range(2 if far else rng.integers(3, 7)):
        size = wide * rng.uniform(0.45, 0.8, 3) * (1, 1, 1.1)
        at, z = wide * rng.uniform(-0.55, 0.55, 2), rng.uniform(clear + size[2] * 0.6, tall * 0.92)
        if i == 0:  # the base of the crown
            size, at, z = (
                np.array((0.75 * wide, 0.75 * wide, 0.55 * (tall - clear))),
                (0, 0),
                middle,
            )
        turn = (*rng.uniform(-0.4, 0.4, 2), rng.uniform(0, 3))
        parts.append(Part("ellipsoid", tuple(size), (*at, z), look, VEGETATION, turn))
    return parts


def leaves(rng: np.random.Generator) -> Look:
    """Draw the look of a kind of leaf."""
    green = np.array([0.06, 0.095, 0.022]) * np.exp(rng.normal(-0.15, 0.4))
    green *= 1 + rng.uniform(-0.15, 0.35) * np.array([1.0, 0.2, 0.1])
    size = rng.uniform(3.0, 8.0)
    return Look("leaves", tuple(green), (size, size))


def bush(rng: np.random.Generator) -> list[Part]:
    """Draw a bush: a few low ellipsoids of leaves."""
    look, size = leaves(rng), rng.uniform(0.5, 1.5)
    parts = []
    for _ in range(rng.integers(1, 4)):
        radii = size * rng.uniform(0.6, 1.1, 3) * (1, 1, 0.9)
        at = size * rng.uniform(-0.8, 0.8, 2)
        parts.append(Part("ellipsoid", tuple(radii), (*at, radii[2] * 0.7), look, VEGETATION))
    return parts


def building(
    rng: np.random.Generator, length: float, depth: float, tall: float, near: bool = True
) -> list[Part]:
    """Draw a building behind its front at y = 0, with a roof and, if near, protruding parts."""
    period = rng.uniform(3.5, 7.5)
    walls = Look("facade", warm(rng, 0.18, 0.65), (period, period * rng.uniform(0.9, 1.2)))
    if rng.random() < 0.15:
        walls = Look("brick", warm(rng, 0.12, 0.35), (2.5, 2.5))
    half = length / 2
    parts = [box((-half, half), (0, depth), (-0.1, tall), BUILDING, walls)]
    roof = Look("roof", warm(rng, 0.06, 0.25), (3.0, 3.0))
    if tall < 8 and rng.random() < 0.8:  # a gable: a square prism, half sunk into the block
        side = depth / 2 * np.sqrt(0.5)
        ridge = (0, depth / 2, tall - depth * 0.08)
        parts.append(
            Part("box", (half - 0.05, side, side), ridge, roof, BUILDING, (np.pi / 4, 0, 0))
        )
    else:
        parts.append(
            box((-half - 0.2, half + 0.2), (-0.25, depth), (tall, tall + 0.35), BUILDING, roof)
        )
    if not near:
        return parts
    if rng.random() < 0.6:
        shop = Look("shapes" if rng.random() < 0.2 else "facade", warm(rng, 0.15, 0.6), (5.0, 3.0))
        parts.append(
            box((-half + 0.2, half - 0.2), (-0.05, 1), (0, min(3.2, tall / 2)), BUILDING, shop)
        )
    for _ in range(rng.integers(0, 4)):  # balconies, bays, awnings
        x, z = rng.uniform(-half + 1, half - 1), rng.uniform(2.6, max(tall - 1, 2.7))
        look = Look("bars" if rng.random() < 0.5 else "grain", warm(rng, 0.1, 0.7), (2.0, 1.0))
        wide, out, high = rng.uniform(0.6, 1.6), rng.uniform(0.3, 1.3), rng.uniform(0.15, 1.0)
        parts.append(box((x - wide, x + wide), (-out, 0.1), (z, z + high), BUILDING, look))
    return parts


def barrier(rng: np.random.Generator, length: float) -> list[Part]:
    """Draw a wall, fence or hedge along x."""
    kind = rng.choice(["wall", "fence", "hedge"], p=[0.25, 0.4, 0.35])
    tall, half = rng.uniform(0.7, 2.0), length / 2
    if kind == "wall":
        look = Look("brick" if rng.random() < 0.7 else "stain", warm(rng, 0.12, 0.5), (2.2, 2.2))
        return [box((-half, half), (-0.15, 0.15), (-0.1, tall), WALL, look)]
    if kind == "hedge":
        return [box((-half, half), (-0.5, 0.5), (-0.1, tall), VEGETATION, leaves(rng))]
    look = Look("bars", warm(rng, 0.05, 0.5), (2.0, tall))
    return [box((-half, half), (-0.03, 0.03), (0.02, tall), FENCE, look)]


def rail(rng: np.random.Generator, length: float) -> list[Part]:
    """Draw a guard rail of a country road: posts and a band."""
    look = Look("stain", grey(rng, 0.2, 0.45), (2.0, 0.6))
    parts = [box((-length / 2, length / 2), (-0.05, 0.05), (0.45, 0.78), FENCE, look)]
    for x in np.arange(-length / 2 + 1, length / 2, 4):
        parts.append(box((x - 0.06, x + 0.06), (0.0, 0.12), (0, 0.7), FENCE, _METAL))
    return parts


def pole(rng: np.random.Generator) -> list[Part]:
    """Draw a lamp, a post with signs, a traffic light or a bare pole; the road is at y < 0."""
    kind = rng.choice(["lamp", "sign", "lights", "bare"], p=[0.27, 0.3, 0.3, 0.13])
    tall = {"lamp": rng.uniform(4, 9), "sign": rng.uniform(2.3, 3.4)}.get(kind, rng.uniform(2.8, 8))
    thick = rng.uniform(0.04, 0.11) if kind != "sign" else rng.uniform(0.03, 0.06)
    look = Look("stain", grey(rng, 0.05, 0.4, 0.05), (0.8, 2.0))
    parts = [Part("cylinder", (thick, tall / 2), (0, 0, tall / 2), look, POLE)]
    if kind == "lamp":
        out = rng.uniform(0.4, 2.2)
        arm = Part(
            "capsule", (thick * 0.6, out / 2), (0, -out / 2, tall), look, POLE, (np.pi / 2, 0, 0)
        )
        parts += [
            arm,
            box((-0.12, 0.12), (-out - 0.5, -out), (tall - 0.1, tall + 0.06), POLE, look),
        ]
    elif kind == "sign":
        for i in range(rng.integers(1, 3)):
            face = Look("sign", bright(rng), (0.9, 0.9))
            z, size = tall - 0.3 - 0.75 * i, rng.uniform(0.25, 0.42)
            turn = rng.normal(0, 0.25)
            at = (-thick - 0.02, 0, z)
            if rng.random() < 0.5:
                plate = Part("cylinder", (size, 0.015), at, face, SIGN, (0, np.pi / 2, turn))
            else:
                half = (0.015, size, size * rng.uniform(0.6, 1.2))
                plate = Part("box", half, at, face, SIGN, (0, 0, turn))
            parts.append(plate)
    elif kind == "lights":
        on, case = rng.integers(3), Look("grain", (0.02, 0.02, 0.02))
        parts.append(box((-0.34, -0.06), (-0.2, 0.2), (tall - 1.1, tall), LIGHT, case))
        for i, colour in enumerate(((0.05, 0.8, 0.4), (0.9, 0.6, 0.05), (0.9, 0.05, 0.03))):
            lamp = Look("grain", colour if i == on else (0.03, 0.03, 0.03), glow=2.0 * (i == on))
            at = (-0.33, 0, tall - 0.87 + 0.33 * i)
            parts.append(Part("sphere", (0.13,), at, lamp, LIGHT))
    return parts
