"""Procedural tiling textures of the synthetic worlds, with mip maps.

A texture is a factor around 1 that is multiplied with the material's colour. All textures are in
one image, the atlas, so that a single call of OpenCV's `remap` samples all pixels of a frame.
"""

import functools

import cv2
import numpy as np

SIZE = 256  # side of a texture at the finest level, texels
_LEVELS = 8
_STRIDE = SIZE + 2  # width of a texture in the atlas, with a border of one texel for wrapping
_TOP = np.cumsum([0] + [(SIZE >> level) + 2 for level in range(_LEVELS)])
_ONE = 100.0  # the byte value of a factor of 1


def _noise(rng, falloff, stretch=(1, 1)):
    """Draw tiling noise (SIZE, SIZE), mean 0, deviation 1, with amplitude ~ frequency^-falloff."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    radius = np.hypot(fy * stretch[0], fx * stretch[1])
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / np.maximum(radius, 2e-3) ** falloff
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
    return (noise - noise.mean()) / noise.std()


def _grey(value):
    return np.repeat(value[..., None], 3, -1)


def _tint(rng, amount, falloff=1.2):
    """Draw a slow variation of colour, (SIZE, SIZE, 3) around 1."""
    return 1 + amount * np.stack([_noise(rng, falloff) for _ in range(3)], -1)


def _grain(rng):
    return _grey(np.exp(0.16 * _noise(rng, 0.5) + 0.12 * _noise(rng, 1.4)))


def _stain(rng, amount=0.25, falloff=1.2):
    return _grey(np.exp(amount * _noise(rng, falloff))) * _tint(rng, 0.04)


def _asphalt(rng):
    cracks = np.abs(_noise(rng, 1.6)) < 0.03
    patches = 0.2 * np.sign(_noise(rng, 2.2))
    grain = 0.2 * _noise(rng, 0.35) + 0.2 * _noise(rng, 1.0)
    return _grey(np.exp(grain + patches) * (1 - 0.5 * cracks))


def _slabs(rng, rows, columns, joint, spread, shift=0.0, dark=0.55):
    """Draw rows of stones with joints; every second row is shifted by `shift` of a stone."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    row = np.floor(y * rows).astype(int)
    along = (x * columns + shift * (row % 2)) % columns
    column = np.floor(along).astype(int)
    tone = np.exp(spread * rng.standard_normal((rows, columns, 1)))
    hue = 1 + 0.35 * spread * rng.standard_normal((rows, columns, 3))
    inside = np.minimum((y * rows) % 1 * SIZE / rows, along % 1 * SIZE / columns) > joint
    stones = (tone * hue)[row, column] * np.exp(0.16 * _noise(rng, 0.8))[..., None]
    return np.where(inside[..., None], stones, dark)


def _grass(rng):
    blades = 0.35 * _noise(rng, 0.5) + 0.35 * _noise(rng, 1.1)
    dry = np.clip(0.6 * _noise(rng, 1.3), 0, 1)[..., None] * [0.5, 0.2, 0.1]
    return np.exp(blades)[..., None] * (1 + dry) * _tint(rng, 0.05)


def _leaves(rng, size=3.0):
    """Draw bright leaves in front of dark gaps, at several scales."""
    clumps = _noise(rng, 0.9)
    leaf = cv2.GaussianBlur(np.tile(rng.standard_normal((SIZE, SIZE)), (3, 3)), (0, 0), size / 2)
    leaf = leaf[SIZE : 2 * SIZE, SIZE : 2 * SIZE]
    value = np.exp(0.6 * leaf / leaf.std() + 0.8 * clumps + 0.2 * _noise(rng, 0.2) - 0.2)
    yellow = 1 + np.clip(0.25 * _noise(rng, 1.0), -0.4, 0.6)[..., None] * [0.8, 0.3, 0.0]
    return np.clip(value, 0.08, 2.5)[..., None] * yellow


def _bark(rng):
    return _grey(np.exp(0.45 * _noise(rng, 1.0, (1, 6)) + 0.2 * _noise(rng, 0.4)))


