"""Diagnoses the flow of a data set from its pairs: faults, their share and the fix."""

from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.doctor import warp
from data_prep.doctor.facts import Facts
from data_prep.doctor.findings import Finding, count

# From this share of the conclusive pairs on, a fault concerns the whole set and is an error; below,
# it is a warning about single pairs.
SET_FAULT = 0.25
# A hypothesis explains a pair if it is better than the record's flow by this margin at the points
# where the two differ, and no other hypothesis is better by more than this margin.
_MARGIN = 0.05
# Another record's flow or second frame must be better by this margin.
_PARTNER_MARGIN = 0.2
# Scales of one data set differ by less than this factor.
_SAME_SCALE = 1.1
# Number of pairs for which the neighbours are searched for a partner.
MAX_SEARCHED = 8

_FAULTS = {
    "zero": "the images do not move while the flow does: is image2 a copy of image1?",
    "signs": "both signs of the flow look wrong, or it points from image2 to image1: negate "
    "u and v",
    "sign-u": "the sign of u looks wrong: negate it (u points right)",
    "sign-v": "the sign of v looks wrong: negate it (v points down)",
    "axes": "the flow's axes look swapped: write (u, v) = (right, down), not (v, u)",
    "axes-signs": "the flow's axes look swapped and both signs wrong: write (-v, -u)",
    "axes-sign-u": "the flow's axes look swapped and a sign wrong: write (-v, u)",
    "axes-sign-v": "the flow's axes look swapped and a sign wrong: write (v, -u)",
    "share": "the flow looks normalised by the frame size: multiply u by the width, "
    "v by the height",
    "half-share": "the flow looks normalised by half the frame size (-1..1): multiply u by half "
    "the width, v by half the height",
    "vkitti2-as-kitti": "the flow looks like Virtual KITTI 2's files read by KITTI's formula: "
    "convert them with data_prep.vkitti2",
    "kitti-as-vkitti2": "the flow looks like KITTI's files read by Virtual KITTI 2's formula: "
    "convert them as KITTI's (synthetic videos need their scenes.json)",
    "upside-down": "the rows of the flow look upside down: a PFM file stores the lowest row first; "
    "mirror the rows and keep the sign of v",
}


def bad_pairs(probes: Iterable[tuple[Facts, warp.Probe]]) -> list[tuple[Facts, warp.Probe]]:
    """Return the (Facts, Probe) whose flow does not fit."""
    return [pair for pair in probes if pair[1].verdict not in ("fits", "still", "few")]


def check(
    dataset: str,
    probes: Sequence[tuple[Facts, warp.Probe]],
    partners: dict[int, tuple[str, Facts, float] | None],
) -> list[Finding]:
    """Check the flow of a data set.

    Args:
        dataset: its name.
        probes: list of (Facts, :class:`data_prep.doctor.warp.Probe`) of the examined pairs.
        partners: results of `find_partner` for some bad pairs, by id of their Facts.

    Returns:
        list of :class:`Finding`.
    """
    bad = bad_pairs(probes)
    if not bad:
        return _report_ambiguous(dataset, probes)
    conclusive = [probe for _, probe in probes if probe.verdict not in ("still", "few")]
    searched = [pair for pair in bad if id(pair[0]) in partners]
    shifted = [
        partners[id(frame)] for frame, probe in searched if _partner_fits(partners, frame, probe)
    ]
    if shifted and 2 * len(shifted) >= len(searched):
        return [_report_shifted(dataset, bad, shifted, len(conclusive))]
    name, scale = _most_frequent(bad)
    explained = [pair for pair in bad if name and _hypothesis_fits(pair[1], name, scale)]
    # A hypothesis that fits a few pairs by chance is not a systematic fault.
    if 2 * len(explained) < len(bad):
        explained = []
    rest = [pair for pair in bad if all(pair is not other for other in explained)]
    findings = []
    if explained:
        distinguishing = sum(probe.distinct[name] >= warp.MIN_POINTS for probe in conclusive)
        total = max(distinguishing, len(explained))
        text = (
            f"{dataset}: {_fault(name, scale)}. This applies to {len(explained)} of "
            f"{count(total, 'conclusive pair')} "
            f"(mismatch {_mean(p.mismatch for _, p in explained):.2f}, corrected "
            f"{_mean(p.others[name] for _, p in explained):.2f})"
        )
        frames = [frame for frame, _ in explained]
        findings.append(Finding(_level(len(explained), total), f"flow-{name}", text, frames))
    if rest:
        text = (
            f"{dataset}: {len(rest)} of {count(len(conclusive), 'conclusive pair')} are explained "
            "neither by their flow nor by zero flow (mismatch "
            f"{_mean(p.mismatch for _, p in rest):.2f}, 1 is uncorrelated): "
            "do image1, image2 and flow belong together?"
        )
        frames = [frame for frame, _ in rest]
        findings.append(Finding(_level(len(rest), len(conclusive)), "flow-misfit", text, frames))
    return findings


