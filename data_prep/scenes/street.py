"""The `street` world: a drive through made streets, with exact flow and Cityscapes labels.

Pair k is a street of its own, laid out by chance (see `layout`). MuJoCo moves everything for a
tenth of a second between the frames, and finds what every ray meets.
"""

from collections.abc import Iterator

import numpy as np

from data_prep.scenes import layout, light, rays, sensor, things, truth
from data_prep.scenes import world as worlds
from data_prep.scenes.camera import Camera, kitti_lens, project
from data_prep.scenes.movers import CAR
from data_prep.scenes.pair import Pair

_LARGEST = 500.0  # px of flow; KITTI's files hold 512
_BIG = (things.BUILDING, things.WALL, things.VEGETATION)
SKY_LABEL = 23  # Cityscapes id


def make_pair(index: int, seed: int, height: int, width: int, effects: bool = True) -> Pair:
    """Pair `index` of the streets of `seed`; it depends on these and the size alone.

    Args:
        index, seed: not negative.
        height, width: of the frames, px.
        effects: the sensor's noise, blur, vignette and lens; False: a plain camera.

    Returns:
        :class:`data_prep.scenes.pair.Pair` with labels.
    """
    rng = np.random.default_rng([seed, height, width, index])
    road, static, bodies, drive, weather = layout.draw_street(rng)
    lens = _draw_lens(rng, height, width, effects)
    static = _without_hidden(static, bodies, drive, lens, height, width)
    world = worlds.build(static, bodies, drive, rng)
    camera1 = _camera(world, lens)
    light1, hits1 = light.photograph(world, camera1, height, width, weather, road)
    before = truth.poses(world)
    worlds.advance(world)
    after = truth.poses(world)
    camera2 = _camera(world, lens)
    light2, hits2 = light.photograph(world, camera2, height, width, weather, road)
    place = truth.follow(hits1, before, after, camera2)
    sight = truth.in_sight(
        world, camera2, hits1, place=place, seen=hits2, height=height, width=width
    )
    pixels = np.mgrid[:height, :width][::-1].reshape(2, -1)
    flow = np.stack(place[:2]) - pixels
    valid = (place[2] > 0.05) & (np.abs(flow).max(0) < _LARGEST)
    flow = np.where(valid, flow, 0)
    camera_kind = sensor.draw(rng, width) if effects else sensor.Sensor()
    motions = (None, None)
    if camera_kind.shutter > 0:
        back = truth.follow(hits2, after, before, camera1)
        motion2 = np.where(back[2] > 0.05, pixels - np.stack(back[:2]), 0)
        motions = tuple(_picture(n.clip(-200, 200), height, width) for n in (flow, motion2))
    images = sensor.expose((light1, light2), camera_kind, rng if effects else None, motions)
    labels = np.where(hits1.geom == rays.SKY, SKY_LABEL, world.label[hits1.geom])
    return Pair(
        *images,
        flow=_picture(flow, height, width),
        valid=valid.reshape(height, width),
        visible=(valid & sight).reshape(height, width),
        labels=labels.astype(np.uint8).reshape(height, width),
    )


def film(index: int, seed: int, height: int, width: int, count: int) -> Iterator[np.ndarray]:
    """Yield `count` frames, ten a second, of the street and the motion of pair `index` of `seed`.

    A plain camera, no noise, other textures. Nobody steers, so that after a few seconds who walks
    or drives may run into something.

    Yields:
        (H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng([seed, height, width, index])
    road, static, bodies, drive, weather = layout.draw_street(rng)
    world = worlds.build(static, bodies, drive, rng)
    first = None
    for _ in range(count):
        camera = _camera(world, kitti_lens(height, width))
        shown, _ = light.photograph(world, camera, height, width, weather, road)
        first = shown if first is None else first
        yield sensor.expose((first, shown), sensor.Sensor())[1]
        worlds.advance(world)


def _without_hidden(static, bodies, drive, lens, height, width):
    """The static parts without leaves, walls and far cars' pieces that a coarse look does not meet.

    Nearly all of them are hidden by others, and every ray gets faster by it. Both frames lose the
    same ones, so flow stays exact. What stands aside of the view stays, for its shadow's sake.
    """
    world = worlds.build(static, bodies, drive, np.random.default_rng(0))
    camera = _camera(world, lens)
    # A coarse look, a little wider than the frame.
    step = width / 104
    y, x = (n.ravel() for n in np.mgrid[-16 : height + 16 : step, -48 : width + 48 : step])
    count = len(static)
    geom = rays.cast(world, camera, x, y).geom
    met = np.bincount(geom[(geom >= 0) & (geom < count)], minlength=count)
    px, py, depth = project(camera, world.data.geom_xpos[:count])
    ahead = (depth > 8) & (np.abs(px - width / 2) < width / 2) & (py > 0)
    label = world.label[:count]
    big = np.isin(label, _BIG) & ~world.ground[:count] | ((label == CAR) & (depth > 25))
    hidden = ahead & (met == 0) & big
    return [part for part, gone in zip(static, hidden, strict=True) if not gone]


def _picture(values, height, width):
    """(2, N) -> (H, W, 2) float32."""
    return np.moveaxis(values.reshape(2, height, width), 0, -1).astype(np.float32)


def _draw_lens(rng, height, width, effects):
    zoom, shift = rng.normal(1, 0.04), rng.normal(0, 6, 2)
    bend = rng.choice([0.0, rng.uniform(-0.03, 0.01)])
    if not effects:
        return kitti_lens(height, width)
    return kitti_lens(height, width, zoom=zoom, shift=tuple(shift), bend=bend)


def _camera(world, lens):
    """The camera on its car now."""
    turn = world.data.site_xmat[0].reshape(3, 3)
    # The car's x is ahead, y left, z up; the picture's right is -y and its down -z.
    axes = np.stack([-turn[:, 1], -turn[:, 2], turn[:, 0]])
    return Camera(world.data.site_xpos[0].copy(), axes, **lens)
