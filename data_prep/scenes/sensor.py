"""Converts light to 8-bit images: exposure, lens and motion blur, vignette, noise, gamma."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

_TAPS = 5  # samples along the path of a moving point


class Sensor(NamedTuple):
    """Parameters with which a camera takes a pair of frames."""

    exposure: float = 0.4  # mean brightness of the first image, 0..1
    drift: float = 1.0  # gain of the second frame relative to the first
    gamma: float = 1.8
    white: tuple[float, float, float] = (1.0, 1.0, 1.0)  # gains of red, green, blue
    knee: float = 0.8  # brightness above which highlights are compressed
    shutter: float = 0.0  # exposure time as a share of the frame interval
    lens_blur: float = 0.0  # sigma in px
    vignette: float = 0.0  # share of light lost in the corners
    shot_noise: float = 0.0  # variance of the noise at full brightness
    read_noise: float = 0.0  # standard deviation in the dark


def draw(rng: np.random.Generator, width: int) -> Sensor:
    """Draw a realistic :class:`Sensor`; blur scales with the `width` of the frames."""
    small = width / 1242
    return Sensor(
        exposure=rng.uniform(0.34, 0.47),
        drift=rng.normal(1, 0.02),
        gamma=rng.uniform(1.3, 1.9),
        white=tuple(rng.normal((0.96, 1.0, 1.04), 0.05)),
        knee=rng.uniform(0.7, 0.95),
        shutter=rng.choice([0.0, rng.uniform(0.02, 0.15)]),
        lens_blur=rng.uniform(0.35, 0.5 + 0.5 * small),
        vignette=rng.uniform(0, 0.25),
        shot_noise=10 ** rng.uniform(-4.0, -3.0),
        read_noise=10 ** rng.uniform(-3.3, -2.6),
    )


def expose(
    lights: Sequence[np.ndarray],
    sensor: Sensor,
    rng: np.random.Generator | None = None,
    motions: Sequence[np.ndarray | None] = (None, None),
) -> tuple[np.ndarray, np.ndarray]:
    """Convert the light on the sensor to images.

    Args:
        lights: the two frames, (H, W, 3) float32, linear, non-negative, in any unit.
        sensor: the :class:`Sensor`.
        rng: numpy Generator for the noise; None: no noise.
        motions: for each frame, the motion (H, W, 2) of each point between two frames in px, for
            motion blur; or None.

    Returns:
        Two (H, W, 3) uint8 RGB.
    """
    lights = [
        _through_lens(np.asarray(light, np.float32), sensor, motion)
        for light, motion in zip(lights, motions, strict=True)
    ]
    # Both frames are metered on the first; the second differs only by the drift.
    gain = _meter(lights[0], sensor)
    return tuple(
        _develop(light * np.float32(g), sensor, rng)
        for light, g in zip(lights, (gain, gain * sensor.drift), strict=True)
    )


def meter(lights: Sequence[np.ndarray], sensor: Sensor) -> float:
    """Compute the gain at which images of these lights have the sensor's exposure on average.

    Args:
        lights: each (H, W, 3) float32, linear.
        sensor: the :class:`Sensor`.
    """
    gains = [_meter(np.asarray(light, np.float32), sensor) for light in lights]
    return float(np.exp(np.mean(np.log(gains))))


def expose_frame(
    light: np.ndarray,
    sensor: Sensor,
    gain: float,
    rng: np.random.Generator | None = None,
    motion: np.ndarray | None = None,
) -> np.ndarray:
    """Convert the light of a single frame to an image, with a given gain; see `expose`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    light = _through_lens(np.asarray(light, np.float32), sensor, motion)
    return _develop(light * np.float32(gain), sensor, rng)


def _through_lens(light, sensor, motion):
    if motion is not None and sensor.shutter > 0:
        light = _blur_along(light, motion * np.float32(sensor.shutter))
    if sensor.lens_blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), sensor.lens_blur)
    light = light * np.float32(sensor.white)
    if sensor.vignette > 0:
        light *= _vignette(*light.shape[:2], sensor.vignette)[..., None]
    return light


def _meter(light, sensor):
    """Compute the gain for which the image's mean, after gamma, is the sensor's exposure."""
    small = light[::4, ::4].mean(-1)
    gain = 1.0
    for _ in range(6):
        mean = (np.minimum(small * gain, 1) ** (1 / sensor.gamma)).mean()
        gain *= (sensor.exposure / max(mean, 1e-3)) ** sensor.gamma
    return gain


def _develop(light, sensor, rng):
    if rng is not None:
        noise = rng.standard_normal(light.shape, np.float32)
        deviation = np.sqrt(sensor.shot_noise * light + sensor.read_noise**2)
        light = light + noise * deviation.astype(np.float32)
    # A soft knee, as in real cameras, keeps some of the texture of bright walls.
    headroom = 1 - sensor.knee
    excess = np.maximum(light - sensor.knee, 0)
    light = np.minimum(light, sensor.knee) + headroom * (1 - np.exp(-excess / headroom))
    curve = np.maximum(light, 0) ** np.float32(1 / sensor.gamma)
    return np.uint8(np.rint(255 * np.minimum(curve, 1)))


def _vignette(height, width, loss):
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    return 1 - np.float32(loss / 2) * (x * x + y * y)


def _blur_along(light, path):
    """Average `light` along each pixel's `path`, (H, W, 2) px, centred on the pixel."""
    height, width = light.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    total = np.zeros_like(light)
    for share in np.linspace(-0.5, 0.5, _TAPS, dtype=np.float32):
        position = (x + share * path[..., 0], y + share * path[..., 1])
        total += cv2.remap(light, *position, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return total / _TAPS
