"""Rays: what each pixel of a made street meets, found by MuJoCo."""

from typing import NamedTuple

import mujoco
import numpy as np

from data_prep.scenes.camera import Camera, rays
from data_prep.scenes.world import World

SKY = -1


class Hits(NamedTuple):
    """What N rays met. Sky: geom -1, and a far away point."""

    direction: np.ndarray  # (N, 3) float64
    geom: np.ndarray  # (N,) int32
    distance: np.ndarray  # (N,) float64
    normal: np.ndarray  # (N, 3) float64
    point: np.ndarray  # (N, 3) float64


def cast(world: World, camera: Camera, x: np.ndarray, y: np.ndarray) -> Hits:
    """The :class:`Hits` of the pixels x, y (N,) at the world's present moment."""
    direction = rays(camera, x, y)
    return _hits(camera, direction, *meet(world, camera.position, direction))


def _hits(camera, direction, geom, distance, normal):
    far = np.where(geom == SKY, 1e6, distance)
    return Hits(direction, geom, far, normal, camera.position + far[:, None] * direction)


def cast_all(
    world: World, camera: Camera, x: np.ndarray, y: np.ndarray, height: int, width: int
) -> Hits:
    """`cast` of all pixels of a frame, at two thirds of the rays.

    Every second pixel is cast, as on a chessboard. One whose neighbours all lie on one flat face,
    or all in the sky, lies there too (faces are convex), and where on the face is a division. Only
    what is thinner than a pixel and slips between the black ones is missed, and is in no picture.
    """
    direction = rays(camera, x, y)
    black, white = chessboard(height, width)
    geom, distance = np.zeros(len(x), np.int32), np.zeros(len(x))
    normal = np.zeros((len(x), 3))
    geom[black], distance[black], normal[black] = meet(world, camera.position, direction[black])
    # One number a face: the same face has the same normal to the last bit.
    face = normal @ (1.0, 8.0, 64.0) + 1000.0 * geom
    face[white] = np.nan
    near = neighbours(white, height, width)
    flat = np.logical_and.reduce([face[n] == face[near[0]] for n in near])
    known, model = white[flat], near[0][flat]
    geom[known], normal[known] = geom[model], normal[model]
    slope = np.einsum("ni,ni->n", normal[model], direction[known])
    before = np.einsum("ni,ni->n", normal[model], direction[model])
    distance[known] = distance[model] * before / np.where(slope == 0, 1, slope)
    asked = white[~flat]
    geom[asked], distance[asked], normal[asked] = meet(world, camera.position, direction[asked])
    return _hits(camera, direction, geom, distance, normal)


def chessboard(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the black and of the white pixels."""
    white = (np.indices((height, width)).sum(0) % 2).ravel()
    return np.flatnonzero(white == 0), np.flatnonzero(white)


def neighbours(pixels: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """The indices right, left, below and above of `pixels`.

    Above the first row and below the last it is the opposite one; past a row's end the next row's.
    """
    found = []
    for step in (1, -1, width, -width):
        near = pixels + step
        out = (near < 0) | (near >= height * width)
        found.append(np.where(out, pixels - step, near))
    return found


def meet(
    world: World, origin: np.ndarray, direction: np.ndarray, normals: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Geom (N,), -1 for none, distance (N,) and normal (N, 3) or None, of rays from one point."""
    count = len(direction)
    geom, distance = np.empty(count, np.int32), np.empty(count)
    normal = np.empty((count, 3)) if normals else None
    mujoco.mj_multiRay(
        world.model,
        world.data,
        origin,
        direction.ravel(),
        None,
        1,
        -1,
        geom,
        distance,
        normal.ravel() if normals else None,
        count,
        1e9,
    )
    return geom, distance, normal
