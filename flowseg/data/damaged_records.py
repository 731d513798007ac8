"""Going on without damaged records: each is named and counted, the others are trained on.

`python -m flowseg.train --bad_records skip` looks at every record before the first step, which
takes as long as decoding all once; what it found is kept beside copies of the damaged shards
without their bad records, so that a resumed run looks only at what changed.
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

# A record is its length, the CRC of that; its bytes, the CRC of those.
_HEAD, _TAIL = struct.Struct("<QI"), 4


def sound_files(
    paths: Iterable[str | Path], label_set: LabelSet, folder: Path
) -> tuple[list[str], int]:
    """The shards to train on: the sound ones themselves, of damaged ones a copy of what is sound.

    Args:
        paths: record shards.
        label_set: the run's classes, which labels must have a map into.
        folder: where copies and findings are kept (pathlib.Path).

    Returns:
        (paths in the same order, how many records are left out).

    Raises:
        ValueError: naming the shard: nothing in it is sound.
    """
    findings = folder / "checked.json"
    known = json.loads(findings.read_text()) if findings.is_file() else {}
    decode = decoding.frame_decoder(label_set)
    found, result, bad = {}, [], 0
    for number, path in enumerate(map(str, paths)):
        stat = tf.io.gfile.stat(path)
        mark = f"{stat.length} {stat.mtime_nsec}"
        told = known.get(path, {})
        if told.get("mark") != mark:
            told = {"mark": mark, "bad": _look(path, decode, folder / f"{number:05d}.tfrecord")}
        found[path] = told
        for line in told["bad"]:
            warn(f"{path}, {line}; left out")
        bad += len(told["bad"])
        result.append(str(folder / f"{number:05d}.tfrecord") if told["bad"] else path)
    files.write(findings, json.dumps(found, indent=1) + "\n")
    return result, bad


def _look(path, decode, copy):
    """What is wrong with a shard, a line a record; if anything, the rest is written to `copy`."""
    try:
        for _ in tf.data.TFRecordDataset(path).map(decode, tf.data.AUTOTUNE):
            pass
        return []
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        pass
    sound, bad = [], []
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
                raise ValueError(f"{name}: cannot be decoded ({_first(error)})") from error
            sound.append(record)
        except (tf.errors.OpError, ValueError) as error:
            bad.append(f"record {index}: {_first(error)}")
    if not sound:
        raise ValueError(f"{path}: no record is sound ({bad[0]}); convert this data again")
    with files.whole(copy) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for record in sound:
            writer.write(record)
    return bad


def _first(error):
    return (getattr(error, "message", None) or str(error)).splitlines()[0]


def _read_raw(path):
    """The bytes of each record, or what is wrong with it: what TensorFlow's reader stops at.

    A record's CRC is held to the one that TensorFlow writes for these bytes.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    at = 0
    while at < len(content):
        begin = at + _HEAD.size
        end = begin + _HEAD.unpack_from(content, at)[0] if begin <= len(content) else at
        framed = _framed(content[begin:end])
        if end + _TAIL > len(content) or content[at:begin] != framed[: _HEAD.size]:
            yield "cut off, or its length is damaged; what follows is lost with it"
            return
        at = end + _TAIL
        yield content[begin:end] if content[end:at] == framed[-_TAIL:] else "damaged bytes"


def _framed(record):
    """The bytes of a record as TensorFlow writes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record"
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(record)
        return path.read_bytes()
