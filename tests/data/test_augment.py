"""Random crops, scales and flips keep flow and labels exact."""

import functools

import cv2
import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import augment
from flowseg.data.augment import Augmentation
from flowseg.network import flow_ops
from tests.support.kitti_writer import make_frame

PLAIN = Augmentation(flip=0.0)


def seed(number):
    return tf.constant([7, number], tf.int64)


def to_numpy(example):
    return {key: value.numpy() for key, value in example.items()}


def example_of(height, width, number=0):
    """A random example without equal neighbouring pixels; a third of its flow is unknown."""
    rng = np.random.default_rng(number)
    known = rng.random((height, width, 1)) < 0.7
    flow = np.where(known, rng.normal(scale=5, size=(height, width, 2)), np.nan)
    return {
        "image1": rng.integers(0, 256, (height, width, 3), np.uint8),
        "image2": rng.integers(0, 256, (height, width, 3), np.uint8),
        "flow": np.concatenate([flow, known], -1).astype(np.float32),
        "seg": rng.choice([0, 1, 2, 255], (height, width)).astype(np.int32),
    }


@functools.cache
def street(k):
    """Frame `k` of the synthetic KITTI set, with flow known for all non-occluded pixels."""
    frame = make_frame(k)
    flow = np.dstack([frame["flow"], frame["visible"].astype(np.float32)])
    seg = frame["labels"].astype(np.int32)
    return {"image1": frame["image1"], "image2": frame["image2"], "flow": flow, "seg": seg}


def difference(example, u, v, where):
    """Mean of |image2 sampled at p + (u, v) - image1| over `where`, in grey levels."""
    first, second = (np.float32(example[key]) for key in ("image1", "image2"))
    y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
    warped = cv2.remap(second, x + u, y + v, cv2.INTER_LINEAR)
    inside = (x + u >= 0) & (x + u <= x.max()) & (y + v >= 0) & (y + v <= y.max())
    return np.abs(warped - first).mean(-1)[where & inside].mean()


def test_mirror_example():
    flow = np.float32([[[1, 2, 1], [3, -4, 1], [0, 0, 0]]])
    frames = {key: np.uint8([[[1] * 3, [2] * 3, [3] * 3]]) for key in ("image1", "image2")}
    example = {**frames, "flow": flow, "seg": np.int32([[5, 6, 255]]), "frame_id": "a"}
    mirrored = augment.mirror(example)
    for key in ("image1", "image2"):
        assert mirrored[key].numpy()[0, :, 0].tolist() == [3, 2, 1]
    assert mirrored["flow"].numpy().tolist() == [[[0, 0, 0], [-3, -4, 1], [-1, 2, 1]]]
    assert mirrored["seg"].numpy().tolist() == [[255, 6, 5]] and mirrored["frame_id"] == "a"
    twice = augment.mirror(mirrored)
    assert all(np.array_equal(twice[key], example[key]) for key in example)


@pytest.mark.parametrize("size", [(12, 20), (24, 15), (5, 7), (6, 40), (1, 1)])
def test_sparse_resize_of_dense_flow(size):
    flow = np.random.default_rng(0).normal(scale=9, size=(12, 20, 2)).astype(np.float32)
    sparse = augment.resize_sparse_flow(np.dstack([flow, np.ones((12, 20), np.float32)]), *size)
    dense = flow_ops.resize_flow(flow[None], *size)[0]
    assert sparse.shape == (*size, 3) and (sparse.numpy()[..., 2] == 1).all()
    np.testing.assert_allclose(sparse[..., :2], dense, atol=1e-4)


def test_sparse_resize_of_single_pixel():
    flow = np.full((4, 4, 3), [np.nan, 1e30, 0], np.float32)
    flow[1, 2] = 6, -4, 1
    # Vertically, 2 new pixels per pixel: centres are 1/4 pixel off, weight 3/4. Horizontally, 5 per
    # pixel: centres are 0, 1/5 and 2/5 off, weights 1, 4/5, 3/5. Of the products 3/4, 3/5, 9/20 two
    # are above 1/2: rows 2 and 3, columns 11 to 13.
    expected = np.zeros((8, 20, 3))
    expected[2:4, 11:14] = 30, -8, 1
    fine = augment.resize_sparse_flow(flow, 8, 20)
    np.testing.assert_allclose(fine, expected, atol=1e-4)


