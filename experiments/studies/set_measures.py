"""Statistics of one frame for `compare_sets`, and their summary for a set.

`measure` turns a decoded frame into sums, which add up over pixels, and values, one per frame;
`summarise` combines those of a set into `{name: number}`. A statistic that a set lacks is NaN.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from data_prep.doctor.warp import warp
from data_prep.scenes.camera import KITTI_CENTRE, KITTI_SIZE
from flowseg.data.labels import CITYSCAPES, IGNORE_LABEL, train_id_table

PERCENTILES = (10, 25, 50, 75, 90, 99)
# In px, at the frame width to which all speeds are converted, because frame widths differ.
FAST = 40.0
# Speeds are counted in steps of 0.01 px up to 655 px: exact enough, and memory is constant.
_STEP, _STEPS = 0.01, 2**16
_BANDS = ("top", "middle", "bottom")
# KITTI's principal point as shares of the width and the height.
_PRINCIPAL = (KITTI_CENTRE[0] / KITTI_SIZE[1], KITTI_CENTRE[1] / KITTI_SIZE[0])
# Cycles per pixel between which the slope of the spectrum is fitted.
_SPECTRUM = (1 / 32, 1 / 4)
# A class occurs in a frame if it has at least this share of the pixels; less is a labelling slip.
_TRACE = 0.0005
_SKY = CITYSCAPES.names.index("sky")
_TEXTURES = ("dx", "dy", "slope", "contrast", "edge", "inside")

# Name -> unit of every statistic of a set, in table order.
UNITS = (
    {"frames": "", "frames_with_flow": "", "frames_with_labels": ""}
    | {"flow/known": "% px", "flow/occluded": "% known"}
    | {
        f"flow/{part}/{name}": unit
        for part in ("all", "not_sky")
        for name, unit in (
            ("mean", "px"),
            *((f"p{q}", "px") for q in PERCENTILES),
            ("over_40px", "%"),
            ("abs_u", "px"),
            ("abs_v", "px"),
            ("outward", "%"),
            *((band, "px") for band in _BANDS),
        )
    }
    | {"class/void": "% px"}
    | {f"class/{name}": "% labelled" for name in CITYSCAPES.names}
    | {f"occurs/{name}": "% frames" for name in CITYSCAPES.names}
    | {f"image/{name}": "0..255" for name in ("red", "green", "blue", "luma", "luma_std")}
    | {"image/luma_spread": "0..255", "image/dark": "% px", "image/bright": "% px"}
    | {"image/saturation": "%"}
    | {
        f"{size}/{name}": "log/log" if name == "slope" else "0..255"
        for size in ("own", "common")
        for name in _TEXTURES
    }
    | {"pair/unwarped": "0..255", "pair/warped": "0..255", "pair/ratio": ""}
)


def measure(
    frame: dict[str, np.ndarray], width: int, common_width: int
) -> tuple[dict, dict[str, float]]:
    """Sums and values of one frame.

    Args:
        frame: dict with `image1` (H, W, 3) uint8 RGB and, if the set has them, `image2`,
            `flow` and `flow_noc` (H, W, 3) float32 (u, v, valid), `labels` (H, W) Cityscapes ids.
        width: frame width in px to which speeds are converted.
        common_width: width in px at which textures are compared between sets.

    Returns:
        (sums, values): {name: array or number that adds up over frames}, {name: float}.
    """
    image, flow = frame["image1"], frame.get("flow")
    sums, train_ids = {"frames": 1}, None
    values = image_values(image)
    if "labels" in frame:
        train_ids = train_id_table(CITYSCAPES, "cityscapes")[frame["labels"]]
        counts = np.bincount(train_ids.ravel(), minlength=256)
        sums |= {"labelled": 1, "classes": counts, "occurs": counts >= _TRACE * counts.sum()}
    if flow is not None:
        known = flow[..., 2] > 0
        scale = width / image.shape[1]
        sums |= {"flows": 1, "places": known.size, "all": flow_sums(flow, known, scale)}
        if train_ids is not None:
            sums["not_sky"] = flow_sums(flow, known & (train_ids != _SKY), scale)
        if "flow_noc" in frame:
            occluded = known & (frame["flow_noc"][..., 2] == 0)
            sums |= {"hidden": occluded.sum(), "hideable": known.sum()}
            values |= pair_values(image, frame["image2"], frame["flow_noc"])
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    size = (common_width, max(1, round(image.shape[0] * common_width / image.shape[1])))
    small = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    ids = train_ids
    values |= {f"own/{k}": v for k, v in texture_values(luma, ids).items()}
    if ids is not None:
        ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
    values |= {f"common/{k}": v for k, v in texture_values(small, ids).items()}
    return sums, values


def flow_sums(flow: np.ndarray, known: np.ndarray, scale: float) -> np.ndarray:
    """Sums over the flow vectors of one frame; speeds in px times `scale`.

    Args:
        flow: (H, W, 2 or more) (u, v) in px.
        known: (H, W) bool: vectors that count.
        scale: px of the reference width per px of the frame.

    Returns:
        (histogram (65536,), sums (13,)) in one float64 array of (65549,): pixels, sums of speed,
        |u|, |v|, pixels over 40 px, pixels that move, pixels that move away from the
        principal point, and for the top, middle and bottom third of rows pixels and speed.
    """
    height, width = known.shape
    rows, columns = np.nonzero(known)
    u, v = flow[..., 0][known] * scale, flow[..., 1][known] * scale
    speed = np.hypot(u, v)
    steps = np.minimum(speed / _STEP, _STEPS - 1).astype(int)
    x, y = columns - _PRINCIPAL[0] * width, rows - _PRINCIPAL[1] * height
    band = rows * 3 // height
    totals = [
        speed.size,
        speed.sum(dtype=float),
        abs(u).sum(dtype=float),
        abs(v).sum(dtype=float),
        (speed > FAST).sum(),
        (speed > 0).sum(),
        (u * x + v * y > 0).sum(),
        *np.bincount(band, minlength=3),
        *np.bincount(band, weights=speed, minlength=3),
    ]
    return np.concatenate([np.bincount(steps, minlength=_STEPS), totals])


def image_values(image: np.ndarray) -> dict[str, float]:
    """Colour and brightness statistics of (H, W, 3) uint8 RGB."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]
    red, green, blue = image.reshape(-1, 3).mean(0)
    values = {"red": red, "green": green, "blue": blue, "luma": luma.mean(), "luma_std": luma.std()}
    values |= {"dark": 100 * (luma < 20).mean(), "bright": 100 * (luma > 235).mean()}
    values["saturation"] = saturation.mean() / 2.55
    return {f"image/{name}": float(value) for name, value in values.items()}


