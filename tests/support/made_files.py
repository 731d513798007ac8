"""Helpers for tests of the readers: small files with known pixels, and records read back."""

import cv2
import numpy as np

from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES

HEIGHT, WIDTH = 24, 32


def picture(seed, height=HEIGHT, width=WIDTH):
    """Return RGB noise, (H, W, 3) uint8, which depends on the seed."""
    return np.random.default_rng([seed, 1]).integers(0, 256, (height, width, 3), np.uint8)


def motion(seed, height=HEIGHT, width=WIDTH):
    """Return flow in px, (H, W, 2) float32, in steps of 1/64; u > v everywhere."""
    steps = np.random.default_rng([seed, 2]).integers(1, 640, (height, width, 2))
    return (steps * [1, -1] / 64).astype(np.float32)


def ids(seed, values, height=HEIGHT, width=WIDTH):
    """Return a map, (H, W) uint8, that contains each of `values`."""
    drawn = np.random.default_rng([seed, 3]).choice(np.uint8(values), (height, width))
    drawn.ravel()[: len(values)] = values
    return drawn


def save(path, pixels):
    """Write RGB or grey pixels, or bytes; the suffix selects the image format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(pixels, bytes):
        pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
        pixels = cv2.imencode(path.suffix, pixels)[1].tobytes()
    path.write_bytes(pixels)
    return path


def load(path):
    """Read RGB or grey pixels from an image file."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


def read_back(output, label_set=CITYSCAPES, split="*"):
    """Return frame id -> decoded frame in NumPy, as used in evaluation."""
    frames = decoding.evaluation_data(records.match_files(f"{output}/{split}.tfrecord"), label_set)
    decoded = list(frames.as_numpy_iterator())
    by_id = {frame["frame_id"].decode(): frame for frame in decoded}
    assert len(by_id) == len(decoded)
    return by_id


def splits_of(output):
    """Return split -> frame ids in the order of the records."""
    splits = {}
    for path in records.match_files(f"{output}/*.tfrecord"):
        frame_ids = splits.setdefault(path.split("/")[-1].split("-")[0], [])
        frame_ids += [fields["frame_id"].decode() for _, fields in records.read_shard(path)]
    return splits


def warp_error(frame, flow):
    """Mean absolute difference of image1 and image2 warped by `flow` (H, W, 2), where valid.

    Flow is (u, v) = (x right, y down), from image1 to image2.
    """
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    target = np.float32(np.dstack([x, y]) + flow)
    inside = ((target >= 0) & (target <= [width - 1, height - 1])).all(-1)
    inside &= frame["flow"][..., 2] > 0
    warped = cv2.remap(np.float32(frame["image2"]), target, None, cv2.INTER_LINEAR)
    return np.abs(warped - frame["image1"])[inside].mean()
