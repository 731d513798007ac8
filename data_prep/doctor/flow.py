"""The flow of a whole set: the votes of its pairs, what is wrong, and the mend."""

from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.doctor import warp
from data_prep.doctor.facts import Facts
from data_prep.doctor.findings import Finding, count

# From this share of the pairs that can tell, a fault is the set's and an error; below, a warning
# about single pairs.
SET_FAULT = 0.25
# A hypothesis suits a pair when it is better than the record's flow by this, over the places that
# tell the two apart, and no other is better by more than this.
_SUITS = 0.05
# Another record's flow or second frame must be better by this.
_FITS_BETTER = 0.2
# Scales of one set differ by less than this factor.
_SAME_SCALE = 1.1
# Pairs for which a partner is looked for among their neighbours.
SEARCHED = 8

_FAULTS = {
    "zero": "the pictures stand still while the flow moves: is image2 a copy of image1?",
    "signs": "both signs of the flow look wrong, or it leads from image2 to image1: negate u and v",
    "sign-u": "the sign of u looks wrong: negate it (u is to the right)",
    "sign-v": "the sign of v looks wrong: negate it (v is down)",
    "axes": "the flow's axes look swapped: write (u, v) = (right, down), not (v, u)",
    "axes-signs": "the flow's axes look swapped and both signs wrong: write (-v, -u)",
    "axes-sign-u": "the flow's axes look swapped and a sign wrong: write (-v, u)",
    "axes-sign-v": "the flow's axes look swapped and a sign wrong: write (v, -u)",
    "share": "the flow looks like shares of the frame: multiply u by its width, v by its height",
    "half-share": "the flow looks like shares of half the frame (-1..1): multiply u by half its "
    "width, v by half its height",
}


def bad_pairs(probes: Iterable[tuple[Facts, warp.Probe]]) -> list[tuple[Facts, warp.Probe]]:
    """Those (Facts, Probe) whose flow was looked at and does not fit."""
    return [pair for pair in probes if pair[1].verdict not in ("fits", "still", "few")]


def check(
    dataset: str,
    probes: Sequence[tuple[Facts, warp.Probe]],
    partners: dict[int, tuple[str, Facts, float] | None],
) -> list[Finding]:
    """Findings of the flow of one set.

    Args:
        dataset: its name.
        probes: list of (Facts, :class:`data_prep.doctor.warp.Probe`) of the pairs looked at.
        partners: what `find_partner` gave of some bad pairs, by id of their Facts.

    Returns:
        list of :class:`Finding`.
    """
    bad = bad_pairs(probes)
    if not bad:
        return _cannot_tell(dataset, probes)
    sure = [probe for _, probe in probes if probe.verdict not in ("still", "few")]
    searched = [pair for pair in bad if id(pair[0]) in partners]
    found = [partners[id(frame)] for frame, probe in searched if _explains(partners, frame, probe)]
    if found and 2 * len(found) >= len(searched):
        return [_tell_shifted(dataset, bad, found, len(sure))]
    name, scale = _commonest(bad)
    suited = [pair for pair in bad if name and _suits(pair[1], name, scale)]
    # Wrong flow that fits by chance here and there is no systematic fault.
    if 2 * len(suited) < len(bad):
        suited = []
    rest = [pair for pair in bad if all(pair is not other for other in suited)]
    findings = []
    if suited:
        telling = sum(probe.telling[name] >= warp.ENOUGH for probe in sure)
        of = max(telling, len(suited))
        text = (
            f"{dataset}: {_fault(name, scale)}. So it is in {len(suited)} of {count(of, 'pair')} "
            f"that can tell (mismatch {_mean(p.own for _, p in suited):.2f}, mended "
            f"{_mean(p.others[name] for _, p in suited):.2f})"
        )
        frames = [frame for frame, _ in suited]
        findings.append(Finding(_level(len(suited), of), f"flow-{name}", text, frames))
    if rest:
        text = (
            f"{dataset}: {len(rest)} of {count(len(sure), 'pair')} that can tell are not explained "
            f"by their flow, nor by none (mismatch {_mean(p.own for _, p in rest):.2f}, 1 is "
            "nothing alike): do image1, image2 and flow belong together?"
        )
        frames = [frame for frame, _ in rest]
        findings.append(Finding(_level(len(rest), len(sure)), "flow-misfit", text, frames))
    return findings


