"""The `layers` world: patches cut from photographs, moved by formulas over a moving background.

This is the idea of FlyingChairs: cheap and without labels, but with the statistics of real images.
A layer is a photograph, a shape and a motion, all functions of the first frame's coordinates. Both
frames are evaluated at exact positions, so that flow and occlusion have sub-pixel accuracy.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_prep.scenes import sensor
from data_prep.scenes.pair import Pair
from data_prep.scenes.photos import GAMMA, read_photo

# Largest distance that a patch moves by itself, as a share of the width.
_FARTHEST = 0.25


class Layer(NamedTuple):
    """A moving patch or the background, described in the first frame's pixel coordinates.

    It moves a point p to matrix (p, 1) + sum of a sin(k p + phase). The waves' slopes |a| |k| sum
    to at most 0.15, so that the motion is invertible.
    """

    texture: np.ndarray  # (h, w, 3) float32 linear light
    texture_map: np.ndarray  # (2, 3): frame coordinates -> texture coordinates
    gains: np.ndarray  # (2, 3): gains of red, green, blue in each frame
    matrix: np.ndarray  # (2, 3)
    waves: np.ndarray  # (N, 5): k (x, y) in rad/px, phase, a (u, v) in px
    # (x, y) -> approximate distance to the edge in px, negative outside the layer
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    box: np.ndarray  # (2, 2): (left, top), (right, bottom)


def make_pair(
    index: int,
    seed: int,
    height: int,
    width: int,
    photos: Sequence[Path],
    effects: bool = True,
    motion: float = 1,
) -> Pair:
    """Render a :class:`Pair` without labels; it depends only on the arguments.

    Args:
        index, seed, height, width: number of the pair, random seed, and frame size in px.
        photos: paths of photographs, in the order of `photos.find_photos`.
        effects: whether to simulate a camera's noise, blur and exposure, and changing light.
        motion: factor on the distances that the background and the patches move.

    Raises:
        ValueError: no photos; or a file, which is named, cannot be read or is not a photograph.
    """
    if not len(photos):
        raise ValueError("world layers requires photographs")
    rng = np.random.default_rng([seed, height, width, index])
    chosen = rng.choice(len(photos), min(4, len(photos)), replace=False)
    photographs = [read_photo(rng, photos[i], height, width) for i in chosen]
    layers = draw_layers(rng, height, width, photographs, effects, motion)
    first, flow, top = render(layers, height, width, frame=0)
    second, flow2, _ = render(layers, height, width, frame=1)
    # The sensor meters the first frame: this exposure keeps the brightness of the photographs.
    plain_sensor = sensor.Sensor(
        gamma=GAMMA, exposure=(first[::4, ::4].mean(-1) ** (1 / GAMMA)).mean()
    )
    # Photographs already have a camera's contrast: a similar curve preserves it.
    camera = sensor.draw(rng, width)._replace(gamma=GAMMA * rng.uniform(0.85, 1.1))
    motions = np.float32(flow), np.float32(flow2)
    exposure_args = (camera, rng, motions) if effects else (plain_sensor, None)
    images = sensor.expose((first, second), *exposure_args)
    valid = np.hypot(flow[..., 0], flow[..., 1]) < 500
    return Pair(*images, motions[0], valid, valid & find_visible(layers, flow, top), None)


def move(layer: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Map points x, y of the layer in frame 1 to frame 2: (2, ...) float64, in px."""
    return _affine(layer.matrix, x, y) + _wave_offset(layer, x, y)


