"""Finds duplicate frames: identical or nearly identical images, within or across splits."""

from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.doctor.facts import Facts
from data_prep.doctor.findings import Finding, count

# Maximum number of differing hash bits of near duplicates: resaved images (JPEG of quality 40,
# noise of 4 grey levels, half or 0.7 of the size) differed in at most 3 of 64 bits.
_MAX_HASH_BITS = 6
# Maximum over 5x5 windows of the mean difference of two thumbnails, in units of their contrast.
# Images resaved as JPEG of quality 75 stay below 0.15, at half the size below 0.28. Consecutive
# video frames that differ at all start at 0.23 (Middlebury's RubberWhale, 1.3 px), 0.46 (synthetic
# streets), 0.58 (DAVIS, CamVid at a red light).
MAX_THUMB_DISTANCE = 0.15
_ROWS = 256  # rows of the table of hash distances that are computed at a time


def check(facts: Sequence[Facts]) -> list[Finding]:
    """Report duplicate frames.

    Args:
        facts: list of :class:`data_prep.doctor.facts.Facts`.

    Returns:
        list of :class:`Finding`.
    """
    same = _by_pixels(facts)
    # One frame per group: identical images are reported once, as identical.
    near = near_groups([group[0] for group in same])
    findings = []
    for kind, groups in (("same", [g for g in same if len(g) > 1]), ("near", near)):
        findings += _report_groups(kind, groups)
    return findings + _second_frames(facts)


def _by_pixels(facts):
    groups = {}
    for frame in facts:
        if frame.pixels1:
            groups.setdefault(frame.pixels1, []).append(frame)
    return list(groups.values())


def near_groups(frames: Iterable[Facts]) -> list[list[Facts]]:
    """Group frames whose image1 differ only by noise, compression or size.

    Args:
        frames: list of Facts.

    Returns:
        list of lists of two or more Facts; each is similar to another of its group.
    """
    frames = [frame for frame in frames if frame.thumb is not None]
    hashes = np.array([frame.image_hash for frame in frames], np.uint64)
    parent = list(range(len(frames)))

    def root(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for start in range(0, len(frames), _ROWS):
        bits = np.bitwise_count(hashes[start : start + _ROWS, None] ^ hashes[None])
        for row, j in zip(*np.nonzero(bits <= _MAX_HASH_BITS), strict=True):
            i = start + row
            # A static video has very many pairs: skip those already in the same group.
            if i < j and root(i) != root(j):
                if thumb_distance(frames[i].thumb, frames[j].thumb) <= MAX_THUMB_DISTANCE:
                    parent[root(j)] = root(i)
    groups = {}
    for i, frame in enumerate(frames):
        groups.setdefault(root(i), []).append(frame)
    return [group for group in groups.values() if len(group) > 1]


def thumb_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Maximum over 5x5 windows of the mean difference of two (N, N) thumbnails."""
    difference = np.abs(first.astype(np.float32) - second)
    sums = np.pad(difference.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return float((sums[5:, 5:] - sums[:-5, 5:] - sums[5:, :-5] + sums[:-5, :-5]).max()) / 25


def _report_groups(kind, groups):
    """Report groups of duplicates: a warning across splits, a note within a split."""
    image = "the same image" if kind == "same" else "nearly the same image"
    across = [group for group in groups if len({frame.split for frame in group}) > 1]
    within = [group for group in groups if len({frame.split for frame in group}) == 1]
    findings = []
    if across:
        splits = sorted({frame.split for group in across for frame in group})
        findings.append(
            Finding(
                "warning",
                f"{kind}-across-splits",
                f"{count(len(across), 'frame')} in more than one split ({', '.join(splits)}): "
                f"training and scoring see {image}, so scores are too good; remove one",
                sum(across, []),
            )
        )
    if within:
        duplicates = sum(map(len, within)) - len(within)
        findings.append(
            Finding(
                "note",
                f"{kind}-within-split",
                f"{count(duplicates, 'record')} with {image} as another of the same split: "
                "trained on more often than the rest",
                sum(within, []),
            )
        )
    return findings


def _second_frames(facts):
    """Report second frames of one split that are first frames of another split."""
    first = {}
    for frame in facts:
        if frame.pixels1:
            first.setdefault(frame.pixels1, []).append(frame)
    pairs = []
    for frame in facts:
        others = [o for o in first.get(frame.pixels2, ()) if o.split != frame.split]
        # A record that is in both splits is already reported as a duplicate.
        if others and all(o.pixels1 != frame.pixels1 for o in others):
            pairs += [frame, others[0]]
    if not pairs:
        return []
    return [
        Finding(
            "warning",
            "successor-across-splits",
            f"{count(len(pairs) // 2, 'second frame')} of one split are first frames of another: "
            "a video was divided between the splits; keep each video in one split",
            pairs,
        )
    ]
