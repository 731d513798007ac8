"""Augmentations of frames only: synthetic second frames, colours, erased rectangles."""

import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import augment, synthetic_frames
from flowseg.data.augment import Augmentation
from tests.data.test_augment import difference, seed, street


def texture(height, width):
    """Smooth waves of 9 to 17 px in all directions, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b) for a, b in ((0.5, 0.2), (-0.3, 0.4), (0.1, -0.6))]
    grey = 128 + 40 * (waves[0] + waves[1] + waves[2])
    return np.uint8(np.stack([grey, 255 - grey, 128 + 60 * waves[0]], -1))


@pytest.mark.parametrize("number", range(6))
def test_synthetic_frames_match_by_flow(number):
    image1 = texture(100, 150)
    image2, flow = (
        x.numpy() for x in synthetic_frames.synthetic_second_frame(image1, seed(number))
    )
    assert image2.shape == image1.shape and image2.dtype == np.uint8
    assert flow.shape == (100, 150, 3) and flow.dtype == np.float32 and (flow[..., 2] == 1).all()
    u, v, valid = np.moveaxis(flow, -1, 0)
    example, known = {"image1": image1, "image2": image2}, valid > 0
    still = difference(example, 0 * u, 0 * v, known)
    # Sampling the waves twice blurs them by about one grey level.
    assert difference(example, u, v, known) < min(2.5, 0.2 * still)
    assert still > 5 and np.hypot(u, v).mean() > 0.5
    # The motion is affine: along rows and columns its second differences vanish.
    assert np.abs(np.diff(flow, 2, 0)).max() < 1e-4 and np.abs(np.diff(flow, 2, 1)).max() < 1e-4


def test_synthetic_frames_depend_on_seed():
    image1 = texture(40, 60)
    samples = [
        synthetic_frames.synthetic_second_frame(image1, seed(number)) for number in (0, 1, 2, 0)
    ]
    for a, b in zip(samples[0], samples[3], strict=True):
        np.testing.assert_array_equal(a, b)
    flows = [flow.numpy() for _, flow in samples]
    assert all(np.abs(flows[0] - flows[i]).max() > 0.1 for i in (1, 2))
    # Motion left and right, up and down, in and out all occurs.
    flows = np.stack(
        [synthetic_frames.synthetic_second_frame(image1, seed(i))[1] for i in range(20)]
    )
    shift, growth = flows[:, 20, 30, :2], flows[:, 0, -1, 0] - flows[:, 0, 0, 0]
    assert ((shift > 0).any(0) & (shift < 0).any(0)).all()
    assert (growth > 0).any() and (growth < 0).any()


def frames():
    example = street(0)
    return tf.constant(np.stack([example["image1"], example["image2"]]).astype(np.float32))


def test_recolour_range_strength_and_seed():
    images = frames()
    for number in range(5):
        weak = augment.recolour(images, seed(number), 1e-4)
        np.testing.assert_allclose(weak, images, atol=0.2)
        strong = augment.recolour(images, seed(number), 1.0).numpy()
        assert strong.dtype == np.float32 and strong.min() >= 0 and strong.max() <= 255
        assert np.isfinite(strong).all() and np.abs(strong - images).mean() > 2
        np.testing.assert_array_equal(strong, augment.recolour(images, seed(number), 1.0))
        other = augment.recolour(images, seed(number + 1), 1.0)
        assert np.abs(strong - other).mean() > 1
    # Extreme jitter keeps values in 0..255 and grey pixels grey.
    extreme = tf.constant(np.linspace(0, 255, 2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8, 1))
    for number in range(5):
        grey = augment.recolour(tf.repeat(extreme, 3, -1), seed(number), 1.5).numpy()
        assert grey.min() >= 0 and grey.max() <= 255 and np.ptp(grey, axis=-1).max() < 0.01


def test_share_of_separately_jittered_pairs():
    twins = tf.repeat(frames()[:1, ::4, ::4], 2, axis=0)
    pairs = [augment.recolour(twins, seed(number), 1.0).numpy() for number in range(60)]
    differences = [np.abs(first - second).mean() for first, second in pairs]
    separate = [a > 0 for a in differences]
    assert 4 <= sum(separate) <= 24
    assert min(a for a in differences if a) > 1


def test_erased_rectangles():
    image = np.random.default_rng(0).uniform(0, 255, (40, 80, 3)).astype(np.float32)
    mean, single, double = image.mean((0, 1)), 0, 0
    for number in range(30):
        erased = augment.erase(image, seed(number), 1.0).numpy()
        erased_mask = (erased != image).any(-1)
        np.testing.assert_allclose(
            erased[erased_mask], np.tile(mean, (erased_mask.sum(), 1)), rtol=1e-4
        )
        # At most two rectangles, none above a quarter of a side.
        assert 0 < erased_mask.sum() <= 2 * 10 * 20
        rows, columns = np.flatnonzero(erased_mask.any(1)), np.flatnonzero(erased_mask.any(0))
        box = erased_mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        single += bool(box.all())
        # Two rectangles give at most three kinds of non-empty rows, and an empty one.
        kinds = len({tuple(row) for row in box})
        assert kinds <= 4
        double += kinds > 1
        if box.all():
            assert box.shape[0] <= 10 and box.shape[1] <= 20
    # Every image has one rectangle, half of them a second.
    assert single >= 5 and double >= 5


def test_erase_probability():
    image = np.random.default_rng(0).uniform(0, 255, (20, 30, 3)).astype(np.float32)
    for number in range(5):
        np.testing.assert_array_equal(augment.erase(image, seed(number), 0.0), image)
    changed = [bool((augment.erase(image, seed(i), 0.5) != image).numpy().any()) for i in range(60)]
    # A first rectangle with 1/2, a second with 1/4: at least one in 5 of 8.
    assert 25 <= sum(changed) <= 50


def test_colour_and_erase_keep_targets():
    plain, strong = (
        [augment.augment(street(0), seed(i), 48, 64, strength) for i in range(6)]
        for strength in (Augmentation(), Augmentation(colour=1.0, erase=1.0))
    )
    erased = [
        augment.augment(street(0), seed(i), 48, 64, Augmentation(erase=1.0)) for i in range(6)
    ]
    for a, b, c in zip(plain, strong, erased, strict=True):
        for key in ("flow", "seg"):
            np.testing.assert_array_equal(a[key], b[key])
            np.testing.assert_array_equal(a[key], c[key])
        np.testing.assert_array_equal(a["image1"], c["image1"])
        assert (a["image1"].numpy() != b["image1"].numpy()).any()
    assert any(
        (a["image2"].numpy() != c["image2"].numpy()).any()
        for a, c in zip(plain, erased, strict=True)
    )
