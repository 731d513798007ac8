"""Scores of whole frames, in NumPy: what an answer counts for, and what counts amount to.

One frame's answer becomes counts, a flat dict of arrays. Counts add up (`add`), so a frame, a data
set and a fold are scored by the same lines, and a set's scores are pooled over its pixels as the
official judges pool them. What nothing was counted for has no score: it is left out, never 0.

The streaming twins that `model.fit` takes are in `streaming.py`; tests hold the two together.
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
# Truth's magnitudes, in pixels, that errors are told apart by: rest to walking, driving, fast.
MAGNITUDES = {"0_10": (0, 10), "10_40": (10, 40), "40_up": (40, np.inf)}
# Of the image's diagonal: how far off a boundary may be (Csurka et al. 2013).
_BOUNDARY_TOLERANCE = 0.0075

_CATEGORIES = tuple(CITYSCAPES_CATEGORIES)
# (256,) train id of Cityscapes -> its category's place in _CATEGORIES; void: 255.
_CATEGORY_OF = np.full(256, IGNORE_LABEL, np.uint8)
for _place, _names in enumerate(CITYSCAPES_CATEGORIES.values()):
    _CATEGORY_OF[[CITYSCAPES.names.index(name) for name in _names]] = _place
# Classes that have things, and the categories all of whose classes have.
_WITH_THINGS = {*CITYSCAPES_THING_SIZES, "human", "vehicle"}


def add(first: Counts, second: Counts) -> Counts:
    """The counts of two sets of frames together."""
    both = {key: first[key] + second[key] for key in first.keys() & second.keys()}
    return first | second | both


def count_seg(truth: Array, answer: Array, classes: int, things: Array | None = None) -> Counts:
    """Counts of one frame's classes.

    Args:
        truth: (H, W) train ids, 255 where void: counted nowhere.
        answer: (H, W) train ids; 255 where nothing is said, which is wrong (cityscapesscripts).
        classes: how many there are.
        things: (H, W) a number for each thing, 0 where there is none; of Cityscapes' classes
            alone. None: not known.

    Returns:
        dict: `seg/confusion` (classes, classes + 1), truth by row, answers by column, the last for
        nothing said; `seg/boundary` (classes, 2), the boundary's F-measure and in how many
        frames it has one; where things are known, `seg/things` and `seg/thing_groups`, see
        `_things`. Empty if all is void.
    """
    known = truth != IGNORE_LABEL
    if not known.any():
        return {}
    confusion = _confusion(truth[known], answer[known], classes)
    counts = {"seg/confusion": confusion}
    counts["seg/boundary"] = _boundaries(truth, answer, known, classes)
    if things is not None:
        both = _things(truth, answer, things, confusion)
        counts["seg/things"], counts["seg/thing_groups"] = both
    return counts


def _boundaries(truth, answer, known, classes):
    """(classes, 2): F of precision and recall of each class's boundary, and 1 where it has any.

    A boundary pixel is found if the other map has one of its class within 0.75 % of the diagonal
    (What is a good evaluation measure for semantic segmentation?, Csurka et al. 2013). Where the
    truth is void on either side there is no boundary.
    """
    tolerance = max(1.0, _BOUNDARY_TOLERANCE * np.hypot(*truth.shape))
    edges = [_edges(labels, known) for labels in (truth, answer)]
    found = np.zeros((classes, 2))
    for label in np.setdiff1d(np.union1d(truth[edges[0]], answer[edges[1]]), IGNORE_LABEL):
        drawn = [e & (labels == label) for e, labels in zip(edges, (truth, answer), strict=True)]
        found[label] = _f_measure(*drawn, tolerance), 1
    return found


def _edges(labels, known):
    """(H, W) bool: a neighbour to the left, right, above or below is of another class."""
    edge = np.zeros(labels.shape, bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differs = (labels[a] != labels[b]) & known[a] & known[b]
        edge[a] |= differs
        edge[b] |= differs
    return edge


def _f_measure(truth, answer, tolerance):
    if not (truth.any() and answer.any()):
        return 0.0
    shares = []
    for drawn, other in ((answer, truth), (truth, answer)):
        away = cv2.distanceTransform(np.uint8(~other), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        shares.append(np.mean(away[drawn] <= tolerance))
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def count_consistency(first: Array, second: Array, flow: Array, classes: int) -> Counts:
    """Counts of how well a frame's classes are those that its pixels have in the next frame.

    (Warped mIoU; Efficient semantic video segmentation with per-frame inference, Liu et al. 2020.)

    Args:
        first: (H, W) train ids of a frame.
        second: (H, W) of the next.
        flow: (H, W, 2) from the first to the second; pixels that leave count nowhere.
        classes: how many there are.

    Returns:
        dict: `video/confusion` (classes, classes + 1), the classes of `first` by row.
    """
    height, width = first.shape
    y, x = np.mgrid[:height, :width]
    to_x, to_y = (np.rint(flow[..., i]) + axis for i, axis in ((0, x), (1, y)))
    # A NaN compares False.
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    met = second[to_y[inside].astype(np.int64), to_x[inside].astype(np.int64)]
    return {"video/confusion": _confusion(first[inside], met, classes)}


def _confusion(truth, answer, classes):
    """(classes, classes + 1) pixels, truth by row; what is no class goes to the last column."""
    cell = truth.astype(np.int64) * (classes + 1) + np.minimum(answer, classes)
    shape = classes, classes + 1
    return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)


def _things(truth, answer, things, confusion):
    """(classes, 3) and (categories, 3): weighed pixels found and missed of things, and false ones.

    Each thing weighs its class's mean size over its own (Cityscapes' iIoU). What is falsely said
    to be a class is no thing, so it has no weight.
    """
    found, grouped = np.zeros((len(confusion), 3)), np.zeros((len(_CATEGORIES), 3))
    # A number that lies on two classes is a thing of each.
    number_and_class = np.where(truth == IGNORE_LABEL, 0, np.int64(things) * 256) + truth
    for number in np.unique(number_and_class[number_and_class > IGNORE_LABEL]):
        label = number % 256
        size = CITYSCAPES_THING_SIZES.get(CITYSCAPES.names[label])
        if size is None:
            continue
        told = answer[number_and_class == number]
        weight = size / told.size
        for counts, row, right in (
            (found, label, told == label),
            (grouped, _CATEGORY_OF[label], _CATEGORY_OF[told] == _CATEGORY_OF[label]),
        ):
            counts[row, :2] += weight * right.sum(), weight * (~right).sum()
    for counts, matrix in ((found, confusion), (grouped, _by_category(confusion))):
        counts[:, 2] = matrix[:, :-1].sum(0) - np.diag(matrix)
    return found, grouped


def _by_category(confusion):
    """The confusion matrix of Cityscapes' categories."""
    wider = np.zeros((len(_CATEGORIES), len(_CATEGORIES) + 1), np.int64)
    group = np.append(_CATEGORY_OF[: len(confusion)], len(_CATEGORIES))
    np.add.at(wider, (group[:-1, None], group[None]), confusion)
    return wider


