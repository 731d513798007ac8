"""The whole examination: every record once, a sample of them closely, and what was found."""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep.conversion import workers
from data_prep.doctor import classes, duplicates, flow, survey, warp
from data_prep.doctor.facts import Facts, note
from data_prep.doctor.findings import Finding, by_weight, count
from data_prep.doctor.read import count_records, decode, read_records, read_some
from flowseg.data.labels import LabelSet

# Below this many bytes of records, starting processes takes longer than the work.
_FEW_BYTES = 30e6
# How far to either side neighbours are asked for the pair that goes with a misfit.
_NEIGHBOURS = 2


class Diagnosis(NamedTuple):
    """What an examination gives.

    Attributes:
        facts: list of :class:`Facts` of the readable records.
        numbers: see `survey.table`; besides "damaged", and "DATASET/warp/..." of `_warp_numbers`.
        findings: list of :class:`Finding`, worst first.
        looked: lines that tell what was looked at closely, and what it gave.
    """

    facts: list[Facts]
    numbers: dict[str, float]
    findings: list[Finding]
    looked: list[str]


def examine(
    files: Sequence[str], label_set: LabelSet, limit: int = 200, processes: int | None = None
) -> Diagnosis:
    """Look at record shards.

    Args:
        files: their paths, as text.
        label_set: the :class:`flowseg.data.labels.LabelSet` that is to be trained.
        limit: frames of each data set that are looked at closely.
        processes: how many work side by side; default: one a CPU core, none for little data.

    Returns:
        :class:`Diagnosis`.

    Raises:
        OSError: a file that cannot be read, or a worker process died.
    """
    if sum(Path(path).stat().st_size for path in files) < _FEW_BYTES:
        processes = 1
    processes = processes or len(workers.cores())
    damaged = []
    items = _every_record(files, damaged)
    with tqdm(total=sum(map(count_records, files)), unit="record", disable=None) as bar:
        facts = _name_sets(list(_map(note, items, processes, bar)))
    findings = _check_shards(files, facts, damaged) + _check_files(facts)
    findings += classes.check(facts, label_set) + duplicates.check(facts)
    numbers = survey.table(facts, label_set)
    numbers |= {"damaged": len(damaged), "shards": len(files)}
    looked, tables = [], classes.tables(label_set, facts)
    for dataset in sorted({frame.dataset for frame in facts}):
        own = [frame for frame in facts if frame.dataset == dataset]
        pairs = evenly([f for f in own if f.speeds is not None and f.pixels2], limit)
        labelled = evenly([f for f in own if f.numbering in tables and f.pixels1], limit)
        chosen = {(frame.shard, frame.index): frame for frame in pairs + labelled}
        work = functools.partial(_look, tables)
        with tqdm(total=len(chosen), unit="frame", desc=dataset, disable=None) as bar:
            results = list(_map(work, fields_of(chosen.values()), processes, bar))
        seen = {(shard, index): values for shard, index, *values in results}
        probes = [(frame, seen[frame.shard, frame.index][0]) for frame in pairs]
        fits = [seen[frame.shard, frame.index][1] for frame in labelled]
        findings += classes.check_borders(dataset, fits, labelled)
        findings += flow.check(dataset, probes, _partners(probes, own))
        told = _warp_numbers(probes)
        numbers |= {f"{dataset}/warp/{name}": number for name, number in told.items()}
        looked += _tell_looked(dataset, own, labelled, told)
    return Diagnosis(facts, numbers, by_weight(findings), looked)


def _name_sets(facts):
    """The same Facts; sets of one name in several folders get the folder's name instead.

    Made streets are named like KITTI's frames, and a fault of either must not be lost in the other.
    """
    folders = {}
    for frame in facts:
        folders.setdefault(frame.dataset, set()).add(Path(frame.shard).parent)
    return [
        frame._replace(dataset=str(Path(frame.shard).parent))
        if len(folders[frame.dataset]) > 1
        else frame
        for frame in facts
    ]


def _every_record(files, damaged):
    """Yield (shard, index, fields) of sound records; the others go to `damaged`."""
    for path in files:
        for index, fields in read_records(path):
            if isinstance(fields, ValueError):
                damaged.append((path, index, str(fields)))
            else:
                yield path, index, fields


def _map(function, items, processes, bar):
    """`map`, in worker processes where there is more than one, with progress."""
    results = (
        map(function, items)
        if processes == 1
        else workers.map_in_processes(function, items, processes)
    )
    with contextlib.closing(results) if processes > 1 else contextlib.nullcontext():
        for result in results:
            bar.update()
            yield result


