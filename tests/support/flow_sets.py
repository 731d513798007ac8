"""Small data sets with flow in their official layouts and encodings, for the tests of the readers.

The encodings are written from their published formulas, without the encoders of the project.
"""

import json

import cv2
import numpy as np

from flowseg.data import records
from tests.support.made_files import ids, motion, picture, save
from tests.support.png_writer import palette_png

# Virtual KITTI 2's published table, in its order.
VKITTI2_COLOURS = {
    "Terrain": (210, 0, 200), "Sky": (90, 200, 255), "Tree": (0, 199, 0),
    "Vegetation": (90, 240, 0), "Building": (140, 140, 140), "Road": (100, 60, 100),
    "GuardRail": (250, 100, 255), "TrafficSign": (255, 255, 0), "TrafficLight": (200, 200, 0),
    "Pole": (255, 130, 0), "Misc": (80, 80, 80), "Truck": (160, 60, 60), "Car": (255, 127, 80),
    "Van": (0, 139, 139), "Undefined": (0, 0, 0),
}  # fmt: skip


def fields_of(output, split="*"):
    """Return frame id -> fields of all records in a folder, or of one split."""
    paths = records.match_files(f"{output}/{split}.tfrecord")
    all_fields = [fields for path in paths for _, fields in records.read_shard(path)]
    return {fields["frame_id"].decode(): fields for fields in all_fields}


def kitti_png(flow, known=None):
    """KITTI's formula: R = 64 u + 2^15, G = 64 v + 2^15, B = known."""
    return _png_16(64 * np.float64(flow) + 2**15, known)


def vkitti2_png(flow, known=None):
    """Virtual KITTI 2's formula: R = (u / (W - 1) + 1) / 2 * 65535, G likewise, B = known."""
    height, width = flow.shape[:2]
    return _png_16((np.float64(flow) / [width - 1, height - 1] + 1) / 2 * 65535, known)


def _png_16(values, known):
    known = np.ones(values.shape[:2], bool) if known is None else known
    red_green = np.where(known[..., None], np.rint(values), 0)
    assert red_green.min() >= 0 and red_green.max() <= 65535
    rgb = np.uint16(np.dstack([red_green, known]))
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def pfm(flow, order="<"):
    """PFM of three channels: the lowest row first, the third channel unused."""
    pixels = np.dstack([flow, np.zeros(flow.shape[:2])])[::-1].astype(f"{order}f4")
    scale = b"-1.0" if order == "<" else b"1.0"
    return b"PF\n%d %d\n%s\n" % (flow.shape[1], flow.shape[0], scale) + pixels.tobytes()


def flo(flow):
    """Middlebury's format: PIEH, width, height, then u and v of each pixel by rows."""
    height, width = flow.shape[:2]
    return b"PIEH" + np.array([width, height], "<i4").tobytes() + flow.astype("<f4").tobytes()


def _jpeg(image):
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


def write_vkitti2(root, video, images, flow, backward=(), first=0):
    """Write a video: its images, flow (one less) and backward flow of frames 1, 2, ...

    A list of flow may hold None for a file that is not written.
    """
    frames = root / video[0] / video[1] / "frames"
    for n, image in enumerate(images, first):
        save(frames / f"rgb/{video[2]}/rgb_{n:05d}.jpg", _jpeg(image))
    for n, vectors in enumerate(flow, first):
        if vectors is not None:
            save(frames / f"forwardFlow/{video[2]}/flow_{n:05d}.png", vkitti2_png(*vectors))
    for n, vectors in enumerate(backward, first + 1):
        path = frames / f"backwardFlow/{video[2]}/backwardFlow_{n:05d}.png"
        save(path, vkitti2_png(*vectors))
    return frames


def write_street_video(root, video, images, flow, backward=(), first=0):
    """Write a video as `data_prep.scenes --frames` does, without labels."""
    settings = {"flow_encoding": "kitti", "labels": "cityscapes", "instances": "cityscapes"}
    save(root / "scenes.json", json.dumps(settings).encode())
    frames = root / video[0] / video[1] / "frames"
    for n, image in enumerate(images, first):
        save(frames / f"rgb/{video[2]}/rgb_{n:05d}.png", image)
    for n, vectors in enumerate(flow, first):
        save(frames / f"forwardFlow/{video[2]}/flow_{n:05d}.png", kitti_png(*vectors))
    for n, vectors in enumerate(backward, first + 1):
        path = frames / f"backwardFlow/{video[2]}/backwardFlow_{n:05d}.png"
        save(path, kitti_png(*vectors))
    return frames


def write_hd1k(root, sequence, images, flow, first=0):
    for n, image in enumerate(images, first):
        save(root / f"hd1k_input/image_2/{sequence:06d}_{n:04d}.png", image)
    for n, vectors in enumerate(flow, first):
        save(root / f"hd1k_flow_gt/flow_occ/{sequence:06d}_{n:04d}.png", kitti_png(*vectors))


