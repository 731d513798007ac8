"""Defines the TFRecord schema, and writes, reads and checks records.

A record contains a frame pair and the ground truth that its data set has: the unchanged bytes of
the original files, and the names of their formats. Missing fields are empty strings.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf

from flowseg import files, globs

SCHEMA_VERSION = 1

# Encoded files. `<name>_format` is the format, if there are several; `flow_noc` has that of `flow`.
_FILES = ("image1", "image2", "flow", "flow_noc", "labels", "instances", "objects")
_FORMATS = {
    "image1_format": ("png", "jpeg", "ppm"),
    "image2_format": ("", "png", "jpeg", "ppm"),
    "flow_format": ("", "kitti", "flo"),
    # Records written before this field existed have instances without a format, which is KITTI's.
    "instances_format": ("", "kitti", "cityscapes"),
}
# `label_set` is the numbering of `labels` (see `flowseg.data.labels`).
_TEXTS = ("dataset", "frame_id", "label_set", *_FORMATS)
_NUMBERS = ("schema", "height", "width")

FEATURES = {
    **{name: tf.io.FixedLenFeature([], tf.string, "") for name in (*_FILES, *_TEXTS)},
    **{name: tf.io.FixedLenFeature([], tf.int64, 0) for name in _NUMBERS},
}


def make_example(**fields: bytes | str | int) -> bytes:
    """Serialised `tf.train.Example` of one frame.

    Args:
        **fields: `image1`, `image2`, `flow`, `flow_noc`, `labels`, `instances`, `objects`
            (encoded bytes; labels, instances and objects are PNG), `image1_format`,
            `image2_format` (png, jpeg, ppm), `flow_format` (kitti: 16-bit PNG; flo),
            `instances_format` (kitti: class * 256 + number, number 0 = no instance; cityscapes:
            class * 1000 + number, from 0, or the class only), `label_set`, `dataset`,
            `frame_id` (text), `height`, `width` (int). Missing fields may be omitted.

    Raises:
        ValueError: a field is not in the schema, or does not fit the others.
    """
    unknown = set(fields) - set(FEATURES) | {"schema"} & set(fields)
    if unknown:
        raise ValueError(f"no such record fields: {', '.join(sorted(unknown))}")
    values = {name: fields.get(name, b"") for name in _FILES}
    values |= {name: fields.get(name, "").encode() for name in _TEXTS}
    values |= {"height": fields.get("height", 0), "width": fields.get("width", 0)}
    values["schema"] = SCHEMA_VERSION
    check_fields(values, values["frame_id"].decode())
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        if name in _NUMBERS
        else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def check_fields(values: dict[str, bytes | int], where: str) -> None:
    """Raise ValueError unless the fields of one record are consistent.

    Args:
        values: field name -> bytes or int, as from `parse_example` in NumPy.
        where: name of the record, for the message.
    """
    if values["schema"] != SCHEMA_VERSION:
        raise ValueError(
            f"{where}: record has schema version {values['schema']}, but this FlowSeg reads "
            f"version {SCHEMA_VERSION}: convert the data again"
        )
    for name, known in _FORMATS.items():
        if values[name].decode() not in known:
            raise ValueError(f"{where}: {name} is {values[name].decode()!r}, not one of {known}")
    if values["height"] <= 0 or values["width"] <= 0 or not values["image1"]:
        raise ValueError(f"{where}: a record needs image1, height and width")
    for name, companion in (
        ("image1", "image1_format"),
        ("image2", "image2_format"),
        ("flow", "flow_format"),
        ("labels", "label_set"),
    ):
        if bool(values[name]) != bool(values[companion]):
            raise ValueError(f"{where}: {name} and {companion} must be given together")
    if values["flow"] and not values["image2"]:
        raise ValueError(f"{where}: flow without a second frame")
    if values["flow_noc"] and not values["flow"]:
        raise ValueError(f"{where}: non-occluded flow without flow")


def parse_example(serialized: bytes | tf.Tensor) -> dict[str, tf.Tensor]:
    """One serialised Example -> dict of scalar tensors, by the names in `FEATURES`."""
    return tf.io.parse_single_example(serialized, FEATURES)


def match_files(*patterns: str | Path) -> list[str]:
    """Record files that match the globs, sorted within each glob; see `globs.match`.

    Raises:
        ValueError: there is no glob, one matches no file, or it is a folder; or the name of a file
            is not valid UTF-8.
    """
    if not patterns:
        raise ValueError("no record files given: pass at least one glob")
    found = []
    for pattern in patterns:
        remote = "://" in str(pattern)
        matches = sorted(tf.io.gfile.glob(str(pattern))) if remote else globs.match(pattern)
        if matches == [str(pattern)] and Path(pattern).is_dir():
            raise ValueError(f"{pattern}: a folder; give its shards, such as {pattern}/train-*")
        if not matches:
            raise ValueError(f"{pattern}: no record files match; has the data been converted?")
        found += matches
    for path in found:
        files.check_utf8(path)
    return found


def read_shard(path: str | Path) -> Iterator[tuple[int, dict[str, bytes | int]]]:
    """Yield (index, fields) of every record of a shard after checking it; used to locate damage.

    Raises:
        ValueError: damaged bytes, or another schema version; the message names file and record.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such record file")
    index = 0
    try:
        for serialized in tf.data.TFRecordDataset(str(path)):
            fields = {name: value.numpy() for name, value in parse_example(serialized).items()}
            check_fields(fields, f"{path}, record {index}")
            yield index, fields
            index += 1
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"{path}, record {index}: damaged ({error.message.splitlines()[0]}); "
            "convert this data again"
        ) from error


def count(paths: Iterable[str | Path]) -> int:
    """Number of records in the shards; nothing is decoded."""
    return int(tf.data.TFRecordDataset([str(p) for p in paths]).reduce(0, lambda n, _: n + 1))


@contextlib.contextmanager
def named_errors(paths: Iterable[str | Path]) -> Iterator[None]:
    """Replace TensorFlow's error for a bad record by one that names the file and the record.

    Raises:
        ValueError: see `read_shard`. If no record is bad, TensorFlow's error is raised again.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        for path in paths:
            for _ in read_shard(path):
                pass
        raise