def count_flow(
    truth: Array, flow: Array, noc: Array | None = None, foreground: Array | None = None
) -> Counts:
    """Counts of one frame's flow.

    Args:
        truth: (H, W, 3) (u, v, valid) in pixels.
        flow: (H, W, 2).
        noc: as `truth`, of what the second frame shows too; None or all invalid: not known.
        foreground: (H, W) 1 on what moves by itself, 0 elsewhere, 255 where that is not known;
            None: nowhere known.

    Returns:
        dict of (pixels, error, outliers, share of outliers, 1) by region: `flow/all`, the regions
        of `MAGNITUDES`; where `noc` is known, `flow/noc` and the rest, `flow/hidden`; where
        `foreground` is known, `flow/fg`, `flow/bg`, and of both what is seen twice, as
        `flow/fg_noc`. Regions without pixels are left out.
    """
    valid = truth[..., 2] > 0
    if not valid.any():
        return {}
    true, answer = (np.float64(x[valid]) for x in (truth[..., :2], flow))
    error = np.hypot(*(answer - true).T)
    magnitude = np.hypot(*true.T)
    # evaluate_scene_flow.cpp of KITTI 2015; what is no number is wrong.
    wrong = ~((error <= 3) | (error <= 0.05 * magnitude))
    regions = {"all": np.ones(error.shape, bool)}
    for name, (low, high) in MAGNITUDES.items():
        regions[name] = (low <= magnitude) & (magnitude < high)
    if noc is not None and noc[..., 2].any():
        regions["noc"] = noc[..., 2][valid] > 0
        regions["hidden"] = ~regions["noc"]
    if foreground is not None:
        regions |= {"fg": foreground[valid] == 1, "bg": foreground[valid] == 0}
        if "noc" in regions:
            regions |= {f"{name}_noc": regions[name] & regions["noc"] for name in ("fg", "bg")}
    return {
        f"flow/{name}": np.array(
            [part.sum(), error[part].sum(), wrong[part].sum(), wrong[part].mean(), 1.0]
        )
        for name, part in regions.items()
        if part.any()
    }


