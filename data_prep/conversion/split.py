"""Assigns frames to training and validation, and shuffles the order of their records."""

import hashlib
from collections.abc import Iterable

from data_prep.conversion.frames import Frame
from flowseg.errors import ArgumentError


def by_hash(frames: Iterable[Frame], val_fraction: float, seed: int) -> dict[str, list[Frame]]:
    """Split frames into {"train": [...], "val": [...]} by hash; each split is shuffled by `seed`.

    A frame's split depends only on its group (without one, on its video, or else on its id) and on
    the seed, so that a split never cuts a video and adding frames never moves existing ones.

    Raises:
        ValueError: `val_fraction` outside 0..1.
    """
    if not 0 <= val_fraction <= 1:
        raise ArgumentError(f"val_fraction={val_fraction}: must be between 0 and 1", "val_fraction")
    splits = {"train": [], "val": []}
    for frame in _shuffle(frames, seed):
        unit = frame.group or frame.video or frame.frame_id
        in_val = _hash_fraction(f"split {seed} {unit}") < val_fraction
        splits["val" if in_val else "train"].append(frame)
    return splits


def shuffle(splits: dict[str, list[Frame]], seed: int) -> dict[str, list[Frame]]:
    """Shuffle each of the given splits (split name -> frames) by `seed`."""
    return {name: _shuffle(frames, seed) for name, frames in splits.items()}


def check_ids(splits: dict[str, list[Frame]]) -> None:
    """Raise ValueError if two frames of any splits have the same id, or an id is not valid UTF-8.

    Args:
        splits: split name -> list of :class:`data_prep.conversion.frames.Frame`.
    """
    path_of_id = {}
    for frame in (frame for frames in splits.values() for frame in frames):
        path = frame.files["image1"]
        if not _is_utf8(frame.frame_id):
            raise ValueError(f"{path}: the name is not valid UTF-8, but becomes the id: rename it")
        first = path_of_id.setdefault(frame.frame_id, path)
        if first is not path:
            raise ValueError(
                f"{path}: duplicate frame id {frame.frame_id}, also used by {first}: rename one, "
                "or convert the two folders into separate outputs"
            )


def _is_utf8(text):
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _shuffle(frames, seed):
    return sorted(frames, key=lambda frame: _hash_fraction(f"order {seed} {frame.frame_id}"))


def _hash_fraction(text):
    """Hash `text` to a number in 0..1; the same on every machine."""
    return (
        int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8]) / 2**64
    )
