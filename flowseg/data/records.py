"""Defines the TFRecord schema, and writes, reads and checks records.

A record contains a frame pair and the ground truth that its data set has: the unchanged bytes of
the original files, and the names of their formats. Missing fields are empty strings. A frame of a
video also names the video and its position in it; `flowseg.data.videos` reads videos in order.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from flowseg import files, globs
from flowseg.data.record_fields import FILES

SCHEMA_VERSION = 2
# Version 1 has no videos, backward flow or occlusion maps; its records are read as such.
_READABLE = (1, SCHEMA_VERSION)
# Bytes that TFRecord adds to each record: its length, and the checksums of length and content.
FRAMING = 16

_FORMATS = {
    "image1_format": ("png", "jpeg", "ppm"),
    "image2_format": ("", "png", "jpeg", "ppm"),
    "flow_format": ("", "kitti", "flo", "vkitti2"),
    # Records written before this field existed have instances without a format, which is KITTI's.
    "instances_format": ("", "kitti", "cityscapes"),
}
# `label_set` is the numbering of `labels` (see `flowseg.data.labels`).
_TEXTS = ("dataset", "frame_id", "video", "label_set", *_FORMATS)
_NUMBERS = ("schema", "frame_index", "next_index", "height", "width")

FEATURES = {
    **{name: tf.io.FixedLenFeature([], tf.string, "") for name in (*FILES, *_TEXTS)},
    **{name: tf.io.FixedLenFeature([], tf.int64, 0) for name in _NUMBERS},
}


def make_example(**fields: bytes | str | int) -> bytes:
    """Serialised `tf.train.Example` of one frame.

    Args:
        **fields: `image1`, `image2`, `flow`, `flow_noc` (flow of the pixels that image2 shows),
            `backward_flow` (from image2 to image1, at the pixels of image2), `occlusion` (above 0
            where image2 does not show the pixel, in place of `flow_noc`), `labels`, `instances`,
            `objects` (encoded bytes; occlusion, labels, instances and objects are PNG),
            `image1_format`, `image2_format` (png, jpeg, ppm), `flow_format` (kitti: 16-bit PNG;
            flo; vkitti2: 16-bit PNG scaled by the size), `instances_format` (kitti:
            class * 256 + number, number 0 = no instance; cityscapes: class * 1000 + number, from
            0, or the class only), `label_set`, `dataset`, `frame_id`, `video` (text),
            `frame_index`, `next_index` (int, from 0: numbers of image1 and image2 in the video;
            consecutive frames differ by 1), `height`, `width` (int). Missing fields may be omitted.

    Raises:
        ValueError: a field is not in the schema, or does not fit the others.
    """
    unknown = set(fields) - set(FEATURES) | {"schema"} & set(fields)
    if unknown:
        raise ValueError(f"no such record fields: {', '.join(sorted(unknown))}")
    values = {name: fields.get(name, b"") for name in FILES}
    values |= {name: fields.get(name, "").encode() for name in _TEXTS}
    values |= {name: fields.get(name, 0) for name in _NUMBERS}
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
    if values["schema"] not in _READABLE:
        raise ValueError(
            f"{where}: record has schema version {values['schema']}, but this FlowSeg reads "
            f"versions {_READABLE[0]} to {_READABLE[-1]}: convert the data again"
        )
    for name, known in _FORMATS.items():
        if values[name].decode() not in known:
            raise ValueError(f"{where}: {name} is {values[name].decode()!r}, not one of {known}")
    if values["height"] <= 0 or values["width"] <= 0 or not values["image1"]:
        raise ValueError(f"{where}: a record needs image1, height and width")
    flow = values["flow"] or values["backward_flow"]
    for name, given, companion in (
        ("image1", values["image1"], "image1_format"),
        ("image2", values["image2"], "image2_format"),
        ("flow", flow, "flow_format"),
        ("labels", values["labels"], "label_set"),
    ):
        if bool(given) != bool(values[companion]):
            raise ValueError(f"{where}: {name} and {companion} must be given together")
    if flow and not values["image2"]:
        raise ValueError(f"{where}: flow without a second frame")
    for name in ("flow_noc", "occlusion"):
        if values[name] and not values["flow"]:
            raise ValueError(f"{where}: {name} without flow")
    if values["flow_noc"] and values["occlusion"]:
        raise ValueError(f"{where}: flow_noc and occlusion say the same: give one of them")
    first, second = values["frame_index"], values["next_index"]
    if min(first, second) < 0 or ((first or second) and not values["video"]):
        raise ValueError(f"{where}: frame numbers {first}, {second}: need a video, and are from 0")
    if values["video"] and not (second > first if values["image2"] else second == 0):
        raise ValueError(
            f"{where}: frame {first} of video {values['video'].decode()} has next_index {second}: "
            "the second frame comes later; without one it is 0"
        )


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
    paths = []
    for pattern in patterns:
        remote = "://" in str(pattern)
        matches = sorted(tf.io.gfile.glob(str(pattern))) if remote else globs.match(pattern)
        if matches == [str(pattern)] and Path(pattern).is_dir():
            raise ValueError(f"{pattern}: a folder; give its shards, such as {pattern}/train-*")
        if not matches:
            raise ValueError(f"{pattern}: no record files match; has the data been converted?")
        paths += matches
    for path in paths:
        files.check_utf8(path)
    return paths


def read_index(folder: str | Path) -> dict[str, Any] | None:
    """Read the index.json that a conversion wrote into a folder of records; None if there is none.

    Raises:
        ValueError: the file is damaged, or missing although a conversion was started here.
    """
    path = Path(folder) / "index.json"
    if not path.is_file():
        if path.with_name(".plan.json").is_file():
            raise ValueError(f"{folder}: this conversion is not finished: run it again first")
        return None
    try:
        index = json.loads(path.read_text())
        if isinstance(index["files"], dict) and isinstance(index["records"], dict):
            return index
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path}: damaged, or not written by a conversion; convert this data again")


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
