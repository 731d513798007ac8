"""What the doctor notes of one record: sizes, classes, speeds, and marks to find duplicates by."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_prep.doctor.read import decode

# Speeds are counted in 32 bins an octave from 1/16 px to 1024 px, so that percentiles are right to
# 2 %; the first bin holds all that is slower, the last all that is faster.
SPEED_BINS = np.concatenate([[0], 2.0 ** np.arange(-4, 10 + 1 / 64, 1 / 32), [np.inf]])
FAST = 40.0
# Side of the thumbnails that near duplicates are compared by, in px.
THUMB = 64


class Facts(NamedTuple):
    """Of one record that could be read.

    Attributes:
        shard, index, frame_id, dataset, split: which record; split is train, val, test or other.
        height, width: as the record says, px.
        truth: the fields that it has beside image1.
        problems: (kind, text) of each file that cannot be used, see `read.decode`.
        numbering: of its labels; empty: none, or of another size.
        ids: (256,) pixels of each of the owner's ids, or None.
        speeds: known flow vectors in each of SPEED_BINS, or None.
        flow_sums: known vectors, the sum of their speeds in px, and how many are over FAST.
        pixels1, pixels2: digests of the decoded images; empty where there is none.
        mark: 64-bit difference hash of image1.
        thumb: (THUMB, THUMB) float16, what `thumbnail` made of image1, or None.
    """

    shard: str
    index: int
    frame_id: str
    dataset: str
    split: str
    height: int
    width: int
    truth: tuple[str, ...]
    problems: tuple[tuple[str, str], ...] = ()
    numbering: str = ""
    ids: np.ndarray | None = None
    speeds: np.ndarray | None = None
    flow_sums: tuple[float, ...] = (0, 0, 0)
    pixels1: str = ""
    pixels2: str = ""
    mark: int = 0
    thumb: np.ndarray | None = None

    def name(self) -> str:
        """The record as a person looks for it."""
        place = "/".join(Path(self.shard).parts[-2:])
        return f"{self.frame_id or 'without an id'} ({place}, record {self.index})"


def split_of(shard: str | Path) -> str:
    """train, val or test, by how the name of a shard begins; else other."""
    start = Path(shard).name.split("-")[0]
    return start if start in ("train", "val", "test") else "other"


def note(item: tuple[str, int, dict[str, Any]]) -> Facts:
    """:class:`Facts` of (shard, index, fields); see `read.read_records`."""
    shard, index, fields = item
    frame, problems = decode(fields)
    values = {}
    if "labels" in frame:
        values["numbering"] = fields["label_set"]
        values["ids"] = np.bincount(frame["labels"].ravel(), minlength=256)
    if "flow" in frame:
        known = frame["flow"][..., 2] > 0
        speed = np.hypot(*frame["flow"][known, :2].T)
        values["speeds"] = np.histogram(speed, SPEED_BINS)[0].astype(np.int32)
        values["flow_sums"] = (speed.size, float(speed.sum(dtype=float)), int((speed > FAST).sum()))
    for name in ("image1", "image2"):
        if name in frame:
            values[f"pixels{name[-1]}"] = _digest(frame[name])
    if "image1" in frame:
        luma = cv2.cvtColor(frame["image1"], cv2.COLOR_RGB2GRAY).astype(np.float32)
        values["mark"], values["thumb"] = difference_hash(luma), thumbnail(luma)
    return Facts(
        shard=str(shard),
        index=index,
        frame_id=fields["frame_id"],
        dataset=fields["dataset"] or "without a name",
        split=split_of(str(shard)),
        height=int(fields["height"]),
        width=int(fields["width"]),
        truth=tuple(n for n in ("image2", "flow", "flow_noc", "labels") if fields[n]),
        problems=tuple(problems),
        **values,
    )


def _digest(image):
    shape = "x".join(map(str, image.shape)).encode()
    return hashlib.blake2b(image.tobytes(), digest_size=16, key=shape).hexdigest()


def difference_hash(luma: np.ndarray) -> int:
    """64 bits of (H, W) luma: whether each cell of 8 x 9 is brighter than its left neighbour."""
    small = cv2.resize(luma, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


def thumbnail(luma: np.ndarray) -> np.ndarray | None:
    """(THUMB, THUMB) float16: the small detail of (H, W) luma in units of its own contrast.

    Brightness and contrast drop out. None where there is next to no detail to compare.
    """
    small = cv2.resize(luma, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1)
    detail = small - cv2.GaussianBlur(small, (0, 0), 4)
    contrast = float(detail.std())
    return None if contrast < 0.5 else (detail / contrast).astype(np.float16)
