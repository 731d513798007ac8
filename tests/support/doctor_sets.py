"""Small sets with known flow and labels for the doctor's tests, and ways to damage them."""

import cv2
import numpy as np

from data_prep.doctor.examine import examine
from flowseg.data import flow_io
from flowseg.data.labels import CITYSCAPES

HEIGHT, WIDTH = 96, 144
ROAD, BUILDING, VEGETATION, SKY, UNLABELED = 7, 11, 21, 23, 0
# Directions of the frames' motion: u and v differ, neither is small, and no direction equals
# another one with swapped or negated components.
ANGLES = (20, 158, 251, 107, 294, 65, 206, 333)
IDS = np.array([ROAD, BUILDING, VEGETATION, SKY], np.uint8)


def make_frame(k):
    """Create a textured pair whose image1 is image2 warped by a known flow, which is thus exact.

    Four classes in wavy bands of different brightness, above a few void rows. The motion is 4 to
    7.5 px, in a different direction for each frame, and image2 is darker than image1.

    Returns:
        dict: `frame_id`, `image1`, `image2`, `flow` (H, W, 2), `valid` (H, W), `labels`.
    """
    rng = np.random.default_rng([k, 7])
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    ends = np.sort(rng.uniform(0.1, 0.9, 3)) * 0.4 + np.array([0.1, 0.3, 0.5])
    wave = 6 * np.sin(y / rng.uniform(6, 14) + rng.uniform(0, 6))
    band = np.sum([(x + wave > end * WIDTH) for end in ends], 0)
    light = rng.permutation([50, 95, 140, 185])[band].astype(np.float32)
    noise = (rng.uniform(-1, 1, (HEIGHT // n, WIDTH // n)).astype(np.float32) for n in (2, 4, 12))
    grains = (cv2.resize(part, (WIDTH, HEIGHT)) for part in noise)
    image2 = np.repeat((light + 18 * sum(grains))[..., None], 3, -1) + rng.uniform(-9, 9, 3)
    angle, speed = np.radians(ANGLES[k % 8]), 4 + 0.5 * (3 * k % 8)
    flow = speed * np.float32([np.cos(angle), np.sin(angle)]) + np.dstack(
        [0.5 * np.sin(y / 20), 0.5 * np.sin(x / 25)]
    )
    flow = (np.rint(flow * 64) / 64).astype(np.float32)
    target = (x + flow[..., 0], y + flow[..., 1])
    image1 = cv2.remap(image2.astype(np.float32), *target, cv2.INTER_LINEAR)
    labels = IDS[cv2.remap(band.astype(np.uint8), *target, cv2.INTER_NEAREST)]
    labels[-6:] = UNLABELED
    valid = np.all(
        [(p >= 0) & (p <= n - 1) for p, n in zip(target, (WIDTH, HEIGHT), strict=True)], 0
    )
    return {
        "frame_id": f"{k:03d}",
        "image1": np.uint8(np.clip(image1, 0, 255)),
        "image2": np.uint8(np.clip(0.9 * image2 + 5, 0, 255)),
        "flow": flow,
        "valid": valid,
        "labels": labels,
    }


def make_set(train=4, val=1):
    """Return {"train": frames, "val": frames}."""
    frames = [make_frame(k) for k in range(train + val)]
    return {"train": frames[:train], "val": frames[train:]}


def encode(image, form="png"):
    if form == "ppm":
        return b"P6\n%d %d\n255\n" % image.shape[1::-1] + image.tobytes()
    blue_first = image[..., ::-1] if image.ndim == 3 else image
    extension, quality = ".png", []
    if form == "jpeg":
        extension, quality = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]
    return cv2.imencode(extension, np.ascontiguousarray(blue_first), quality)[1].tobytes()


def to_fields(frame, k=0):
    """Return the record fields of a frame; its number selects the formats, so that all occur.

    A key of the record (`flow_format`, `label_set`, `dataset`) in the frame is used unchanged.
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
    """Write frames as one shard per split; return the shards' paths as text.

    If a frame has a key `spoilt` (a field's name), that field is truncated.
    """
    # Imported here because most tests of the doctor need no TensorFlow.
    import tensorflow as tf

    from flowseg.data import records

    paths = []
    for split, frames in splits.items():
        path = folder / f"{split}-00000-of-00001.tfrecord"
        paths.append(str(path))
        with tf.io.TFRecordWriter(str(path)) as shard:
            for k, frame in enumerate(frames):
                fields = to_fields(frame, k)
                truncated = fields.pop("spoilt", None)
                if truncated:
                    fields[truncated] = fields[truncated][:-40]
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


def diagnose(folder, splits, label_set=CITYSCAPES, **options):
    """Write frames as records and return the doctor's diagnosis."""
    return examine(write_set(folder, splits), label_set, **options)


def assert_findings(diagnosis, *expected):
    """Check that the findings are exactly these (level, name, frame ids); ids may be None."""
    actual = [(f.level, f.name, {frame.frame_id for frame in f.frames}) for f in diagnosis.findings]
    assert [(level, name) for level, name, _ in actual] == [(e[0], e[1]) for e in expected], [
        f.line() for f in diagnosis.findings
    ]
    for (_, name, ids), (*_, expected_ids) in zip(actual, expected, strict=True):
        assert expected_ids is None or ids == set(expected_ids), name
