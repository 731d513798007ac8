"""Scores of whole frames, in NumPy: what an answer counts for, and what counts amount to.

One frame's answer becomes counts, a flat dict of arrays. Counts add up (`add`), so a frame, a data
set and a fold are scored by the same lines, and a set's scores are pooled over its pixels as the
official judges pool them. What nothing was counted for has no score: it is left out, never 0.

The streaming twins that `model.fit` takes are in `metrics.py`; tests hold the two together.
"""

import cv2
import numpy as np

from flowseg.labels import IGNORE_LABEL

# Truth's magnitudes, in pixels, that errors are told apart by: rest to walking, driving, fast.
MAGNITUDES = {"0_10": (0, 10), "10_40": (10, 40), "40_up": (40, np.inf)}
# Of the image's diagonal: how far off a boundary may be (Csurka et al. 2013).
_BOUNDARY_TOLERANCE = 0.0075


def add(first, second):
    """The counts of two sets of frames together."""
    both = {key: first[key] + second[key] for key in first.keys() & second.keys()}
    return first | second | both


def count_seg(truth, answer, classes):
    """Counts of one frame's classes.

    Args:
        truth: (H, W) train ids, 255 where void: counted nowhere.
        answer: (H, W) train ids.
        classes: how many there are.

    Returns:
        dict: `seg/confusion` (classes, classes), truth by row; `seg/boundary` (classes, 2), the
        boundary's F-measure and in how many frames it has one. Empty if all is void.
    """
    known = truth != IGNORE_LABEL
    if not known.any():
        return {}
    cell = truth[known].astype(np.int64) * classes + answer[known]
    confusion = np.bincount(cell, minlength=classes**2).reshape(classes, classes)
    return {"seg/confusion": confusion, "seg/boundary": _boundaries(truth, answer, known, classes)}


def _boundaries(truth, answer, known, classes):
    """(classes, 2): F of precision and recall of each class's boundary, and 1 where it has any.

    A boundary pixel is found if the other map has one of its class within 0.75 % of the diagonal
    (What is a good evaluation measure for semantic segmentation?, Csurka et al. 2013). Where the
    truth is void on either side there is no boundary.
    """
    tolerance = max(1.0, _BOUNDARY_TOLERANCE * np.hypot(*truth.shape))
    edges = [_edges(labels, known) for labels in (truth, answer)]
    found = np.zeros((classes, 2))
    for label in np.union1d(truth[edges[0]], answer[edges[1]]):
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


def count_flow(truth, flow, noc=None):
    """Counts of one frame's flow.

    Args:
        truth: (H, W, 3) (u, v, valid) in pixels.
        flow: (H, W, 2).
        noc: as `truth`, of what the second frame shows too; None or all invalid: not known.

    Returns:
        dict of (pixels, error, outliers, share of outliers, 1) by region: `flow/all`, the regions
        of `MAGNITUDES`, and, where `noc` is known, `flow/noc` and `flow/hidden`, which is the rest.
        Regions without pixels are left out.
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
    return {
        f"flow/{name}": np.array(
            [part.sum(), error[part].sum(), wrong[part].sum(), wrong[part].mean(), 1.0]
        )
        for name, part in regions.items()
        if part.any()
    }


def scores(counts, names=()):
    """What counts amount to; rates in percent, flow errors in pixels.

    Args:
        counts: of `count_seg` and `count_flow`, of one frame or added up.
        names: the classes, by train id.

    Returns:
        dict of floats, what is not known left out: `seg/miou`, `seg/pixel_accuracy`,
        `seg/boundary_f` (mean over classes of the mean over frames), `seg/iou/<class>` (a class
        that neither truth nor answer has is none); `flow/aepe`, `flow/fl_all`,
        `flow/fl_all_per_image`, the three again with `_noc`; and `flow/aepe_<region>`,
        `flow/fl_<region>` of the other regions.
    """
    found = _seg_scores(counts, names) if "seg/confusion" in counts else {}
    for key, value in counts.items():
        kind, _, region = key.partition("/")
        if kind == "flow":
            found |= _flow_scores(value, region)
    return {key: float(value) for key, value in found.items() if np.isfinite(value)}


def _seg_scores(counts, names):
    confusion, (f_measures, frames) = counts["seg/confusion"], counts["seg/boundary"].T
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    iou = {n: 100 * h / u for n, h, u in zip(names, hits, union, strict=True) if u}
    drawn = frames > 0
    found = {
        "seg/miou": np.mean(list(iou.values())),
        "seg/pixel_accuracy": 100 * hits.sum() / confusion.sum(),
    }
    if drawn.any():
        found["seg/boundary_f"] = 100 * np.mean(f_measures[drawn] / frames[drawn])
    return found | {f"seg/iou/{name}": value for name, value in iou.items()}


def _flow_scores(count, region):
    pixels, error, outliers, shares, frames = count
    if region not in ("all", "noc"):
        return {f"flow/aepe_{region}": error / pixels, f"flow/fl_{region}": 100 * outliers / pixels}
    found = {
        "flow/aepe": error / pixels,
        "flow/fl_all": 100 * outliers / pixels,
        "flow/fl_all_per_image": 100 * shares / frames,
    }
    return {name + "_noc" * (region == "noc"): value for name, value in found.items()}
