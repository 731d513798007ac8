"""Writes small synthetic data in KITTI's layout: moving textured shapes with exact flow.

    python -m tests.support.kitti_writer --output DIR --count 24 --height 128 --width 416 --seed 0

A street defined by formulas: a background (sky, houses, trees, pavement, road) that approaches,
and a few objects that move independently. Both frames are evaluated from the same formulas at
exact positions, so that flow and occlusions are exact. Frame k depends only on seed, size and k.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from absl import flags
from tqdm import tqdm

from flowseg.cli import entry
from flowseg.data import flow_io

SKY, BUILDING, VEGETATION, TERRAIN, SIDEWALK, ROAD = 23, 11, 21, 22, 8, 7
# Kind: label id, half width and half height as fractions of the image height (when near).
KINDS = {"car": (26, 0.3, 0.15), "truck": (27, 0.34, 0.24), "bus": (28, 0.5, 0.26)}
KINDS["person"] = (24, 0.08, 0.22)
HORIZON = 0.42


class Layer(NamedTuple):
    """One rigidly moving object; its formulas are in pixels of the first frame.

    `appearance(x, y)` returns (label id, RGB) of each position, id 0 outside the object. A position
    p moves to p + shift + zoom * (p - centre) in the second frame.
    """

    appearance: Callable
    shift: tuple[float, float]
    zoom: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)


def make_frame(k, seed=0, height=96, width=160):
    """Create frame `k` of a world.

    Returns:
        dict: `image1`, `image2` (H, W, 3) uint8 RGB; `flow` (H, W, 2) float32 (u, v) in px, in
        steps of 1/64; `valid` (all but the sky) and `visible` (valid, and visible in image2),
        both (H, W) bool; `labels` (H, W) uint8, Cityscapes ids; `objects` (H, W) uint8, 0 = none.
    """
    layers = _make_layers(np.random.default_rng([seed, height, width, k]), height, width)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    labels, _, owner = _render(layers, x, y, 0)
    ends = np.stack([_move(layer, x, y) for layer in layers])
    end = np.take_along_axis(ends, owner[None, None], 0)[0]
    flow = (np.rint((end - [x, y]) * 64) / 64).astype(np.float32)
    inside = (end >= 0).all(0) & (end[0] <= width - 1) & (end[1] <= height - 1)
    valid = labels != SKY
    return {
        "image1": _render_image(layers, x, y, 0),
        "image2": _render_image(layers, x, y, 1),
        "flow": np.moveaxis(flow, 0, -1),
        "valid": valid,
        "visible": valid & inside & (_render(layers, *end, 1)[2] == owner),
        "labels": labels.astype(np.uint8),
        "objects": owner.astype(np.uint8),
    }


def _move(layer, x, y):
    """Return the positions in the second frame of a layer's positions x, y: (2, ...)."""
    return np.stack(
        [
            p + s + layer.zoom * (p - c)
            for p, s, c in zip((x, y), layer.shift, layer.centre, strict=True)
        ]
    )


def _render(layers, x, y, frame):
    """Return (label id, RGB, index of the layer) visible at x, y in frame 0, 1, ..."""
    labels, colours, owner = np.zeros(x.shape, int), np.zeros((*x.shape, 3)), np.zeros(x.shape, int)
    for i, layer in enumerate(layers):
        zoom = frame * layer.zoom
        back = zip((x, y), layer.shift, layer.centre, strict=True)
        source = [(p - frame * s + zoom * c) / (1 + zoom) for p, s, c in back]
        ids, rgb = layer.appearance(*source)
        labels[ids > 0], colours[ids > 0], owner[ids > 0] = ids[ids > 0], rgb[ids > 0], i
    return labels, colours, owner


def _render_image(layers, x, y, frame):
    """Render an image, (H, W, 3) uint8, with four samples per pixel to smooth edges."""
    quarters = [(dx, dy) for dx in (-0.25, 0.25) for dy in (-0.25, 0.25)]
    mean = sum(_render(layers, x + dx, y + dy, frame)[1] for dx, dy in quarters) / 4
    return np.uint8(np.clip(np.rint(mean), 0, 255))


def _make_layers(rng, height, width):
    """Create the background and two to four objects, from far to near."""
    step = height / 96
    centre = (rng.uniform(0.35, 0.65) * width, HORIZON * height)
    layers = [
        Layer(
            appearance=_background(rng, height, centre),
            shift=tuple(rng.uniform([-2.5, -0.8], [2.5, 0.8]) * step),
            zoom=rng.uniform(0, 0.035),
            centre=centre,
        )
    ]
    count = int(rng.integers(2, 5))
    feet = np.sort(rng.uniform(0.62, 0.98, count)) * height
    positions = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count * width
    for foot, position in zip(feet, positions, strict=True):
        kind = rng.choice(list(KINDS), p=[0.45, 0.15, 0.15, 0.25])
        u, v = rng.uniform(1.5, 7) * rng.choice([-1, 1]), rng.uniform(-1.2, 1.2)
        appearance = _object(rng, kind, position, foot, height)
        layers.append(Layer(appearance, (u * step, v * step)))
    return layers


