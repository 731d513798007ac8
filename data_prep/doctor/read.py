"""Reads records for the doctor, continuing after damaged ones, and decodes them.

Does not import TensorFlow at the top, because worker processes import this module.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.conversion.frames import decode_ids
from flowseg.data import flow_io, image_headers, images, masks
from flowseg.data.record_fields import FILES

# The fields that are decoded and checked.
_DECODED = ("image1", "image2", "flow", "flow_noc", "backward_flow", "occlusion", "labels")


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yield (index, fields) of every record of a shard, including damaged ones.

    `flowseg.data.records.read_shard` stops at the first damaged record. Here that record yields its
    ValueError instead of fields, and reading continues after it, as far as the lengths stored in
    the shard are valid.

    Args:
        path: the shard.

    Yields:
        (index, fields): fields as from `read_shard`, but texts as str; or (index, ValueError).
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
            # The rest becomes a new shard, which must not overwrite the one being read.
            rest = Path(folder) / f"{first}"
            readable = _write_rest(shard, count + 1, rest)
            lost = "" if readable is not None else "; the rest of this shard cannot be read"
            yield first + count, ValueError(f"{path}, record {first + count}: {reason}{lost}")
            first, shard = first + count + 1, readable


def read_some(path: str | Path, wanted: set[int]) -> Iterator[dict[str, Any]]:
    """Yield the fields of the records `wanted` (a set of indexes) of a shard, in order.

    The other records are skipped. The wanted ones must be intact, as found by `read_records`.
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
    """Count the records of a shard by the lengths stored in it."""
    with open(path, "rb") as file:
        count = 0
        while _skip(file):
            count += 1
    return count


def _with_text(fields):
    return {
        name: value.decode(errors="replace")
        if isinstance(value, bytes) and name not in FILES
        else value
        for name, value in fields.items()
    }


def _write_rest(shard, count, rest):
    """Write all but the first `count` records of `shard` to `rest`.

    Returns:
        `rest`; False if nothing is left; None if a length on the way is invalid.
    """
    with open(shard, "rb") as file:
        if not all(_skip(file) for _ in range(count)):
            return None
        data = file.read()
    rest.write_bytes(data)
    return rest if data else False


def _skip(file):
    """Skip one record: length (8 bytes), its checksum (4), the Example, its checksum (4).

    Returns:
        Whether there was a complete record with a valid length.
    """
    head = file.read(12)
    if len(head) < 12 or _checksum(head[:8]) != int.from_bytes(head[8:], "little"):
        return False
    end = file.seek(int.from_bytes(head[:8], "little") + 4, os.SEEK_CUR)
    return end <= os.fstat(file.fileno()).st_size


def _checksum(data):
    """Compute the masked CRC-32C of TFRecord (tensorflow/core/lib/hash/crc32c.h)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def decode(fields: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """Decode the files of a record; unusable ones are omitted and reported as problems.

    Args:
        fields: as from `read_records` or `data_prep.conversion.frames.read_frame`.

    Returns:
        (frame, problems): dict with those of `image1`, `image2` (H, W, 3) uint8 RGB, `flow`,
        `flow_noc`, `backward_flow` (H, W, 3) float32 (u, v, valid), `labels` (H, W) uint8 label
        ids; an occlusion map becomes `flow_noc`;
        list of (kind, text), kind "file" (damaged) or "size" (does not fit image1).
    """
    frame, problems = {}, []
    for name in _DECODED:
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
            shape = "x".join(map(str, decoded.shape[:2]))
            problems.append(("size", f"{name} is {shape}, the record says {size[0]}x{size[1]}"))
    occlusion = frame.pop("occlusion", None)
    if occlusion is not None and "flow" in frame:
        frame["flow_noc"] = np.where(occlusion[..., None] > 0, np.float32(0), frame["flow"])
    return frame, problems


def _decode(name, fields):
    data = fields[name]
    if name in ("image1", "image2"):
        form = fields[f"{name}_format"]
        image = images.decode(data, name)
        if image_headers.form(data) != form:
            stored = image_headers.form(data) or "another format"
            raise ValueError(f"{name}: is {stored}, the record says {form}")
        # PPM is decoded without TensorFlow's decoders.
        if form != "ppm" and (obstacle := image_headers.graph_obstacle(data)):
            raise ValueError(f"{name}: {obstacle}; convert this data again")
        return image
    if name in ("flow", "flow_noc", "backward_flow"):
        return flow_io.decode_flow(data, fields["flow_format"], name)
    ids = decode_ids(data, name)
    if not masks.holds_plain_ids(data) and ids.dtype == np.uint8:
        raise ValueError(
            f"{name}: not an 8-bit grey PNG: training reads other ids than the file has, and class "
            "1 of a 1-bit mask as void; convert this data again"
        )
    if ids.dtype != np.uint8:
        raise ValueError(
            f"{name}: a label map must have 8 bits, but this one has {ids.dtype.itemsize * 8}"
        )
    return ids