def test_sparse_shrink_example():
    # At half size, each new pixel is the mean of the known pixels of a 2x2 block, if at least half.
    nan = [np.nan, np.nan, 0]
    flow = np.float32(
        [
            [[2, 0, 1], nan, [1, 2, 1], [1, 2, 1], [8, 8, 1], nan],
            [nan, [4, 6, 1], [3, 4, 1], [3, 8, 1], nan, nan],
        ]
    )
    half = augment.resize_sparse_flow(flow, 1, 3).numpy()
    np.testing.assert_allclose(half[0], [[1.5, 1.5, 1], [1, 2, 1], [0, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("size", [(9, 14), (21, 30), (5, 6)])
def test_unknown_flow_does_not_leak(size):
    flow = example_of(9, 14)["flow"]
    assert np.isnan(flow).any()
    is_known = flow[..., 2:] > 0
    results = [
        augment.resize_sparse_flow(np.where(is_known, flow, np.float32([fill, -fill, 0])), *size)
        for fill in (0, np.nan, np.inf, 1e30)
    ]
    for result in results:
        np.testing.assert_array_equal(result, results[0])
    assert np.isfinite(results[0]).all() and 0.3 < results[0][..., 2].numpy().mean() < 1
    assert not results[0].numpy()[results[0][..., 2] == 0].any()
    if size == (9, 14):
        np.testing.assert_array_equal(results[0], np.where(is_known, flow, 0))


def test_crop_without_scale():
    example = example_of(20, 30)
    corners = set()
    for number in range(12):
        cropped = to_numpy(augment.random_crop(example, seed(number), 14, 25, 0.0, 0.0))
        [(top, left)] = [
            (top, left)
            for top in range(7)
            for left in range(6)
            if (example["image1"][top : top + 14, left : left + 25] == cropped["image1"]).all()
        ]
        window = {key: x[top : top + 14, left : left + 25] for key, x in example.items()}
        window["flow"] = np.where(window["flow"][..., 2:] > 0, window["flow"], 0)
        for key, value in window.items():
            np.testing.assert_array_equal(cropped[key], value)
        corners.add((top, left))
    assert len(corners) > 6


def test_crops_reach_borders():
    # Each pixel stores its column, so the values of a crop are its columns.
    wide = np.broadcast_to(np.arange(200, dtype=np.float32)[None, :, None], (8, 200, 3))
    example = {"image1": wide, "image2": wide, "flow": wide, "seg": np.zeros((8, 200), np.int32)}
    counts = np.zeros(200)
    for i in range(200):
        cropped = augment.random_crop(example, tf.constant([7, i]), 8, 40, 0.0, 0.0)["image1"]
        counts[cropped[0, :, 0].numpy().astype(int)] += 1
    assert counts.sum() == 200 * 40
    # Corners are drawn from -10..170 and clipped to 0..160: an end is reached in 10.5 of 180 draws,
    # 11.7 times; without the margin, in 0.5 of 160, both ends together 1.2 times.
    assert 12 < counts[0] + counts[-1] < 36


def affine_example(height, width):
    """Frames with pixel values (x, y, 0), affine flow with a hole, labels y * width + x."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    matrix, shift = np.float32([[0.05, -0.02], [0.03, 0.04]]), np.float32([3, -2])
    flow = np.stack([x, y], -1) @ matrix.T + shift
    known = np.ones((height, width), np.float32)
    known[height // 3 : height // 2, width // 3 : width // 2] = 0
    positions = np.stack([x, y, 0 * x], -1)
    seg = (y * width + x).astype(np.int32)
    example = {
        "image1": positions,
        "image2": positions,
        "flow": np.dstack([flow, known]),
        "seg": seg,
    }
    return example, matrix, shift


@pytest.mark.parametrize("number", range(8))
def test_scaled_crop_of_affine_flow(number):
    height, width = 60, 90
    example, matrix, shift = affine_example(height, width)
    cropped = to_numpy(augment.random_crop(example, seed(number), 40, 50, 0.4, 0.3))
    # The source of each new pixel, and from it the scale.
    source = cropped["image1"][..., :2]
    np.testing.assert_array_equal(cropped["image2"][..., :2], source)
    scale = 1 / np.float32(
        [source[20, 26, 0] - source[20, 25, 0], source[21, 25, 1] - source[20, 25, 1]]
    )
    # At most 2^(0.4 + 0.3), at least that of the complete example, with tolerance for rounding.
    assert (scale < 1.68).all() and (scale > [50 / width - 0.01, 40 / height - 0.01]).all()
    expected = (source @ matrix.T + shift) * scale
    low = np.floor(source + 1e-3).astype(int)
    high = np.minimum(low + 1, [width - 1, height - 1])
    known = example["flow"][..., 2]
    corners = np.stack([known[r, c] for r in (low[..., 1], high[..., 1])
                        for c in (low[..., 0], high[..., 0])])  # fmt: skip
    fully_known, valid = corners.all(0), cropped["flow"][..., 2]
    assert (
        0.5 < fully_known.mean()
        and (valid[fully_known] == 1).all()
        and (valid[~corners.any(0)] == 0).all()
    )
    np.testing.assert_allclose(cropped["flow"][fully_known, :2], expected[fully_known], atol=2e-3)
    # Next to the hole, a vector is that of a position at most one pixel away.
    partly_known = (valid == 1) & ~fully_known
    difference_to_expected = np.abs(cropped["flow"][partly_known, :2] - expected[partly_known])
    assert (difference_to_expected <= np.abs(matrix).sum(1) * scale).all()
    # Labels come from the nearest pixel.
    nearest = np.stack([cropped["seg"] % width, cropped["seg"] // width], -1)
    assert np.abs(nearest - source).max() < 0.51


def test_crops_scale_and_stretch():
    example, _, _ = affine_example(90, 120)

    def scales(number, *strength):
        source = augment.random_crop(example, seed(number), 40, 40, *strength)["image1"]
        return [float(1 / (source[20, 21, 0] - source[20, 20, 0])),
                float(1 / (source[21, 20, 1] - source[20, 20, 1]))]  # fmt: skip

    both = np.array([scales(number, 0.5, 0.0) for number in range(20)])
    assert both.min() < 0.85 and both.max() > 1.2
    np.testing.assert_allclose(both[:, 0], both[:, 1], rtol=0.03)
    across = np.array([scales(number, 0.0, 0.5) for number in range(20)])
    ratio = across[:, 0] / across[:, 1]
    assert ratio.min() < 0.85 and ratio.max() > 1.2
    larger = np.array([scales(number, 0.5, 0.0, 0.5) for number in range(20)])
    assert 0.98 < larger.min() < 1.2 and 1.7 < larger.max() < 2.05


@pytest.mark.parametrize(("size", "factors"), [((10, 20), (2, 2)), ((10, 40), (1, 2))])
def test_small_example_is_enlarged(size, factors):
    example = example_of(*size)
    example["flow"] = np.full((*size, 3), [3, -1, 1], np.float32)
    cropped = to_numpy(augment.random_crop(example, seed(0), 20, 40, 0.0, 0.0))
    vector = [3 * factors[0], -1 * factors[1], 1]
    np.testing.assert_allclose(cropped["flow"], np.broadcast_to(vector, (20, 40, 3)), atol=1e-5)
    for key in ("image1", "image2"):
        enlarged = cv2.resize(np.float32(example[key]), (40, 20), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(cropped[key], enlarged, atol=1e-3)
    expected = example["seg"].repeat(factors[1], 0).repeat(factors[0], 1)
    np.testing.assert_array_equal(cropped["seg"], expected)


@pytest.mark.parametrize("k", range(3))
def test_augmented_frames_match_by_flow(k):
    strength = Augmentation(scale=0.4, stretch=0.2, flip=0.5, enlarge=0.1 * k)
    for number in range(4):
        example = to_numpy(augment.augment(street(k), seed(number), 64, 96, strength))
        u, v, valid = np.moveaxis(example["flow"], -1, 0)
        known = valid > 0
        right = difference(example, u, v, known)
        assert right < 0.6 * difference(example, 0 * u, 0 * v, known)
        assert right < 0.6 * difference(example, -u, v, known)
        assert right < difference(example, u * 1.2, v * 1.2, known)


def test_flip_probability():
    example = {**street(0), "frame_id": tf.constant("000000_10")}
    plain = [augment.augment(example, seed(i), 48, 64, PLAIN) for i in range(12)]
    always = augment.augment(example, seed(0), 48, 64, Augmentation(flip=1.0))
    mirrored = augment.mirror(plain[0])
    # Frames before colour jitter are flipped too.
    expected = mirrored | {f"plain{i}": mirrored[f"image{i}"] for i in (1, 2)}
    for key, value in expected.items():
        np.testing.assert_array_equal(always[key], value)
    assert always["frame_id"] == b"000000_10"
    assert always["image1"].dtype == always["image2"].dtype == always["flow"].dtype == tf.float32
    assert always["image1"].shape == (48, 64, 3) and always["seg"].dtype == tf.int32
    some = [augment.augment(example, seed(i), 48, 64, Augmentation(flip=0.5)) for i in range(12)]
    same = [bool(tf.reduce_all(a["seg"] == b["seg"])) for a, b in zip(plain, some, strict=True)]
    assert 2 <= sum(same) <= 10
