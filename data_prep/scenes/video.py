"""Renders the frames of a drive, with labels, instances, and exact flow forward and backward.

A frame depends only on the drive's settings and its number: frames can be rendered in any order,
and a drive has no end.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.scenes import light, rays, route, sensor, truth, video_world
from data_prep.scenes.route import Settings
from data_prep.scenes.street import MAX_FLOW, SKY_LABEL

_METERED = (0.0, 10.0, 40.0)  # moments of a drive that set its exposure, seconds


class Frame(NamedTuple):
    """A frame with its ground truth.

    Flow has the full precision of the world; only the file format rounds it to 1/64 px.
    """

    image: np.ndarray  # (H, W, 3) uint8 RGB
    labels: np.ndarray  # (H, W) uint8 Cityscapes ids
    instances: np.ndarray  # (H, W) uint16 class * 1000 + number, or the class
    flow: np.ndarray  # (H, W, 2) float32 (u, v) in px to the next frame, also at occluded pixels
    valid: np.ndarray  # (H, W) bool: `flow` is known
    visible: np.ndarray  # (H, W) bool: valid, inside the next frame and not occluded there
    backward: np.ndarray  # (H, W, 2) float32 flow to the frame before
    backward_valid: np.ndarray  # (H, W) bool


def render(settings: Settings, frames: Sequence[int]) -> Iterator[Frame]:
    """Yield frames of a drive; consecutive frames share work.

    Args:
        settings: the :class:`Settings` of the drive.
        frames: numbers from 0 on. Every frame also has flow to the frames around it, which the
            drive has, too: it is endless, and began before frame 0.
    """
    drive = route.draw_route(settings)
    gain = _gain(settings)
    upcoming = None  # the frame that was looked at to find what is occluded in it
    for i, number in enumerate(frames):
        if upcoming is None or upcoming[0].frame != number:
            view = video_world.build(drive, number)
            upcoming = view, *_photograph(drive, view)
        view, lights, hits = upcoming
        after = video_world.build(drive, number + 1)
        # Only a frame that comes next needs its light.
        rendered = i + 1 < len(frames) and frames[i + 1] == number + 1
        upcoming = after, *(_photograph(drive, after) if rendered else (None, _cast(drive, after)))
        truths = _ground_truth(drive, view, hits, after, upcoming[2])
        image = _expose(drive, number, lights, truths["flow"], gain)
        if not rendered:
            upcoming = None
        yield Frame(image, *_labels(drive, view, hits), **truths)


def _photograph(drive, view):
    height, width = drive.settings.height, drive.settings.width
    return light.photograph(view.world, view.camera, height, width, drive.weather, view.course)


def _cast(drive, view):
    height, width = drive.settings.height, drive.settings.width
    y, x = (n.ravel().astype(np.float64) for n in np.mgrid[:height, :width])
    return rays.cast_all(view.world, view.camera, x, y, height, width)


def _ground_truth(drive, view, hits, after, hits_after):
    """Return the flow fields of a frame and their masks, by the names of :class:`Frame`."""
    height, width = drive.settings.height, drive.settings.width
    now = video_world.poses(view, drive, view.frame)
    ahead, back = (
        truth.follow(hits, now, video_world.poses(view, drive, number), camera)
        for number, camera in (
            (view.frame + 1, after.camera),
            (view.frame - 1, drive.camera(view.frame - 1)),
        )
    )
    translated = hits._replace(geom=video_world.translate(hits.geom, view, after))
    in_sight = truth.is_visible(
        after.world, after.camera, translated, ahead, hits_after, height, width
    )
    flow, valid = _flow(ahead, height, width)
    backward, backward_valid = _flow(back, height, width)
    visible = valid & in_sight.reshape(height, width)
    return {
        "flow": flow,
        "valid": valid,
        "visible": visible,
        "backward": backward,
        "backward_valid": backward_valid,
    }


def _flow(projected, height, width):
    """Return the flow (H, W, 2) and where it is known (H, W), of the result of `truth.follow`."""
    pixels = np.mgrid[:height, :width][::-1].reshape(2, -1)
    flow = np.stack(projected[:2]) - pixels
    valid = (projected[2] > 0.05) & (np.abs(flow).max(0) < MAX_FLOW)
    flow = np.where(valid, flow, 0).reshape(2, height, width)
    return np.moveaxis(flow, 0, -1).astype(np.float32), valid.reshape(height, width)


def _labels(drive, view, hits):
    size = drive.settings.height, drive.settings.width
    sky = hits.geom == rays.SKY
    labels = np.where(sky, SKY_LABEL, view.world.label[hits.geom])
    instances = np.where(sky, SKY_LABEL, view.instance[hits.geom])
    return labels.astype(np.uint8).reshape(size), instances.astype(np.uint16).reshape(size)


def _expose(drive, number, lights, flow, gain):
    rng = motion = None
    if drive.settings.effects:
        rng = route.noise(drive, number)
        # The brightness drifts slowly, as with a camera that meters.
        gain = gain * (
            1 + 0.04 * np.sin(2 * np.pi * (drive.time(number) / 23 + drive.lens["bend"]))
        )
        motion = flow.clip(-200, 200) if drive.sensor.shutter > 0 else None
    return sensor.expose_frame(lights, drive.sensor, gain, rng, motion)


@functools.lru_cache(maxsize=2)
def _gain(settings):
    """Meter a drive on small frames of some moments, so that no other frame is needed."""
    width = 96
    height = max(32, round(width * settings.height / settings.width))
    small = settings._replace(height=height, width=width, effects=False, rate=1.0)
    drive = route.draw_route(small)
    views = (video_world.build(drive, round(time)) for time in _METERED)
    lights = [_photograph(drive, view)[0] for view in views]
    return sensor.meter(lights, route.draw_route(settings).sensor)