def move_back(layer: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Invert `move`: find the points of frame 1 that it maps to x, y within 1e-6 px."""
    inverse, offset = cv2.invertAffineTransform(layer.matrix), np.zeros((2, *x.shape))
    # The error shrinks to less than a third in every iteration.
    for _ in range(30):
        back = _affine(inverse, x - offset[0], y - offset[1])
        previous, offset = offset, _wave_offset(layer, *back)
        if np.abs(offset - previous).max(initial=0) < 1e-6:
            break
    return back


def _affine(matrix, x, y):
    return np.array([a * x + b * y + c for a, b, c in matrix])


def _wave_offset(layer, x, y):
    offset = np.zeros((2, *x.shape))
    for right, down, phase, *size in layer.waves:
        offset += np.multiply.outer(size, np.sin(right * x + down * y + phase))
    return offset


def render(layers: Sequence[Layer], height: int, width: int, frame: int) -> tuple[np.ndarray, ...]:
    """Render frame 0 or 1, from the lowest layer to the top one.

    Returns:
        light (H, W, 3) float32; motion (H, W, 2) float64, the motion in px of the visible point
        from the first to the second frame; top (H, W), index of the layer at the pixel's centre.
    """
    light = np.zeros((height, width, 3), np.float32)
    motion, top = np.zeros((height, width, 2)), np.zeros((height, width), np.uint8)
    for i, layer in enumerate(layers):
        box = _box_after(layer) if frame else layer.box
        # One more pixel on each side for the soft edge.
        low = np.maximum(np.floor(box[0]) - 1, 0).astype(int)
        high = np.minimum(np.ceil(box[1]) + 2, (width, height)).astype(int)
        if (low >= high).any():
            continue
        area = slice(low[1], high[1]), slice(low[0], high[0])
        y, x = np.mgrid[area].astype(np.float64)
        start = move_back(layer, x, y) if frame else np.array([x, y])
        end = np.array([x, y]) if frame else move(layer, x, y)
        u, v = np.float32(_affine(layer.texture_map, *start))
        # Linear: unlike OpenCV's cubic interpolation, it does not displace points on a slope.
        colour = cv2.remap(layer.texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        colour = colour * np.float32(layer.gains[frame])
        distance = layer.distance(*start)
        inside, zoom = distance >= 0, np.linalg.det(layer.matrix[:, :2]) ** (frame / 2)
        alpha = np.float32(np.clip(distance * zoom + 0.5, 0, 1))[..., None]
        light[area] += alpha * (colour - light[area])
        motion[area][inside] = (end - start)[:, inside].T
        top[area][inside] = i
    return light, motion, top


def find_visible(layers: Sequence[Layer], flow: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Find the pixels of frame 1 that are inside frame 2 and not covered there, (H, W) bool."""
    height, width = top.shape
    y, x = np.mgrid[:height, :width]
    x, y = x + flow[..., 0], y + flow[..., 1]
    visible = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    for i, layer in enumerate(layers[1:], 1):
        (left, upper), (right, lower) = _box_after(layer)
        near = (x >= left) & (x <= right) & (y >= upper) & (y <= lower) & visible & (top < i)
        visible[near] = layer.distance(*move_back(layer, x[near], y[near])) < 0
    return visible


def _box_after(layer):
    """Return the bounding box of the layer in frame 2, with a margin."""
    corners = layer.box[[0, 0, 1, 1], 0], layer.box[[0, 1, 0, 1], 1]
    corners2, margin = _affine(layer.matrix, *corners), np.abs(layer.waves[:, 3:]).sum(0)
    return np.array([np.min(corners2, 1) - margin, np.max(corners2, 1) + margin])


def draw_layers(
    rng: np.random.Generator,
    height: int,
    width: int,
    images: Sequence[np.ndarray],
    effects: bool = True,
    motion: float = 1,
) -> list[Layer]:
    """Draw the background, from the first image, and 4 to 14 patches: a list of :class:`Layer`.

    `images` are (h, w, 3) float32 linear light. With `effects` the layers' light changes.
    `motion` multiplies the distances that they move.
    """
    ground, waves, pace = _draw_ground_motion(rng, height, width, motion)
    fit = min(images[0].shape[0] / height, images[0].shape[1] / width)
    # A small photograph is mirrored at its borders instead of being enlarged.
    scale = max(fit * rng.uniform(0.75, 1), rng.uniform(0.75, 1))
    box, unbounded = np.array([[[0, 0], [1, 1]], [[-9, -9], [10, 10]]]) * (width, height)
    appearance = _draw_texture(rng, images[0], box, scale, rng.normal(0, 0.05), ground, effects)
    layers = [Layer(*appearance, ground, waves, lambda x, y: np.ones(x.shape), unbounded)]
    for _ in range(rng.integers(4, 15)):
        distance, box = _draw_shape(rng, height, width)
        matrix, waves = _draw_patch_motion(rng, width, box, ground, pace, motion)
        image, scale = images[rng.integers(len(images))], 10 ** rng.uniform(-0.05, 0.35)
        appearance = _draw_texture(rng, image, box, scale, rng.normal(0, 0.5), matrix, effects)
        layers.append(Layer(*appearance, matrix, waves, distance, box))
    return layers


def _rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _rotate_about(centre, turn, shift):
    """Return the (2, 3) transform: `turn` (2, 2) about `centre`, then `shift`."""
    return np.column_stack([turn, centre - turn @ centre + shift])


def _draw_waves(rng, slope, *lengths):
    """Draw (2, 5) waves of wavelengths between `lengths` (px), whose slopes sum to `slope`."""
    k = 2 * np.pi / np.exp(rng.uniform(*np.log(lengths), 2))
    (direction, motion_direction, phase), size = rng.uniform(0, 2 * np.pi, (3, 2)), slope / 2 / k
    return np.stack(
        [*(k * _rotation(direction)[:, 0]), phase, *(size * _rotation(motion_direction)[:, 0])], -1
    )


def _draw_ground_motion(rng, height, width, motion):
    """Draw matrix and waves of a background seen from a car, and the patches' pace, 0..1."""
    kind = rng.choice(["drive", "pan", "stand"], p=[0.6, 0.25, 0.15])
    near, angle, right, down, slope = {
        "drive": (1, 0.008, 0.012, 0.004, 0.08),
        "pan": (0.2, 0.02, 0.035, 0.012, 0.08),
        "stand": (0.02, 0.0003, 0.0004, 0.0002, 0.003),
    }[kind]
    pace = rng.choice([0.05, 1]) if kind == "stand" else 1
    zoom = near * 10 ** rng.uniform(-2.2, -0.85) * rng.choice([1, -1], p=[0.85, 0.15])
    centre, shift = rng.uniform((0.3, 0.3), (0.7, 0.65)), rng.normal(0, (right, down))
    turn = (1 + zoom) * _rotation(rng.normal(0, angle))
    waves = _draw_waves(rng, rng.uniform(0, slope), 0.4 * width, 1.5 * width)
    return _rotate_about(centre * (width, height), turn, motion * shift * width), waves, pace


def _draw_patch_motion(rng, width, box, ground, pace, motion):
    """Draw matrix and waves of a patch; 2 of 3 patches also follow the background's matrix."""
    centre, size = box.mean(0), np.ptp(box, 0).max()
    speed = pace * width * min(motion * np.exp(rng.normal(-4.7, 1.1)), _FARTHEST)
    shift = speed * _rotation(rng.uniform(0, 2 * np.pi))[0] * (1, 0.6)
    turn = _rotation(pace * np.clip(0.03 * rng.standard_t(3), -0.3, 0.3))
    turn *= np.exp(pace * np.clip(rng.normal(0, 0.06), -0.15, 0.15))
    matrix = _rotate_about(centre, turn @ [[1, pace * rng.normal(0, 0.02)], [0, 1]], shift)
    if rng.random() < 2 / 3:
        matrix = matrix @ np.vstack([ground, [0, 0, 1]])
    slope = pace * max(rng.uniform(-0.05, 0.15), 0)
    return matrix, _draw_waves(rng, slope, max(size / 2, 12), max(3 * size, 72))


def _draw_texture(rng, image, box, scale, angle, matrix, effects):
    """Draw texture, texture map and gains of a layer; `scale`: maximum photo pixels per pixel.

    The frame in which the layer is smaller determines the texture's resolution, so that neither
    frame has detail that the other lacks, and no frame is undersampled.
    """
    if scale > 1:
        shape = [max(round(n / scale), 8) for n in image.shape[1::-1]]
        image, scale = cv2.resize(image, shape, interpolation=cv2.INTER_AREA), 1
    scale *= min(1, np.linalg.det(matrix[:, :2]) ** 0.5)
    half, size = scale * np.ptp(box, 0) / 2, np.array(image.shape[1::-1])
    # Inside the photograph if it is large enough.
    margin, centre = np.where(2 * half < size, half, 0), box.mean(0)
    texture_map = _rotate_about(
        centre, scale * _rotation(angle), rng.uniform(margin, size - margin) - centre
    )
    gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3))
    return image, texture_map, np.stack([gain, gain * rng.normal(1, 0.03) ** effects])


