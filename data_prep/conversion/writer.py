"""Writes frames as TFRecord shards, for all converters.

Checks frames in parallel, writes the shards and `index.json`, and resumes interrupted runs. A shard
gets its final name when it is complete. `.plan.json` beside the shards is the journal: the plan of
the conversion and the inputs of each shard, so that a second run writes only the missing shards.
`index.json` is written last.
"""

import contextlib
import errno
import functools
import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.conversion import digests, journal, label_checks, report, workers
from data_prep.conversion.frames import Frame, image_files
from data_prep.conversion.split import check_ids
from data_prep.conversion.video_sizes import with_video_sizes
from flowseg import files
from flowseg.data import images
from flowseg.data.labels import LabelSet
from flowseg.errors import ArgumentError

RECORDS_PER_SHARD = 32
JOURNAL = ".plan.json"
INDEX = "index.json"
_OUTPUT_FILE = re.compile(r"(train|val|test)-\d{5}-of-\d{5}\.tfrecord|index\.json|\.plan\.json")


def write(
    dataset: str,
    splits: dict[str, list[Frame]],
    output: str | Path,
    sources: Sequence[str | Path],
    settings: dict[str, Any],
    records_per_shard: int = RECORDS_PER_SHARD,
    processes: int | None = None,
    on_error: str = "stop",
    overwrite: bool = False,
    ray_address: str | None = None,
    label_set: LabelSet | None = None,
    bit_depth: int | None = None,
    records_size: Sequence[int] | None = None,
    uncompressed: bool = False,
) -> dict[str, Any]:
    """Write the frames of all splits as shards with `index.json`, and print a summary.

    Args:
        dataset: data set name stored in the records.
        splits: split name (train, val, test) -> list of :class:`frames.Frame`, in the
            order of the records; see `data_prep.conversion.split`.
        output: folder; created if missing.
        sources: folders of the frames; stored paths are relative to them.
        settings: the converter's arguments that determine the content, name -> JSON value.
        records_per_shard: maximum number of records per shard.
        processes: number of processes that check frames; default: one per CPU core.
        on_error: "stop" at a bad frame, or "skip" it and list it.
        overwrite: whether to replace another conversion in `output`.
        ray_address: address of a Ray cluster that checks the frames; see `workers.map_on_ray`.
        label_set: the classes of the labels, for warnings about them; default: no warnings.
        bit_depth: how many bits 16-bit images use; default: that of the largest value of all
            images, see `flowseg.data.images.find_bit_depth`.
        records_size: (height, width) to which all frames and ground truth are resized; default:
            their own sizes.
        uncompressed: whether PNG files are stored without compression, which decodes faster.

    Returns:
        The content of `index.json`.

    Raises:
        ValueError: a bad frame, no valid frame, a duplicate frame id, or `output` holds another
            conversion.
        OSError: reading or writing failed.
    """
    check_ids(splits)
    files.check_utf8(output, "output")
    bit_depth = bit_depth or images.find_bit_depth(image_files(itertools.chain(*splits.values())))
    # Options that are not in use are no settings: earlier conversions can be resumed as before.
    stored = {"bit_depth": bit_depth} if bit_depth else {}
    stored |= {"records_size": list(records_size)} if records_size else {}
    stored |= {"uncompressed": True} if uncompressed else {}
    settings = {**settings, **stored}
    splits = {
        name: with_video_sizes([frame._replace(**stored) for frame in frames])
        for name, frames in splits.items()
    }
    output, roots = Path(output), [Path(source) for source in sources]
    if output.exists() and not output.is_dir():
        raise ArgumentError("is a file; output must be a folder", "output", path=output)
    plan = _make_plan(
        dataset, splits, roots, settings={**settings, "records_per_shard": records_per_shard}
    )
    shards = _plan_shards(splits, records_per_shard)
    inputs = {name: digests.of_inputs(frames, roots) for name, frames in shards.items()}
    busy = "another conversion is using this folder: wait for it, or give another output"
    with files.lock(output, busy, "output"), _clean_up(output):
        _claim(output, plan, overwrite)
        done = _find_done(output, inputs, strict=on_error == "stop")
        if len(done) == len(shards) and (output / INDEX).is_file():
            print(f"{output}: already finished, nothing to do")
            return journal.read_json(output / INDEX)
        if done:
            print(f"{output}: resuming, {len(done)} of {len(shards)} shards are already finished")
        read = functools.partial(workers.read_frames, processes=processes, ray_address=ray_address)
        options = {"on_error": on_error, "label_set": label_set}
        _write_rest(output, plan, shards, inputs, roots, done, read=read, **options)
        index = _write_index(output, plan, {name: done[name] for name in shards}, roots)
    print(report.summary(index))
    if label_set:
        label_checks.report(done, label_set)
    return index


def _make_plan(dataset, splits, roots, settings):
    """Build the plan of a conversion; conversions with equal plans write the same shards."""
    # Imported late: worker processes import this module, and TensorFlow takes 4 s to start.
    from flowseg.data import records

    return {
        "schema": records.SCHEMA_VERSION,
        "dataset": dataset,
        "settings": settings,
        "sources": digests.of_value([str(root.resolve()) for root in roots]),
        "frames": digests.of_value(
            [frame.frame_id for frames in splits.values() for frame in frames]
        ),
    }


