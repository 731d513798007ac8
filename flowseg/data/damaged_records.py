"""Finds damaged records, reports and counts them, and writes copies of their shards without them.

`python -m flowseg.train --bad_records skip` checks every record before the first step, which takes
as long as decoding all of them once. The results are stored beside the copies, so that a resumed
run checks only the shards that have changed.
"""

import json
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from flowseg import files
from flowseg.console import warn
from flowseg.data import decoding, records
from flowseg.data.labels import LabelSet

# Layout of a record: length, CRC of the length, bytes, CRC of the bytes.
_HEAD, _TAIL = struct.Struct("<QI"), 4


def intact_files(
    paths: Iterable[str | Path], label_set: LabelSet, folder: Path
) -> tuple[list[str], int]:
    """Return the shards to train on: intact shards, and copies of damaged ones without bad records.

    Args:
        paths: record shards.
        label_set: the run's classes, which the labels must map to.
        folder: directory for the copies and the stored results.

    Returns:
        (paths in the same order, number of skipped records).

    Raises:
        ValueError: a shard has no intact record; the message names it.
    """
    results_file = folder / "checked.json"
    stored_results = json.loads(results_file.read_text()) if results_file.is_file() else {}
    decode = decoding.frame_decoder(label_set)
    results, shards, bad = {}, [], 0
    for number, path in enumerate(map(str, paths)):
        stat = tf.io.gfile.stat(path)
        fingerprint = f"{stat.length} {stat.mtime_nsec}"
        result = stored_results.get(path, {})
        if result.get("mark") != fingerprint:
            result = {
                "mark": fingerprint,
                "bad": _check_shard(path, decode, folder / f"{number:05d}.tfrecord"),
            }
        results[path] = result
        for line in result["bad"]:
            warn(f"{path}, {line}; skipped")
        bad += len(result["bad"])
        shards.append(str(folder / f"{number:05d}.tfrecord") if result["bad"] else path)
    files.write(results_file, json.dumps(results, indent=1) + "\n")
    return shards, bad


def _check_shard(path, decode, intact_copy):
    """Return one line per bad record; if there are any, write the others to `intact_copy`."""
    try:
        for _ in tf.data.TFRecordDataset(path).map(decode, tf.data.AUTOTUNE):
            pass
        return []
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        pass
    intact, bad = [], []
    for index, record in enumerate(_read_raw(path)):
        try:
            if isinstance(record, str):
                raise ValueError(record)
            fields = {k: v.numpy() for k, v in records.parse_example(record).items()}
            name = f"{fields['dataset'].decode()}/{fields['frame_id'].decode()}"
            records.check_fields(fields, name)
            try:
                decode(record)
            except (tf.errors.OpError, ValueError) as error:
                raise ValueError(f"{name}: cannot be decoded ({_first_line(error)})") from error
            intact.append(record)
        except (tf.errors.OpError, ValueError) as error:
            bad.append(f"record {index}: {_first_line(error)}")
    if not intact:
        raise ValueError(f"{path}: no record is intact ({bad[0]}); convert this data again")
    with files.atomic(intact_copy) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for record in intact:
            writer.write(record)
    return bad


def _first_line(error):
    return (getattr(error, "message", None) or str(error)).splitlines()[0]


def _read_raw(path):
    """Yield each record's bytes, or an error text where TensorFlow's reader would stop.

    The CRCs are compared with those that TensorFlow writes for the same bytes.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    start = 0
    while start < len(content):
        payload_start = start + _HEAD.size
        end = (
            payload_start + _HEAD.unpack_from(content, start)[0]
            if payload_start <= len(content)
            else start
        )
        expected = _framed(content[payload_start:end])
        if end + _TAIL > len(content) or content[start:payload_start] != expected[: _HEAD.size]:
            yield "truncated, or its length is damaged; the rest of the shard is lost"
            return
        start = end + _TAIL
        yield (
            content[payload_start:end]
            if content[end:start] == expected[-_TAIL:]
            else "damaged bytes"
        )


def _framed(record):
    """Return the bytes that TensorFlow writes for a record, with its length and CRCs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record"
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(record)
        return path.read_bytes()
