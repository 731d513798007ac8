"""The description of a drive, from which any of its frames can be rendered alone.

Everything is a function of the drive's settings and of the time or place: the road, the objects of
each chunk of it, the car with the camera, and the streams of people and vehicles.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from data_prep.scenes import layout, roadside, sensor, traffic, world
from data_prep.scenes.camera import Camera, kitti_lens
from data_prep.scenes.course import Course, draw_course
from data_prep.scenes.driver import Driver, draw_driver
from data_prep.scenes.light import Weather, draw_weather
from data_prep.scenes.world import Part


class Settings(NamedTuple):
    """Settings of the drives of a folder, and the number of the drive."""

    drive: int
    seed: int
    height: int  # of the frames, px
    width: int
    effects: bool
    speed: float | None  # mean, metres per second; None: drawn for each drive
    rate: float  # frames per second


class Route(NamedTuple):
    """A drive."""

    settings: Settings
    roadside: roadside.Roadside
    driver: Driver
    streams: tuple[traffic.Stream, ...]
    ground: list[Part]  # planes: the road, then the strips of the left and of the right side
    weather: Weather
    lens: dict[str, Any]  # as from `camera.kitti_lens`
    sensor: sensor.Sensor

    @property
    def course(self) -> Course:
        """The road."""
        return self.roadside.course

    def time(self, frame: int) -> float:
        """Return the time of a frame in seconds."""
        return frame / self.settings.rate

    def camera(self, frame: int) -> Camera:
        """Return the camera at a frame."""
        return self.driver.camera(self.time(frame), self.course, self.lens)

    def seed(self, *numbers: int) -> tuple[int, ...]:
        """Return the seed of a generator for the drive and the given numbers.

        It does not depend on the size of the frames: a drive looks the same at any size.
        """
        return (self.settings.seed, self.settings.drive, *numbers)


class Static(NamedTuple):
    """Parts that never move, in the form in which `video_world` joins them."""

    key: int  # unique
    xml: np.ndarray  # (n,) texts
    position: np.ndarray  # (n, 3)
    size: np.ndarray  # (n,) m, the second largest of the three half lengths
    tables: dict[str, np.ndarray]
    numbers: np.ndarray  # (n,) number of the object, or -1


# First numbers of the generators' seeds.
_DRAW, _CHUNK, _BACKGROUND, _NOISE, _LOOK, _STREAM = range(6)


@functools.lru_cache(maxsize=8)
def draw_route(settings: Settings) -> Route:
    """Draw the drive with these settings."""
    rng = np.random.default_rng((settings.seed, settings.drive, _DRAW))
    kind = str(rng.choice(["town", "suburb", "country"], p=[0.35, 0.45, 0.2]))
    half = rng.uniform(3.4, 4.5) + (1.8 if kind != "country" and rng.random() < 0.6 else 0.0)
    parked = kind != "country" and half > 5.2
    lane = -rng.uniform(1.4, half - 3.3) if parked else -half * rng.uniform(0.4, 0.52)
    course = draw_course(rng, half, kind)
    strips = layout.draw_strips(rng, half, kind)
    side = roadside.draw_roadside(rng, course, kind, strips, parked)
    driver = draw_driver(rng, lane, settings.speed)
    streams = tuple(traffic.draw_streams(rng, side, lane))
    # Far beyond any drive; at ten times this distance rounding makes shadows speckled.
    weather = draw_weather(rng)._replace(sun_distance=1e6)
    zoom, shift, bend = rng.normal(1, 0.04), rng.normal(0, 6, 2), rng.uniform(-0.03, 0.01)
    bend = float(rng.choice([0.0, bend]))
    camera_kind = sensor.draw(rng, settings.width)
    if settings.effects:
        lens = kitti_lens(settings.height, settings.width, zoom, tuple(shift), bend)
    else:
        lens, camera_kind = kitti_lens(settings.height, settings.width), sensor.Sensor()
    ground = [Part("plane", (0, 0, 1), (0, 0, 0), strips.asphalt, world.ROAD, ground=True)]
    for _, look, label in strips.rows[1] + strips.rows[-1]:
        # Rays hit the road's plane only; `video_world` assigns them to these planes below it.
        below = (0, 0, -50.0 - len(ground))
        ground.append(Part("plane", (0, 0, 1), below, look, label, ground=True))
    return Route(settings, side, driver, streams, ground, weather, lens, camera_kind)


def chunk(route: Route, number: int) -> Static:
    """Return the objects of a chunk of road, `roadside.CHUNK` metres long."""
    return _chunk(_of_content(route.settings), number)


@functools.lru_cache(maxsize=64)
def _chunk(settings, number):
    route = draw_route(settings)
    rng = np.random.default_rng(route.seed(_CHUNK, number + 2**31))
    parts, numbers = roadside.fill_chunk(rng, route.roadside, number)
    return _static(rng, 2 * number, parts, numbers)


def background(route: Route, number: int) -> Static:
    """Return the woods and hills of a chunk of road."""
    return _background(_of_content(route.settings), number)


@functools.lru_cache(maxsize=128)
def _background(settings, number):
    route = draw_route(settings)
    rng = np.random.default_rng(route.seed(_BACKGROUND, number + 2**31))
    parts = roadside.fill_background(rng, route.course, route.roadside.kind, number)
    return _static(rng, 2 * number + 1, parts, [-1] * len(parts))


@functools.lru_cache(maxsize=2)
def _ground(settings):
    route = draw_route(settings)
    rng = np.random.default_rng(route.seed(_LOOK))
    return _static(rng, None, route.ground, [-1] * len(route.ground))


def ground(route: Route) -> Static:
    """Return the planes of the ground."""
    return _ground(route.settings)


def noise(route: Route, frame: int) -> np.random.Generator:
    """Return the generator of the noise of a frame."""
    return np.random.default_rng(route.seed(_NOISE, frame))


def stream_seed(route: Route, index: int) -> tuple[int, ...]:
    """Return the seed of a stream, for `traffic.members`."""
    return route.seed(_STREAM, index)


def _of_content(settings):
    """Reset the settings on which the objects of a drive do not depend, to cache them."""
    return settings._replace(height=0, width=1, effects=False, speed=None, rate=1.0)


def _static(rng, key, parts, numbers):
    xml = np.array([world.geom_xml(part, 0) for part in parts], object)
    tables = world.tables(parts, rng) if parts else {}
    position = np.array([part.position for part in parts], float).reshape(-1, 3)
    return Static(key, xml, position, sizes(parts), tables, np.array(numbers, int))


def sizes(parts: list[Part]) -> np.ndarray:
    """Return the second largest of the three half lengths of each part, (n,)."""
    values = []
    for part in parts:
        size = {"sphere": 1, "cylinder": 2, "capsule": 2}.get(part.kind, 3)
        if size == 3:
            values.append(sorted(part.size)[1])
        else:  # radius, and half height
            values.append(part.size[0] if size == 1 else sorted([*part.size, part.size[0]])[1])
    return np.array(values, float)
