"""Small sets with known flow and labels for the tests of the doctor, and ways to spoil them."""

import cv2
import numpy as np
import tensorflow as tf

from flowseg import flow_io, records

HEIGHT, WIDTH = 96, 144
ROAD, BUILDING, VEGETATION, SKY, UNLABELED = 7, 11, 21, 23, 0
IDS = np.array([ROAD, BUILDING, VEGETATION, SKY], np.uint8)


def make_frame(k):
    """A textured pair whose image1 is its image2 warped by a known flow, so that it is exact.

    Four classes in wavy bands, each with its own brightness, over a few void rows; u is 3 to 7 px,
    v -1.5 to -3.5 px, and image2 is darker than image1.

    Returns:
        dict: `frame_id`, `image1`, `image2`, `flow` (H, W, 2), `valid` (H, W), `labels`.
    """
    rng = np.random.default_rng([k, 7])
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    ends = np.sort(rng.uniform(0.1, 0.9, 3)) * 0.4 + np.array([0.1, 0.3, 0.5])
    wave = 6 * np.sin(y / rng.uniform(6, 14) + rng.uniform(0, 6))
    band = np.sum([(x + wave > end * WIDTH) for end in ends], 0)
    light = rng.permutation([50, 95, 140, 185])[band].astype(np.float32)
    grains = (
        cv2.resize(
            rng.uniform(-1, 1, (HEIGHT // n, WIDTH // n)).astype(np.float32), (WIDTH, HEIGHT)
        )
        for n in (2, 4, 12)
    )
    image2 = np.repeat((light + 18 * sum(grains))[..., None], 3, -1) + rng.uniform(-9, 9, 3)
    u0, v0 = rng.uniform(3.5, 6.5), rng.uniform(-3, -2)
    flow = np.dstack([u0 + 0.5 * np.sin(y / 20), v0 + 0.5 * np.sin(x / 25)])
    flow = (np.rint(flow * 64) / 64).astype(np.float32)
    there = (x + flow[..., 0], y + flow[..., 1])
    image1 = cv2.remap(image2.astype(np.float32), *there, cv2.INTER_LINEAR)
    labels = IDS[cv2.remap(band.astype(np.uint8), *there, cv2.INTER_NEAREST)]
    labels[-6:] = UNLABELED
    valid = (there[0] <= WIDTH - 1) & (there[1] >= 0)
    return {
        "frame_id": f"{k:03d}",
        "image1": np.uint8(np.clip(image1, 0, 255)),
        "image2": np.uint8(np.clip(0.9 * image2 + 5, 0, 255)),
        "flow": flow,
        "valid": valid,
        "labels": labels,
    }


def make_set(train=6, val=2):
    """{"train": frames, "val": frames}."""
    frames = [make_frame(k) for k in range(train + val)]
    return {"train": frames[:train], "val": frames[train:]}


def encode(image, form="png"):
    if form == "ppm":
        return b"P6\n%d %d\n255\n" % image.shape[1::-1] + image.tobytes()
    blue_first = image[..., ::-1] if image.ndim == 3 else image
    extension, quality = (
        (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]) if form == "jpeg" else (".png", [])
    )
    return cv2.imencode(extension, np.ascontiguousarray(blue_first), quality)[1].tobytes()


def to_fields(frame, k=0):
    """The record fields of a frame; its number decides the formats, so that each occurs.

    A key of the record (`flow_format`, `label_set`, `dataset`) in the frame is taken as it is.
    """
    fields = {"dataset": frame.get("dataset", "made"), "frame_id": frame["frame_id"]}
    fields |= {"height": frame["image1"].shape[0], "width": frame["image1"].shape[1]}
    for name in ("image1", "image2"):
        if frame.get(name) is not None:
            form = fields[f"{name}_format"] = frame.get("format", ("png", "jpeg", "ppm")[k % 3])
            fields[name] = encode(frame[name], form)
    if frame.get("flow") is not None:
        form = fields["flow_format"] = frame.get("flow_format", ("kitti", "flo")[k % 2])
        write = flow_io.encode_kitti_flow if form == "kitti" else flow_io.encode_flo
        fields["flow"] = write(frame["flow"], frame["valid"])
        if form == "kitti":
            fields["flow_noc"] = write(frame["flow"], frame["valid"])
    if frame.get("labels") is not None:
        fields |= {"labels": encode(frame["labels"]), "label_set": "cityscapes"}
    return fields | {k: frame[k] for k in ("label_set", "spoilt") if k in frame}


def write_set(folder, splits):
    """Write frames as one shard a split; returns the shards' paths as text.

    A frame with a key `spoilt` (a field's name) gets that field cut short.
    """
    paths = []
    for split, frames in splits.items():
        path = folder / f"{split}-00000-of-00001.tfrecord"
        paths.append(str(path))
        with tf.io.TFRecordWriter(str(path)) as shard:
            for k, frame in enumerate(frames):
                fields = to_fields(frame, k)
                spoilt = fields.pop("spoilt", None)
                if spoilt:
                    fields[spoilt] = fields[spoilt][:-40]
                shard.write(records.make_example(**fields))
    return paths


def flip_bit(path, number, place=0.5):
    """Flip one bit of record `number`: length (8), sum (4), Example, sum (4)."""
    content, start = bytearray(open(path, "rb").read()), 0
    for _ in range(number):
        start += int.from_bytes(content[start : start + 8], "little") + 16
    length = int.from_bytes(content[start : start + 8], "little")
    content[start + (12 + int(place * length) if place is not None else 2)] ^= 1
    with open(path, "wb") as file:
        file.write(content)


def scale(frame, factor):
    return {**frame, "flow": frame["flow"] * np.float32(factor)}