def _plan_shards(splits, records_per_shard):
    """Map shard names to frames; the frames of a split are distributed round-robin."""
    shards = {}
    for split, frames in splits.items():
        count = -(-len(frames) // records_per_shard)
        for i in range(count):
            shards[f"{split}-{i:05d}-of-{count:05d}.tfrecord"] = frames[i::count]
    return shards


def _claim(output, plan, overwrite):
    """Prepare `output`: remove files of another conversion and write a journal of this plan.

    Raises:
        ValueError: `output` holds another conversion and `overwrite` is not set.
    """
    for path in output.glob(".*.partial-*"):
        if _OUTPUT_FILE.fullmatch(path.name[1:].rsplit(".partial-", 1)[0]):
            path.unlink()  # left by a killed run
    outputs = [path for path in sorted(output.iterdir()) if _OUTPUT_FILE.fullmatch(path.name)]
    old = journal.read_json(output / JOURNAL).get("plan", {})
    if old == plan:
        return
    visible = [path.name for path in outputs if path.name != JOURNAL]
    if visible and not overwrite:
        raise ArgumentError(
            f"holds another conversion, {report.difference(old, plan)} ({visible[0]}): "
            "give another output, or overwrite to replace it",
            "output",
            "overwrite",
            *plan["settings"],
            path=output,
        )
    for path in outputs:
        path.unlink()
    journal.write_json(output / JOURNAL, {"plan": plan, "shards": {}})


def _find_done(output, inputs, strict):
    """Return the journal entries of the finished shards.

    Outdated shards stay until their replacements are complete, so that bad input loses no data.

    Args:
        output: folder.
        inputs: shard name -> digest of its input files.
        strict: whether a shard that skipped a bad frame counts as unfinished.
    """
    done = {}
    for name, entry in journal.read_json(output / JOURNAL)["shards"].items():
        same = entry["inputs"] == inputs.get(name) and not (strict and entry["left_out"])
        if same and (not entry["records"] or digests.of_file(output / name) == entry["sha256"]):
            done[name] = entry
    return done


def _write_rest(output, plan, shards, inputs, roots, done, read, on_error, label_set):
    """Write the shards missing in `done`, and add each to `done` and the journal.

    `read` maps a list of frames to a generator of results, see `workers.read_frames`.
    """
    todo = {name: frames for name, frames in shards.items() if name not in done}
    results = read(sum(todo.values(), []))
    total, left = (sum(map(len, part.values())) for part in (shards, todo))
    bar = tqdm(total=total, initial=total - left, unit="frame", disable=None)
    with bar, contextlib.closing(results):
        for name, frames in todo.items():
            results_of_shard = _take_results(frames, results, bar, on_error)
            written = _write_shard(
                output / name, plan["dataset"], results_of_shard, roots, label_set
            )
            done[name] = {"inputs": inputs[name], **written}
            journal.write_json(output / JOURNAL, {"plan": plan, "shards": done})


def _take_results(frames, results, bar, on_error):
    """Yield (frame, result) for a shard's frames; raise a bad frame's error unless skipping."""
    for frame in frames:
        result = next(results)
        if isinstance(result, Exception) and on_error == "stop":
            raise result
        yield frame, result
        bar.update()


def _write_shard(path, dataset, results, roots, label_set):
    """Write a shard, unless it has no valid frame, and return its journal entry."""
    import tensorflow as tf

    from flowseg.data import records

    entry = {"records": 0, "left_out": [], "truth": Counter(), "sizes": Counter()}
    entry |= {"images": Counter(), "class_pixels": {}, "all_void": [], "videos": {}}
    unfinished, offset = journal.partial(path), 0
    with tf.io.TFRecordWriter(str(unfinished)) as shard:
        for frame, result in results:
            if isinstance(result, Exception):
                reason = digests.relative(str(result), roots)
                entry["left_out"].append({"frame_id": frame.frame_id, "reason": reason})
                continue
            fields, facts = result
            record = records.make_example(dataset=dataset, **fields)
            shard.write(record)
            report.add_facts(entry, frame, facts, label_set)
            entry["videos"].setdefault(frame.video, []).append([frame.frame_index, offset])
            offset += len(record) + records.FRAMING
    if entry["records"]:
        entry |= {"bytes": unfinished.stat().st_size, "sha256": digests.of_file(unfinished)}
    # Until the new index is written the folder is inconsistent and must not look finished.
    path.with_name(INDEX).unlink(missing_ok=True)
    if entry["records"]:
        journal.finish(unfinished, path)
    else:
        unfinished.unlink()
        path.unlink(missing_ok=True)
    return entry


def _write_index(output, plan, shards, roots):
    """Write `index.json` from the shards' journal entries, and return it.

    Raises:
        ValueError: there are no records.
    """
    index = report.make_index(plan, shards, roots)
    if not index["files"]:
        reason = index["left_out"][0]["reason"]
        raise ValueError(f"{output}: nothing written, every frame is bad; first: {reason}")
    journal.write_json(output / INDEX, index)
    return index


@contextlib.contextmanager
def _clean_up(output):
    """Remove partial files at the end, and replace the error of a full disk by a clear one."""
    try:
        yield
    except Exception as error:
        # TensorFlow raises its own error class for a full disk.
        full = getattr(error, "errno", None) == errno.ENOSPC
        if full or type(error).__name__ == "ResourceExhaustedError":
            advice = "free some space and run the same command again; finished shards are kept"
            raise OSError(
                errno.ENOSPC, f"no space left on the disk: {advice}", str(output)
            ) from error
        raise
    finally:
        for path in output.glob(f".*.partial-{os.getpid()}"):
            path.unlink()
