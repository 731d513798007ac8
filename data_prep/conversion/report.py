"""Builds `index.json` and the summary table, and describes how two plans differ."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import label_checks
from data_prep.conversion.frames import Frame
from flowseg import tables
from flowseg.data.labels import LabelSet
from flowseg.data.record_fields import TRUTH


def add_facts(
    entry: dict[str, Any], frame: Frame, facts: dict[str, Any], label_set: LabelSet | None
) -> None:
    """Add a record to its shard's journal entry, in place.

    Args:
        entry: the journal entry.
        frame: the frame of the record.
        facts: as `read_frame` returns them.
        label_set: the classes of its labels, if it may have any.
    """
    entry["records"] += 1
    entry["truth"].update(facts["truth"])
    entry["images"].update(facts["images"])
    entry["sizes"].update([f"{facts['height']}x{facts['width']}"])
    if facts["class_pixels"]:
        # String keys, because JSON turns keys into strings.
        counts = {str(i): count for i, count in facts["class_pixels"].items()}
        _add(entry["class_pixels"].setdefault(frame.label_set, {}), counts)
        if label_set and label_checks.is_all_void(frame, facts["class_pixels"], label_set):
            entry["all_void"].append(frame.frame_id)


def _add(total, counts):
    for key, count in counts.items():
        total[key] = total.get(key, 0) + count


def make_index(
    plan: dict[str, Any], shards: dict[str, dict], roots: Sequence[Path]
) -> dict[str, Any]:
    """Build the content of `index.json`.

    Args:
        plan: the plan of the conversion, see `writer`.
        shards: shard name -> its journal entry.
        roots: the source folders; only their names are stored.
    """
    splits = {}
    sizes, class_pixels, images, videos = Counter(), {}, Counter(), {}
    for name, entry in shards.items():
        split = splits.setdefault(name.split("-")[0], Counter())
        split.update({"records": entry["records"], **entry["truth"]})
        sizes.update(entry["sizes"])
        # Journals of earlier versions lack these counts.
        images.update(entry.get("images", {}))
        for numbering, counts in entry["class_pixels"].items():
            _add(class_pixels.setdefault(numbering, {}), counts)
        if any(entry.get("videos", {})):
            videos.setdefault(name.split("-")[0], set()).update(filter(None, entry["videos"]))
    keys = ("records", "bytes", "sha256")
    by_id = {
        numbering: dict(sorted(counts.items(), key=lambda item: int(item[0])))
        for numbering, counts in class_pixels.items()
    }
    return {
        "schema": plan["schema"],
        "dataset": plan["dataset"],
        "sources": [root.resolve().name for root in roots],
        "settings": plan["settings"],
        # `test` is listed only if the data set has such a split.
        "records": {
            split: splits.get(split, Counter())["records"]
            for split in ("train", "val", *(["test"] if "test" in splits else []))
        },
        "truth": {
            split: {field: counts[field] for field in TRUTH} for split, counts in splits.items()
        },
        "label_sets": sorted(by_id),
        "class_pixels": by_id,
        "images": {"alpha_dropped": images["alpha"], "stored_as_png": images["png"]},
        "sizes_height_x_width": dict(sorted(sizes.items())),
        **({"videos": {split: len(names) for split, names in videos.items()}} if videos else {}),
        "files": {
            # The positions of the frames let `flowseg.data.videos` read videos in order.
            name: {key: entry[key] for key in keys}
            | ({"videos": entry["videos"]} if any(entry.get("videos", {})) else {})
            for name, entry in shards.items()
            if entry["records"]
        },
        "all_void": [name for entry in shards.values() for name in entry.get("all_void", ())],
        "left_out": [item for entry in shards.values() for item in entry["left_out"]],
    }


def summary(index: dict[str, Any]) -> str:
    """Format the table printed at the end, and the list of skipped frames."""
    rows = [("split", "records", "pairs", "flow", "labels", "shards", "MB")]
    for split in index["records"]:
        files = [file for name, file in index["files"].items() if name.startswith(split)]
        truth = index["truth"].get(split, {})
        counts = [truth.get(field, 0) for field in ("image2", "flow", "labels")]
        megabytes = f"{sum(file['bytes'] for file in files) / 1e6:.1f}"
        rows.append((split, index["records"][split], *counts, len(files), megabytes))
    lines = [tables.plain(rows)]
    images = index["images"]
    if images["alpha_dropped"]:
        lines.append(f"alpha channel dropped: {images['alpha_dropped']} frames in the records")
    if images["stored_as_png"]:
        lines.append(
            f"stored as PNG, because TensorFlow cannot read the files, or ignores their "
            f"orientation or bit depth: {images['stored_as_png']} frames in the records"
        )
    if index["left_out"]:
        lines.append(f"skipped: {len(index['left_out'])}")
        lines += [f"  {item['frame_id']}: {item['reason']}" for item in index["left_out"]]
    return "\n".join(lines)


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe how the plan of an output folder differs from the requested one."""
    if not old:
        return "without its journal"
    for key in ("schema", "dataset"):
        if old.get(key) != new[key]:
            return f"{key} {old.get(key)} instead of {new[key]}"
    old_settings = old["settings"]
    for key, value in new["settings"].items():
        if old_settings.get(key) != value:
            old_value = json.dumps(old_settings.get(key))
            return f"with {key}={old_value} instead of {json.dumps(value)}"
    return "of different sources" if old.get("sources") != new["sources"] else "of different frames"
