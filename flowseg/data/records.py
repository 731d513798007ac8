"""The one TFRecord schema: what a record holds, how it is made, read, and checked.

A record is a frame pair with whatever truth its data set has, as the untouched bytes of the
owner's files plus the names needed to decode them. What is absent is an empty string.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf

SCHEMA_VERSION = 1

# Encoded files. Of those in more than one form, `<name>_format` says which (`flow_noc`: as `flow`).
_FILES = ("image1", "image2", "flow", "flow_noc", "labels", "instances", "objects")
_FORMATS = {
    "image1_format": ("png", "jpeg", "ppm"),
    "image2_format": ("", "png", "jpeg", "ppm"),
    "flow_format": ("", "kitti", "flo"),
    # Empty beside instances, as records of before have it: KITTI's.
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
            `instances_format` (kitti: class * 256 + number, number 0 where nothing is told apart;
            cityscapes: class * 1000 + number, from 0, or the class alone), `label_set`, `dataset`,
            `frame_id` (text), `height`, `width` (int). What is absent may be left out.

    Raises:
        ValueError: a field that the schema does not have, or that does not fit the others.
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
    """Raise ValueError, naming `where`, unless the fields of one record fit each other.

    Args:
        values: field name -> bytes or int, as `parse_example(...)` gives in NumPy.
        where: which record, for the message.
    """
    if values["schema"] != SCHEMA_VERSION:
        raise ValueError(
            f"{where}: record of schema version {values['schema']}, this FlowSeg reads version "
            f"{SCHEMA_VERSION}: convert the data again"
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
    """The record files of globs, each glob's in sorted order.

    Raises:
        ValueError: no glob, or one that matches nothing.
    """
    if not patterns:
        raise ValueError("no record files given: name them by a glob")
    files = []
    for pattern in patterns:
        found = sorted(tf.io.gfile.glob(str(pattern)))
        if not found:
            raise ValueError(f"{pattern}: no record files match; convert the data first?")
        files += found
    return files


def read_shard(path: str | Path) -> Iterator[tuple[int, dict[str, bytes | int]]]:
    """Yield (index, fields) of every record of a shard, checked; the way to find what is wrong.

    Raises:
        ValueError: naming file and record: damaged bytes, or another schema version.
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
    """How many records the shards hold; bytes alone are read, nothing is decoded."""
    return int(tf.data.TFRecordDataset([str(p) for p in paths]).reduce(0, lambda n, _: n + 1))


@contextlib.contextmanager
def named_errors(paths: Iterable[str | Path]) -> Iterator[None]:
    """Turn TensorFlow's error on a bad record, which names none, into one that names it.

    Raises:
        ValueError: see `read_shard`; TensorFlow's own error where no record is found wrong.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        for path in paths:
            for _ in read_shard(path):
                pass
        raise
