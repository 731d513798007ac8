"""The `street` world: a drive through synthetic streets, with exact flow and Cityscapes labels.

Each pair shows a different random street (see `layout`). MuJoCo moves everything for 0.1 s between
the frames and finds what every ray hits.
"""

from collections.abc import Iterator

import numpy as np

from data_prep.scenes import layout, light, rays, sensor, things, truth
from data_prep.scenes import world as worlds
from data_prep.scenes.camera import Camera, kitti_lens, project
from data_prep.scenes.movers import CAR
from data_prep.scenes.pair import Pair

MAX_FLOW = 500.0  # px; KITTI's files can store up to 512
_OCCLUDERS = (things.BUILDING, things.WALL, things.VEGETATION)
SKY_LABEL = 23  # Cityscapes id


def make_pair(index: int, seed: int, height: int, width: int, effects: bool = True) -> Pair:
    """Render pair `index` of `seed`; it depends only on these and the size.

    Args:
        index, seed: not negative.
        height, width: size of the frames, px.
        effects: simulate the sensor's noise, blur, vignette and lens; False: an ideal camera.

    Returns:
        :class:`data_prep.scenes.pair.Pair` with labels.
    """
    rng = np.random.default_rng([seed, height, width, index])
    road, static, bodies, drive, weather = layout.draw_street(rng)
    lens = _draw_lens(rng, height, width, effects)
    static = _remove_occluded(static, bodies, drive, lens, height, width)
    world = worlds.build(static, bodies, drive, rng)
    camera1 = _camera(world, lens)
    light1, hits1 = light.photograph(world, camera1, height, width, weather, road)
    before = truth.poses(world)
    worlds.advance(world)
    after = truth.poses(world)
    camera2 = _camera(world, lens)
    light2, hits2 = light.photograph(world, camera2, height, width, weather, road)
    projected = truth.follow(hits1, before, after, camera2)
    in_sight = truth.is_visible(
        world, camera2, hits1, projected=projected, hits2=hits2, height=height, width=width
    )
    pixels = np.mgrid[:height, :width][::-1].reshape(2, -1)
    flow = np.stack(projected[:2]) - pixels
    valid = (projected[2] > 0.05) & (np.abs(flow).max(0) < MAX_FLOW)
    flow = np.where(valid, flow, 0)
    camera_kind = sensor.draw(rng, width) if effects else sensor.Sensor()
    motions = (None, None)
    if camera_kind.shutter > 0:
        back = truth.follow(hits2, after, before, camera1)
        motion2 = np.where(back[2] > 0.05, pixels - np.stack(back[:2]), 0)
        motions = tuple(_to_image(n.clip(-200, 200), height, width) for n in (flow, motion2))
    images = sensor.expose((light1, light2), camera_kind, rng if effects else None, motions)
    labels = np.where(hits1.geom == rays.SKY, SKY_LABEL, world.label[hits1.geom])
    return Pair(
        *images,
        flow=_to_image(flow, height, width),
        valid=valid.reshape(height, width),
        visible=(valid & in_sight).reshape(height, width),
        labels=labels.astype(np.uint8).reshape(height, width),
    )


def film(index: int, seed: int, height: int, width: int, count: int) -> Iterator[np.ndarray]:
    """Yield `count` frames, at 10 per second, of the street and motion of pair `index` of `seed`.

    The camera is ideal, without noise, and the textures differ from the pair's. Nobody steers, so
    people and vehicles may run into something after a few seconds.

    Yields:
        (H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng([seed, height, width, index])
    road, static, bodies, drive, weather = layout.draw_street(rng)
    world = worlds.build(static, bodies, drive, rng)
    first = None
    for _ in range(count):
        camera = _camera(world, kitti_lens(height, width))
        light_of_frame, _ = light.photograph(world, camera, height, width, weather, road)
        first = light_of_frame if first is None else first
        yield sensor.expose((first, light_of_frame), sensor.Sensor())[1]
        worlds.advance(world)


def _remove_occluded(static, bodies, drive, lens, height, width):
    """Remove static leaves, walls and parts of far cars that no ray of a coarse grid hits.

    Nearly all of them are occluded, and ray casting becomes faster. Both frames lose the same
    parts, so flow stays exact. Parts outside the view are kept because they cast shadows.
    """
    world = worlds.build(static, bodies, drive, np.random.default_rng(0))
    camera = _camera(world, lens)
    # A coarse grid of rays, slightly wider than the frame.
    step = width / 104
    y, x = (n.ravel() for n in np.mgrid[-16 : height + 16 : step, -48 : width + 48 : step])
    count = len(static)
    geom = rays.cast(world, camera, x, y).geom
    hit_count = np.bincount(geom[(geom >= 0) & (geom < count)], minlength=count)
    px, py, depth = project(camera, world.data.geom_xpos[:count])
    ahead = (depth > 8) & (np.abs(px - width / 2) < width / 2) & (py > 0)
    label = world.label[:count]
    removable = np.isin(label, _OCCLUDERS) & ~world.ground[:count] | ((label == CAR) & (depth > 25))
    occluded = ahead & (hit_count == 0) & removable
    return [part for part, is_occluded in zip(static, occluded, strict=True) if not is_occluded]


def _to_image(values, height, width):
    """Reshape (2, N) to (H, W, 2) float32."""
    return np.moveaxis(values.reshape(2, height, width), 0, -1).astype(np.float32)


def _draw_lens(rng, height, width, effects):
    zoom, shift = rng.normal(1, 0.04), rng.normal(0, 6, 2)
    bend = rng.choice([0.0, rng.uniform(-0.03, 0.01)])
    if not effects:
        return kitti_lens(height, width)
    return kitti_lens(height, width, zoom=zoom, shift=tuple(shift), bend=bend)


def _camera(world, lens):
    """Return the camera at the current pose of its car."""
    turn = world.data.site_xmat[0].reshape(3, 3)
    # The car's axes are x ahead, y left, z up; the image's right is -y and its down is -z.
    axes = np.stack([-turn[:, 1], -turn[:, 2], turn[:, 0]])
    return Camera(world.data.site_xpos[0].copy(), axes, **lens)