def _noise(rng, *sizes):
    """Return a smooth random function of (x, y), about -1..1, with details of these sizes."""
    parts = [(size, rng.uniform(-1, 1, (64, 64)), rng.uniform(0, 64, 2)) for size in sizes]

    def evaluate(x, y):
        total = 0
        for size, table, (x0, y0) in parts:
            column, row = x / size + x0, y / size + y0
            i, j = np.floor(column).astype(int), np.floor(row).astype(int)
            a, b = column - i, row - j
            a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
            upper, lower = (
                table[r % 64, i % 64] * (1 - a) + table[r % 64, (i + 1) % 64] * a
                for r in (j, j + 1)
            )
            total = total + upper * (1 - b) + lower * b
        return total / len(parts) ** 0.5

    return evaluate


def _background(rng, height, centre):
    grain = _noise(rng, *(np.array([4, 9, 21]) * height / 96))
    leaves, clouds = _noise(rng, 0.07 * height, 0.2 * height), _noise(rng, 0.4 * height)
    roofs, walls = (
        rng.uniform(0.08, 0.4, 64),
        rng.uniform(90, 190, (64, 1)) + rng.normal(0, 14, (64, 3)),
    )

    def appearance(x, y):
        across, down = x - centre[0], np.maximum(y - centre[1], 1e-3)
        above, house = (centre[1] - y) / height, np.floor(x / (0.45 * height)).astype(int) % 64
        street = np.abs(across) / down
        regions = (
            (BUILDING, above < roofs[house]),
            (VEGETATION, above < 0.1 + 0.22 * leaves(x, 0 * y) + 0.03 * leaves(x, y)),
            (TERRAIN, above < 0),
            (SIDEWALK, (above < 0) & (street < 1.5)),
            (ROAD, (above < 0) & (street < 1.05)),
        )
        ids = np.full(x.shape, SKY)
        for label, where in regions:
            ids[where] = label
        window = (np.mod(x, 0.075 * height) < 0.035 * height) & (
            np.mod(y, 0.1 * height) < 0.055 * height
        )
        dash = (np.abs(across) < 0.03 * down) & (np.mod(2.2 * height / down, 1.6) < 0.8)
        g = grain(x, y)[..., None]
        paints = {
            SKY: np.array([140, 180, 228]) + 12 * clouds(x, 2 * y)[..., None],
            BUILDING: np.where(window[..., None], [70, 80, 95], walls[house]) + 14 * g,
            VEGETATION: np.array([72, 104, 50]) + 34 * g,
            TERRAIN: np.array([128, 142, 84]) + 22 * g,
            SIDEWALK: np.array([168, 158, 152]) + 16 * g,
            ROAD: np.where(dash[..., None], [225, 225, 220], [96, 94, 100]) + 17 * g,
        }
        colours = np.zeros((*x.shape, 3))
        for label, paint in paints.items():
            colours[ids == label] = paint[ids == label]
        return ids, colours

    return appearance


def _object(rng, kind, position, foot, height):
    """Return the appearance of an object whose base is at y = `foot`, centre at x = `position`."""
    label, half_width, half_height = KINDS[kind]
    near = (foot / height - HORIZON) / (1 - HORIZON) * height
    half_width, half_height = half_width * near, half_height * near
    grain = _noise(rng, max(3.0, half_height / 6), max(6.0, half_height / 2))
    paint, other = rng.uniform(30, 230, 3), rng.uniform(40, 200, 3)
    draw = _draw_person if kind == "person" else _draw_vehicle

    def appearance(x, y):
        # Coordinates -1..1 across the width and height of the object.
        a, b = (x - position) / half_width, (y - foot) / half_height + 1
        ids, colours = np.zeros(x.shape, int), np.zeros((*x.shape, 3))
        box = (np.abs(a) < 1.1) & (np.abs(b) < 1.1)
        inside, rgb = draw(kind, a[box], b[box], half_width / half_height, paint, other)
        ids[box], colours[box] = (
            np.where(inside, label, 0),
            rgb + 22 * grain(x[box], y[box])[:, None],
        )
        return ids, colours

    return appearance