def scores(counts: Counts, names: Sequence[str] = ()) -> dict[str, float]:
    """What counts amount to; rates in percent, flow errors in pixels.

    Args:
        counts: of `count_seg` and `count_flow`, of one frame or added up.
        names: the classes, by train id.

    Returns:
        dict of floats, what is not known left out: `seg/miou`, `seg/pixel_accuracy`,
        `seg/boundary_f` (mean over classes of the mean over frames), `seg/iou/<class>` and
        `seg/boundary_f/<class>` (a class that neither truth nor answer has is none); `flow/aepe`,
        `flow/fl_all`, `flow/fl_all_per_image`, the three again with `_noc`; and
        `flow/aepe_<region>`, `flow/fl_<region>` of the other regions. For Cityscapes' classes also
        `seg/category_miou`, `seg/category_iou/<category>` and, where things are known,
        `seg/iiou` and `seg/category_iiou`, each by name too. Of `count_consistency`,
        `video/consistency`. A mean error is no number (NaN) if an answer was none somewhere.
    """
    found = _seg_scores(counts, names) if "seg/confusion" in counts else {}
    if "video/confusion" in counts:
        iou = _named(range(len(names)), *_hits_and_wrong(counts["video/confusion"]))
        if iou:
            found["video/consistency"] = np.mean(list(iou.values()))
    for key, value in counts.items():
        kind, _, region = key.partition("/")
        if kind == "flow":
            found |= _flow_scores(value, region)
    return {key: float(value) for key, value in found.items()}


def _seg_scores(counts, names):
    confusion, boundary = counts["seg/confusion"], counts["seg/boundary"]
    iou = _named(names, *_hits_and_wrong(confusion))
    drawn = {n: 100 * f / k for n, (f, k) in zip(names, boundary, strict=True) if k}
    found = {
        "seg/miou": np.mean(list(iou.values())),
        "seg/pixel_accuracy": 100 * np.trace(confusion) / confusion.sum(),
    }
    if drawn:
        found["seg/boundary_f"] = np.mean(list(drawn.values()))
    if tuple(names) == CITYSCAPES.names:
        found |= _city_scores(confusion, counts)
    found |= {f"seg/iou/{name}": value for name, value in iou.items()}
    return found | {f"seg/boundary_f/{name}": value for name, value in drawn.items()}


def _hits_and_wrong(confusion):
    """True positives, and false positives and negatives together, by class."""
    hits = np.diag(confusion)
    return hits, confusion[:, :-1].sum(0) + confusion.sum(1) - 2 * hits


def _named(names, hits, wrong):
    """name -> IoU in percent, where there is any."""
    both = zip(names, hits, wrong, strict=True)
    return {name: 100 * hit / (hit + miss) for name, hit, miss in both if hit + miss}


def _city_scores(confusion, counts):
    """Scores by Cityscapes' categories and by things (evalPixelLevelSemanticLabeling.py)."""
    iou = _named(_CATEGORIES, *_hits_and_wrong(_by_category(confusion)))
    found = {"seg/category_miou": np.mean(list(iou.values()))}
    found |= {f"seg/category_iou/{name}": value for name, value in iou.items()}
    for key, names, told in (
        ("seg/things", CITYSCAPES.names, "seg/iiou"),
        ("seg/thing_groups", _CATEGORIES, "seg/category_iiou"),
    ):
        if key in counts:
            hits, missed, false = counts[key].T
            every = _named(names, hits, missed + false)
            scored = {name: value for name, value in every.items() if name in _WITH_THINGS}
            if scored:
                found[told] = np.mean(list(scored.values()))
                found |= {f"{told}/{name}": value for name, value in scored.items()}
    return found


def _flow_scores(count, region):
    pixels, error, outliers, shares, frames = count
    if region not in ("all", "noc"):
        return {f"flow/aepe_{region}": error / pixels, f"flow/fl_{region}": 100 * outliers / pixels}
    found = {"flow/aepe": error / pixels, "flow/fl_all": 100 * outliers / pixels}
    found["flow/fl_all_per_image"] = 100 * shares / frames
    return {name + "_noc" * (region == "noc"): value for name, value in found.items()}
