"""Ground truth: where the point shown by a pixel is in the next frame, and if it is visible."""

import numpy as np

from data_prep.scenes.camera import Camera, project, project_directions
from data_prep.scenes.rays import SKY, Hits, intersect
from data_prep.scenes.world import World

Poses = tuple[np.ndarray, np.ndarray]  # result of `poses`
_ROUNDING = 1e-6  # px


def poses(world: World) -> Poses:
    """Copy the current rotations (G, 3, 3) and positions (G, 3) of all geoms."""
    return world.data.geom_xmat.reshape(-1, 3, 3).copy(), world.data.geom_xpos.copy()


def move(hits: Hits, before: Poses, after: Poses) -> tuple[np.ndarray, np.ndarray]:
    """Move the points of `hits` with their geoms from pose `before` to pose `after`.

    Returns:
        points (N, 3) and normals (N, 3). Points of the sky do not move.
    """
    moved, normal = hits.point.copy(), hits.normal.copy()
    changed = (before[0] != after[0]).any((1, 2)) | (before[1] != after[1]).any(1)
    moving = np.flatnonzero((hits.geom != SKY) & changed[hits.geom])
    geom = hits.geom[moving]
    turn = after[0] @ before[0].transpose(0, 2, 1)
    offset = moved[moving] - before[1][geom]
    moved[moving] = np.einsum("nij,nj->ni", turn[geom], offset) + after[1][geom]
    normal[moving] = np.einsum("nij,nj->ni", turn[geom], normal[moving])
    return moved, normal


def follow(hits: Hits, before: Poses, after: Poses, camera: Camera) -> tuple[np.ndarray, ...]:
    """Project `hits` into the image of `camera` after the geoms have moved to `after`.

    Returns:
        x, y, depth as from `camera.project`, and the moved points and normals.
    """
    point, normal = move(hits, before, after)
    x, y, depth = project(camera, point)
    sky = np.flatnonzero(hits.geom == SKY)
    # Points of the sky are at infinity, so only the camera's rotation moves them.
    for array, values in zip(
        (x, y, depth), project_directions(camera, hits.direction[sky]), strict=True
    ):
        array[sky] = values
    return x, y, depth, point, normal


def is_visible(
    world: World,
    camera: Camera,
    hits: Hits,
    projected: tuple[np.ndarray, ...],
    hits2: Hits,
    height: int,
    width: int,
) -> np.ndarray:
    """Determine whether the points of `hits` are visible in the second frame, (N,) bool.

    A point is visible if all four pixels around its new position show the same geom. Otherwise a
    ray to the exact position decides.

    Args:
        world: in its state at the second frame.
        camera: camera of the second frame.
        hits: hits of the first frame.
        projected: result of `follow` for `hits`.
        hits2: hits of all pixels of the second frame.
        height, width: size of the frames.
    """
    x, y, depth, point, normal = projected
    # A static point in the image's first column must not leave it by rounding.
    inside = (x > -_ROUNDING) & (x < width - 1 + _ROUNDING) & (depth > 0)
    inside &= (y > -_ROUNDING) & (y < height - 1 + _ROUNDING)
    toward = point - camera.position
    facing = (np.einsum("ni,ni->n", normal, toward) < 0) | (hits.geom == SKY)
    visible = inside & facing
    left = np.clip(np.where(inside, x, 0).astype(int), 0, width - 2)
    top = np.clip(np.where(inside, y, 0).astype(int), 0, height - 2)
    corner = top * width + left
    matches = [hits2.geom[corner + step] == hits.geom for step in (0, 1, width, width + 1)]
    undecided = np.flatnonzero(visible & ~np.logical_and.reduce(matches))
    target = toward[undecided]
    length = np.linalg.norm(target, axis=1)
    far = hits.geom[undecided] == SKY
    target = np.where(far[:, None], hits.direction[undecided], target / length[:, None])
    geom, distance, _ = intersect(world, camera.position, target, normals=False)
    # A hit on the same geom is the point itself, as geoms are convex and it faces the camera.
    # Another geom at the same depth is at a seam of the surface.
    same = geom == hits.geom[undecided]
    visible[undecided] = same | (~far & (np.abs(distance - length) < 1e-3 + 2e-4 * length))
    return visible