def _check_shards(files, facts, damaged):
    from flowseg.data.decoding import read_index

    findings = []
    empty = set(files) - {frame.shard for frame in facts} - {path for path, _, _ in damaged}
    if empty:
        text = f"{count(len(empty), 'shard')} without records: {', '.join(sorted(empty)[:4])}"
        findings.append(Finding("error", "empty-shards", text))
    if damaged:
        _, _, first = damaged[0]
        text = f"{count(len(damaged), 'damaged record')}, training would stop there; {first}"
        more = "".join(f", {Path(path).name} record {i}" for path, i, _ in damaged[1:6])
        findings.append(Finding("error", "damaged-records", text + (more and f"; also{more[1:]}")))
    for folder in sorted({Path(path).parent for path in files}):
        try:
            index = read_index(folder)
        except ValueError as error:
            findings.append(Finding("error", "index", str(error)))
            continue
        for path in (Path(path) for path in files if Path(path).parent == folder):
            size, told = path.stat().st_size, index and index["files"].get(path.name, {})
            if told and told.get("bytes", size) != size:
                text = (
                    f"{path}: {size} bytes, but index.json says {told['bytes']}: not the whole "
                    "shard; copy or convert it again"
                )
                findings.append(Finding("error", "index", text))
    return findings


def _check_files(facts):
    """Records that hold files which cannot be used."""
    findings = []
    kinds = {"file": "that cannot be decoded", "size": "of another size than the record"}
    for kind, told in kinds.items():
        bad = [frame for frame in facts if kind in dict(frame.problems)]
        if bad:
            reason = next(reason for what, reason in bad[0].problems if what == kind)
            text = f"{count(len(bad), 'record')} with a file {told} (the first: {reason})"
            findings.append(Finding("error", f"bad-{kind}", text, bad))
    blank = [frame for frame in facts if frame.speeds is not None and not frame.flow_sums[0]]
    if blank:
        text = f"{count(len(blank), 'record')} with flow that is known nowhere: it teaches nothing"
        findings.append(Finding("warning", "flow-unknown", text, blank))
    return findings


def evenly(frames: Sequence, limit: int) -> list:
    """At most `limit` of them, evenly spread."""
    places = np.linspace(0, len(frames) - 1, min(limit, len(frames)))
    return [frames[round(place)] for place in places]


def fields_of(frames: Iterable[Facts]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (shard, index, fields) of Facts, shard by shard."""
    wanted = {}
    for frame in frames:
        wanted.setdefault(frame.shard, set()).add(frame.index)
    for shard, indexes in wanted.items():
        for index, fields in zip(sorted(indexes), read_some(shard, indexes), strict=True):
            yield shard, index, fields


def _look(tables, item):
    """The slow checks of one record: (shard, index, Probe or None, border fit or None)."""
    shard, index, fields = item
    frame, _ = decode(fields)
    pair = {"image1", "image2", "flow"} <= frame.keys()
    fit = None
    if "labels" in frame and fields["label_set"] in tables:
        fit = classes.border_fit(frame["image1"], tables[fields["label_set"]][frame["labels"]])
    return shard, index, warp.probe(frame) if pair else None, fit


def _partners(probes, own):
    """What `flow.find_partner` gives of some bad pairs, by id of their Facts."""
    partners = {}
    for facts, _ in evenly(flow.bad_pairs(probes), flow.SEARCHED):
        near = _neighbours(facts, own)
        fields = {(s, i): f for s, i, f in fields_of([facts, *near])}
        frames = {key: decode(value)[0] for key, value in fields.items()}
        others = [(other, frames[other.shard, other.index]) for other in near]
        partners[id(facts)] = flow.find_partner(frames[facts.shard, facts.index], others)
    return partners


def _neighbours(facts, own):
    """Records around one, by the order in the shards and by the order of the names."""
    near = {}
    for order in (own, sorted(own, key=lambda frame: frame.frame_id)):
        place = next(i for i, frame in enumerate(order) if frame is facts)
        for step in range(-_NEIGHBOURS, _NEIGHBOURS + 1):
            # Round the corner: the last pair may have the first one's frame.
            other = order[(place + step) % len(order)]
            if other is not facts and other.pixels1:
                near[other.shard, other.index] = other
    return list(near.values())


def _warp_numbers(probes):
    """Verdicts and mean mismatches of the pairs of one set."""
    numbers = {f"{v}_pairs": n for v, n in Counter(p.verdict for _, p in probes).items()}
    told = [probe for _, probe in probes if probe.others]
    if told:
        numbers["flow"] = float(np.mean([probe.own for probe in told]))
        for name in ("zero", "axes", "signs"):
            numbers[name] = float(np.mean([probe.others[name] for probe in told]))
    return numbers


def _tell_looked(dataset, own, labelled, told):
    lines = []
    verdicts = {name[:-6]: n for name, n in told.items() if name.endswith("_pairs")}
    if verdicts:
        of = sum(frame.speeds is not None for frame in own)
        seen = ", ".join(f"{verdict} {n}" for verdict, n in sorted(verdicts.items()))
        line = f"{dataset}: flow of {sum(verdicts.values())} of {count(of, 'pair')}: {seen}"
        if "flow" in told:
            means = ", ".join(
                f"{name} {told[key]:.2f}"
                for name, key in (
                    ("by the flow", "flow"),
                    ("by none", "zero"),
                    ("by (v, u)", "axes"),
                    ("by (-u, -v)", "signs"),
                )
            )
            line += f"; mismatch {means}"
        lines.append(line)
    if labelled:
        of = sum(frame.ids is not None for frame in own)
        lines.append(f"{dataset}: label borders of {len(labelled)} of {count(of, 'frame')}")
    return lines
