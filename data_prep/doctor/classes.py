"""Are the labels what they should be: ids, void, classes, and whether they lie on the pictures."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from data_prep.doctor.facts import Facts
from data_prep.doctor.findings import Finding, count
from flowseg.data.labels import IGNORE_LABEL, KNOWN_IDS, LabelSet, train_id_table

# A frame with more void than this is told. KITTI's frames have 13 % at most, CamVid's 32 %.
VOID = 0.6
# How far labels are shifted when looking for where they fit, in px.
REACH = 8
# Labels fit a picture when their best place is this near. Of KITTI, CamVid and made streets every
# frame's is within 2 px; of mirrored labels and those of other frames at most 1 in 4 is within 3.
_SLACK = 3
# Frames before labels are told to be shifted, and not to fit at all.
_FEW_SHIFTED, _FEW = 3, 5
# Border pixels taken of a frame.
_BORDERS = 4000


def tables(label_set: LabelSet, facts: Iterable[Facts]) -> dict[str, np.ndarray]:
    """{numbering: (256,) uint8, owner id -> train id} of the numberings that the set maps."""
    numberings = {frame.numbering for frame in facts} & set(label_set.ids)
    return {numbering: train_id_table(label_set, numbering) for numbering in sorted(numberings)}


def class_counts(frame: Facts, label_set: LabelSet, table: np.ndarray) -> np.ndarray:
    """(classes + 1,) pixels of each class of one frame, void last.

    Args:
        frame: Facts with ids.
        label_set: the classes.
        table: its map of the frame's numbering.
    """
    train_ids = np.minimum(table, len(label_set.names))
    return np.bincount(train_ids, weights=frame.ids, minlength=len(label_set.names) + 1)


def check(facts: Iterable[Facts], label_set: LabelSet) -> list[Finding]:
    """Findings of single frames' labels and of the classes of the splits.

    Args:
        facts: list of :class:`data_prep.doctor.facts.Facts`.
        label_set: the classes that are to be trained.

    Returns:
        list of :class:`Finding`.
    """
    labelled = [frame for frame in facts if frame.ids is not None]
    findings, known = _unknown(labelled), tables(label_set, labelled)
    strange = [frame for frame in labelled if frame.numbering not in known]
    if strange:
        named = ", ".join(sorted({frame.numbering for frame in strange}))
        findings.append(
            Finding(
                "error",
                "numbering",
                f"labels of {count(len(strange), 'frame')} are numbered as {named}, which label "
                f"set {label_set.name} does not map: training stops there; give another "
                "--label_set",
                strange,
            )
        )
    read = [frame for frame in labelled if frame.numbering in known]
    counts = [class_counts(frame, label_set, known[frame.numbering]) for frame in read]
    findings += _void(read, counts)
    one = [f for f, n in zip(read, counts, strict=True) if np.count_nonzero(n[:-1]) == 1]
    if one and len(np.flatnonzero(np.sum(counts, 0)[:-1])) > 1:
        findings.append(
            Finding(
                "warning",
                "one-class",
                f"{count(len(one), 'frame')} with a single class over all labelled pixels: "
                "are these the right label files?",
                one,
            )
        )
    return findings + _absent(read, counts, label_set)


def _unknown(labelled):
    """Ids that the numbering's owner does not have; a user's own numbering may have any."""
    findings = []
    for numbering in sorted({frame.numbering for frame in labelled} & set(KNOWN_IDS)):
        known = list(KNOWN_IDS[numbering])
        bad, ids = [], set()
        for frame in (frame for frame in labelled if frame.numbering == numbering):
            found = set(np.flatnonzero(frame.ids).tolist()) - set(known)
            if found:
                bad.append(frame)
                ids |= found
        if bad:
            shown = ", ".join(map(str, sorted(ids)[:8])) + (", ..." if len(ids) > 8 else "")
            findings.append(
                Finding(
                    "error",
                    "unknown-ids",
                    f"label ids that {numbering} does not have ({shown}) in "
                    f"{count(len(bad), 'frame')}: colours, another numbering, or damage; they "
                    "would be void",
                    bad,
                )
            )
    return findings


def _void(read, counts):
    """Frames without a labelled pixel, and frames with few."""
    shares = [n[-1] / n.sum() for n in counts]
    empty = [frame for frame, share in zip(read, shares, strict=True) if share == 1]
    much = [frame for frame, share in zip(read, shares, strict=True) if VOID < share < 1]
    findings = []
    if empty:
        every = len(empty) == len(read)
        findings.append(
            Finding(
                "error" if every else "warning",
                "all-void",
                f"{count(len(empty), 'frame')} of {len(read)} labelled without one pixel of a "
                "class: they teach nothing" + ("; is it the right --label_set?" if every else ""),
                empty,
            )
        )
    if much:
        findings.append(
            Finding(
                "warning",
                "much-void",
                f"{count(len(much), 'frame')} of {len(read)} labelled with more than "
                f"{VOID:.0%} void",
                much,
            )
        )
    return findings


def _absent(read, counts, label_set):
    """Classes that one split has and another lacks."""
    found = {}
    for frame, pixels in zip(read, counts, strict=True):
        found[frame.split] = found.get(frame.split, 0) + pixels[:-1]
    if "train" not in found:
        return []
    findings = []
    for other in sorted(found.keys() & {"val", "test"}):
        untrained = np.flatnonzero((found[other] > 0) & (found["train"] == 0))
        unscored = np.flatnonzero((found["train"] > 0) & (found[other] == 0))
        if untrained.size:
            text = (
                f"classes in {other} that train lacks: {_names(label_set, untrained)}; they are "
                "scored without having been learnt"
            )
            frames = [
                frame
                for frame, pixels in zip(read, counts, strict=True)
                if frame.split == other and pixels[untrained].any()
            ]
            findings.append(Finding("warning", "untrained-classes", text, frames))
        if unscored.size:
            text = (
                f"classes in train that {other} lacks: {_names(label_set, unscored)}; how well "
                "they are learnt is not seen there"
            )
            findings.append(Finding("note", "unscored-classes", text))
    return findings


def _names(label_set, train_ids):
    return ", ".join(label_set.names[i] for i in train_ids)


def border_fit(image: np.ndarray, train_ids: np.ndarray) -> np.ndarray | None:
    """How strong the picture's edges are at the labels' borders, for every shift of the labels.

    Args:
        image: (H, W, 3) uint8 RGB.
        train_ids: (H, W); borders to void (255) do not count, as they are often drawn wide.

    Returns:
        (2 * REACH + 1, 2 * REACH + 1) over (dy, dx), in mean edges of the picture; None with fewer
        than 100 places at borders.
    """
    luma = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    edge = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    # A few hard edges must not decide it.
    edge = np.minimum(edge, np.percentile(edge, 95))
    here, right, below = train_ids[:-1, :-1], train_ids[:-1, 1:], train_ids[1:, :-1]
    border = (here != right) | (here != below)
    border &= np.maximum(np.maximum(here, right), below) != IGNORE_LABEL
    inner = slice(REACH, -REACH)
    y, x = np.nonzero(border[inner, inner])
    if len(y) < 100:
        return None
    if len(y) > _BORDERS:
        taken = np.random.default_rng(0).choice(len(y), _BORDERS, replace=False)
        y, x = y[taken], x[taken]
    shifts = range(2 * REACH + 1)
    fit = np.array([[edge[y + dy, x + dx].mean() for dx in shifts] for dy in shifts])
    return fit / max(float(edge.mean()), 1e-6)


def check_borders(
    dataset: str, fits: Sequence[np.ndarray | None], frames: Sequence[Facts]
) -> list[Finding]:
    """A finding where the labels of one set do not lie on its pictures.

    Args:
        dataset: name of the set.
        fits: what `border_fit` gave of its frames; None is passed over.
        frames: their Facts.

    Returns:
        list of :class:`Finding`.
    """
    pairs = [(fit, frame) for fit, frame in zip(fits, frames, strict=True) if fit is not None]
    places = [_peak(fit) for fit, _ in pairs]
    off = [frame for place, (_, frame) in zip(places, pairs, strict=True) if _far(place) > _SLACK]
    # One frame's best place can be chance; that of most frames is not.
    if len(pairs) < _FEW_SHIFTED or 2 * len(off) < len(pairs):
        return []
    dy, dx = _peak(np.mean([fit for fit, _ in pairs], 0))
    alike = [place for place in places if _far(np.subtract(place, (dy, dx))) < _SLACK]
    seen = f"in {len(off)} of {count(len(pairs), 'frame')}"
    if _SLACK < _far((dy, dx)) < REACH and 2 * len(alike) >= len(pairs):
        # They fit after a move by (dx, dy), so they lie that far to the other side.
        text = (
            f"{dataset}: the labels look shifted against the pictures by ({-dx}, {-dy}) px (right, "
            f"down) {seen}: cut or scale both alike"
        )
        return [Finding("warning", "labels-shifted", text, off)]
    if len(pairs) < _FEW:
        return []
    text = (
        f"{dataset}: the labels' borders do not follow the pictures' edges {seen}: mirrored, "
        "scaled, or of other frames?"
    )
    return [Finding("warning", "labels-elsewhere", text, off)]


def _far(place):
    return max(map(abs, place))


def _peak(fit):
    """(dy, dx) in px of the best place."""
    return tuple(int(i) - REACH for i in np.unravel_index(fit.argmax(), fit.shape))