def texture_values(luma: np.ndarray, train_ids: np.ndarray | None = None) -> dict[str, float]:
    """Steps, spectrum and contrast of (H, W) luma; with (H, W) labels also steps at borders.

    `edge` is the mean size of the step (to the right and below) within one pixel of a border
    between two classes, `inside` that of the other labelled pixels.
    """
    dx, dy = np.diff(luma, axis=1), np.diff(luma, axis=0)
    values = {"dx": _mean(abs(dx)), "dy": _mean(abs(dy)), "slope": spectrum_slope(luma)}
    height, width = (n // 8 * 8 for n in luma.shape)
    blocks = luma[:height, :width].reshape(height // 8, 8, width // 8, 8)
    values["contrast"] = _mean(blocks.std((1, 3)))
    if train_ids is not None:
        step = np.hypot(dx[:-1], dy[:, :-1])
        here, right, below = train_ids[:-1, :-1], train_ids[:-1, 1:], train_ids[1:, :-1]
        labelled = np.maximum(np.maximum(here, right), below) != IGNORE_LABEL
        border = labelled & ((here != right) | (here != below))
        # Hand-drawn borders are off by about a pixel.
        near = cv2.dilate(border.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        values |= {"edge": _mean(step[labelled & near]), "inside": _mean(step[labelled & ~near])}
    return values


def spectrum_slope(luma: np.ndarray) -> float:
    """Exponent of the radially averaged power spectrum of (H, W) luma; natural scenes: about -2.

    Least squares in log-log over twelve rings from 1/32 to 1/4 cycles per px, with equal weights.
    NaN if the image is too small or has no detail.
    """
    height, width = luma.shape
    # A window, because opposite borders of an image do not match.
    window = np.outer(np.hanning(height), np.hanning(width))
    power = abs(np.fft.rfft2((luma - luma.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    edges = np.geomspace(*_SPECTRUM, 13)
    ring = np.searchsorted(edges, radius.ravel(), side="right")
    count = np.bincount(ring, minlength=14)[1:13]
    energy = np.bincount(ring, weights=power.ravel(), minlength=14)[1:13]
    used = (count > 0) & (energy > 0)
    if used.sum() < 3:
        return float("nan")
    centre = np.sqrt(edges[:-1] * edges[1:])[used]
    return float(np.polyfit(np.log(centre), np.log(energy[used] / count[used]), 1)[0])


def pair_values(image1: np.ndarray, image2: np.ndarray, flow_noc: np.ndarray) -> dict[str, float]:
    """Differences of two frames, without warping and with image2 warped by the ground-truth flow.

    Both are mean absolute differences over colours and the pixels of `flow_noc` (H, W, 3).
    NaN without such pixels; the ratio is also NaN if the warped frame equals the first exactly.
    """
    known = flow_noc[..., 2] > 0
    warped_image = warp(image2.astype(np.float32), flow_noc)
    first = image1[known].astype(np.float32)
    unwarped, warped = _mean(abs(first - image2[known])), _mean(abs(first - warped_image[known]))
    ratio = unwarped / warped if warped > 0 else float("nan")
    return {"pair/unwarped": unwarped, "pair/warped": warped, "pair/ratio": ratio}


def _mean(values):
    return float(values.mean(dtype=float)) if values.size else float("nan")


def summarise(measures: Iterable[tuple[dict, dict[str, float]]]) -> dict[str, float]:
    """Statistics of a set, `{name of UNITS: float}`, from the `measure` of each of its frames.

    Flow and classes are pooled over pixels; image values are means over frames, pair values are
    medians.
    """
    sums, values = {}, {}
    for frame_sums, frame_values in measures:
        for name, number in frame_sums.items():
            sums[name] = sums.get(name, 0) + np.asarray(number, float)
        for name, number in frame_values.items():
            values.setdefault(name, []).append(number)
    result = dict.fromkeys(UNITS, float("nan"))
    for name, column in values.items():
        known = np.array(column)[np.isfinite(column)]
        if known.size:
            result[name] = np.median(known) if name.startswith("pair/") else known.mean()
    result["image/luma_spread"] = np.std(values["image/luma"])
    for name, key in (("", "frames"), ("_with_flow", "flows"), ("_with_labels", "labelled")):
        result[f"frames{name}"] = sums.get(key, 0)
    for part in ("all", "not_sky"):
        if part in sums:
            result |= _summarise_flow(part, sums[part])
    if "flows" in sums:
        result["flow/known"] = 100 * sums["all"][_STEPS] / sums["places"]
    if "hideable" in sums:
        result["flow/occluded"] = _percent(sums["hidden"], sums["hideable"])
    if "labelled" in sums:
        counts, classes = sums["classes"], len(CITYSCAPES.names)
        result["class/void"] = _percent(counts[IGNORE_LABEL], counts.sum())
        for i, name in enumerate(CITYSCAPES.names):
            result[f"class/{name}"] = _percent(counts[i], counts[:classes].sum())
            result[f"occurs/{name}"] = _percent(sums["occurs"][i], sums["labelled"])
    return {name: float(number) for name, number in result.items()}


def _percent(part, total):
    return 100 * part / total if total else float("nan")


def _summarise_flow(part, pooled):
    histogram, (pixels, speed, u, v, fast, moving, outward, *bands) = (
        pooled[:_STEPS],
        pooled[_STEPS:],
    )
    if not pixels:
        return {}
    rank = np.searchsorted(histogram.cumsum(), np.array(PERCENTILES) / 100 * pixels)
    numbers = {f"p{q}": (step + 0.5) * _STEP for q, step in zip(PERCENTILES, rank, strict=True)}
    numbers |= {"mean": speed / pixels, "abs_u": u / pixels, "abs_v": v / pixels}
    numbers |= {"over_40px": 100 * fast / pixels, "outward": _percent(outward, moving)}
    for name, count, total in zip(_BANDS, bands[:3], bands[3:], strict=True):
        numbers[name] = total / count if count else float("nan")
    return {f"flow/{part}/{name}": number for name, number in numbers.items()}
