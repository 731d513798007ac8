"""A winding road without end, for drives of many frames.

Its heading is a sum of sines of the distance along it, so that bends are smooth, the road never
crosses itself, and any part of it can be computed without the parts before it.
"""

import functools
from typing import NamedTuple

import numpy as np

from data_prep.scenes.road import mark

START = -512  # metres; where the tables of the centre line begin
_BLOCK = 4096  # metres by which the tables grow
# Gauss-Legendre points and weights on 0..1: exact to 1e-9 m over one metre of any bend here.
_GAUSS = ((0.5 - np.sqrt(0.15), 5 / 18), (0.5, 4 / 9), (0.5 + np.sqrt(0.15), 5 / 18))


class Course(NamedTuple):
    """The road. s is measured along its centre line, d to the left of it, both in metres."""

    swings: tuple[tuple[float, float, float], ...]  # amplitude (rad), length (m) and phase each
    half: float  # half the width
    dashed: tuple[float, float]  # lengths of dash and gap of the centre line; 0, 0: none
    edge_lines: bool
    crossings: tuple[float, float]  # first zebra crossing, distance between them; inf, inf: none
    reach: float = 4096.0  # `locate` and `paint` know the road up to here; then it is straight

    def heading(self, s: np.ndarray | float) -> np.ndarray | float:
        """Return the heading at s in radians, 0 along x, positive to the left."""
        return _heading(self.swings, s)

    def curve(self, s: np.ndarray | float) -> np.ndarray | float:
        """Return the curvature at s, 1 / m; positive bends to the left."""
        return sum(
            a * 2 * np.pi / n * np.cos(2 * np.pi * s / n + phase) for a, n, phase in self.swings
        )

    def _nodes(self, s):
        return _centre_line(self.swings, int(s - START) // _BLOCK + 1)

    def at(self, s: float, d: float) -> tuple[float, float, float]:
        """Return position x, y and heading at s, d."""
        nodes = self._nodes(s)
        node = int(np.floor(s))
        x, y, _ = nodes[node - START]
        rest = s - node
        for place, weight in _GAUSS:
            angle = self.heading(node + rest * place)
            x, y = x + rest * weight * np.cos(angle), y + rest * weight * np.sin(angle)
        angle = self.heading(s)
        return float(x - d * np.sin(angle)), float(y + d * np.cos(angle)), float(angle)

    def up_to(self, s: float) -> "Course":
        """Return the course with a `reach` well beyond s, in large steps."""
        return self._replace(reach=(s // _BLOCK + 2) * _BLOCK)

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return s and d, (N,) each, of points (N, 2 or more) of the plane near the road.

        Points far beside the road get some d that is far from it, too.
        """
        x, y = points[:, 0], points[:, 1]
        nodes = self._nodes(self.reach)
        # Headings are below 1 rad, so x grows with s.
        s = np.interp(x, nodes[:, 0], np.arange(START, START + len(nodes), dtype=float))
        last = START + len(nodes) - 2
        s = np.minimum(s, last)
        for _ in range(2):
            ahead, left, curve = _offsets(nodes, s, x, y)
            s = np.clip(s + ahead / np.maximum(1 - curve * left, 0.3), START, last)
        return s, _offsets(nodes, s, x, y)[1]

    def paint(self, points: np.ndarray, pixel: np.ndarray, slant: np.ndarray) -> np.ndarray:
        """Compute the share of white paint at points (N, 3); see `Road.paint`."""
        s, d = self.locate(points)
        first, gap = self.crossings
        to_crossing = (s - first + gap / 2) % gap - gap / 2 if np.isfinite(gap) else None
        return mark(self, s, d, to_crossing, pixel=pixel, slant=slant)


def draw_course(rng: np.random.Generator, half: float, kind: str) -> Course:
    """Draw a road of half width `half` in a town, suburb or country."""
    bend = rng.choice([1e-3, 4e-3, 9e-3], p=[0.25, 0.45, 0.3]) * rng.uniform(0.6, 1.2)
    lengths = rng.uniform((180, 350, 700), (350, 700, 1500))
    shares = rng.dirichlet((2, 2, 2))
    amplitudes = bend * shares * lengths / (2 * np.pi)
    amplitudes *= min(1, 0.9 / amplitudes.sum())
    phases = rng.uniform(0, 2 * np.pi, 3)
    dashed = ((3.0, 4.5), (2.0, 2.0), (1.0, 0.0), (0.0, 0.0))[rng.choice(4, p=[0.5, 0.2, 0.1, 0.2])]
    edge_lines = bool(rng.random() < (0.7 if kind == "country" else 0.3))
    crossings = (rng.uniform(20, 120), rng.uniform(90, 250))
    zebra = kind == "town" and rng.random() < 0.6
    return Course(
        swings=tuple(zip(amplitudes.tolist(), lengths.tolist(), phases.tolist(), strict=True)),
        half=half,
        dashed=dashed,
        edge_lines=edge_lines,
        crossings=crossings if zebra else (np.inf, np.inf),
    )


def _heading(swings, s):
    return sum(a * np.sin(2 * np.pi * s / n + phase) for a, n, phase in swings)


@functools.lru_cache(maxsize=4)
def _centre_line(swings, blocks):
    """Return x, y and heading at every metre from `START` on, (n, 3); x = y = 0 at s = 0.

    A longer table begins with the same numbers.
    """
    s = np.arange(START, START + blocks * _BLOCK + 1, dtype=float)
    steps = np.zeros((len(s) - 1, 2))
    for place, weight in _GAUSS:
        angle = _heading(swings, s[:-1] + place)
        steps += weight * np.stack([np.cos(angle), np.sin(angle)], -1)
    line = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    return np.column_stack([line - line[-START], _heading(swings, s)])


def _offsets(nodes, s, x, y):
    """Return how far x, y are ahead of s and to the left of it, and the curvature there."""
    node = np.floor(s).astype(int)
    rest = s - node
    low = nodes[node - START]
    slope = nodes[node - START + 1] - low
    x, y = x - low[:, 0] - rest * slope[:, 0], y - low[:, 1] - rest * slope[:, 1]
    angle = low[:, 2] + rest * slope[:, 2]
    c, sine = np.cos(angle), np.sin(angle)
    return c * x + sine * y, c * y - sine * x, slope[:, 2]
