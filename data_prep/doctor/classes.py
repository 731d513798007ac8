"""Checks labels: ids, void, classes, and their alignment with the images."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from data_prep.conversion import label_checks
from data_prep.doctor.facts import Facts
from data_prep.doctor.findings import Finding, count
from flowseg.data.labels import IGNORE_LABEL, KNOWN_IDS, LABEL_SETS, LabelSet, train_id_table

# Frames with more void than this are reported. KITTI frames have at most 13 %, CamVid frames 32 %.
MAX_VOID = 0.6
# Maximum shift of the labels when searching for the best alignment, in px.
MAX_SHIFT = 8
# Labels fit an image if their best shift is at most this, in px. In KITTI, CamVid and the synthetic
# streets it is within 2 px in every frame; with mirrored labels or labels of other frames it is
# within 3 px in at most 1 of 4 frames.
_MAX_OFFSET = 3
# Minimum number of frames to report labels as shifted, or as not matching at all.
_MIN_FRAMES_SHIFTED, _MIN_FRAMES_MISMATCH = 3, 5
# Maximum number of border pixels per frame.
_MAX_BORDER_PIXELS = 4000


def tables(label_set: LabelSet, facts: Iterable[Facts]) -> dict[str, np.ndarray]:
    """Return {numbering: (256,) uint8, label id -> train id} for the numberings of the set."""
    numberings = {frame.numbering for frame in facts} & set(label_set.ids)
    return {numbering: train_id_table(label_set, numbering) for numbering in sorted(numberings)}


def class_counts(frame: Facts, label_set: LabelSet, table: np.ndarray) -> np.ndarray:
    """Count the pixels of each class of a frame, (classes + 1,), void last.

    Args:
        frame: Facts with ids.
        label_set: the classes.
        table: the label set's table for the frame's numbering, see `tables`.
    """
    train_ids = np.minimum(table, len(label_set.names))
    return np.bincount(train_ids, weights=frame.ids, minlength=len(label_set.names) + 1)


def check(facts: Iterable[Facts], label_set: LabelSet) -> list[Finding]:
    """Check the labels of single frames and the classes of the splits.

    Args:
        facts: list of :class:`data_prep.doctor.facts.Facts`.
        label_set: the classes to be trained.

    Returns:
        list of :class:`Finding`.
    """
    labelled = [frame for frame in facts if frame.ids is not None]
    findings, tables_by_numbering = _unknown(labelled), tables(label_set, labelled)
    unmapped = [frame for frame in labelled if frame.numbering not in tables_by_numbering]
    if unmapped:
        numberings = ", ".join(sorted({frame.numbering for frame in unmapped}))
        findings.append(
            Finding(
                "error",
                "numbering",
                f"labels of {count(len(unmapped), 'frame')} use the numbering {numberings}, which "
                f"label set {label_set.name} does not map: training would stop there; give another "
                "--label_set",
                unmapped,
            )
        )
    mapped = [frame for frame in labelled if frame.numbering in tables_by_numbering]
    counts = [
        class_counts(frame, label_set, tables_by_numbering[frame.numbering]) for frame in mapped
    ]
    findings += _void(mapped, counts) + _mostly_void_sets(mapped, counts)
    single_class = [f for f, n in zip(mapped, counts, strict=True) if np.count_nonzero(n[:-1]) == 1]
    if single_class and len(np.flatnonzero(np.sum(counts, 0)[:-1])) > 1:
        findings.append(
            Finding(
                "warning",
                "one-class",
                f"{count(len(single_class), 'frame')} with a single class in all labelled pixels: "
                "are these the right label files?",
                single_class,
            )
        )
    return findings + _never(mapped, counts, label_set) + _absent(mapped, counts, label_set)


def _unknown(labelled):
    """Report ids unknown to an official numbering; a custom numbering may have any ids."""
    findings = []
    for numbering in sorted({frame.numbering for frame in labelled} & set(KNOWN_IDS)):
        known = list(KNOWN_IDS[numbering])
        affected, ids = [], set()
        for frame in (frame for frame in labelled if frame.numbering == numbering):
            unknown = set(np.flatnonzero(frame.ids).tolist()) - set(known)
            if unknown:
                affected.append(frame)
                ids |= unknown
        if affected:
            shown = ", ".join(map(str, sorted(ids)[:8])) + (", ..." if len(ids) > 8 else "")
            findings.append(
                Finding(
                    "error",
                    "unknown-ids",
                    f"label ids that {numbering} does not have ({shown}) in "
                    f"{count(len(affected), 'frame')}: colours, another numbering, or damage; they "
                    "would be void",
                    affected,
                )
            )
    return findings


def _void(mapped, counts):
    """Report frames without labelled pixels, and frames with few of them."""
    shares = [n[-1] / n.sum() for n in counts]
    empty = [frame for frame, share in zip(mapped, shares, strict=True) if share == 1]
    mostly_void = [
        frame for frame, share in zip(mapped, shares, strict=True) if MAX_VOID < share < 1
    ]
    findings = []
    if empty:
        every = len(empty) == len(mapped)
        findings.append(
            Finding(
                "error" if every else "warning",
                "all-void",
                f"{count(len(empty), 'frame')} of {len(mapped)} labelled without a pixel of any "
                "class: they give no supervision"
                + ("; is this the right --label_set?" if every else ""),
                empty,
            )
        )
    if mostly_void:
        findings.append(
            Finding(
                "warning",
                "much-void",
                f"{count(len(mostly_void), 'frame')} of {len(mapped)} labelled with more than "
                f"{MAX_VOID:.0%} void",
                mostly_void,
            )
        )
    return findings


def _mostly_void_sets(mapped, counts):
    """Report data sets of which more than half is void, but not all of every frame."""
    findings = []
    for dataset in sorted({frame.dataset for frame in mapped}):
        frames = [(f, n) for f, n in zip(mapped, counts, strict=True) if f.dataset == dataset]
        pixels = np.sum([n for _, n in frames], 0)
        void = pixels[-1] / pixels.sum()
        if label_checks.MAX_VOID < void < 1:
            text = (
                f"{dataset}: {void:.0%} of the pixels of {count(len(frames), 'labelled frame')} "
                "are void: do the label set and the numbering fit these masks?"
            )
            findings.append(Finding("warning", "void-set", text))
    return findings


def _never(mapped, counts, label_set):
    """Report classes that occur nowhere, and masks of 0 and 255, which are one of the causes.

    Classes of a built-in label set are not reported, because a part of a public data set lacks rare
    classes; the table of the classes shows them.
    """
    for numbering in sorted({frame.numbering for frame in mapped}):
        ids = np.sum([frame.ids for frame in mapped if frame.numbering == numbering], 0)
        if text := label_checks.two_values(np.flatnonzero(ids).tolist(), label_set, numbering):
            return [Finding("warning", "values-0-255", text)]
    built_in = LABEL_SETS.get(label_set.name) == label_set
    pixels = np.sum(counts, 0)[:-1] if counts else np.zeros(0)
    if built_in or pixels.all() or not pixels.any():
        return []
    text = (
        f"classes of label set {label_set.name} without a pixel in any split: "
        f"{_names(label_set, np.flatnonzero(pixels == 0))}; correct the masks, or remove these "
        "classes"
    )
    return [Finding("warning", "absent-classes", text)]


def _absent(mapped, counts, label_set):
    """Report classes that occur in one split but not in another."""
    pixels_of_split = {}
    for frame, pixels in zip(mapped, counts, strict=True):
        pixels_of_split[frame.split] = pixels_of_split.get(frame.split, 0) + pixels[:-1]
    if "train" not in pixels_of_split:
        return []
    findings = []
    for other in sorted(pixels_of_split.keys() & {"val", "test"}):
        untrained = np.flatnonzero((pixels_of_split[other] > 0) & (pixels_of_split["train"] == 0))
        unscored = np.flatnonzero((pixels_of_split["train"] > 0) & (pixels_of_split[other] == 0))
        if untrained.size:
            text = (
                f"classes in {other} that train lacks: {_names(label_set, untrained)}; they are "
                "scored without having been trained"
            )
            frames = [
                frame
                for frame, pixels in zip(mapped, counts, strict=True)
                if frame.split == other and pixels[untrained].any()
            ]
            findings.append(Finding("warning", "untrained-classes", text, frames))
        if unscored.size:
            text = (
                f"classes in train that {other} lacks: {_names(label_set, unscored)}; "
                "that split cannot score them"
            )
            findings.append(Finding("note", "unscored-classes", text))
    return findings


def _names(label_set, train_ids):
    return ", ".join(label_set.names[i] for i in train_ids)


def border_fit(image: np.ndarray, train_ids: np.ndarray) -> np.ndarray | None:
    """Measure the strength of image edges at the labels' borders, for every shift of the labels.

    Args:
        image: (H, W, 3) uint8 RGB.
        train_ids: (H, W); borders to void (255) are ignored, as they are often drawn wide.

    Returns:
        (2 * MAX_SHIFT + 1, 2 * MAX_SHIFT + 1) over (dy, dx), relative to the image's mean edge
        strength; None with fewer than 100 border pixels.
    """
    luma = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    edge = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    # Limits the influence of a few hard edges.
    edge = np.minimum(edge, np.percentile(edge, 95))
    centre, right, below = train_ids[:-1, :-1], train_ids[:-1, 1:], train_ids[1:, :-1]
    border = (centre != right) | (centre != below)
    border &= np.maximum(np.maximum(centre, right), below) != IGNORE_LABEL
    inner = slice(MAX_SHIFT, -MAX_SHIFT)
    y, x = np.nonzero(border[inner, inner])
    if len(y) < 100:
        return None
    if len(y) > _MAX_BORDER_PIXELS:
        sample = np.random.default_rng(0).choice(len(y), _MAX_BORDER_PIXELS, replace=False)
        y, x = y[sample], x[sample]
    shifts = range(2 * MAX_SHIFT + 1)
    fit = np.array([[edge[y + dy, x + dx].mean() for dx in shifts] for dy in shifts])
    return fit / max(float(edge.mean()), 1e-6)


def check_borders(
    dataset: str, fits: Sequence[np.ndarray | None], frames: Sequence[Facts]
) -> list[Finding]:
    """Report labels of a data set that are not aligned with its images.

    Args:
        dataset: name of the data set.
        fits: results of `border_fit` for its frames; None is ignored.
        frames: their Facts.

    Returns:
        list of :class:`Finding`.
    """
    pairs = [(fit, frame) for fit, frame in zip(fits, frames, strict=True) if fit is not None]
    peaks = [_peak(fit) for fit, _ in pairs]
    off = [
        frame
        for peak, (_, frame) in zip(peaks, pairs, strict=True)
        if _distance(peak) > _MAX_OFFSET
    ]
    # The best shift of one frame can be chance; that of most frames is not.
    if len(pairs) < _MIN_FRAMES_SHIFTED or 2 * len(off) < len(pairs):
        return []
    dy, dx = _peak(np.mean([fit for fit, _ in pairs], 0))
    similar = [peak for peak in peaks if _distance(np.subtract(peak, (dy, dx))) < _MAX_OFFSET]
    share = f"in {len(off)} of {count(len(pairs), 'frame')}"
    if _MAX_OFFSET < _distance((dy, dx)) < MAX_SHIFT and 2 * len(similar) >= len(pairs):
        # They fit after a shift by (dx, dy), so they are off by the opposite shift.
        text = (
            f"{dataset}: the labels look shifted against the images by ({-dx}, {-dy}) px (right, "
            f"down) {share}: crop or scale both in the same way"
        )
        return [Finding("warning", "labels-shifted", text, off)]
    if len(pairs) < _MIN_FRAMES_MISMATCH:
        return []
    text = (
        f"{dataset}: the labels' borders do not follow the images' edges {share}: mirrored, "
        "scaled, or of other frames?"
    )
    return [Finding("warning", "labels-elsewhere", text, off)]


def _distance(shift):
    return max(map(abs, shift))


def _peak(fit):
    """Return (dy, dx) in px of the best shift."""
    return tuple(int(i) - MAX_SHIFT for i in np.unravel_index(fit.argmax(), fit.shape))
