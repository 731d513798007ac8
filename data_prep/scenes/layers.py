"""The `layers` world: patches cut from photographs, moved by formulas over a moving background.

FlyingChairs' idea: cheap, without labels, but with the statistics of real pictures. A layer is a
photograph, a shape and a motion, all formulas of the first frame's places. Both frames are
evaluated at exact places, so that flow and occlusion are exact below the pixel.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_prep.scenes import sensor
from data_prep.scenes.pair import Pair
from data_prep.scenes.photos import GAMMA, read_photo


class Layer(NamedTuple):
    """One moving patch, or the background; its formulas are in the first frame's pixels.

    It moves a place p to matrix (p, 1) + sum of a sin(k p + phase). The waves' slopes |a| |k| sum
    to 0.15 at most, so that the motion can be turned round.
    """

    texture: np.ndarray  # (h, w, 3) float32 linear light
    look: np.ndarray  # (2, 3): place -> place in the texture
    gains: np.ndarray  # (2, 3): of red, green, blue in either frame
    matrix: np.ndarray  # (2, 3)
    waves: np.ndarray  # (N, 5): k (x, y) in rad/px, phase, a (u, v) in px
    # (x, y) -> px to the edge, about; 0 and up: the layer is there
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    box: np.ndarray  # (2, 2): (left, top), (right, bottom)


def make_pair(
    index: int, seed: int, height: int, width: int, photos: Sequence[Path], effects: bool = True
) -> Pair:
    """A :class:`Pair` without labels that depends on nothing but the arguments.

    Args:
        index, seed, height, width: which pair of which world, and its size in px.
        photos: paths of photographs, in the order of `photos.find_photos`.
        effects: a camera's noise, blur and exposure, and light that changes; or none of it.

    Raises:
        ValueError: no photos; or one, which it names, that cannot be read or is no photograph.
    """
    if not len(photos):
        raise ValueError("the world of layers needs photographs")
    rng = np.random.default_rng([seed, height, width, index])
    chosen = rng.choice(len(photos), min(4, len(photos)), replace=False)
    pictures = [read_photo(rng, photos[i], height, width) for i in chosen]
    layers = draw_layers(rng, height, width, pictures, effects)
    first, flow, top = render(layers, height, width, frame=0)
    second, arrived, _ = render(layers, height, width, frame=1)
    # The sensor meters the first frame: this leaves the photographs as bright as they are.
    own = sensor.Sensor(gamma=GAMMA, exposure=(first[::4, ::4].mean(-1) ** (1 / GAMMA)).mean())
    # A curve close to the photographs' own keeps their contrast, which is a camera's already.
    camera = sensor.draw(rng, width)._replace(gamma=GAMMA * rng.uniform(0.85, 1.1))
    motions = np.float32(flow), np.float32(arrived)
    how = (camera, rng, motions) if effects else (own, None)
    images = sensor.expose((first, second), *how)
    valid = np.hypot(flow[..., 0], flow[..., 1]) < 500
    return Pair(*images, motions[0], valid, valid & find_visible(layers, flow, top), None)


def move(layer: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the layer's places x, y of frame 1 are in frame 2: (2, ...) float64, in px."""
    return _at(layer.matrix, x, y) + _sway(layer, x, y)