def _draw_vehicle(kind, a, b, stretch, paint, other):
    body = (np.abs(a) <= 1) & (b <= 0.75) & (b >= (-0.1 if kind == "car" else -1))
    cabin = (np.abs(a) <= 0.78 + 0.3 * b) & (b < 0) & (b >= -1)
    glass = {
        "car": (np.abs(a) <= 0.66 + 0.3 * b) & (np.abs(a) > 0.04) & (np.abs(b + 0.5) < 0.33),
        "truck": (a > 0.68) & (a < 0.93) & (np.abs(b + 0.2) < 0.3),
        "bus": (np.abs(b + 0.4) < 0.3) & (np.mod(a * 3 + 0.15, 1) > 0.25),
    }[kind]
    wheels = np.hypot((np.abs(a) - 0.6) * stretch, b - 0.68) < 0.32
    cargo = (kind == "truck") & (a < 0.5)
    colours = np.where(cargo[..., None], other, paint)
    colours = np.where(glass[..., None], [45, 55, 72], colours)
    colours = np.where(wheels[..., None], [32, 32, 36], colours)
    return body | (cabin & (kind == "car")) | wheels, colours


def _draw_person(kind, a, b, stretch, paint, other):
    head = np.hypot(a * stretch, b + 0.82) < 0.18
    trunk = (np.abs(a) <= 0.9 - 0.3 * np.abs(b + 0.3)) & (np.abs(b + 0.28) < 0.36)
    legs = (np.abs(np.abs(a) - 0.38) < 0.24) & (b > 0.05) & (b <= 1)
    colours = np.where(head[..., None], [205, 160, 130], np.where(trunk[..., None], paint, other))
    return head | trunk | legs, colours


def write_kitti(
    folder, count, seed=0, height=96, width=160, sizes=None, first_id=0, semantics_only=0
):
    """Write `count` frames as both sets, and optionally more with only labels; return the Path.

    Args:
        folder: parent of `data_scene_flow` and `data_semantics`.
        count: number of frames in both sets.
        seed, height, width: seed and size of the world.
        sizes: list of (height, width), used for the frames in turn instead.
        first_id: number of the first frame.
        semantics_only: number of further frames, only in `data_semantics`.
    """
    flow_set = Path(folder) / "data_scene_flow" / "training"
    label_set = Path(folder) / "data_semantics" / "training"
    sizes = sizes or [(height, width)]
    numbers = range(first_id, first_id + count + semantics_only)
    for k in tqdm(numbers, unit="frame", disable=None):
        frame = make_frame(k, seed, *sizes[k % len(sizes)])
        name = f"{k:06d}_10.png"
        ids = frame["labels"].astype(np.uint16) * 256 + frame["objects"]
        _save(label_set / "image_2" / name, frame["image1"][..., ::-1])
        _save(label_set / "semantic" / name, frame["labels"])
        _save(label_set / "instance" / name, ids)
        if k < first_id + count:
            _save(flow_set / "image_2" / name, frame["image1"][..., ::-1])
            _save(flow_set / "image_2" / f"{k:06d}_11.png", frame["image2"][..., ::-1])
            _save(flow_set / "obj_map" / name, frame["objects"])
            for kind, known in (("flow_occ", "valid"), ("flow_noc", "visible")):
                png = flow_io.encode_kitti_flow(frame["flow"], frame[known])
                (flow_set / kind).mkdir(parents=True, exist_ok=True)
                (flow_set / kind / name).write_bytes(png)
    return Path(folder)


def write_clip(folder, frames, seed=0, height=96, width=160):
    """Write `frames` consecutive frames of one world as a folder of PNGs; return its Path."""
    layers = _make_layers(np.random.default_rng([seed, height, width]), height, width)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    for frame in range(frames):
        _save(Path(folder) / f"{frame:03d}.png", _render_image(layers, x, y, frame)[..., ::-1])
    return Path(folder)


def _save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def main():
    """Write the data set by the flags."""
    values = flags.FLAGS
    size = (values.height, values.width)
    write_kitti(values.output, values.count, values.seed, *size)
    if values.clip:
        write_clip(Path(values.output) / "clip", values.clip, values.seed, *size)
    print(f"{values.output}: {values.count} synthetic frames in KITTI's layout")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Folder for both sets.", required=True)
    flags.DEFINE_integer("count", 24, "Number of frames.", lower_bound=1)
    flags.DEFINE_integer("height", 128, "Height of the frames, in pixels.", lower_bound=16)
    flags.DEFINE_integer("width", 416, "Width of the frames, in pixels.", lower_bound=16)
    flags.DEFINE_integer("clip", 0, "Number of frames of a video in folder clip.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Random seed of the world.")
    entry.run(main)
