"""Counts predictions of whole frames in NumPy, and computes scores from the counts.

The counts of a frame are a flat dict of arrays. Counts are additive (`add`), so the same code
scores a frame, a data set or a fold, and the scores of a set are pooled over its pixels as in the
official evaluations. A score without any counted pixel is omitted, never 0.

The streaming equivalents for `model.fit` are in `streaming.py`; tests check that both agree.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from flowseg.data.labels import (
    CITYSCAPES,
    CITYSCAPES_CATEGORIES,
    CITYSCAPES_THING_SIZES,
    IGNORE_LABEL,
)

Array = np.ndarray
Counts = dict[str, Array]
# Ranges of ground-truth magnitude, in pixels, by which errors are reported.
MAGNITUDES = {
    "0_10": (0, 10),
    "10_40": (10, 40),
    "40_up": (40, np.inf),
    "40_100": (40, 100),
    "100_up": (100, np.inf),
}
# Tolerance of boundaries, as a share of the image diagonal (Csurka et al. 2013).
_BOUNDARY_TOLERANCE = 0.0075

_CATEGORIES = tuple(CITYSCAPES_CATEGORIES)
# (256,) Cityscapes train id -> index of its category in _CATEGORIES; void: 255.
_CATEGORY_OF = np.full(256, IGNORE_LABEL, np.uint8)
for _index, _names in enumerate(CITYSCAPES_CATEGORIES.values()):
    _CATEGORY_OF[[CITYSCAPES.names.index(name) for name in _names]] = _index
# Classes with instances, and the categories in which all classes have instances.
_WITH_INSTANCES = {*CITYSCAPES_THING_SIZES, "human", "vehicle"}


def add(first: Counts, second: Counts) -> Counts:
    """Sum of the counts of two sets of frames."""
    both = {key: first[key] + second[key] for key in first.keys() & second.keys()}
    return first | second | both


def count_seg(truth: Array, prediction: Array, classes: int, things: Array | None = None) -> Counts:
    """Counts for the segmentation of one frame.

    Args:
        truth: (H, W) train ids, 255 = void, which is not counted.
        prediction: (H, W) train ids; 255 = no prediction, which counts as wrong (as in
            cityscapesscripts).
        classes: number of classes.
        things: (H, W) instance ids, 0 = no instance, only for Cityscapes' classes; None if unknown.

    Returns:
        dict: `seg/confusion` (classes, classes + 1), ground truth by row, prediction by column, the
        last column for no prediction; `seg/boundary` (classes, 2), the boundary F-measure and the
        number of frames that have a boundary; if `things` is known, `seg/things` and
        `seg/thing_groups`, see `_things`. Empty if all pixels are void.
    """
    known = truth != IGNORE_LABEL
    if not known.any():
        return {}
    confusion = _confusion(truth[known], prediction[known], classes)
    counts = {"seg/confusion": confusion}
    counts["seg/boundary"] = _boundaries(truth, prediction, known, classes)
    if things is not None:
        by_class_and_group = _things(truth, prediction, things, confusion)
        counts["seg/things"], counts["seg/thing_groups"] = by_class_and_group
    return counts


def _boundaries(truth, prediction, known, classes):
    """(classes, 2): boundary F-measure of each class, and 1 for classes that have a boundary.

    A boundary pixel matches if the other map has a boundary pixel of its class within 0.75 % of the
    diagonal (What is a good evaluation measure for semantic segmentation?, Csurka et al. 2013).
    There is no boundary between two pixels if the ground truth of either is void.
    """
    tolerance = max(1.0, _BOUNDARY_TOLERANCE * np.hypot(*truth.shape))
    edges = [_edges(labels, known) for labels in (truth, prediction)]
    scores = np.zeros((classes, 2))
    for label in np.setdiff1d(np.union1d(truth[edges[0]], prediction[edges[1]]), IGNORE_LABEL):
        both = [e & (ids == label) for e, ids in zip(edges, (truth, prediction), strict=True)]
        scores[label] = _f_measure(*both, tolerance), 1
    return scores


def _edges(labels, known):
    """(H, W) bool: pixels with a 4-neighbour of another class."""
    edge = np.zeros(labels.shape, bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differs = (labels[a] != labels[b]) & known[a] & known[b]
        edge[a] |= differs
        edge[b] |= differs
    return edge


def _f_measure(truth, prediction, tolerance):
    if not (truth.any() and prediction.any()):
        return 0.0
    shares = []
    for boundary, other in ((prediction, truth), (truth, prediction)):
        distance = cv2.distanceTransform(np.uint8(~other), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        shares.append(np.mean(distance[boundary] <= tolerance))
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def count_consistency(first: Array, second: Array, flow: Array, classes: int) -> Counts:
    """Counts for the temporal consistency of the classes of two consecutive frames.

    (Warped mIoU; Efficient semantic video segmentation with per-frame inference, Liu et al. 2020.)

    Args:
        first: (H, W) train ids of a frame.
        second: (H, W) train ids of the next frame.
        flow: (H, W, 2) from the first to the second; pixels that leave the image are not counted.
        classes: number of classes.

    Returns:
        dict: `video/confusion` (classes, classes + 1), the classes of `first` by row.
    """
    height, width = first.shape
    y, x = np.mgrid[:height, :width]
    to_x, to_y = (np.rint(flow[..., i]) + axis for i, axis in ((0, x), (1, y)))
    # NaN compares False.
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    next_ids = second[to_y[inside].astype(np.int64), to_x[inside].astype(np.int64)]
    return {"video/confusion": _confusion(first[inside], next_ids, classes)}


def _confusion(truth, prediction, classes):
    """(classes, classes + 1) pixels, truth by row; ids without a class go to the last column."""
    cell = truth.astype(np.int64) * (classes + 1) + np.minimum(prediction, classes)
    shape = classes, classes + 1
    return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)


def _things(truth, prediction, things, confusion):
    """(classes, 3) and (categories, 3): weighted TP and FN pixels of instances, and FP pixels.

    The weight of an instance is the mean instance size of its class over its own size (Cityscapes'
    iIoU). False positives belong to no instance, so they are not weighted.
    """
    by_class, by_group = np.zeros((len(confusion), 3)), np.zeros((len(_CATEGORIES), 3))
    # An instance id that covers two classes is one instance of each.
    number_and_class = np.where(truth == IGNORE_LABEL, 0, np.int64(things) * 256) + truth
    for number in np.unique(number_and_class[number_and_class > IGNORE_LABEL]):
        label = number % 256
        size = CITYSCAPES_THING_SIZES.get(CITYSCAPES.names[label])
        if size is None:
            continue
        predicted = prediction[number_and_class == number]
        weight = size / predicted.size
        for counts, row, correct in (
            (by_class, label, predicted == label),
            (by_group, _CATEGORY_OF[label], _CATEGORY_OF[predicted] == _CATEGORY_OF[label]),
        ):
            counts[row, :2] += weight * correct.sum(), weight * (~correct).sum()
    for counts, matrix in ((by_class, confusion), (by_group, _by_category(confusion))):
        counts[:, 2] = matrix[:, :-1].sum(0) - np.diag(matrix)
    return by_class, by_group


def _by_category(confusion):
    """Confusion matrix of the Cityscapes categories."""
    by_category = np.zeros((len(_CATEGORIES), len(_CATEGORIES) + 1), np.int64)
    group = np.append(_CATEGORY_OF[: len(confusion)], len(_CATEGORIES))
    np.add.at(by_category, (group[:-1, None], group[None]), confusion)
    return by_category


def count_flow(
    truth: Array, flow: Array, noc: Array | None = None, foreground: Array | None = None
) -> Counts:
    """Counts for the flow of one frame.

    Args:
        truth: (H, W, 3) (u, v, valid) in pixels.
        flow: (H, W, 2).
        noc: like `truth`, valid only at non-occluded pixels; None or all invalid if unknown.
        foreground: (H, W) 1 = foreground, 0 = background, 255 = unknown; None if unknown for all
            pixels.

    Returns:
        dict of (pixels, error, outliers, share of outliers, 1) by region: `flow/all` and the
        regions of `MAGNITUDES`; if `noc` is known, `flow/noc` and the occluded rest,
        `flow/occluded`; if `foreground` is known, `flow/fg`, `flow/bg`, and with both, their
        non-occluded parts `flow/fg_noc`, `flow/bg_noc`. Regions without pixels are omitted.
    """
    valid = truth[..., 2] > 0
    if not valid.any():
        return {}
    true_flow, predicted_flow = (np.float64(x[valid]) for x in (truth[..., :2], flow))
    error = np.hypot(*(predicted_flow - true_flow).T)
    magnitude = np.hypot(*true_flow.T)
    # As in evaluate_scene_flow.cpp of KITTI 2015; NaN counts as an outlier.
    wrong = ~((error <= 3) | (error <= 0.05 * magnitude))
    regions = {"all": np.ones(error.shape, bool)}
    for name, (low, high) in MAGNITUDES.items():
        regions[name] = (low <= magnitude) & (magnitude < high)
    if noc is not None and noc[..., 2].any():
        regions["noc"] = noc[..., 2][valid] > 0
        regions["occluded"] = ~regions["noc"]
    if foreground is not None:
        regions |= {"fg": foreground[valid] == 1, "bg": foreground[valid] == 0}
        if "noc" in regions:
            regions |= {f"{name}_noc": regions[name] & regions["noc"] for name in ("fg", "bg")}
    return {
        f"flow/{name}": np.array(
            [mask.sum(), error[mask].sum(), wrong[mask].sum(), wrong[mask].mean(), 1.0]
        )
        for name, mask in regions.items()
        if mask.any()
    }


def scores(counts: Counts, names: Sequence[str] = ()) -> dict[str, float]:
    """Scores from counts; rates in percent, flow errors in pixels.

    Args:
        counts: from `count_seg` and `count_flow`, for one frame or added up.
        names: class names, by train id.

    Returns:
        dict of floats, without unknown scores: `seg/miou`, `seg/pixel_accuracy`, `seg/boundary_f`
        (mean over classes of the mean over frames), `seg/iou/<class>` and `seg/boundary_f/<class>`
        (omitted for a class in neither ground truth nor prediction); `flow/aepe`, `flow/fl_all`,
        `flow/fl_all_per_image`, the three also with `_noc`; and `flow/aepe_<region>`,
        `flow/fl_<region>` for the other regions. For Cityscapes' classes also `seg/category_miou`,
        `seg/category_iou/<category>` and, if instances are known, `seg/iiou` and
        `seg/category_iiou`, both also by name. From `count_consistency`, `video/consistency`. A
        mean error is NaN if the predicted flow of any counted pixel is NaN.
    """
    result = _seg_scores(counts, names) if "seg/confusion" in counts else {}
    if "video/confusion" in counts:
        iou = _iou_by_name(range(len(names)), *_hits_and_errors(counts["video/confusion"]))
        if iou:
            result["video/consistency"] = np.mean(list(iou.values()))
    for key, value in counts.items():
        kind, _, region = key.partition("/")
        if kind == "flow":
            result |= _flow_scores(value, region)
    return {key: float(value) for key, value in result.items()}


def _seg_scores(counts, names):
    confusion, boundary = counts["seg/confusion"], counts["seg/boundary"]
    iou = _iou_by_name(names, *_hits_and_errors(confusion))
    boundary_f = {n: 100 * f / k for n, (f, k) in zip(names, boundary, strict=True) if k}
    result = {
        "seg/miou": np.mean(list(iou.values())),
        "seg/pixel_accuracy": 100 * np.trace(confusion) / confusion.sum(),
    }
    if boundary_f:
        result["seg/boundary_f"] = np.mean(list(boundary_f.values()))
    if tuple(names) == CITYSCAPES.names:
        result |= _city_scores(confusion, counts)
    result |= {f"seg/iou/{name}": value for name, value in iou.items()}
    return result | {f"seg/boundary_f/{name}": value for name, value in boundary_f.items()}


def _hits_and_errors(confusion):
    """Per class: true positives, and the sum of false positives and false negatives."""
    hits = np.diag(confusion)
    return hits, confusion[:, :-1].sum(0) + confusion.sum(1) - 2 * hits


def _iou_by_name(names, hits, wrong):
    """name -> IoU in percent, for names with any counts."""
    rows = zip(names, hits, wrong, strict=True)
    return {name: 100 * hit / (hit + miss) for name, hit, miss in rows if hit + miss}


def _city_scores(confusion, counts):
    """Cityscapes' scores by category and by instance (evalPixelLevelSemanticLabeling.py)."""
    iou = _iou_by_name(_CATEGORIES, *_hits_and_errors(_by_category(confusion)))
    result = {"seg/category_miou": np.mean(list(iou.values()))}
    result |= {f"seg/category_iou/{name}": value for name, value in iou.items()}
    for key, names, score in (
        ("seg/things", CITYSCAPES.names, "seg/iiou"),
        ("seg/thing_groups", _CATEGORIES, "seg/category_iiou"),
    ):
        if key in counts:
            hits, missed, false = counts[key].T
            iious = _iou_by_name(names, hits, missed + false)
            iiou_by_name = {name: value for name, value in iious.items() if name in _WITH_INSTANCES}
            if iiou_by_name:
                result[score] = np.mean(list(iiou_by_name.values()))
                result |= {f"{score}/{name}": value for name, value in iiou_by_name.items()}
    return result


def _flow_scores(count, region):
    pixels, error, outliers, shares, frames = count
    if region not in ("all", "noc"):
        return {f"flow/aepe_{region}": error / pixels, f"flow/fl_{region}": 100 * outliers / pixels}
    result = {"flow/aepe": error / pixels, "flow/fl_all": 100 * outliers / pixels}
    result["flow/fl_all_per_image"] = 100 * shares / frames
    return {name + "_noc" * (region == "noc"): value for name, value in result.items()}
