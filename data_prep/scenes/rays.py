"""Casts the rays of pixels through a synthetic street with MuJoCo."""

from typing import NamedTuple

import mujoco
import numpy as np

from data_prep.scenes.camera import Camera, rays
from data_prep.scenes.world import World

SKY = -1


class Hits(NamedTuple):
    """Intersections of N rays. Sky: geom -1 and a far away point."""

    direction: np.ndarray  # (N, 3) float64
    geom: np.ndarray  # (N,) int32
    distance: np.ndarray  # (N,) float64
    normal: np.ndarray  # (N, 3) float64
    point: np.ndarray  # (N, 3) float64


def cast(world: World, camera: Camera, x: np.ndarray, y: np.ndarray) -> Hits:
    """Cast the rays of the pixels x, y (N,) in the current state of the world: :class:`Hits`."""
    direction = rays(camera, x, y)
    return _hits(world, camera, direction, *intersect(world, camera.position, direction))


def _hits(world, camera, direction, geom, distance, normal):
    far = np.where(geom == SKY, 1e6, distance)
    point = camera.position + far[:, None] * direction
    if world.assign is not None:
        geom = world.assign(geom, point)
    return Hits(direction, geom, far, normal, point)


def cast_all(
    world: World, camera: Camera, x: np.ndarray, y: np.ndarray, height: int, width: int
) -> Hits:
    """Cast all pixels of a frame like `cast`, with two thirds of the rays.

    Only the black pixels of a chessboard are cast. A white pixel whose neighbours are all on the
    same flat face, or all in the sky, is there too, because faces are convex, and its distance is
    computed from the plane. Only objects thinner than a pixel between the black pixels are missed,
    and they appear in neither the image nor the ground truth.
    """
    direction = rays(camera, x, y)
    black, white = chessboard(height, width)
    geom, distance = np.zeros(len(x), np.int32), np.zeros(len(x))
    normal = np.zeros((len(x), 3))
    geom[black], distance[black], normal[black] = intersect(
        world, camera.position, direction[black]
    )
    # One number per face: normals of the same face are equal to the last bit.
    face = normal @ (1.0, 8.0, 64.0) + 1000.0 * geom
    face[white] = np.nan
    near = neighbours(white, height, width)
    flat = np.logical_and.reduce([face[n] == face[near[0]] for n in near])
    known, neighbour = white[flat], near[0][flat]
    geom[known], normal[known] = geom[neighbour], normal[neighbour]
    slope = np.einsum("ni,ni->n", normal[neighbour], direction[known])
    slope_of_neighbour = np.einsum("ni,ni->n", normal[neighbour], direction[neighbour])
    distance[known] = distance[neighbour] * slope_of_neighbour / np.where(slope == 0, 1, slope)
    remaining = white[~flat]
    geom[remaining], distance[remaining], normal[remaining] = intersect(
        world, camera.position, direction[remaining]
    )
    return _hits(world, camera, direction, geom, distance, normal)


def chessboard(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the black and of the white pixels."""
    white = (np.indices((height, width)).sum(0) % 2).ravel()
    return np.flatnonzero(white == 0), np.flatnonzero(white)


def neighbours(pixels: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """Return the indices of the pixels to the right, left, below and above of `pixels`.

    A neighbour outside the frame is replaced by the opposite one; past the end of a row follows the
    next row.
    """
    indices = []
    for step in (1, -1, width, -width):
        near = pixels + step
        out = (near < 0) | (near >= height * width)
        indices.append(np.where(out, pixels - step, near))
    return indices


def intersect(
    world: World, origin: np.ndarray, direction: np.ndarray, normals: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Intersect rays from a point: geom (N,), -1 for none, distance (N,), normal (N, 3) or None."""
    near = world.near
    if near is None or not np.array_equal(origin, near.origin):
        return _intersect(world, origin, direction, normals)
    geom, distance, normal = _intersect(near, origin, direction, normals)
    far = np.flatnonzero((geom == SKY) | (distance > near.radius))
    geom = np.where(geom == SKY, SKY, near.geom[geom]).astype(np.int32)
    geom[far], distance[far], far_normal = _intersect(world, origin, direction[far], normals)
    if normals:
        normal[far] = far_normal
    return geom, distance, normal


def _intersect(part, origin, direction, normals):
    """Intersect rays with the model of `part`, a world or the part near the camera."""
    count = len(direction)
    geom, distance = np.empty(count, np.int32), np.empty(count)
    normal = np.empty((count, 3)) if normals else None
    mujoco.mj_multiRay(
        part.model,
        part.data,
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
