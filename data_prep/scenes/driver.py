"""The car that carries the camera along the road of a drive: its pose at any time."""

from typing import Any, NamedTuple

import numpy as np

from data_prep.scenes.camera import Camera
from data_prep.scenes.course import Course

_AHEAD = 0.3  # the camera is this far ahead of the car's centre, m


class Wave(NamedTuple):
    """A sine of time."""

    size: float
    rate: float  # radians per second
    phase: float

    def at(self, time: float) -> float:
        """Return the value at a time in seconds."""
        return self.size * np.sin(self.rate * time + self.phase)

    def slope(self, time: float) -> float:
        """Return the change per second."""
        return self.size * self.rate * np.cos(self.rate * time + self.phase)


class Driver(NamedTuple):
    """Motion of the camera's car. All times are in seconds after the first frame."""

    speed: float  # mean, metres per second
    paces: tuple[Wave, ...]  # variation of the speed as a share of its mean
    lane: float  # mean distance to the left of the centre line
    weaves: tuple[Wave, ...]  # steering within the lane, m
    height: float  # of the camera
    aim: tuple[float, float, float]  # roll, pitch, yaw of the camera in the car, radians
    sway: tuple[tuple[Wave, ...], ...]  # height, pitch, roll of the body on its springs

    def s(self, time: float) -> float:
        """Return the distance along the road; it grows steadily from 0."""
        driven = sum((w.at(time - np.pi / 2 / w.rate) - w.at(-np.pi / 2 / w.rate)) / w.rate
                     for w in self.paces)  # fmt: skip
        return self.speed * (time + driven)

    def velocity(self, time: float) -> float:
        """Return the speed along the road, metres per second; at least half of the mean."""
        return self.speed * (1 + sum(wave.at(time) for wave in self.paces))

    def camera(self, time: float, course: Course, lens: dict[str, Any]) -> Camera:
        """Return the camera at a time; `lens` as from `camera.kitti_lens`."""
        s, d = self.s(time), self.lane + sum(wave.at(time) for wave in self.weaves)
        x, y, heading = course.at(s, d)
        # The car points along its path.
        forward = self.velocity(time) * (1 - course.curve(s) * d)
        yaw = heading + np.arctan2(sum(wave.slope(time) for wave in self.weaves), forward)
        braking = -sum(wave.slope(time) for wave in self.paces) * self.speed
        heave, pitch, roll = (sum(wave.at(time) for wave in waves) for waves in self.sway)
        body = turn(0.0, 0.0, yaw) @ turn(roll, pitch + 0.003 * braking, 0.0)
        position = np.array([x, y, 0.0]) + body @ [_AHEAD, 0.0, self.height + heave]
        axes = body @ turn(*self.aim)
        # The car's axes are x ahead, y left, z up; the image's right is -y and its down is -z.
        axes = np.stack([-axes[:, 1], -axes[:, 2], axes[:, 0]])
        return Camera(position, axes, **lens)


def draw_driver(rng: np.random.Generator, lane: float, speed: float | None) -> Driver:
    """Draw a driver who keeps to `lane`.

    Args:
        rng: NumPy generator.
        lane: distance to the left of the centre line, m.
        speed: mean speed in metres per second; None: drawn as for single streets.
    """

    def waves(sizes, seconds):
        """Draw a wave for each size, with the period in `seconds` varied by 20 %."""
        return tuple(
            Wave(size * rng.uniform(0.5, 1), 2 * np.pi / (n * rng.uniform(0.8, 1.2)), phase)
            for size, n, phase in zip(sizes, seconds, rng.uniform(0, 2 * np.pi, 3), strict=False)
        )

    drawn = float(np.clip(rng.normal(6.0, 2.3), 2, 14))
    speed = drawn if speed is None else float(speed)
    soft = min(1.0, speed / 6)  # a slow car sways less
    return Driver(
        speed=speed,
        paces=waves((0.25, 0.1), (40, 17)),
        lane=lane,
        weaves=waves((0.15, 0.08), (11, 5)),
        height=rng.normal(1.65, 0.05),
        aim=tuple(rng.normal(0, (0.006, 0.01, 0.012)).tolist()),
        sway=(
            waves((0.008 * soft, 0.004 * soft), (0.9, 0.55)),
            waves((0.0025 * soft, 0.0012 * soft), (1.0, 0.6)),
            waves((0.002 * soft, 0.001 * soft), (1.3, 0.7)),
        ),
    )


def turn(x: float, y: float, z: float) -> np.ndarray:
    """Return the rotation (3, 3) about the fixed axes x, then y, then z, as in `world.Part`."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