def _commonest(bad):
    """The hypothesis that suits most of the bad pairs best, or "", and its scale."""
    named = [probe.verdict for _, probe in bad if probe.verdict != "unexplained"]
    if not named:
        return "", 1.0
    name = max(named, key=named.count)
    return name, float(np.median([p.scale for _, p in bad if p.verdict == name]))


def _suits(probe, name, scale):
    if probe.telling[name] >= warp.ENOUGH:
        least = _SUITS * probe.telling[name] / max(probe.telling.values())
        if probe.own - probe.others[name] < least:
            return False
        if probe.others[name] > min(probe.others.values()) + _SUITS:
            return False
    return name != "scale" or abs(np.log(probe.scale / scale)) < np.log(_SAME_SCALE)


def _explains(partners, frame, probe):
    """Whether another record explains a pair better than any mistake in its own flow does."""
    partner = partners[id(frame)]
    return bool(partner) and partner[2] <= min(probe.others.values()) - _SUITS


def _mean(values):
    return float(np.mean(list(values)))


def _level(bad, of):
    return "error" if bad >= SET_FAULT * of else "warning"


def _fault(name, scale):
    if name != "scale":
        return _FAULTS[name]
    size = "small" if scale > 1 else "large"
    hint = " (KITTI's files count 1/64 px)" if 60 < max(scale, 1 / scale) < 68 else ""
    return f"the flow looks too {size}: multiply it by {scale:.3g}{hint}"


def _tell_shifted(dataset, bad, found, of):
    kinds = [kind for kind, _, _ in found]
    kind = max(kinds, key=kinds.count)
    other = next(partner.name() for what, partner, _ in found if what == kind)
    text = (
        f"{dataset}: {len(bad)} of {count(of, 'pair')} that can tell look shifted: the {kind} is "
        f"another record's (one fits with that of {other}); keep image1, image2 and flow of one "
        "pair together"
    )
    return Finding(_level(len(bad), of), "flow-shifted", text, [frame for frame, _ in bad])


def _cannot_tell(dataset, probes):
    """A note on what the pairs leave open."""
    fits = [probe for _, probe in probes if probe.verdict == "fits"]
    if probes and all(probe.verdict in ("still", "few") for _, probe in probes):
        why = "hardly anything moves by a pixel, or too little texture has known flow"
        return [Finding("note", "flow-untold", f"{dataset}: cannot tell whether flow fits: {why}")]
    open_ = [
        told
        for name, told in (
            ("axes", "swapped axes (u and v are alike)"),
            ("sign-u", "the sign of u (nothing moves sideways)"),
            ("sign-v", "the sign of v (nothing moves up or down)"),
        )
        if fits and all(probe.telling[name] < warp.ENOUGH for probe in fits)
    ]
    if not open_:
        return []
    text = f"{dataset}: cannot tell from these pairs: {'; '.join(open_)}"
    return [Finding("note", "flow-untold", text)]


def find_partner(
    frame: dict[str, np.ndarray], others: Iterable[tuple[Facts, dict[str, np.ndarray]]]
) -> tuple[str, Facts, float] | None:
    """Which other record's second frame, or flow, goes with a pair that its own does not explain.

    Args:
        frame: decoded record.
        others: list of (Facts, decoded record) of its neighbours.

    Returns:
        ("second frame" or "flow", Facts of the other, mismatch), or None.
    """
    flow = frame["flow"]
    known = frame.get("flow_noc", flow)[..., 2] > 0
    luma1, luma2 = warp.luma(frame["image1"]), warp.luma(frame["image2"])
    places = warp.find_places(luma1, known & (flow[..., 2] > 0))
    # The flow of another pair may be known elsewhere.
    anywhere = warp.find_places(luma1, np.ones(known.shape, bool))
    own = float(warp.mismatch(places, luma2, warp.flow_at(flow, places)[0]).mean())
    found = []
    for facts, other in others:
        if other["image1"].shape != frame["image1"].shape or "image2" not in other:
            continue
        vectors, _ = warp.flow_at(flow, places)
        cost = warp.mismatch(places, warp.luma(other["image2"]), vectors).mean()
        found.append((float(cost), "second frame", facts))
        if "flow" in other:
            vectors, there = warp.flow_at(other["flow"], anywhere)
            if there.sum() >= warp.ENOUGH:
                part = warp.Places(*(values[there] for values in anywhere))
                cost = warp.mismatch(part, luma2, vectors[there]).mean()
                found.append((float(cost), "flow", facts))
    if not found:
        return None
    cost, kind, facts = min(found, key=lambda item: item[0])
    return (kind, facts, cost) if cost <= own - _FITS_BETTER else None
