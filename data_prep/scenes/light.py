"""Computes the light of each pixel of a synthetic street.

One ray is cast through each pixel's centre, which also determines the ground truth of labels and
flow. Only pixels at a visible edge (of an object, a crease or a shadow) get two more rays, for
anti-aliasing. Textures are filtered when sampled, so surfaces need no more than one ray.
"""

from typing import NamedTuple

import numpy as np

from data_prep.scenes import textures
from data_prep.scenes.camera import Camera
from data_prep.scenes.rays import SKY, Hits, cast, cast_all, chessboard, intersect, neighbours
from data_prep.scenes.road import Road
from data_prep.scenes.world import World

# Offsets of the additional rays from a pixel's centre, px; symmetric.
_OFFSETS = ((0.33, -0.17), (-0.33, 0.17))
_CONTRAST = 0.12  # a smaller relative step of light gets no additional rays


class Weather(NamedTuple):
    """Light and atmosphere. Directions point away from the ground; colours are linear."""

    sun_direction: np.ndarray  # (3,) unit
    sun: np.ndarray  # (3,) light of the sun on a surface that faces it
    zenith: np.ndarray  # (3,) the sky overhead
    horizon: np.ndarray  # (3,) the sky at the horizon; also the colour of haze
    ambient: np.ndarray  # (3,) light from the whole sky
    clouds: float  # 0: clear
    cloud_tile: int
    visibility: float  # distance in metres at which haze absorbs 63 %
    # Of the sun: far enough for parallel shadows, near enough for exact rays. A drive needs more.
    sun_distance: float = 1000.0


def draw_weather(rng: np.random.Generator) -> Weather:
    """Draw random weather: sunny or cloudy, noon or evening, clear or hazy."""
    sunny = rng.random() < 0.6
    height, around = rng.uniform(0.3, 1.15), rng.uniform(0, 2 * np.pi)
    low = (1 - np.sin(height)) ** 2
    direction = np.array(
        [np.cos(height) * np.cos(around), np.cos(height) * np.sin(around), np.sin(height)]
    )
    warm = np.array([1.0, 1 - 0.35 * low, 1 - 0.6 * low])
    grey = rng.uniform(0.75, 1.05) * np.array([0.92, 1.02, 1.1])
    blue = np.array([0.35, 0.75, 1.3]) * rng.uniform(0.6, 1.2)
    return Weather(
        sun_direction=direction,
        sun=warm * (rng.uniform(1.6, 3.0) if sunny else rng.uniform(0.15, 0.5)),
        zenith=blue if sunny else grey * rng.uniform(0.7, 1.0),
        horizon=(grey * [0.7, 1.0, 1.15] if sunny else grey) * rng.uniform(1.0, 1.6),
        ambient=grey
        * [0.85, 1, 1.15]
        * (rng.uniform(0.22, 0.45) if sunny else rng.uniform(0.55, 0.85)),
        clouds=rng.choice([0.0, rng.uniform(0.4, 1.5)]),
        cloud_tile=rng.choice(textures.TILES["clouds"]),
        visibility=np.exp(rng.uniform(np.log(400), np.log(5000))),
    )


def photograph(
    world: World, camera: Camera, height: int, width: int, weather: Weather, road: Road
) -> tuple[np.ndarray, Hits]:
    """Render a frame.

    Returns:
        Light, (H, W, 3) float32, and the :class:`Hits` of the pixels' centres in row order.
    """
    y, x = (n.ravel().astype(np.float64) for n in np.mgrid[:height, :width])
    hits = cast_all(world, camera, x, y, height, width)
    lit = _sunlit_all(world, hits, weather, height, width)
    light = _shade(world, camera, hits, lit, weather, road)
    edge, shadow = _edges(world, hits, lit, light, height, width)
    edge = np.flatnonzero(edge)
    if len(edge):
        near = [
            np.concatenate([n[edge] + offset[i] for offset in _OFFSETS])
            for i, n in enumerate((x, y))
        ]
        fine = cast(world, camera, *near)
        fine_lit = _sunlit_near(world, fine, weather, hits, lit, shadow, edge, width)
        fine_light = _shade(world, camera, fine, fine_lit, weather, road)
        light[edge] += sum(fine_light.reshape(len(_OFFSETS), -1, 3))
        light[edge] /= len(_OFFSETS) + 1
    return light.reshape(height, width, 3), hits


