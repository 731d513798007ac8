"""The flow of a whole set: the votes of its pairs, what is wrong, and the mend."""

import numpy as np

from data_prep.doctor import warp
from data_prep.doctor.findings import Finding, count

# From this share of the pairs that can tell, a fault is the set's and an error; below, a warning
# about single pairs.
SET_FAULT = 0.25
# A hypothesis suits a pair when no other is better by more than this.
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


def sort_pairs(probes):
    """The pairs of one set by what is wrong with them.

    Args:
        probes: list of (Facts, :class:`data_prep.doctor.warp.Probe`).

    Returns:
        (name, suited, misfits): the hypothesis that most bad pairs agree on, or ""; lists of
        (Facts, Probe) of the pairs that it suits, and of bad pairs that it does not.
    """
    bad = [pair for pair in probes if pair[1].verdict not in ("fits", "still", "few")]
    named = [probe.verdict for _, probe in bad if probe.verdict != "unexplained"]
    if not named:
        return "", [], bad
    name = max(named, key=named.count)
    scale = _scale_of(probe for _, probe in bad if probe.verdict == name)
    suited = [pair for pair in bad if _suits(pair[1], name, scale)]
    # Wrong flow that fits by chance here and there is no systematic fault.
    if 2 * len(suited) < len(bad):
        return "", [], bad
    return name, suited, [pair for pair in bad if not _suits(pair[1], name, scale)]


def _scale_of(probes):
    return float(np.median([probe.scale for probe in probes]))


def _suits(probe, name, scale):
    if probe.telling[name] >= warp.ENOUGH:
        if probe.others[name] > min(probe.others.values()) + _SUITS:
            return False
    return name != "scale" or abs(np.log(probe.scale / scale)) < np.log(_SAME_SCALE)


def check(dataset, probes, partners):
    """Findings of the flow of one set.

    Args:
        dataset: its name.
        probes: list of (Facts, Probe) of the pairs that were looked at.
        partners: what `find_partner` gave of misfits, by id of their Facts.

    Returns:
        list of :class:`Finding`.
    """
    name, suited, misfits = sort_pairs(probes)
    sure = [(f, p) for f, p in probes if p.verdict not in ("still", "few")]
    findings = []
    if name:
        telling = [probe for _, probe in sure if probe.telling[name] >= warp.ENOUGH]
        own, best = (
            np.mean([p.own for _, p in suited]),
            np.mean([p.others[name] for _, p in suited]),
        )
        text = (
            f"{dataset}: {_fault(name, [p for _, p in suited])}. So it is in {len(suited)} of "
            f"{count(max(len(telling), len(suited)), 'pair')} that can tell (mismatch "
            f"{own:.2f}, mended {best:.2f})"
        )
        level = _level(len(suited), len(telling))
        findings.append(Finding(level, f"flow-{name}", text, [f for f, _ in suited]))
    if misfits:
        findings.append(_tell_misfits(dataset, misfits, len(sure), partners))
    return findings + _cannot_tell(dataset, probes)


def _level(bad, of):
    return "error" if bad >= SET_FAULT * of else "warning"


def _fault(name, probes):
    if name != "scale":
        return _FAULTS[name]
    scale = _scale_of(probes)
    size = "small" if scale > 1 else "large"
    hint = " (KITTI's files count 1/64 px)" if 60 < max(scale, 1 / scale) < 68 else ""
    return f"the flow looks too {size}: multiply it by {scale:.3g}{hint}"


def _tell_misfits(dataset, misfits, of, partners):
    """A finding of pairs that neither their flow nor any mistake in it explains."""
    frames = [frame for frame, _ in misfits]
    found = [partners[id(frame)] for frame in frames if id(frame) in partners]
    own = np.mean([probe.own for _, probe in misfits])
    known = [partner for partner in found if partner]
    text = f"{dataset}: {len(misfits)} of {count(of, 'pair')} that can tell "
    if known and 2 * len(known) >= len(found):
        kinds = [kind for kind, _, _ in known]
        kind = max(kinds, key=kinds.count)
        other = next(partner.name() for what, partner, _ in known if what == kind)
        mend = f"the {kind} is another record's (the first fits with that of {other})"
        text += f"look shifted: {mend}; keep image1, image2 and flow of one pair together"
        return Finding(_level(len(misfits), of), "flow-shifted", text, frames)
    text += (
        f"are not explained by their flow, nor by none (mismatch {own:.2f}, 1 is nothing alike): "
        "do image1, image2 and flow belong together?"
    )
    return Finding(_level(len(misfits), of), "flow-misfit", text, frames)


def _cannot_tell(dataset, probes):
    """A note on what the pairs leave open."""
    fits = [probe for _, probe in probes if probe.verdict == "fits"]
    if all(probe.verdict in ("still", "few") for _, probe in probes):
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


def find_partner(frame, others):
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
