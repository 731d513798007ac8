"""Examines records: decodes each once, tests a sample in detail, and collects the findings."""

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
from data_prep.doctor.facts import Facts, collect
from data_prep.doctor.findings import Finding, by_severity, count
from data_prep.doctor.read import count_records, decode, read_records, read_some
from flowseg.data.labels import LabelSet

# Below this many bytes of records, starting processes takes longer than the work.
_FEW_BYTES = 30e6
# Number of neighbours on either side whose second frame or flow is tried for a bad pair.
_NEIGHBOURS = 2


class Diagnosis(NamedTuple):
    """Result of an examination.

    Attributes:
        facts: list of :class:`Facts` of the readable records.
        numbers: see `survey.table`; also "damaged", "shards" and "DATASET/warp/..." from
            `_warp_numbers`.
        findings: list of :class:`Finding`, worst first.
        inspected: lines that summarise the detailed examination.
    """

    facts: list[Facts]
    numbers: dict[str, float]
    findings: list[Finding]
    inspected: list[str]


def examine(
    files: Sequence[str], label_set: LabelSet, limit: int = 200, processes: int | None = None
) -> Diagnosis:
    """Examine record shards.

    Args:
        files: paths of the shards, as str.
        label_set: the :class:`flowseg.data.labels.LabelSet` to train with.
        limit: frames per data set to examine in detail.
        processes: number of worker processes; default: one per CPU core; none for little data.

    Returns:
        :class:`Diagnosis`.

    Raises:
        OSError: a file cannot be read, or a worker process died.
    """
    if sum(Path(path).stat().st_size for path in files) < _FEW_BYTES:
        processes = 1
    processes = processes or len(workers.cores())
    damaged = []
    items = _every_record(files, damaged)
    with tqdm(total=sum(map(count_records, files)), unit="record", disable=None) as bar:
        facts = _name_sets(list(_map(collect, items, processes, bar)))
    findings = _check_shards(files, facts, damaged) + _check_files(facts)
    findings += classes.check(facts, label_set) + duplicates.check(facts)
    numbers = survey.table(facts, label_set)
    numbers |= {"damaged": len(damaged), "shards": len(files)}
    inspected, tables = [], classes.tables(label_set, facts)
    for dataset in sorted({frame.dataset for frame in facts}):
        frames_of_set = [frame for frame in facts if frame.dataset == dataset]
        pairs = evenly([f for f in frames_of_set if f.speeds is not None and f.pixels2], limit)
        labelled = evenly([f for f in frames_of_set if f.numbering in tables and f.pixels1], limit)
        chosen = {(frame.shard, frame.index): frame for frame in pairs + labelled}
        work = functools.partial(_inspect, tables)
        with tqdm(total=len(chosen), unit="frame", desc=dataset, disable=None) as bar:
            results = list(_map(work, fields_of(chosen.values()), processes, bar))
        result_of = {(shard, index): values for shard, index, *values in results}
        probes = [(frame, result_of[frame.shard, frame.index][0]) for frame in pairs]
        fits = [result_of[frame.shard, frame.index][1] for frame in labelled]
        findings += classes.check_borders(dataset, fits, labelled)
        findings += flow.check(dataset, probes, _find_partners(probes, frames_of_set))
        warp_numbers = _warp_numbers(probes)
        numbers |= {f"{dataset}/warp/{name}": number for name, number in warp_numbers.items()}
        inspected += _describe_inspection(dataset, frames_of_set, labelled, warp_numbers)
    return Diagnosis(facts, numbers, by_severity(findings), inspected)