def write_things(root, scene, images, flow, backward=(), first=6, name="clean", side="left"):
    """Write a scene of the full form, such as TRAIN/A/0000; flow is (H, W, 2), without masks."""
    for n, image in enumerate(images, first):
        save(root / f"frames_{name}pass" / scene / side / f"{n:04d}.png", image)
    folder, letter = root / "optical_flow" / scene, side[0].upper()
    for word, start, values in (("Future", first, flow), ("Past", first + 1, backward)):
        for n, vectors in enumerate(values, start):
            path = f"into_{word.lower()}/{side}/OpticalFlowInto{word}_{n:04d}_{letter}.pfm"
            save(folder / path, pfm(vectors))


def write_things_subset(root, split, images, flow, backward=(), first=0, name="clean"):
    """Write a video of the subset; its frame numbers start at `first`."""
    for n, image in enumerate(images, first):
        save(root / split / f"image_{name}/left/{n:07d}.png", image)
    for direction, start, values in (("future", first, flow), ("past", first + 1, backward)):
        for n, vectors in enumerate(values, start):
            save(root / split / f"flow/left/into_{direction}/{n:07d}.flo", flo(vectors))


def write_sintel(root, scene, images, flow, first=1, passes=("clean", "final")):
    """Write a scene; pixels of a 3x4 corner are invalid, those of the last column occluded."""
    height, width = images[0].shape[:2]
    invalid, occluded = np.zeros((2, height, width), np.uint8)
    invalid[:3, :4] = occluded[:, -1] = 255
    for n, image in enumerate(images, first):
        for k, name in enumerate(passes):
            save(root / f"training/{name}/{scene}/frame_{n:04d}.png", image ^ np.uint8(k))
        save(root / f"training/invalid/{scene}/frame_{n:04d}.png", invalid)
    for n, vectors in enumerate(flow, first):
        save(root / f"training/flow/{scene}/frame_{n:04d}.flo", flo(vectors))
        save(root / f"training/occlusions/{scene}/frame_{n:04d}.png", occluded)
    return invalid > 0, occluded > 0


def noise_video(seed, count=3):
    """Return images and flow of random pixels: `count` images, `count` - 1 flow, and backward."""
    images = [picture(100 * seed + n) for n in range(count)]
    flow = [motion(100 * seed + n) for n in range(count - 1)]
    return images, flow, [motion(100 * seed + 50 + n) for n in range(count - 1)]


def with_masks(flow):
    return [(vectors,) for vectors in flow]


def save_classes(frames, camera, n, seed):
    """Write the colours and the cars of a frame of Virtual KITTI 2; return the class ids, cars."""
    classes = ids(seed, range(15))
    colours = np.uint8([VKITTI2_COLOURS["Undefined"], *list(VKITTI2_COLOURS.values())[:-1]])
    save(frames / f"classSegmentation/{camera}/classgt_{n:05d}.png", colours[classes])
    cars = ids(seed + 1, [0, 1, 7, 200])
    palette = np.random.default_rng(0).integers(0, 256, (256, 3))
    data = palette_png(cars, palette)
    save(frames / f"instanceSegmentation/{camera}/instancegt_{n:05d}.png", data)
    return classes, cars


def moving_texture(count=3, height=96, width=144):
    """Return images, flow and backward flow of a texture under affine motion, which are exact.

    The motion is a translation with a shear and a rotation, so that it differs between mirrored
    rows, swapped axes and changed signs.
    """
    noise = np.random.default_rng(5).uniform(0, 255, (3, height, width, 3)).astype(np.float32)
    size = (3 * width, 3 * height)
    canvas = sum(
        weight * cv2.GaussianBlur(cv2.resize(part, size), (0, 0), blur)
        for part, weight, blur in zip(noise, (0.8, 1.2, 2), (0.8, 2, 6), strict=True)
    )
    canvas = np.uint8(np.clip(4 * (canvas - canvas.mean()) + 128, 0, 255))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pixels = np.dstack([x, y]) - np.float32([width / 2, height / 2])
    step = np.float32([[0.01, 0.12], [0.03, -0.02]])
    maps = [np.eye(2, dtype=np.float32) + n * step for n in range(count)]
    shifts = [n * np.float32([-6, 3.5]) for n in range(count)]
    images = []
    for matrix, shift in zip(maps, shifts, strict=True):
        place = pixels @ matrix.T + shift + np.float32([1.5 * width, 1.5 * height])
        images.append(cv2.remap(canvas, place, None, cv2.INTER_LINEAR))

    def vectors(a, b):
        canvas_points = pixels @ maps[a].T + shifts[a]
        return (canvas_points - shifts[b]) @ np.linalg.inv(maps[b]).T - pixels

    flow = [vectors(n, n + 1) for n in range(count - 1)]
    return images, flow, [vectors(n + 1, n) for n in range(count - 1)]