def _bars(rng, count, share):
    """Draw vertical bars on a dark background, with two rails."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    bar = (x * count) % 1 < share
    rail = (np.abs(y - 0.2) < 0.03) | (np.abs(y - 0.8) < 0.03)
    tone = np.exp(0.2 * rng.standard_normal(count))[np.floor(x * count).astype(int)]
    return _grey(np.where(bar | rail, tone, 0.3) * np.exp(0.1 * _noise(rng, 0.8)))


def _facade(rng):
    """Draw plaster or brick with windows: frame, panes with reflections or curtains, sill."""
    wall = (
        _slabs(rng, rows=64, columns=24, joint=1, spread=0.1, shift=0.5)
        if rng.random() < 0.3
        else _grey(np.ones((SIZE, SIZE)))
    )
    image = wall * np.exp(0.16 * _noise(rng, 1.1) + 0.1 * _noise(rng, 0.5))[..., None]
    rows, columns = (int(n) for n in rng.integers(2, 4, 2))
    width, height = rng.uniform(0.3, 0.65), rng.uniform(0.4, 0.65)
    cell_y, cell_x = SIZE / rows, SIZE / columns
    frame = rng.choice([0.35, 1.7, 2.1])
    for row, column in np.ndindex(rows, columns):
        top, left = (row + (1 - height) / 2) * cell_y, (column + (1 - width) / 2) * cell_x
        box = [int(n) for n in (top, top + height * cell_y, left, left + width * cell_x)]
        image[box[0] - 3 : box[1] + 4, box[2] - 3 : box[3] + 4] = frame
        image[box[0] : box[0] + 3, box[2] - 5 : box[3] + 6] = (
            0.4  # z increases with the row, so this is the sill
        )
        pane = rng.choice([0.06, 0.12, 0.3, 1.2]) * np.array([0.85, 1.0, 1.15])
        glass = image[box[0] + 3 : box[1], box[2] : box[3]]
        shine = np.linspace(0.7, 1.6, glass.shape[0])[:, None, None]
        glass[:] = pane * shine * rng.uniform(0.7, 1.4)
        middle = glass.shape[1] // 2
        glass[:, middle - 1 : middle + 2] = frame
        if rng.random() < 0.5:
            glass[-glass.shape[0] // 3] = frame
    if rng.random() < 0.5:
        image[-8:] *= rng.uniform(0.6, 1.3)  # a ledge between floors
    return image


def _shapes(rng, count, smallest, largest):
    """Draw large patches of colour, as on posters, lorries and shop fronts."""
    image = np.full((SIZE, SIZE, 3), 1.0)
    for _ in range(count):
        colour = rng.uniform(0.1, 2.0) * rng.uniform(0.55, 1.25, 3)
        centre, half = rng.uniform(0, SIZE, 2), rng.uniform(smallest, largest, 2)
        corners = cv2.boxPoints((centre, half * 2, rng.choice([0, 0, 90, rng.uniform(0, 90)])))
        for dy, dx in np.ndindex(3, 3):
            moved = corners + np.float32([(dx - 1) * SIZE, (dy - 1) * SIZE])
            cv2.fillPoly(image, [np.int32(np.rint(moved))], colour)
    return image * np.exp(0.16 * _noise(rng, 0.8))[..., None]


def _cloth(rng):
    folds = np.exp(0.4 * _noise(rng, 1.2, (1, 2)) + 0.15 * _noise(rng, 0.4))
    stripes = 1 + 0.4 * np.sign(np.sin(np.arange(SIZE) * 2 * np.pi * rng.integers(3, 12) / SIZE))
    return _grey(folds * (stripes[:, None] if rng.random() < 0.5 else 1))


def _clouds(rng):
    return _grey(np.clip(0.35 + 0.3 * _noise(rng, 1.7) + 0.08 * _noise(rng, 1.0), 0, 1.6))


def _paint(rng):
    """Draw a car body: soft bands of reflections, fine dirt, and door gaps."""
    y = np.arange(SIZE) / SIZE * 2 * np.pi
    bands = 0.4 * np.sin(y + 1) + 0.2 * np.sin(3 * y)
    image = np.exp(bands[:, None] + 0.25 * _noise(rng, 1.3) + 0.08 * _noise(rng, 0.4))
    image[:, [60, 61, 188, 189]] *= 0.45
    return _grey(image)


def _glass(rng):
    slope = 1 + 0.8 * np.sign(np.sin(np.add.outer(np.arange(SIZE), np.arange(SIZE)) * np.pi / 64))
    soft = cv2.GaussianBlur(np.tile(slope, (3, 3)), (0, 0), 6)[SIZE : 2 * SIZE, SIZE : 2 * SIZE]
    return _grey(soft * np.exp(0.3 * _noise(rng, 1.5)))


_MAKERS = {
    "grain": [_grain] * 2,
    "stain": [_stain] * 2,
    "rough": [functools.partial(_stain, amount=0.36, falloff=0.85)] * 2,
    "asphalt": [_asphalt] * 2,
    "paving": [
        lambda rng: _slabs(rng, rows=8, columns=8, joint=2, spread=0.2),
        lambda rng: _slabs(rng, rows=16, columns=8, joint=2, spread=0.22, shift=0.5),
    ],
    "gravel": [lambda rng: _grey(np.exp(0.35 * _noise(rng, 0.5) + 0.3 * _noise(rng, 1.2)))],
    "grass": [_grass] * 2,
    "leaves": [_leaves, functools.partial(_leaves, size=5.0), functools.partial(_leaves, size=9.0)],
    "bark": [_bark],
    "brick": [
        lambda rng: _slabs(rng, rows=32, columns=12, joint=1, spread=0.25, shift=0.5),
        lambda rng: _slabs(rng, rows=9, columns=6, joint=3, spread=0.3),
    ],
    "bars": [
        lambda rng: _bars(rng, count=16, share=0.45),
        lambda rng: _bars(rng, count=10, share=0.85),
    ],
    "facade": [_facade] * 8,
    "shapes": [
        lambda rng: _shapes(rng, count=60, smallest=8, largest=60),
        lambda rng: _shapes(rng, count=150, smallest=3, largest=25),
    ],
    "sign": [
        lambda rng: _shapes(rng, count=14, smallest=10, largest=60),
        lambda rng: _shapes(rng, count=40, smallest=4, largest=20),
    ],
    "roof": [lambda rng: _slabs(rng, rows=24, columns=16, joint=2, spread=0.25, shift=0.5)],
    "cloth": [_cloth] * 4,
    "clouds": [_clouds] * 3,
    "paint": [_paint] * 2,
    "glass": [_glass],
}
# Material name -> indices of its textures in the atlas.
TILES = {}
for _name, _list in _MAKERS.items():
    TILES[_name] = tuple(
        range(sum(map(len, TILES.values())), sum(map(len, TILES.values())) + len(_list))
    )


@functools.cache
def atlas() -> np.ndarray:
    """Build the atlas, (H, W, 3) uint8: textures side by side, each above its mip levels."""
    makers = [make for makers in _MAKERS.values() for make in makers]
    canvas = np.zeros((_TOP[-1], _STRIDE * len(makers), 3), np.uint8)
    for number, make in enumerate(makers):
        image = np.clip(make(np.random.default_rng([7, number])), 0.02, 255 / _ONE)
        for level in range(_LEVELS):
            side = SIZE >> level
            framed = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="wrap") * _ONE
            left = number * _STRIDE
            canvas[_TOP[level] : _TOP[level + 1], left : left + side + 2] = np.rint(framed)
            image = image.reshape(side // 2, 2, side // 2, 2, 3).mean((1, 3))
    return canvas


def sample(tile: np.ndarray, u: np.ndarray, v: np.ndarray, texels: np.ndarray) -> np.ndarray:
    """Sample textures with trilinear filtering at the size of a pixel.

    Args:
        tile: (N,) int, index of the texture; see `TILES`.
        u, v: (N,) float32, position in periods of the texture: 0..1 is one tile.
        texels: (N,) number of texels of the finest level that a pixel covers.

    Returns:
        (N, 3) float32 factors around 1.
    """
    level = np.clip(np.log2(np.maximum(texels, 1)), 0, _LEVELS - 1.001).astype(np.float32)
    lower = level.astype(np.int32)
    share = (level - lower)[:, None]
    u, v = (u - np.floor(u)) * SIZE, (v - np.floor(v)) * SIZE
    left = tile * np.float32(_STRIDE)
    samples = []
    for mip_level in (lower, lower + 1):
        scale = np.exp2(-mip_level).astype(np.float32)
        samples.append(
            _remap(left + u * scale + 0.5, _TOP[mip_level].astype(np.float32) + v * scale + 0.5)
        )
    return (samples[0] * (1 - share) + samples[1] * share) * np.float32(1 / _ONE)


def _remap(x, y):
    """Sample the atlas, (N, 3); `remap` requires a 2-D map no wider than 32767."""
    count, width = len(x), 4096
    rows = -(-count // width)
    x, y = (np.resize(np.float32(n), (rows, width)) for n in (x, y))
    return cv2.remap(atlas(), x, y, cv2.INTER_LINEAR).reshape(-1, 3)[:count]
