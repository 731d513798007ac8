"""Camera of the synthetic worlds: exact maps from pixels to rays and back, with lens distortion.

The lens follows the division model (Fitzgibbon, Simultaneous linear estimation of multiple view
geometry and lens distortion, 2001), which has a closed form in both directions.
"""

from typing import Any, NamedTuple

import numpy as np

# KITTI's rectified colour camera (calib_cam_to_cam.txt, P_rect_02), at 1242x375.
KITTI_SIZE = (375, 1242)
KITTI_FOCAL, KITTI_CENTRE = 721.5377, (609.5593, 172.8540)


class Camera(NamedTuple):
    """Pose and intrinsics of a camera. World lengths are in metres, all others in pixels."""

    position: np.ndarray  # (3,) in the world: x ahead, y left, z up
    axes: np.ndarray  # (3, 3) rows: the image's right, down and forward axes, in the world
    focal: float
    centre: tuple[float, float]
    bend: float = 0.0  # the division model's parameter, in focal lengths; 0 is a pinhole


def kitti_lens(
    height: int,
    width: int,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    bend: float = 0.0,
) -> dict[str, Any]:
    """Compute focal length, centre and bend of KITTI's camera for another image size.

    They scale with the width, so that pixels stay square at any aspect ratio; the horizon keeps its
    relative height. `zoom` and `shift` (px at KITTI's width) vary the camera.
    """
    scale = width / KITTI_SIZE[1]
    x = KITTI_CENTRE[0] * scale + shift[0] * scale
    y = KITTI_CENTRE[1] / KITTI_SIZE[0] * height + shift[1] * scale
    return {"focal": KITTI_FOCAL * scale * zoom, "centre": (x, y), "bend": bend}


def rays(camera: Camera, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute the rays of the pixels x, y (N,): (N, 3) float64 unit vectors in the world."""
    x, y = ((p - c) / camera.focal for p, c in zip((x, y), camera.centre, strict=True))
    ahead = 1 + camera.bend * (x * x + y * y)
    length = np.sqrt(x * x + y * y + ahead * ahead)
    return np.stack([x / length, y / length, ahead / length], -1) @ camera.axes


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project world points (N, 3) to x, y and depth along the optical axis, each (N,) float64.

    If the depth is not positive, the point is behind the camera and x, y are meaningless.
    """
    return project_directions(camera, points - camera.position)


def project_directions(
    camera: Camera, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Like `project`, for directions, that is, points at infinity."""
    x, y, depth = (directions @ axis for axis in camera.axes)
    safe = np.where(depth > 1e-6, depth, 1.0)
    x, y = x / safe, y / safe
    if camera.bend:
        square = np.maximum(1 - 4 * camera.bend * (x * x + y * y), 0)
        stretch = 2 / (1 + np.sqrt(square))
        x, y = x * stretch, y * stretch
    return x * camera.focal + camera.centre[0], y * camera.focal + camera.centre[1], depth