def _name_sets(facts):
    """Return the Facts, with data sets that share a name renamed after their folders.

    Synthetic streets, for example, are converted as KITTI. If they were merged with the real KITTI,
    each set could mask faults of the other.
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
    """Yield (shard, index, fields) of intact records; add the others to `damaged`."""
    for path in files:
        for index, fields in read_records(path):
            if isinstance(fields, ValueError):
                damaged.append((path, index, str(fields)))
            else:
                yield path, index, fields


def _map(function, items, processes, bar):
    """Map with a progress bar, in worker processes if there is more than one."""
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
    from flowseg.data.records import read_index

    findings = []
    empty = set(files) - {frame.shard for frame in facts} - {path for path, _, _ in damaged}
    if empty:
        text = f"{count(len(empty), 'shard')} without records: {', '.join(sorted(empty)[:4])}"
        findings.append(Finding("error", "empty-shards", text))
    if damaged:
        _, _, first = damaged[0]
        text = f"{count(len(damaged), 'damaged record')}, training would stop there; first: {first}"
        more = "".join(f", {Path(path).name} record {i}" for path, i, _ in damaged[1:6])
        findings.append(Finding("error", "damaged-records", text + (more and f"; also{more[1:]}")))
    for folder in sorted({Path(path).parent for path in files}):
        try:
            index = read_index(folder)
        except ValueError as error:
            findings.append(Finding("error", "index", str(error)))
            continue
        for path in (Path(path) for path in files if Path(path).parent == folder):
            size, entry = path.stat().st_size, index and index["files"].get(path.name, {})
            if entry and entry.get("bytes", size) != size:
                text = (
                    f"{path}: {size} bytes, but index.json says {entry['bytes']}: incomplete "
                    "shard; copy or convert it again"
                )
                findings.append(Finding("error", "index", text))
    return findings


def _check_files(facts):
    """Report records with unusable files."""
    findings = []
    kinds = {"file": "that cannot be decoded", "size": "whose size differs from the record's"}
    for kind, description in kinds.items():
        bad = [frame for frame in facts if kind in dict(frame.problems)]
        if bad:
            reason = next(
                reason for problem_kind, reason in bad[0].problems if problem_kind == kind
            )
            text = f"{count(len(bad), 'record')} with a file {description} (first: {reason})"
            findings.append(Finding("error", f"bad-{kind}", text, bad))
    blank = [frame for frame in facts if frame.speeds is not None and not frame.flow_sums[0]]
    if blank:
        text = (
            f"{count(len(blank), 'record')} whose flow has no valid pixel: it gives no supervision"
        )
        findings.append(Finding("warning", "flow-unknown", text, blank))
    return findings


def evenly(frames: Sequence, limit: int) -> list:
    """Return at most `limit` of the frames, evenly spaced."""
    indexes = np.linspace(0, len(frames) - 1, min(limit, len(frames)))
    return [frames[round(index)] for index in indexes]


def fields_of(frames: Iterable[Facts]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (shard, index, fields) of the records of Facts, shard by shard."""
    wanted = {}
    for frame in frames:
        wanted.setdefault(frame.shard, set()).add(frame.index)
    for shard, indexes in wanted.items():
        for index, fields in zip(sorted(indexes), read_some(shard, indexes), strict=True):
            yield shard, index, fields


def _inspect(tables, item):
    """Run the slow checks of a record: (shard, index, Probe or None, border fit or None)."""
    shard, index, fields = item
    frame, _ = decode(fields)
    pair = {"image1", "image2", "flow"} <= frame.keys()
    fit = None
    if "labels" in frame and fields["label_set"] in tables:
        fit = classes.border_fit(frame["image1"], tables[fields["label_set"]][frame["labels"]])
    return shard, index, warp.probe(frame) if pair else None, fit


def _find_partners(probes, frames_of_set):
    """Call `flow.find_partner` for some bad pairs; the keys are the `id` of their Facts."""
    partners = {}
    for facts, _ in evenly(flow.bad_pairs(probes), flow.MAX_SEARCHED):
        neighbours = _neighbours(facts, frames_of_set)
        fields = {(s, i): f for s, i, f in fields_of([facts, *neighbours])}
        frames = {key: decode(value)[0] for key, value in fields.items()}
        others = [(other, frames[other.shard, other.index]) for other in neighbours]
        partners[id(facts)] = flow.find_partner(frames[facts.shard, facts.index], others)
    return partners


def _neighbours(facts, frames_of_set):
    """Return a record's neighbours in the order of the shards and in that of the frame ids."""
    neighbours = {}
    for order in (frames_of_set, sorted(frames_of_set, key=lambda frame: frame.frame_id)):
        position = next(i for i, frame in enumerate(order) if frame is facts)
        for step in range(-_NEIGHBOURS, _NEIGHBOURS + 1):
            # Wrap around: the last pair may have the first pair's frame.
            other = order[(position + step) % len(order)]
            if other is not facts and other.pixels1:
                neighbours[other.shard, other.index] = other
    return list(neighbours.values())


def _warp_numbers(probes):
    """Return counts of the verdicts and mean mismatches of the pairs of a data set."""
    numbers = {f"{v}_pairs": n for v, n in Counter(p.verdict for _, p in probes).items()}
    decided = [probe for _, probe in probes if probe.others]
    if decided:
        numbers["flow"] = float(np.mean([probe.mismatch for probe in decided]))
        for name in ("zero", "axes", "signs"):
            numbers[name] = float(np.mean([probe.others[name] for probe in decided]))
    return numbers


def _describe_inspection(dataset, frames_of_set, labelled, warp_numbers):
    lines = []
    verdicts = {name[:-6]: n for name, n in warp_numbers.items() if name.endswith("_pairs")}
    if verdicts:
        total = sum(frame.speeds is not None for frame in frames_of_set)
        counts = ", ".join(f"{verdict} {n}" for verdict, n in sorted(verdicts.items()))
        line = f"{dataset}: flow of {sum(verdicts.values())} of {count(total, 'pair')}: {counts}"
        if "flow" in warp_numbers:
            means = ", ".join(
                f"{name} {warp_numbers[key]:.2f}"
                for name, key in (
                    ("with the flow", "flow"),
                    ("with zero flow", "zero"),
                    ("with (v, u)", "axes"),
                    ("with (-u, -v)", "signs"),
                )
            )
            line += f"; mismatch {means}"
        lines.append(line)
    if labelled:
        total = sum(frame.ids is not None for frame in frames_of_set)
        lines.append(f"{dataset}: label borders of {len(labelled)} of {count(total, 'frame')}")
    return lines
