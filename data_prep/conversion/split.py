"""Which frames are for training and which for validation, and the order of their records."""

import hashlib
from collections.abc import Iterable

from data_prep.conversion.frames import Frame
from flowseg.errors import ArgumentError


def by_hash(frames: Iterable[Frame], val_fraction: float, seed: int) -> dict[str, list[Frame]]:
    """{"train": [...], "val": [...]}, each in an order mixed by `seed`.

    A frame's split depends on its group (its id, where it has none) and the seed alone, so that
    new frames move no old one.

    Raises:
        ValueError: `val_fraction` outside 0..1.
    """
    if not 0 <= val_fraction <= 1:
        raise ArgumentError(f"val_fraction={val_fraction}: must be between 0 and 1", "val_fraction")
    splits = {"train": [], "val": []}
    for frame in _mix(frames, seed):
        in_val = _share(f"split {seed} {frame.group or frame.frame_id}") < val_fraction
        splits["val" if in_val else "train"].append(frame)
    return splits


def as_told(splits: dict[str, list[Frame]], seed: int) -> dict[str, list[Frame]]:
    """The splits that a data set's owner made (split name -> frames), each mixed by `seed`."""
    return {name: _mix(frames, seed) for name, frames in splits.items()}


def check_ids(splits: dict[str, list[Frame]]) -> None:
    """Raise ValueError, naming both files, where two frames have one id, in one split or in two.

    Args:
        splits: split name -> list of :class:`data_prep.conversion.frames.Frame`.
    """
    seen = {}
    for frame in (frame for frames in splits.values() for frame in frames):
        path = frame.files["image1"]
        first = seen.setdefault(frame.frame_id, path)
        if first is not path:
            raise ValueError(
                f"{path}: a second frame {frame.frame_id}, the first is {first}: rename one, or "
                "convert the two folders into outputs of their own"
            )


def _mix(frames, seed):
    return sorted(frames, key=lambda frame: _share(f"order {seed} {frame.frame_id}"))


def _share(text):
    """`text` -> a number in 0..1, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
