"""Geometry of a road and its white markings."""

from typing import Any, NamedTuple

import numpy as np


class Road(NamedTuple):
    """A road along a circle; s is measured along its centre line, d to the left of it."""

    curve: float  # 1 / radius; positive bends to the left
    half: float  # half the width
    dashed: tuple[float, float]  # lengths of dash and gap of the centre line; 0, 0: none
    edge_lines: bool
    crossing: float  # position of a zebra crossing; inf: none

    def at(self, s: float, d: float) -> tuple[float, float, float]:
        """Return position x, y and heading at s, d."""
        angle = s * self.curve
        radius = 1 / self.curve - d
        return radius * np.sin(angle), 1 / self.curve - radius * np.cos(angle), angle

    def paint(self, points: np.ndarray, pixel: np.ndarray, slant: np.ndarray) -> np.ndarray:
        """Compute the share of white paint at points (N, 3) of the plane, (N,) float32.

        Args:
            points: in world coordinates.
            pixel: (N,) width of a pixel at the point, metres, across the view.
            slant: (N,) cosine between view and normal; a pixel is 1 / slant longer along the road.
        """
        centre = 1 / self.curve
        x, y = points[:, 0], centre - points[:, 1]
        sign = np.sign(self.curve)
        s = np.arctan2(x * sign, y * sign) / self.curve
        d = centre - np.hypot(x, y) * sign
        to_crossing = s - self.crossing if np.isfinite(self.crossing) else None
        return mark(self, s, d, to_crossing, pixel=pixel, slant=slant)


def mark(
    road: Any,
    s: np.ndarray,
    d: np.ndarray,
    to_crossing: np.ndarray | None,
    pixel: np.ndarray,
    slant: np.ndarray,
) -> np.ndarray:
    """Compute the share of white paint at s, d, (N,) float32.

    Args:
        road: has `half`, `dashed` and `edge_lines`, see :class:`Road`.
        s, d: (N,) along the road and to the left of its centre.
        to_crossing: (N,) distance along the road past a zebra crossing; None: there is none.
        pixel, slant: see `Road.paint`.
    """
    across, along = pixel, pixel / np.maximum(slant, 0.02)

    def band(offset, half, blur):
        """Share of a pixel of width `blur` covered by a line from -half to half."""
        share = np.clip((half - np.abs(offset)) / blur + 0.5, 0, 1)
        return np.minimum(share, 2 * half / blur)

    paint = np.zeros(len(s))
    dash, gap = road.dashed
    if dash:
        period = dash + gap
        offset = (s + period / 2) % period - period / 2
        lines = band(offset, dash / 2, along) if gap else 1.0
        # Dashes finer than a pixel average out.
        lines = np.where(along > period, dash / period, lines)
        paint = band(d, 0.07, across) * lines
    if road.edge_lines:
        paint = np.maximum(paint, band(np.abs(d) - road.half + 0.35, 0.06, across))
    if to_crossing is not None:
        stripe = band((d % 1.0) - 0.5, 0.25, across)
        zebra = band(to_crossing, 1.6, along) * (np.abs(d) < road.half - 0.2)
        paint = np.maximum(paint, stripe * zebra)
    return (0.85 * paint).astype(np.float32)
