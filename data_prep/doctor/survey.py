"""Computes statistics of data sets (counts, classes, speeds) as a flat table and as text."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.doctor import classes
from data_prep.doctor.facts import SPEED_BINS, Facts
from data_prep.doctor.findings import count
from flowseg import tables
from flowseg.data.labels import LabelSet

PERCENTILES = (50, 90, 99)
FIELDS = {"pairs": "image2", "flow": "flow", "noc": "flow_noc", "labels": "labels"}


def groups(facts: Iterable[Facts]) -> dict[tuple[str, str], list[Facts]]:
    """Group Facts by (data set, split), sorted."""
    grouped = {}
    for frame in sorted(facts, key=lambda frame: (frame.dataset, frame.split)):
        grouped.setdefault((frame.dataset, frame.split), []).append(frame)
    return grouped


def measure(facts: Sequence[Facts], label_set: LabelSet) -> dict[str, float]:
    """Compute {name: number} for some records; undefined numbers are omitted.

    `class/NAME` is a share of the labelled pixels, `class/void` a share of all pixels of labelled
    frames, `occurs/NAME` a count of frames, `flow/known` a share of the pixels of frames with flow.
    Shares are in percent, speeds in px.
    """
    numbers = {"records": len(facts)}
    for name, field in FIELDS.items():
        numbers[name] = sum(field in frame.truth for frame in facts)
    train_ids = classes.tables(label_set, facts)
    counts = [
        classes.class_counts(frame, label_set, train_ids[frame.numbering])
        for frame in facts
        if frame.numbering in train_ids
    ]
    if counts:
        pixels = np.sum(counts, 0)
        for i, name in enumerate(label_set.names):
            numbers[f"class/{name}"] = _percent(pixels[i], pixels[:-1].sum())
            numbers[f"occurs/{name}"] = int(sum(n[i] > 0 for n in counts))
        numbers["class/void"] = _percent(pixels[-1], pixels.sum())
    moving = [frame for frame in facts if frame.speeds is not None]
    if moving:
        known, speed, fast = np.sum([frame.flow_sums for frame in moving], 0)
        pixels_of_flow = sum(frame.height * frame.width for frame in moving)
        numbers["flow/known"] = _percent(known, pixels_of_flow)
        if known:
            numbers["flow/mean"] = float(speed / known)
            cumulative = np.cumsum(np.sum([frame.speeds for frame in moving], 0))
            for q in PERCENTILES:
                bin_ = int(np.searchsorted(cumulative, q / 100 * known))
                numbers[f"flow/p{q}"] = float(min(SPEED_BINS[bin_ + 1], SPEED_BINS[-2]))
            numbers["flow/over_40px"] = _percent(fast, known)
    return numbers


def _percent(part, total):
    return float(100 * part / total) if total else 0.0


def table(facts: Sequence[Facts], label_set: LabelSet) -> dict[str, float]:
    """Compute `measure` for all records, each split, and each data set's split, as a flat dict.

    Keys are "all/records", "kitti/train/flow/mean" and so on.
    """
    parts = {"all": facts}
    for split in sorted({frame.split for frame in facts}):
        parts[split] = [frame for frame in facts if frame.split == split]
    parts |= {
        f"{dataset}/{split}": records_of_part
        for (dataset, split), records_of_part in groups(facts).items()
    }
    numbers = {}
    for part, records_of_part in parts.items():
        numbers |= {
            f"{part}/{name}": value for name, value in measure(records_of_part, label_set).items()
        }
    sizes = Counter(f"{frame.height}x{frame.width}" for frame in facts)
    return numbers | {f"size/{size}": number for size, number in sorted(sizes.items())}


def text(facts: Iterable[Facts], numbers: dict[str, float], label_set: LabelSet) -> str:
    """Format the table as text: records, classes by split, speeds by data set."""
    rows = [["data set", "split", "records", *FIELDS]]
    flows = [["flow in px", "", "mean", *(f"{q} %" for q in PERCENTILES), "> 40 px", "known"]]
    for dataset, split in groups(facts):
        part = f"{dataset}/{split}/"
        rows.append([dataset, split, *(numbers[part + name] for name in ("records", *FIELDS))])
        if part + "flow/mean" in numbers:
            speeds = (f"{numbers[part + f'flow/{k}']:.1f}" for k in ("mean", "p50", "p90", "p99"))
            shares = (f"{numbers[part + f'flow/{k}']:.1f} %" for k in ("over_40px", "known"))
            flows.append([dataset, split, *speeds, *shares])
    sizes = {name[5:]: n for name, n in numbers.items() if name.startswith("size/")}
    common = sorted(sizes, key=sizes.get, reverse=True)
    more = f", and {len(common) - 6} other sizes" if len(common) > 6 else ""
    listed = ", ".join(f"{size} ({sizes[size]})" for size in common[:6])
    parts = [tables.plain(rows, left=2), f"height x width (records): {listed}{more}"]
    splits = [s for s in ("train", "val", "test", "other") if f"{s}/class/void" in numbers]
    if splits:
        parts.append(tables.plain(_class_rows(numbers, splits, label_set)))
    if len(flows) > 1:
        parts.append(tables.plain(flows, left=2))
    return "\n\n".join(parts)


def _class_rows(numbers, splits, label_set):
    rows = [[f"classes ({label_set.name})", *(cell for split in splits for cell in (split, ""))]]
    for name in label_set.names:
        cells = []
        for split in splits:
            occurs = numbers[f"{split}/occurs/{name}"]
            share = numbers[f"{split}/class/{name}"]
            cells += [f"{share:.2f} %", f"in {count(occurs, 'frame')}"] if occurs else ["-", ""]
        rows.append([name, *cells])
    void = (cell for s in splits for cell in (f"{numbers[f'{s}/class/void']:.2f} %", "of all px"))
    return [*rows, ["void", *void]]