def move_back(layer: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The places of frame 1 that `move` takes to x, y within 1e-6 px: (2, ...) float64."""
    inverse, sway = cv2.invertAffineTransform(layer.matrix), np.zeros((2, *x.shape))
    # What `move` would miss by shrinks to less than a third every time.
    for _ in range(30):
        back = _at(inverse, x - sway[0], y - sway[1])
        before, sway = sway, _sway(layer, *back)
        if np.abs(sway - before).max(initial=0) < 1e-6:
            break
    return back


def _at(matrix, x, y):
    return np.array([a * x + b * y + c for a, b, c in matrix])


def _sway(layer, x, y):
    sway = np.zeros((2, *x.shape))
    for right, down, phase, *size in layer.waves:
        sway += np.multiply.outer(size, np.sin(right * x + down * y + phase))
    return sway


def render(layers: Sequence[Layer], height: int, width: int, frame: int) -> tuple[np.ndarray, ...]:
    """Paint frame 0 or 1, the lowest layer first.

    Returns:
        light (H, W, 3) float32; motion (H, W, 2) float64, px that what is seen here goes from
        frame 1 to frame 2; top (H, W), the index of the layer at the pixel's centre.
    """
    light = np.zeros((height, width, 3), np.float32)
    motion, top = np.zeros((height, width, 2)), np.zeros((height, width), np.uint8)
    for i, layer in enumerate(layers):
        box = _box_after(layer) if frame else layer.box
        # One pixel more around, for the soft edge.
        low = np.maximum(np.floor(box[0]) - 1, 0).astype(int)
        high = np.minimum(np.ceil(box[1]) + 2, (width, height)).astype(int)
        if (low >= high).any():
            continue
        area = slice(low[1], high[1]), slice(low[0], high[0])
        y, x = np.mgrid[area].astype(np.float64)
        start = move_back(layer, x, y) if frame else np.array([x, y])
        end = np.array([x, y]) if frame else move(layer, x, y)
        u, v = np.float32(_at(layer.look, *start))
        # Linear: unlike OpenCV's cubic, it keeps every place of a slope where it is.
        paint = cv2.remap(layer.texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        paint = paint * np.float32(layer.gains[frame])
        distance = layer.distance(*start)
        there, zoom = distance >= 0, np.linalg.det(layer.matrix[:, :2]) ** (frame / 2)
        alpha = np.float32(np.clip(distance * zoom + 0.5, 0, 1))[..., None]
        light[area] += alpha * (paint - light[area])
        motion[area][there] = (end - start)[:, there].T
        top[area][there] = i
    return light, motion, top


def find_visible(layers: Sequence[Layer], flow: np.ndarray, top: np.ndarray) -> np.ndarray:
    """(H, W) bool: inside frame 2, and under no upper layer; `flow`, `top`: of frame 1."""
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
    """The box of the layer in frame 2, with some room."""
    corners = layer.box[[0, 0, 1, 1], 0], layer.box[[0, 1, 0, 1], 1]
    ends, room = _at(layer.matrix, *corners), np.abs(layer.waves[:, 3:]).sum(0)
    return np.array([np.min(ends, 1) - room, np.max(ends, 1) + room])


def draw_layers(
    rng: np.random.Generator,
    height: int,
    width: int,
    pictures: Sequence[np.ndarray],
    effects: bool = True,
) -> list[Layer]:
    """The background, of the first picture, and 4 to 14 patches: a list of :class:`Layer`.

    `pictures` are (h, w, 3) float32 linear light; `effects`: the layers' light may change.
    """
    ground, waves, pace = _draw_ground_motion(rng, height, width)
    fit = min(pictures[0].shape[0] / height, pictures[0].shape[1] / width)
    # A small photograph is mirrored at its borders rather than blown up.
    scale = max(fit * rng.uniform(0.75, 1), rng.uniform(0.75, 1))
    box, beyond = np.array([[[0, 0], [1, 1]], [[-9, -9], [10, 10]]]) * (width, height)
    look = _draw_look(rng, pictures[0], box, scale, rng.normal(0, 0.05), ground, effects)
    layers = [Layer(*look, ground, waves, lambda x, y: np.ones(x.shape), beyond)]
    for _ in range(rng.integers(4, 15)):
        distance, box = _draw_shape(rng, height, width)
        matrix, waves = _draw_patch_motion(rng, width, box, ground, pace)
        picture, scale = pictures[rng.integers(len(pictures))], 10 ** rng.uniform(-0.05, 0.35)
        look = _draw_look(rng, picture, box, scale, rng.normal(0, 0.5), matrix, effects)
        layers.append(Layer(*look, matrix, waves, distance, box))
    return layers


def _turn(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _about(centre, turn, shift):
    """(2, 3): `turn` (2, 2) about `centre`, then `shift`."""
    return np.column_stack([turn, centre - turn @ centre + shift])


def _draw_waves(rng, slope, *lengths):
    """(2, 5) waves, between two `lengths` (px), whose slopes sum to `slope`."""
    k = 2 * np.pi / np.exp(rng.uniform(*np.log(lengths), 2))
    (way, to, phase), size = rng.uniform(0, 2 * np.pi, (3, 2)), slope / 2 / k
    return np.stack([*(k * _turn(way)[:, 0]), phase, *(size * _turn(to)[:, 0])], -1)


def _draw_ground_motion(rng, height, width):
    """Matrix and waves of a background seen from a car, and the patches' pace, 0..1."""
    kind = rng.choice(["drive", "pan", "stand"], p=[0.6, 0.25, 0.15])
    near, angle, right, down, slope = {
        "drive": (1, 0.008, 0.012, 0.004, 0.08),
        "pan": (0.2, 0.02, 0.035, 0.012, 0.08),
        "stand": (0.02, 0.0003, 0.0004, 0.0002, 0.003),
    }[kind]
    pace = rng.choice([0.05, 1]) if kind == "stand" else 1
    zoom = near * 10 ** rng.uniform(-2.2, -0.85) * rng.choice([1, -1], p=[0.85, 0.15])
    centre, shift = rng.uniform((0.3, 0.3), (0.7, 0.65)), rng.normal(0, (right, down))
    turn = (1 + zoom) * _turn(rng.normal(0, angle))
    waves = _draw_waves(rng, rng.uniform(0, slope), 0.4 * width, 1.5 * width)
    return _about(centre * (width, height), turn, shift * width), waves, pace


def _draw_patch_motion(rng, width, box, ground, pace):
    """Matrix and waves of a patch; two of three go along with the background's matrix."""
    centre, size = box.mean(0), np.ptp(box, 0).max()
    speed = pace * width * min(np.exp(rng.normal(-4.7, 1.1)), 0.25)
    shift = speed * _turn(rng.uniform(0, 2 * np.pi))[0] * (1, 0.6)
    turn = _turn(pace * np.clip(0.03 * rng.standard_t(3), -0.3, 0.3))
    turn *= np.exp(pace * np.clip(rng.normal(0, 0.06), -0.15, 0.15))
    own = _about(centre, turn @ [[1, pace * rng.normal(0, 0.02)], [0, 1]], shift)
    if rng.random() < 2 / 3:
        own = own @ np.vstack([ground, [0, 0, 1]])
    slope = pace * max(rng.uniform(-0.05, 0.15), 0)
    return own, _draw_waves(rng, slope, max(size / 2, 12), max(3 * size, 72))


def _draw_look(rng, picture, box, scale, angle, matrix, effects):
    """Texture, look and gains of a layer; `scale` is the photo's pixels a pixel, at most.

    The frame that shows the layer smaller decides how fine the texture is: neither frame has
    detail that the other lacks, or takes its samples too far apart.
    """
    if scale > 1:
        shape = [max(round(n / scale), 8) for n in picture.shape[1::-1]]
        picture, scale = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), 1
    scale *= min(1, np.linalg.det(matrix[:, :2]) ** 0.5)
    half, size = scale * np.ptp(box, 0) / 2, np.array(picture.shape[1::-1])
    # Inside the photograph where that is large enough.
    margin, centre = np.where(2 * half < size, half, 0), box.mean(0)
    look = _about(centre, scale * _turn(angle), rng.uniform(margin, size - margin) - centre)
    gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3))
    return picture, look, np.stack([gain, gain * rng.normal(1, 0.03) ** effects])