def _draw_shape(rng, height, width):
    """Draw (distance, box) of a patch: ellipse, blob, polygon or bar; see Layer."""
    centre, angle = rng.uniform(-0.05, 1.05, 2) * (width, height), rng.uniform(0, 2 * np.pi)
    size, squash = height * 10 ** rng.uniform(-1.4, -0.25), rng.uniform(0.4, 1)
    kind = rng.choice(["ellipse", "blob", "polygon", "bar"], p=[0.2, 0.35, 0.2, 0.25])
    bumps, sides, hole = [], [], size * rng.uniform(0.1, 0.35) if rng.random() < 0.2 else -1
    if kind == "blob":
        bumps = list(zip(range(2, 6), rng.uniform(0, 0.12, 4), rng.uniform(0, 6.3, 4), strict=True))
    elif kind == "polygon":
        angles = np.linspace(0, 2 * np.pi, rng.integers(4, 8))[1:]
        sides = [(*_rotation(side_angle)[0], size * rng.uniform(0.4, 0.9)) for side_angle in angles]
    reach = np.array([1, squash]) * size * (1 + sum(h for _, h, _ in bumps))
    if kind == "bar":
        # At least 1.5 px thick; most are upright, like poles.
        reach = max(width * 10 ** rng.uniform(-2.7, -1.9), 0.75), height * rng.uniform(0.1, 0.8)
        angle = rng.choice([angle, rng.normal(0, 0.12)], p=[0.3, 0.7])
        sides = [(s * (1 - n), s * n, reach[n]) for n in (0, 1) for s in (-1, 1)]
        size, squash, hole = 2 * max(reach), 1, -1
    rotation = _rotation(angle)
    to_local = np.column_stack([rotation.T, -rotation.T @ centre])

    def distance(x, y):
        x, y = _affine(to_local, x, y)
        turn, r = np.arctan2(y / squash, x), np.hypot(x, y / squash)
        edge = 1 + sum(h * np.cos(n * turn + p) for n, h, p in bumps)
        slope = sum(n * h * np.sin(n * turn + p) for n, h, p in bumps) / edge
        # First-order distance: a function that is 0 at the edge, divided by its gradient's length.
        cosine, sine = np.cos(turn), np.sin(turn)
        steep = np.hypot(cosine - slope * sine, (sine + slope * cosine) / squash)
        inside = (size * edge - r) / steep
        for right, down, far in sides:
            inside = np.minimum(inside, far - right * x - down * y)
        return np.minimum(inside, np.hypot(x, y) - hole)

    margin = np.abs(rotation) @ reach
    return distance, np.array([centre - margin, centre + margin])
