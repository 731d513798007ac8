"""Computes SHA-256 digests of the inputs and the content of shards."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion.frames import Frame


def relative(text: str, roots: Iterable[Path]) -> str:
    """Return `text` with its paths relative to the source folders: equal on every machine."""
    for root in roots:
        text = text.replace(f"{root}{os.sep}", "")
    return text


def of_inputs(frames: Iterable[Frame], roots: Sequence[Path]) -> str:
    """Digest of the frames and their files' paths, sizes and modification times."""

    def describe(path):
        stat = path.stat() if path.is_file() else None
        return [relative(str(path), roots), stat and stat.st_size, stat and stat.st_mtime_ns]

    return of_value(
        [
            [frame.frame_id, frame.label_set, *frame.known_ids]
            + [sorted(d.items()) for d in (frame.palette, frame.mask_values) if d]
            + [[field, describe(path)] for field, path in frame.files.items()]
            + [[field, *map(describe, paths)] for field, paths in frame.copies.items()]
            + [[field, *map(describe, e.paths)] for field, e in frame.encoders.items()]
            + ([frame.video, frame.frame_index, frame.next_index] if frame.video else [])
            for frame in frames
        ]
    )


def of_value(value: Any) -> str:
    """Digest of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def of_file(path: Path) -> str:
    """Digest of the content of a file; empty if the file is missing."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
