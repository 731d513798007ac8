"""Records for the doctor: read on beyond damage, decoded on request.

Imports no TensorFlow by itself, as the worker processes import this room.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.conversion.frames import decode_ids, decode_image, image_format
from flowseg.data import flow_io

_FILES = ("image1", "image2", "flow", "flow_noc", "labels", "instances", "objects")


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yield (index, fields) of every record of a shard, damaged ones included.

    `flowseg.data.records.read_shard` ends at the first damaged record. Here that record gives its
    ValueError instead of fields, and reading goes on behind it, as far as the lengths in the shard
    can be trusted.

    Args:
        path: the shard.

    Yields:
        (index, fields): fields as `read_shard` gives them, but texts as str; or (index,
        ValueError).
    """
    from flowseg.data import records

    shard, first = Path(path), 0
    with tempfile.TemporaryDirectory() as folder:
        while shard:
            count = 0
            try:
                for _, fields in records.read_shard(shard):
                    yield first + count, _with_text(fields)
                    count += 1
                return
            except ValueError as error:
                reason = str(error).removeprefix(f"{shard}, record {count}: ")
            # The rest becomes a shard of its own; its name must not be the one now being read.
            rest = Path(folder) / f"{first}"
            readable = _cut(shard, count + 1, rest)
            lost = "" if readable is not None else "; what follows in this shard cannot be read"
            yield first + count, ValueError(f"{path}, record {first + count}: {reason}{lost}")
            first, shard = first + count + 1, readable


def read_some(path: str | Path, wanted: set[int]) -> Iterator[dict[str, Any]]:
    """Yield the fields of the records `wanted` of a shard (a set of indexes), in their order.

    The others are stepped over: for records that `read_records` has found sound.
    """
    from flowseg.data import records

    with open(path, "rb") as file:
        for index in range(max(wanted, default=-1) + 1):
            start = file.tell()
            _skip(file)
            if index in wanted:
                end = file.tell()
                file.seek(start + 12)
                parsed = records.parse_example(file.read(end - start - 16))
                yield _with_text({name: value.numpy() for name, value in parsed.items()})
                file.seek(end)


def count_records(path: str | Path) -> int:
    """How many records a shard holds, by the lengths that stand in it."""
    with open(path, "rb") as file:
        count = 0
        while _skip(file):
            count += 1
    return count


def _with_text(fields):
    return {
        name: value.decode(errors="replace")
        if isinstance(value, bytes) and name not in _FILES
        else value
        for name, value in fields.items()
    }


def _cut(shard, count, rest):
    """Write all but the first `count` records of `shard` to `rest`.

    Returns:
        `rest`; False where nothing is left; None where a length is wrong on the way.
    """
    with open(shard, "rb") as file:
        if not all(_skip(file) for _ in range(count)):
            return None
        data = file.read()
    rest.write_bytes(data)
    return rest if data else False


def _skip(file):
    """Step over one record: length (8 bytes) and its check sum (4), the Example, its sum (4).

    Returns:
        Whether there was a whole record with a sound length.
    """
    head = file.read(12)
    if len(head) < 12 or _check_sum(head[:8]) != int.from_bytes(head[8:], "little"):
        return False
    end = file.seek(int.from_bytes(head[:8], "little") + 4, os.SEEK_CUR)
    return end <= os.fstat(file.fileno()).st_size


def _check_sum(data):
    """The masked CRC-32C of TFRecord (tensorflow/core/lib/hash/crc32c.h)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def decode(fields: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """The files of one record as arrays; what cannot be decoded or used is left out and told.

    Args:
        fields: as `read_records` gives them, or `data_prep.conversion.frames.read_frame`.

    Returns:
        (frame, problems): dict with those of `image1`, `image2` (H, W, 3) uint8 RGB, `flow`,
        `flow_noc` (H, W, 3) float32 (u, v, valid), `labels` (H, W) uint8 of the owner's ids;
        list of (kind, text), kind "file" (damaged) or "size" (does not fit image1).
    """
    frame, problems = {}, []
    for name in ("image1", "image2", "flow", "flow_noc", "labels"):
        if not fields.get(name):
            continue
        try:
            decoded = _decode(name, fields)
        except ValueError as error:
            problems.append(("file", str(error)))
            continue
        except cv2.error as error:
            problems.append(("file", f"{name}: OpenCV cannot read it: {error.err}"))
            continue
        size = (fields["height"], fields["width"])
        if decoded.shape[:2] == size:
            frame[name] = decoded
        else:
            found = "x".join(map(str, decoded.shape[:2]))
            problems.append(("size", f"{name} is {found}, the record says {size[0]}x{size[1]}"))
    return frame, problems


def _decode(name, fields):
    data = fields[name]
    if name in ("image1", "image2"):
        form = fields[f"{name}_format"]
        if image_format(data, name) != form:
            raise ValueError(f"{name}: is {image_format(data, name)}, the record says {form}")
        return np.ascontiguousarray(decode_image(data, name)[..., ::-1])
    if name in ("flow", "flow_noc"):
        is_flo = fields["flow_format"] == "flo"
        return (flow_io.decode_flo if is_flo else flow_io.decode_kitti_flow)(data, name)
    ids = decode_ids(data, name)
    if ids.dtype != np.uint8:
        raise ValueError(f"{name}: a label map has 8 bits, this one {ids.dtype.itemsize * 8}")
    return ids