def _most_frequent(bad):
    """Return the most frequent verdict of the bad pairs, or "", and its median scale."""
    verdicts = [probe.verdict for _, probe in bad if probe.verdict != "unexplained"]
    if not verdicts:
        return "", 1.0
    name = max(verdicts, key=verdicts.count)
    return name, float(np.median([p.scale for _, p in bad if p.verdict == name]))


def _hypothesis_fits(probe, name, scale):
    if probe.distinct[name] >= warp.MIN_POINTS:
        min_gain = _MARGIN * probe.distinct[name] / max(probe.distinct.values())
        if probe.mismatch - probe.others[name] < min_gain:
            return False
        if probe.others[name] > min(probe.others.values()) + _MARGIN:
            return False
    return name != "scale" or abs(np.log(probe.scale / scale)) < np.log(_SAME_SCALE)


def _partner_fits(partners, frame, probe):
    """Return whether another record explains a pair better than any error of its own flow."""
    partner = partners[id(frame)]
    return bool(partner) and partner[2] <= min(probe.others.values()) - _MARGIN


def _mean(values):
    return float(np.mean(list(values)))


def _level(bad, total):
    return "error" if bad >= SET_FAULT * total else "warning"


def _fault(name, scale):
    if name != "scale":
        return _FAULTS[name]
    size = "small" if scale > 1 else "large"
    hint = " (KITTI's files store units of 1/64 px)" if 60 < max(scale, 1 / scale) < 68 else ""
    return f"the flow looks too {size}: multiply it by {scale:.3g}{hint}"


def _report_shifted(dataset, bad, shifted, total):
    kinds = [kind for kind, _, _ in shifted]
    kind = max(kinds, key=kinds.count)
    other = next(partner.name() for partner_kind, partner, _ in shifted if partner_kind == kind)
    text = (
        f"{dataset}: {len(bad)} of {count(total, 'conclusive pair')} look shifted: the {kind} "
        f"belongs to another record (one pair fits with that of {other}); keep image1, image2 and "
        "flow of a pair together"
    )
    return Finding(_level(len(bad), total), "flow-shifted", text, [frame for frame, _ in bad])


def _report_ambiguous(dataset, probes):
    """Note what the pairs cannot decide."""
    fits = [probe for _, probe in probes if probe.verdict == "fits"]
    if probes and all(probe.verdict in ("still", "few") for _, probe in probes):
        reason = "hardly any motion of a pixel or more, or too little texture with known flow"
        return [
            Finding(
                "note", "flow-untold", f"{dataset}: cannot decide whether the flow fits: {reason}"
            )
        ]
    undecided = [
        description
        for name, description in (
            ("axes", "swapped axes (u and v are similar)"),
            ("sign-u", "the sign of u (no horizontal motion)"),
            ("sign-v", "the sign of v (no vertical motion)"),
        )
        if fits and all(probe.distinct[name] < warp.MIN_POINTS for probe in fits)
    ]
    if not undecided:
        return []
    text = f"{dataset}: cannot decide from these pairs: {'; '.join(undecided)}"
    return [Finding("note", "flow-untold", text)]


def find_partner(
    frame: dict[str, np.ndarray], others: Iterable[tuple[Facts, dict[str, np.ndarray]]]
) -> tuple[str, Facts, float] | None:
    """Find another record whose second frame or flow explains a bad pair.

    Args:
        frame: decoded record of the pair.
        others: list of (Facts, decoded record) of its neighbours.

    Returns:
        ("second frame" or "flow", Facts of the other, mismatch), or None.
    """
    flow = frame["flow"]
    known = frame.get("flow_noc", flow)[..., 2] > 0
    luma1, luma2 = warp.luma(frame["image1"]), warp.luma(frame["image2"])
    points = warp.find_points(luma1, known & (flow[..., 2] > 0))
    # The flow of another pair may be known at other pixels.
    all_points = warp.find_points(luma1, np.ones(known.shape, bool))
    mismatch_of_flow = float(warp.mismatch(points, luma2, warp.flow_at(flow, points)[0]).mean())
    candidates = []
    for facts, other in others:
        if other["image1"].shape != frame["image1"].shape or "image2" not in other:
            continue
        vectors, _ = warp.flow_at(flow, points)
        cost = warp.mismatch(points, warp.luma(other["image2"]), vectors).mean()
        candidates.append((float(cost), "second frame", facts))
        if "flow" in other:
            vectors, usable = warp.flow_at(other["flow"], all_points)
            if usable.sum() >= warp.MIN_POINTS:
                known_points = warp.Points(*(values[usable] for values in all_points))
                cost = warp.mismatch(known_points, luma2, vectors[usable]).mean()
                candidates.append((float(cost), "flow", facts))
    if not candidates:
        return None
    cost, kind, facts = min(candidates, key=lambda item: item[0])
    return (kind, facts, cost) if cost <= mismatch_of_flow - _PARTNER_MARGIN else None
