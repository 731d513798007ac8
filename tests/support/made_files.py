"""What the readers' tests share: small files with known pixels, and records read back."""

import cv2
import numpy as np

from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES

HEIGHT, WIDTH = 24, 32


def picture(seed, height=HEIGHT, width=WIDTH):
    """(H, W, 3) uint8 RGB noise, another for every seed."""
    return np.random.default_rng([seed, 1]).integers(0, 256, (height, width, 3), np.uint8)


def motion(seed, height=HEIGHT, width=WIDTH):
    """(H, W, 2) float32 flow in px, in steps of 1/64; u > v everywhere."""
    steps = np.random.default_rng([seed, 2]).integers(1, 640, (height, width, 2))
    return (steps * [1, -1] / 64).astype(np.float32)


def ids(seed, values, height=HEIGHT, width=WIDTH):
    """(H, W) uint8 map in which each of `values` occurs."""
    drawn = np.random.default_rng([seed, 3]).choice(np.uint8(values), (height, width))
    drawn.ravel()[: len(values)] = values
    return drawn


def save(path, pixels):
    """Write RGB or grey pixels, or bytes; the suffix decides the image format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(pixels, bytes):
        pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
        pixels = cv2.imencode(path.suffix, pixels)[1].tobytes()
    path.write_bytes(pixels)
    return path


def load(path):
    """RGB or grey pixels of an image file."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


def read_back(output, label_set=CITYSCAPES, split="*"):
    """frame id -> decoded frame in NumPy, as evaluation sees it."""
    frames = decoding.evaluation_data(records.match_files(f"{output}/{split}.tfrecord"), label_set)
    found = list(frames.as_numpy_iterator())
    by_id = {frame["frame_id"].decode(): frame for frame in found}
    assert len(by_id) == len(found)
    return by_id


def splits_of(output):
    """split -> frame ids in the order of the records."""
    found = {}
    for path in records.match_files(f"{output}/*.tfrecord"):
        part = found.setdefault(path.split("/")[-1].split("-")[0], [])
        part += [fields["frame_id"].decode() for _, fields in records.read_shard(path)]
    return found


def error_of_pulled(frame, flow):
    """Mean absolute difference of image1 and image2 pulled back by `flow` (H, W, 2), where known.

    Flow is read the way it is defined: (u, v) = (x right, y down), from image1 into image2.
    """
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    there = np.float32(np.dstack([x, y]) + flow)
    inside = ((there >= 0) & (there <= [width - 1, height - 1])).all(-1)
    inside &= frame["flow"][..., 2] > 0
    pulled = cv2.remap(np.float32(frame["image2"]), there, None, cv2.INTER_LINEAR)
    return np.abs(pulled - frame["image1"])[inside].mean()