def _draw_shape(rng, height, width):
    """(distance, box) of a patch: an ellipse, or one with bumps, or cut straight; see Layer."""
    centre, angle = rng.uniform(-0.05, 1.05, 2) * (width, height), rng.uniform(0, 2 * np.pi)
    size, squash = height * 10 ** rng.uniform(-1.4, -0.25), rng.uniform(0.4, 1)
    kind = rng.choice(["ellipse", "blob", "polygon", "bar"], p=[0.2, 0.35, 0.2, 0.25])
    bumps, sides, hole = [], [], size * rng.uniform(0.1, 0.35) if rng.random() < 0.2 else -1
    if kind == "blob":
        bumps = list(zip(range(2, 6), rng.uniform(0, 0.12, 4), rng.uniform(0, 6.3, 4), strict=True))
    elif kind == "polygon":
        ways = np.linspace(0, 2 * np.pi, rng.integers(4, 8))[1:]
        sides = [(*_turn(way)[0], size * rng.uniform(0.4, 0.9)) for way in ways]
    reach = np.array([1, squash]) * size * (1 + sum(h for _, h, _ in bumps))
    if kind == "bar":
        # At least a pixel and a half thick; most stand upright as poles do.
        reach = max(width * 10 ** rng.uniform(-2.7, -1.9), 0.75), height * rng.uniform(0.1, 0.8)
        angle = rng.choice([angle, rng.normal(0, 0.12)], p=[0.3, 0.7])
        sides = [(s * (1 - n), s * n, reach[n]) for n in (0, 1) for s in (-1, 1)]
        size, squash, hole = 2 * max(reach), 1, -1
    turned = _turn(angle)
    upright = np.column_stack([turned.T, -turned.T @ centre])

    def distance(x, y):
        x, y = _at(upright, x, y)
        turn, r = np.arctan2(y / squash, x), np.hypot(x, y / squash)
        edge = 1 + sum(h * np.cos(n * turn + p) for n, h, p in bumps)
        slope = sum(n * h * np.sin(n * turn + p) for n, h, p in bumps) / edge
        # To first order: a value that is 0 at the edge, by the length of its gradient.
        cosine, sine = np.cos(turn), np.sin(turn)
        steep = np.hypot(cosine - slope * sine, (sine + slope * cosine) / squash)
        inside = (size * edge - r) / steep
        for right, down, far in sides:
            inside = np.minimum(inside, far - right * x - down * y)
        return np.minimum(inside, np.hypot(x, y) - hole)

    room = np.abs(turned) @ reach
    return distance, np.array([centre - room, centre + room])