def _sunlit(world, hits, weather, some):
    """Test whether the sun reaches the points, (N,) bool; False except at the indices `some`."""
    lit = np.zeros(len(hits.geom), bool)
    sun = weather.sun_distance * weather.sun_direction
    path = hits.point[some] - sun
    length = np.linalg.norm(path, axis=1)
    _, distance, _ = intersect(world, sun, path / length[:, None], normals=False)
    lit[some] = distance > length - 0.03
    return lit


def _faces_sun(hits, weather):
    return (hits.geom != SKY) & (hits.normal @ weather.sun_direction > 0)


def _sunlit_all(world, hits, weather, height, width):
    """Compute `_sunlit` for all pixels of a frame.

    Rays are cast for the black pixels of a chessboard. A white pixel takes the value of its four
    neighbours if they agree and show the same geom.
    """
    faces = _faces_sun(hits, weather)
    black, white = (some[faces[some]] for some in chessboard(height, width))
    lit = _sunlit(world, hits, weather, black)
    agree, bright = np.ones(len(white), bool), np.zeros(len(white), int)
    for near in neighbours(white, height, width):
        agree &= hits.geom[near] == hits.geom[white]
        bright += lit[near]
    agree &= (bright == 0) | (bright == 4)
    lit[white] = bright == 4
    undecided = white[~agree]
    lit[undecided] = _sunlit(world, hits, weather, undecided)[undecided]
    return lit


def _sunlit_near(world, fine, weather, hits, lit, shadow, edge, width):
    """Compute `_sunlit` for the additional rays `fine` of the pixels `edge`.

    Away from shadow edges the value of a nearby pixel with the same geom is used.
    """
    facing = _faces_sun(fine, weather)
    pixel = np.tile(edge, len(_OFFSETS))
    known, lit_fine = np.zeros(len(pixel), bool), np.zeros(len(pixel), bool)
    for step in (0, 1, -1, width, -width):
        near = np.clip(pixel + step, 0, len(lit) - 1)
        same = ~known & (hits.geom[near] == fine.geom)
        lit_fine[same], known = lit[near[same]], known | same
    undecided = np.flatnonzero(facing & (~known | shadow[pixel]))
    lit_fine[undecided] = _sunlit(world, fine, weather, undecided)[undecided]
    return lit_fine & facing


def _edges(world, hits, lit, light, height, width):
    """Find pixels at visible edges of surfaces, creases or shadows, and at any shadow edge.

    Both are (N,) bool.
    """
    surface = np.where(hits.geom == SKY, SKY, world.surface[hits.geom])
    surface = surface.reshape(height, width)
    lit, normal = lit.reshape(height, width), hits.normal.reshape(height, width, 3)
    light = (light @ np.float32([0.3, 0.6, 0.1])).reshape(height, width)
    edge, shadow = np.zeros((2, height, width), bool)
    for a, b in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        shade = lit[a] != lit[b]
        differs = shade | (surface[a] != surface[b])
        differs |= (np.einsum("yxi,yxi->yx", normal[a], normal[b]) < 0.7) & (surface[a] != SKY)
        differs &= np.abs(light[a] - light[b]) > _CONTRAST * np.maximum(light[a], light[b])
        for part in (a, b):
            edge[part] |= differs
            shadow[part] |= shade
    return edge.ravel(), shadow.ravel()


