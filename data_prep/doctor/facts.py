"""Collects facts of single records: sizes, classes, speeds, and hashes to find duplicates."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_prep.doctor.read import decode

# Speeds are counted in 32 bins per octave from 1/16 px to 1024 px, so that percentiles are accurate
# to 2 %; the first bin holds all slower speeds, the last all faster ones.
SPEED_BINS = np.concatenate([[0], 2.0 ** np.arange(-4, 10 + 1 / 64, 1 / 32), [np.inf]])
FAST = 40.0
# Side of the thumbnails used to compare near duplicates, in px.
THUMB = 64


class Facts(NamedTuple):
    """Facts of a readable record.

    Attributes:
        shard, index, frame_id, dataset, split: identify the record; split is train, val, test or
            other.
        height, width: as stored in the record, px.
        truth: the fields present besides image1.
        problems: (kind, text) of each unusable file, see `read.decode`.
        numbering: numbering of the labels; empty: no usable labels.
        ids: (256,) number of pixels of each label id, or None.
        speeds: number of known flow vectors in each of SPEED_BINS, or None.
        flow_sums: number of known vectors, sum of their speeds in px, number faster than FAST.
        pixels1, pixels2: digests of the decoded images; empty if missing.
        image_hash: 64-bit difference hash of image1.
        thumb: (THUMB, THUMB) float16 `thumbnail` of image1, or None.
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
    image_hash: int = 0
    thumb: np.ndarray | None = None

    def name(self) -> str:
        """Return the record's frame id, shard and index, as shown to users."""
        location = "/".join(Path(self.shard).parts[-2:])
        return f"{self.frame_id or 'without an id'} ({location}, record {self.index})"


def split_of(shard: str | Path) -> str:
    """Return the split of a shard from its name: train, val, test or other."""
    start = Path(shard).name.split("-")[0]
    return start if start in ("train", "val", "test") else "other"


def collect(item: tuple[str, int, dict[str, Any]]) -> Facts:
    """Collect the :class:`Facts` of (shard, index, fields); see `read.read_records`."""
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
        values["image_hash"], values["thumb"] = difference_hash(luma), thumbnail(luma)
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
    """Hash (H, W) luma to 64 bits: whether each cell of an 8 x 9 grid is brighter than the left."""
    small = cv2.resize(luma, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


def thumbnail(luma: np.ndarray) -> np.ndarray | None:
    """Reduce (H, W) luma to its fine detail, (THUMB, THUMB) float16, normalised by its contrast.

    Brightness and contrast are removed. None if there is almost no detail to compare.
    """
    small = cv2.resize(luma, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1)
    detail = small - cv2.GaussianBlur(small, (0, 0), 4)
    contrast = float(detail.std())
    return None if contrast < 0.5 else (detail / contrast).astype(np.float16)
