"""Tests of the sensor: each effect separately, against hand-computed values."""

import numpy as np
import pytest

from data_prep.scenes.sensor import Sensor, draw, expose

# With gamma 1 and an exposure far below the knee, bytes are 255 times gain times light.
LINEAR = Sensor(exposure=0.2, gamma=1.0, knee=0.95)


def flat(light=1.0, height=40, width=64):
    return np.full((height, width, 3), light, np.float32)


def street_like(rng, height=64, width=96):
    """Draw light with a high dynamic range, whose maximum is a few times its mean."""
    return np.exp(rng.normal(-1, 0.5, (height, width, 1)) * [1, 0.9, 0.8]).astype(np.float32)


def twice(light, sensor, *args):
    return expose((light, light), sensor, *args)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 70.0])
@pytest.mark.parametrize("gamma", [1.0, 1.3, 1.9])
def test_mean_brightness(gamma, scale):
    light = scale * street_like(np.random.default_rng(0))
    for exposure in (0.34, 0.47):
        image, _ = twice(light, Sensor(exposure=exposure, gamma=gamma))
        # Metering ignores the knee and uses every fourth pixel.
        assert abs(image.mean() / 255 - exposure) < 0.04
        assert 20 < image.std() < 100


def test_exposure_of_uniform_light():
    # Uniform light becomes the exposure of 0.4; twice the light 0.4 * 2^(1/1.8) = 0.588.
    light = flat()
    light[1, 1] = 2
    image, _ = twice(light, Sensor(exposure=0.4, gamma=1.8))
    assert image.dtype == np.uint8 and image.shape == (40, 64, 3)
    assert (image[0] == 102).all() and (image[1, 1] == 150).all()


def test_drift_is_the_only_difference_of_the_frames():
    light = street_like(np.random.default_rng(1))
    sensor = Sensor(lens_blur=0.5, vignette=0.2, white=(0.9, 1.0, 1.1), shot_noise=1e-3)
    one, other = twice(light, sensor)
    assert np.array_equal(one, other)
    one, other = twice(light, sensor._replace(drift=1.1))
    # Brighter everywhere below white, by 1.1 below the knee, after undoing gamma.
    assert (other >= one).all()
    middle = (one > 60) & (one < 180)
    assert middle.mean() > 0.4
    ratio = (other[middle] / one[middle].astype(float)) ** sensor.gamma
    assert ratio.mean() == pytest.approx(1.1, abs=0.003)


def test_both_frames_are_metered_on_the_first():
    # Twice the light makes the second frame twice as bright: it is not metered again.
    one, other = expose((flat(1), flat(2)), LINEAR)
    assert (one == 51).all() and (other == 102).all()


def test_white_balance():
    # Gains 0.5, 1, 1.5 have mean 1, which is used for metering.
    image, _ = twice(flat(), LINEAR._replace(white=(0.5, 1.0, 1.5)))
    assert np.abs(image - 255 * np.array([0.1, 0.2, 0.3])).max() <= 0.5


def test_noise_grows_with_light():
    sensor = LINEAR._replace(shot_noise=1e-3, read_noise=2e-3)
    # Dark, middle and bright rows, 12/255, 51/255 and 90/255: their mean is the exposure of 0.2.
    light = np.repeat(np.float32([12, 51, 90]), 40)[:, None, None] * flat(1, 120, 300)
    one, other = twice(light, sensor, np.random.default_rng(0))
    clean, _ = twice(light, sensor)
    for i, level in enumerate((12 / 255, 51 / 255, 90 / 255)):
        rows = np.s_[40 * i : 40 * i + 40]
        # Plus the variance of rounding to bytes.
        expected = (1e-3 * level + 4e-6) + 1 / 255**2 / 12
        for noisy in (one, other):
            noise = (noisy[rows] - clean[rows].astype(float)) / 255
            assert noise.var() == pytest.approx(expected, rel=0.05)
            assert abs(noise.mean()) < 5e-4
    noises = [(n - clean.astype(float)).ravel() for n in (one, other)]
    assert abs(np.corrcoef(noises)[0, 1]) < 0.02
    # The noise of the colours is independent as well.
    assert abs(np.corrcoef(noises[0].reshape(-1, 3)[:, :2].T)[0, 1]) < 0.02