def _shade(world, camera, hits, lit, weather, road):
    """Compute the light along the rays, (N, 3) float32."""
    light = np.empty((len(hits.geom), 3), np.float32)
    hit, sky = (np.flatnonzero(some) for some in (hits.geom != SKY, hits.geom == SKY))
    light[sky] = _sky(hits.direction[sky], weather, 1 / camera.focal)
    geom, distance = hits.geom[hit], hits.distance[hit].astype(np.float32)
    normal, direction = hits.normal[hit], hits.direction[hit].astype(np.float32)
    slant = np.abs(np.einsum("ni,ni->n", normal, direction)).astype(np.float32)
    albedo = _albedo(world, hits.point[hit], normal, geom, distance / camera.focal, slant)
    plane = np.flatnonzero(world.road[geom])
    paint = road.paint(hits.point[hit[plane]], distance[plane] / camera.focal, slant[plane])
    albedo[plane] += paint[:, None] * (0.75 - albedo[plane])
    normal = normal.astype(np.float32)
    facing = np.maximum(normal @ np.float32(weather.sun_direction), 0) * lit[hit]
    reflected = facing[:, None] * np.float32(weather.sun)
    reflected += (0.55 + 0.45 * normal[:, 2:]) * np.float32(weather.ambient)
    reflected = albedo * reflected + world.glow[geom, None] * world.colour[geom]
    shiny = np.flatnonzero(world.gloss[geom] > 0)
    if len(shiny):
        against = np.einsum("ni,ni->n", direction[shiny], normal[shiny])
        mirrored = direction[shiny] - 2 * against[:, None] * normal[shiny]
        share = world.gloss[geom[shiny]] + (1 - slant[shiny]) ** 4 * 0.4
        # At and below the horizon the reflection shows the street, far darker than the sky.
        above = np.clip(mirrored[:, 2:] * 5, 0.08, 1)
        bright = weather.horizon + (weather.zenith - weather.horizon) * np.abs(mirrored[:, 2:])
        reflected[shiny] += share[:, None] * (above * bright - reflected[shiny])
    clear = np.exp(-distance / weather.visibility)[:, None]
    light[hit] = reflected * clear + np.float32(weather.horizon) * (1 - clear)
    return light


def _albedo(world, point, normal, geom, footprint, slant):
    """Compute the surface colour at the points, (N, 3); `footprint`: pixel width there, metres."""
    turn = world.data.geom_xmat.reshape(-1, 3, 3)[geom]
    local = np.einsum("nji,nj->ni", turn, point - world.data.geom_xpos[geom])
    axis = np.abs(np.einsum("nji,nj->ni", turn, normal)).argmax(1)
    ground = world.ground[geom]
    local[ground], axis[ground] = point[ground], 2
    u = np.where(axis == 0, local[:, 1], local[:, 0])
    v = np.where(axis == 2, local[:, 1], local[:, 2])
    # At an oblique view a pixel covers more along the slope than across: filter by the longer side.
    spread = footprint / np.maximum(slant, 0.02)
    albedo = world.colour[geom].copy()
    period, offset = world.period[geom], world.offset[geom]
    for tile, size in (
        (world.tile[geom], period),
        (world.detail[geom], np.float32([0.6, 0.6])),
        (world.stain[geom], np.float32([4.5, 3.5])),
    ):
        texels = spread * textures.SIZE / size[..., 0]
        position = [
            (p / size[..., i] + offset[:, i]).astype(np.float32) for i, p in enumerate((u, v))
        ]
        albedo *= textures.sample(tile, *position, texels)
    return albedo


def _sky(direction, weather, pixel):
    """Compute the sky, (N, 3) float32: a gradient, high clouds, and a glow around the sun."""
    up = np.maximum(direction[:, 2], 0).astype(np.float32)[:, None]
    colour = weather.horizon + (weather.zenith - weather.horizon) * np.sqrt(up)
    colour = colour.astype(np.float32)
    above = np.flatnonzero(direction[:, 2] > 0)
    if weather.clouds > 0 and len(above):
        flat = np.float32(0.6) / (up[above, 0] + np.float32(0.12))
        u, v = (direction[above, i].astype(np.float32) * flat for i in (0, 1))
        tile = np.full(len(above), weather.cloud_tile)
        cover = textures.sample(tile, u, v, pixel * textures.SIZE * flat * 2)
        cover = np.clip(cover * weather.clouds * 1.6, 0, 1)
        white = np.float32(weather.ambient.mean() * 1.6 + weather.sun.mean() * 0.15)
        colour[above] += cover * (white - colour[above])
    toward = np.maximum(direction @ weather.sun_direction, 0).astype(np.float32)
    colour += (toward**60)[:, None] * np.float32(weather.sun * 0.5)
    return colour
