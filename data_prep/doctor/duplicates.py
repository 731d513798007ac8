"""Frames that are there twice: equal or nearly equal pictures, in one split or in two."""

from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.doctor.facts import Facts
from data_prep.doctor.findings import Finding, count

# Bits in which the marks of near duplicates may differ: pictures saved again (JPEG of quality 40,
# noise of 4 grey levels, half or 0.7 of the size) differed in 3 of 64 at most.
_MARK_BITS = 6
# Largest mean difference of two thumbnails within 5x5 of their px, in units of their contrast.
# Pictures saved again as JPEG of quality 75 stay under 0.15, at half the size 0.28. Successors in
# video that differ at all begin at 0.23 (Middlebury's RubberWhale, 1.3 px), 0.46 (made streets),
# 0.58 (DAVIS, CamVid at a red light).
NEAR = 0.15
_ROWS = 256  # of the table of mark distances that are compared at a time


def check(facts: Sequence[Facts]) -> list[Finding]:
    """Findings of frames that are there twice.

    Args:
        facts: list of :class:`data_prep.doctor.facts.Facts`.

    Returns:
        list of :class:`Finding`.
    """
    same = _by_pixels(facts)
    # One of each picture: what has equal pixels is told once, as equal.
    near = near_groups([group[0] for group in same])
    findings = []
    for kind, groups in (("same", [g for g in same if len(g) > 1]), ("near", near)):
        findings += _tell(kind, groups)
    return findings + _second_frames(facts)


def _by_pixels(facts):
    groups = {}
    for frame in facts:
        if frame.pixels1:
            groups.setdefault(frame.pixels1, []).append(frame)
    return list(groups.values())


def near_groups(frames: Iterable[Facts]) -> list[list[Facts]]:
    """Groups of frames whose image1 look alike but for noise, compression or size.

    Args:
        frames: list of Facts.

    Returns:
        list of lists of two and more Facts; each is like another of its group.
    """
    frames = [frame for frame in frames if frame.thumb is not None]
    marks = np.array([frame.mark for frame in frames], np.uint64)
    parent = list(range(len(frames)))

    def root(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for start in range(0, len(frames), _ROWS):
        bits = np.bitwise_count(marks[start : start + _ROWS, None] ^ marks[None])
        for row, j in zip(*np.nonzero(bits <= _MARK_BITS), strict=True):
            i = start + row
            # A video that stands still has very many pairs: what hangs together already is left.
            if i < j and root(i) != root(j):
                if thumb_distance(frames[i].thumb, frames[j].thumb) <= NEAR:
                    parent[root(j)] = root(i)
    groups = {}
    for i, frame in enumerate(frames):
        groups.setdefault(root(i), []).append(frame)
    return [group for group in groups.values() if len(group) > 1]


def thumb_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Largest mean difference of two (N, N) thumbnails within any 5x5 of their px."""
    difference = np.abs(first.astype(np.float32) - second)
    sums = np.pad(difference.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return float((sums[5:, 5:] - sums[:-5, 5:] - sums[5:, :-5] + sums[:-5, :-5]).max()) / 25


def _tell(kind, groups):
    """Findings of groups of like frames: across splits a warning, within one a note."""
    picture = "the same picture" if kind == "same" else "nearly the same picture"
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
                f"{picture} is trained on and scored, so that scores are too good; leave one out",
                sum(across, []),
            )
        )
    if within:
        twice = sum(map(len, within)) - len(within)
        findings.append(
            Finding(
                "note",
                f"{kind}-within-split",
                f"{count(twice, 'record')} of {picture} as another of its split: seen more often "
                "than the rest",
                sum(within, []),
            )
        )
    return findings


def _second_frames(facts):
    """A later frame of one split that is an earlier one of another."""
    first = {}
    for frame in facts:
        if frame.pixels1:
            first.setdefault(frame.pixels1, []).append(frame)
    found = []
    for frame in facts:
        others = [o for o in first.get(frame.pixels2, ()) if o.split != frame.split]
        # A frame that is in both splits as a whole is told as such.
        if others and all(o.pixels1 != frame.pixels1 for o in others):
            found += [frame, others[0]]
    if not found:
        return []
    return [
        Finding(
            "warning",
            "successor-across-splits",
            f"{count(len(found) // 2, 'second frame')} of one split are first frames of another: "
            "a video was cut between the splits; keep each video in one",
            found,
        )
    ]