def test_no_noise_without_generator():
    light = street_like(np.random.default_rng(2))
    noisy = LINEAR._replace(shot_noise=1e-2, read_noise=1e-2)
    assert np.array_equal(twice(light, LINEAR), twice(light, noisy))
    one, other = (twice(light, noisy, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, other) and not np.array_equal(one[0], one[1])


def motion(u, v, height=40, width=64):
    return np.broadcast_to(np.float32([u, v]), (height, width, 2))


def test_motion_blur():
    # Bright from column 30 on. A point moves 8 px, the shutter is open a quarter of the time: five
    # samples at -1, -1/2, 0, 1/2, 1 px. At column 29 they are 0, 0, 0, 1/2, 1 of the step, mean
    # 0.3; at column 30 0, 1/2, 1, 1, 1, mean 0.7. Metering uses every fourth column, of which half
    # are bright: for the required mean of 51 the two values are 26 and 76.
    light = flat(26)
    light[:, 30:] = 76
    sensor = LINEAR._replace(shutter=0.25)
    sharp, _ = twice(light, LINEAR)
    for u in (8, -8):
        blurred, still = twice(light, sensor, None, (motion(u, 0), None))
        assert (blurred == np.array([26] * 29 + [41, 61] + [76] * 33)[:, None]).all()
        assert np.array_equal(still, sharp)
    # No blur along the edge or with a closed shutter; the second frame has its own motion.
    along, across = twice(light, sensor, None, (motion(0, 8), motion(8, 0)))
    assert np.array_equal(along, sharp) and np.array_equal(across, blurred)
    assert np.array_equal(twice(light, LINEAR, None, (motion(8, 0),) * 2)[0], sharp)


def test_motion_blur_keeps_uniform_light():
    sensor = LINEAR._replace(shutter=0.15)
    paths = np.random.default_rng(4).normal(0, 30, (2, 40, 64, 2)).astype(np.float32)
    for image in twice(flat(), sensor, None, paths):
        assert (image == 51).all()


def test_lens_blur():
    light = street_like(np.random.default_rng(5))
    detail = []
    for sigma in (0.0, 0.5, 1.0):
        image, _ = twice(light, LINEAR._replace(lens_blur=sigma))
        detail.append(np.abs(np.diff(image.astype(int), axis=1)).mean())
        assert image.mean() == pytest.approx(51, abs=1)
    assert detail[0] > 1.3 * detail[1] > 1.3 * 1.3 * detail[2]
    plain, _ = twice(flat(), LINEAR._replace(lens_blur=0.7))
    assert (plain == 51).all()


def test_vignette():
    # 20 % lost in the corners, 10 % in the middle of each side, nothing at the centre.
    image, _ = twice(flat(1, 41, 61), LINEAR._replace(vignette=0.2))
    image = image.astype(float) / image[20, 30]
    for row in (0, -1):
        assert np.abs(image[row, [0, -1]] - 0.8).max() < 0.01
        assert np.abs(image[row, 30] - 0.9).max() < 0.01
    assert np.abs(image[20, [0, -1]] - 0.9).max() < 0.01
    assert (image.argmax() // 3) == 20 * 61 + 30 or image.max() == 1


def test_highlights_saturate():
    # From black to ten thousand times the mean: monotonically brighter, up to white.
    light = np.repeat(np.geomspace(1e-4, 1e4, 60, dtype=np.float32), 3).reshape(1, 60, 3)
    light = np.concatenate([light, flat(1, 399, 60)])
    for gamma in (1.0, 1.8):
        row = twice(light, Sensor(exposure=0.3, gamma=gamma))[0][0, :, 0].astype(int)
        assert (np.diff(row) >= 0).all() and row[0] <= 3 and row[-1] == 255
    # Gain 0.3: light 4 is 1.2, over a knee of 0.8 by 0.4: 0.8 + 0.2 * (1 - e^-2) = 0.973.
    light[0, 5] = 4
    image, _ = twice(light[:, :12], Sensor(exposure=0.3, gamma=1.0, knee=0.8))
    assert abs(int(image[0, 5, 0]) - round(0.97293 * 255)) <= 1
    # Noise below black and above white stays within the byte.
    dark = flat(0)
    dark[::2] = 3
    loud = LINEAR._replace(exposure=0.9, read_noise=0.2)
    noisy, _ = twice(dark, loud, np.random.default_rng(0))
    assert noisy[1::2].mean() < 60 and noisy[::2].mean() > 200


def test_black_stays_black():
    for image in twice(flat(0), Sensor(), np.random.default_rng(0)):
        assert not image.any()


@pytest.mark.parametrize("width", [416, 1242])
def test_drawn_sensors(width):
    drawn = [draw(np.random.default_rng(i), width) for i in range(300)]
    assert drawn[5] == draw(np.random.default_rng(5), width)
    exposure, drift, gamma = np.transpose([s[:3] for s in drawn])
    assert 0.3 < exposure.min() and exposure.max() < 0.5 and len(np.unique(exposure)) == 300
    assert abs(drift.mean() - 1) < 0.01 and 0.01 < drift.std() < 0.04
    assert gamma.min() >= 1 and gamma.max() < 2.2
    for field in ("vignette", "shot_noise", "read_noise"):
        assert min(getattr(s, field) for s in drawn) >= 0
    assert np.mean([s.white for s in drawn], 0) == pytest.approx([0.96, 1, 1.04], abs=0.02)
    # Some have no motion blur; the others blur by less than a sixth of the motion.
    shutters = np.array([s.shutter for s in drawn])
    assert 0.3 < (shutters == 0).mean() < 0.7 and shutters.max() < 1 / 6
    blur = np.array([s.lens_blur for s in drawn])
    assert blur.max() < (1.01 if width == 1242 else 0.68) and blur.min() > 0.3
    assert max(s.knee for s in drawn) < 1  # at 1 there would be no headroom above the knee
