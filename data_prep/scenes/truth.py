"""Truth: where what a pixel shows is in the next frame, and whether it can be seen there."""

import numpy as np

from data_prep.scenes.camera import Camera, project, project_directions
from data_prep.scenes.rays import SKY, Hits, meet
from data_prep.scenes.world import World

Poses = tuple[np.ndarray, np.ndarray]  # what `poses` gives
_ROUNDING = 1e-6  # px


def poses(world: World) -> Poses:
    """The rotations (G, 3, 3) and positions (G, 3) of all geoms now, as copies."""
    return world.data.geom_xmat.reshape(-1, 3, 3).copy(), world.data.geom_xpos.copy()


def move(hits: Hits, before: Poses, after: Poses) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) where the points that `hits` met are when the geoms have gone on to pose `after`.

    Also (N, 3) the normals there. The sky's points stay.
    """
    moved, normal = hits.point.copy(), hits.normal.copy()
    changed = (before[0] != after[0]).any((1, 2)) | (before[1] != after[1]).any(1)
    some = np.flatnonzero((hits.geom != SKY) & changed[hits.geom])
    geom = hits.geom[some]
    turn = after[0] @ before[0].transpose(0, 2, 1)
    apart = moved[some] - before[1][geom]
    moved[some] = np.einsum("nij,nj->ni", turn[geom], apart) + after[1][geom]
    normal[some] = np.einsum("nij,nj->ni", turn[geom], normal[some])
    return moved, normal


def follow(hits: Hits, before: Poses, after: Poses, camera: Camera) -> tuple[np.ndarray, ...]:
    """Where each of `hits` is in the picture of `camera`, once the geoms have moved to `after`.

    Returns:
        x, y, depth, as `camera.project`, and the moved points and normals.
    """
    point, normal = move(hits, before, after)
    x, y, depth = project(camera, point)
    sky = np.flatnonzero(hits.geom == SKY)
    # Its points are so far that only the camera's turn moves them.
    for array, values in zip(
        (x, y, depth), project_directions(camera, hits.direction[sky]), strict=True
    ):
        array[sky] = values
    return x, y, depth, point, normal


def in_sight(
    world: World,
    camera: Camera,
    hits: Hits,
    place: tuple[np.ndarray, ...],
    seen: Hits,
    height: int,
    width: int,
) -> np.ndarray:
    """(N,) bool: is what `hits` met in the first frame visible in the second?

    Where all four pixels about its new place see the same geom, it is. Anywhere else a ray to the
    very place decides.

    Args:
        world: at the second frame's moment.
        camera: the second frame's.
        hits: of the first frame.
        place: what `follow` gave for them.
        seen: the second frame's :class:`Hits`, of all its pixels.
        height, width: of the frames.
    """
    x, y, depth, point, normal = place
    # What rests in the picture's first column must not leave it by a rounding.
    inside = (x > -_ROUNDING) & (x < width - 1 + _ROUNDING) & (depth > 0)
    inside &= (y > -_ROUNDING) & (y < height - 1 + _ROUNDING)
    toward = point - camera.position
    facing = (np.einsum("ni,ni->n", normal, toward) < 0) | (hits.geom == SKY)
    visible = inside & facing
    left = np.clip(np.where(inside, x, 0).astype(int), 0, width - 2)
    top = np.clip(np.where(inside, y, 0).astype(int), 0, height - 2)
    corner = top * width + left
    around = [seen.geom[corner + step] == hits.geom for step in (0, 1, width, width + 1)]
    unsure = np.flatnonzero(visible & ~np.logical_and.reduce(around))
    target = toward[unsure]
    length = np.linalg.norm(target, axis=1)
    far = hits.geom[unsure] == SKY
    target = np.where(far[:, None], hits.direction[unsure], target / length[:, None])
    geom, distance, _ = meet(world, camera.position, target, normals=False)
    # The same geom is convex and faces us; another one at the same depth is the seam of a surface.
    same = geom == hits.geom[unsure]
    visible[unsure] = same | (~far & (np.abs(distance - length) < 1e-3 + 2e-4 * length))
    return visible
