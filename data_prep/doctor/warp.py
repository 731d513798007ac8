"""Tests whether the flow of a pair is plausible by comparing it with alternative flows.

Small patches of image1 are compared with those of image2 at the positions given by a flow. Patches
are normalised, so that exposure does not matter, and only textured points are used. The flow of the
record is one hypothesis; the others correct it for common mistakes of conversion code.
"""

from typing import NamedTuple

import cv2
import numpy as np

# A patch is 7x7 px; patches with less contrast (in grey levels) are considered noise.
_RADIUS, _MIN_CONTRAST = 3, 2.0
_DY, _DX = (
    np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1].reshape(2, -1).astype(np.float32)
)
# Maximum number of points per pair, and the number used by the search for a scale.
_MAX_POINTS, _SCALE_POINTS = 3000, 400
# Two flows are distinguishable at a point where they differ by more than this, in px.
MIN_DIFFERENCE = 1.0
# Minimum number of points for a decision.
MIN_POINTS = 60
# Hypotheses within this margin of the best one are ties; the simplest of them is chosen.
_TIE_MARGIN = 0.03
# An alternative flow is accepted if it is better than the record's by this margin at the points
# where the two are distinguishable, and if its own mismatch is not too high. On correct pairs no
# alternative was better at all; the corrected flow of a wrong pair was better by 0.2 to 0.8.
_MIN_GAIN, _MAX_MISMATCH = 0.15, 0.6
# How much lower the mismatch of the record's flow must be than that of zero flow: at least 0.29 on
# correct pairs, at most 0.05 on wrongly assembled pairs.
_MIN_IMPROVEMENT = 0.1

# (axes swapped, factor of u, factor of v), more likely mistakes first.
_AXIS_ERRORS = {
    "signs": (False, -1, -1),
    "sign-u": (False, -1, 1),
    "sign-v": (False, 1, -1),
    "axes": (True, 1, 1),
    "axes-signs": (True, -1, -1),
    "axes-sign-u": (True, -1, 1),
    "axes-sign-v": (True, 1, -1),
}
# Virtual KITTI 2's PNG stores (u / (W - 1) + 1) / 2 in 65535 steps, KITTI's u + 512 in steps of
# 1/64 px. By the other formula, u becomes u * 512 / (W - 1) or the inverse of that; v likewise.
_KITTI_STEPS = 65535 / 2 / 64
# A step of an eighth of an octave changes a vector of 10 px by 0.9 px.
_SCALES = 2.0 ** np.arange(-7, 7.01, 1 / 8)


class Probe(NamedTuple):
    """Result of testing the flow of a pair. Mismatch is 0 for equal, 1 for uncorrelated patches.

    Attributes:
        verdict: "fits"; the name of the hypothesis that fits instead; "unexplained"; "still"
            (too little motion to decide); "few" (too few textured points with known flow).
        mismatch: mean mismatch with the record's flow.
        others: hypothesis -> mean mismatch with its flow; "zero" is no motion.
        distinct: hypothesis -> number of points where it differs from the record's flow.
        scale: factor of the flow in the hypothesis "scale".
    """

    verdict: str
    mismatch: float = float("nan")
    others: dict[str, float] = {}
    distinct: dict[str, int] = {}
    scale: float = 1.0


class Points(NamedTuple):
    """Textured points of image1: x, y (N,), zero-mean patches (N, 49) and their norms (N,)."""

    x: np.ndarray
    y: np.ndarray
    patches: np.ndarray
    norms: np.ndarray


def luma(image: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) uint8 RGB to (H, W) float32 luma."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample `image` (H, W, ...) bilinearly at p + flow(p), with replicated borders."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    coordinates = x + flow[..., 0], y + flow[..., 1]
    return cv2.remap(image, *coordinates, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def find_points(luma1: np.ndarray, known: np.ndarray) -> Points:
    """Select textured :class:`Points` of (H, W) luma where `known` (H, W) is true.

    Takes the more textured half of a random sample, which is always the same for a frame.
    """
    window = (2 * _RADIUS + 1,) * 2
    mean = cv2.blur(luma1, window)
    contrast = np.sqrt(np.maximum(cv2.blur(luma1 * luma1, window) - mean * mean, 0))
    usable = np.zeros(known.shape, bool)
    inner = slice(_RADIUS, -_RADIUS)
    usable[inner, inner] = (known & (contrast > _MIN_CONTRAST))[inner, inner]
    y, x = np.nonzero(usable)
    if len(y) > 2 * _MAX_POINTS:
        sample = np.random.default_rng(0).choice(len(y), 2 * _MAX_POINTS, replace=False)
        y, x = y[sample], x[sample]
    best = np.argsort(-contrast[y, x], kind="stable")[
        : max(len(y) // 2, min(len(y), 2 * MIN_POINTS))
    ]
    # Shuffled, so that any leading part is a random sample.
    best = np.random.default_rng(1).permutation(best)
    x, y = x[best].astype(np.float32), y[best].astype(np.float32)
    return Points(x, y, *_patches(luma1, x, y))


def _patches(image, x, y):
    """Return zero-mean patches (N, 49) and their norms (N,)."""
    if not len(x):
        return np.zeros((0, len(_DX)), np.float32), np.zeros(0, np.float32)
    columns, rows = x[:, None] + _DX, y[:, None] + _DY
    patches = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    patches -= patches.mean(1, keepdims=True)
    return patches, np.sqrt((patches * patches).sum(1))


def mismatch(points: Points, luma2: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Mismatch (N,) in 0..1 of the patches at the points moved by `flow` (N, 2).

    It is 1 - normalised cross-correlation, clipped to 1; 1 for points outside the frame.
    """
    x, y = points.x + flow[:, 0], points.y + flow[:, 1]
    inside = (x >= 0) & (x <= luma2.shape[1] - 1) & (y >= 0) & (y <= luma2.shape[0] - 1)
    result = np.ones(len(x), np.float32)
    if inside.any():
        patches, norms = _patches(luma2, x[inside], y[inside])
        product = (points.patches[inside] * patches).sum(1)
        correlation = product / np.maximum(points.norms[inside] * norms, 1e-3)
        result[inside] = np.clip(1 - correlation, 0, 1)
    return result


def flow_at(flow: np.ndarray, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return the (H, W, 3) flow at the points, (N, 2), and where it is known, (N,) bool."""
    vectors = flow[points.y.astype(int), points.x.astype(int)]
    return vectors[:, :2], vectors[:, 2] > 0


def probe(frame: dict[str, np.ndarray]) -> Probe:
    """Test the flow of a decoded record that has image1, image2 and flow.

    Args:
        frame: dict as returned by `read.decode`; `flow_noc` marks pixels visible in both frames.

    Returns:
        :class:`Probe`.
    """
    flow = frame["flow"]
    visible = frame.get("flow_noc", flow)[..., 2] > 0
    luma2 = luma(frame["image2"])
    points = find_points(luma(frame["image1"]), visible & (flow[..., 2] > 0))
    if len(points.x) < MIN_POINTS:
        return Probe("few")
    vectors, _ = flow_at(flow, points)
    costs_of_flow = mismatch(points, luma2, vectors)
    scale = _find_scale(points, luma2, vectors)
    height, width = flow.shape[:2]
    others = {"zero": 0 * vectors}
    for name, (swapped, *signs) in _AXIS_ERRORS.items():
        others[name] = (vectors[:, ::-1] if swapped else vectors) * np.float32(signs)
    others["share"] = vectors * np.float32([width, height])
    others["half-share"] = vectors * np.float32([width / 2, height / 2])
    ratio = np.float32([width - 1, height - 1]) / np.float32(_KITTI_STEPS)
    others["vkitti2-as-kitti"], others["kitti-as-vkitti2"] = vectors * ratio, vectors / ratio
    mirrored, known = flow_at(flow[::-1], points)
    others["upside-down"] = np.where(known[:, None], mirrored, vectors)
    others["scale"] = vectors * np.float32(scale)
    differs = {
        name: np.hypot(*(other - vectors).T) > MIN_DIFFERENCE for name, other in others.items()
    }
    costs = {name: mismatch(points, luma2, other) for name, other in others.items()}
    result = Probe(
        verdict="fits",
        mismatch=float(costs_of_flow.mean()),
        others={name: float(cost.mean()) for name, cost in costs.items()},
        distinct={name: int(where.sum()) for name, where in differs.items()},
        scale=scale,
    )
    # Positive if the other flow is better.
    gains = {
        name: float((costs_of_flow - costs[name])[where].mean())
        if result.distinct[name] >= MIN_POINTS
        else 0.0
        for name, where in differs.items()
    }
    return result._replace(verdict=_judge(result, gains))


def _judge(result, gains):
    """Return the verdict; `gains`: mean advantage of each hypothesis at its distinct points."""
    lowest = min(result.others.values())
    best = next(name for name, cost in result.others.items() if cost <= lowest + _TIE_MARGIN)
    if gains[best] >= _MIN_GAIN and lowest <= _MAX_MISMATCH:
        return best
    if result.distinct["zero"] < MIN_POINTS:
        return "still" if result.mismatch <= _MAX_MISMATCH else "unexplained"
    return "fits" if -gains["zero"] >= _MIN_IMPROVEMENT else "unexplained"


def _find_scale(points, luma2, vectors):
    """Find the factor of the flow with the lowest mismatch by a coarse-to-fine search."""
    sample = Points(*(part[:_SCALE_POINTS] for part in points))
    factor, step = 1.0, 2 ** (1 / 8)
    candidates = _SCALES
    for _ in range(3):
        costs = [
            mismatch(sample, luma2, vectors[:_SCALE_POINTS] * np.float32(s)).mean()
            for s in candidates
        ]
        factor = float(candidates[int(np.argmin(costs))])
        candidates = factor * step ** np.linspace(-1, 1, 9)
        step = step**0.25
    return factor
