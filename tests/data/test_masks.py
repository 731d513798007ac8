"""Masks: the stored ids of every kind of PNG, and the errors for masks without ids."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import masks
from flowseg.data.flow_io import PNG_MAGIC
from flowseg.data.labels import CAMVID, CITYSCAPES, from_dict
from tests.support.png_writer import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGBA,
    chunk,
    palette_png,
    png,
    stored_png,
)

MINE = from_dict(
    {
        "name": "mine",
        "names": ["ground", "pipe", "valve"],
        "palette": [[10, 20, 30], [255, 140, 0], [0, 120, 255]],
        "ids": {"plant": [0, [1, 2], 7]},
    }
)
COLOURS = masks.palette(MINE, "plant")


def values_of(depth, seed=0):
    return np.random.default_rng(seed).integers(0, 2 ** min(depth, 8), (5, 11))


@pytest.mark.parametrize(
    ("depth", "rows", "expected"),
    [
        # One row of 1 bit: 0b10110000, of which seven pixels are used.
        (1, [b"\0\xb0"], [[1, 0, 1, 1, 0, 0, 0]]),
        # 2 bits: 0b00011011 = 0, 1, 2, 3.
        (2, [b"\0\x1b"], [[0, 1, 2, 3]]),
        # 4 bits, two rows; the second has the filter Up (2): 0x12 + 0x11 = 0x23.
        (4, [b"\0\x12", b"\2\x11"], [[1, 2], [2, 3]]),
        # 8 bits with the filters Sub (1), Average (3), and Paeth (4).
        (8, [b"\1\x05\x02", b"\3\x01\x01", b"\4\x01\x01"], [[5, 7], [3, 6], [4, 7]]),
        (16, [b"\0\0\x07\0\xff"], [[7, 255]]),
    ],
)
@pytest.mark.parametrize("colour_type", [GREY, PALETTE])
def test_stored_values_by_hand(depth, rows, expected, colour_type):
    if (depth, colour_type) == (16, PALETTE):
        return  # PNG has no such files.
    chunks = chunk(b"PLTE", bytes(range(240, 249))) if colour_type == PALETTE else b""
    data = png(rows, len(expected[0]), depth, colour_type, chunks)
    decoded = masks.decode(data, "a.png")
    assert decoded.dtype == np.uint8 and decoded.tolist() == expected


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_transparency_and_palette_do_not_change_ids(depth):
    values = values_of(depth)
    colours = np.random.default_rng(1).integers(0, 256, (2**depth, 3))
    transparent = chunk(b"tRNS", b"\0\0")
    for data in (
        stored_png(values, depth, GREY, transparent),
        palette_png(values, colours, depth),
        stored_png(values, depth, PALETTE, chunk(b"PLTE", bytes(6)) + transparent),
    ):
        assert (masks.decode(data, "a.png") == values).all()


def test_grey_masks_of_opencv_are_read_as_by_opencv():
    values = np.uint8(values_of(8))
    data = cv2.imencode(".png", values)[1].tobytes()
    assert masks.holds_plain_ids(data)
    assert (masks.decode(data, "a.png") == values).all()
    assert not masks.holds_plain_ids(stored_png(values_of(1), 1))
    assert not masks.holds_plain_ids(palette_png(values, np.zeros((256, 3), int)))


def test_interlaced_mask():
    # A single pixel is the whole first pass of Adam7; the other passes are empty.
    data = png([b"\0\x80"], 1, 1, GREY, interlaced=1)
    assert masks.decode(data, "a.png").tolist() == [[1]]


def test_16_bit_values_that_are_no_ids():
    data = stored_png([[3, 256], [999, 7]], 16)
    with pytest.raises(ValueError, match="a.png: the largest value is 999, but class ids are at"):
        masks.decode(data, "a.png")


@pytest.mark.parametrize("colour_type", [RGB, RGBA])
def test_colours_become_first_ids(colour_type):
    classes = np.random.default_rng(2).integers(0, 4, (6, 9))
    # Black is void, because no class is black.
    rgb = np.array([*MINE.palette, (0, 0, 0)])[classes]
    alpha = np.random.default_rng(3).integers(0, 256, (6, 9, 1))
    values = np.concatenate([rgb, alpha], -1)[..., : {RGB: 3, RGBA: 4}[colour_type]]
    decoded = masks.decode(stored_png(values, 8, colour_type), "a.png", COLOURS)
    assert (decoded == np.array([0, 1, 7, 255])[classes]).all()


def test_grey_with_alpha_holds_ids():
    values = np.dstack([values_of(8), values_of(8, 1)])
    decoded = masks.decode(stored_png(values, 8, GREY_ALPHA), "a.png", COLOURS)
    assert (decoded == values[..., 0]).all()


def test_palette_of_built_in_label_sets():
    assert masks.palette(CITYSCAPES)[128, 64, 128] == (0,)
    assert masks.palette(CITYSCAPES, "cityscapes")[0, 0, 0] == (255,)
    # CamVid's void is 11, and CamVid has no walls.
    assert masks.palette(CAMVID, "camvid")[0, 0, 0] == (11,)
    assert (102, 102, 156) not in masks.palette(CITYSCAPES, "camvid")


GOOD = stored_png([[1, 0]], 1)


def test_bytes_after_the_end_are_ignored():
    for end in (b"\0" * 7, chunk(b"IDAT", b"x"), GOOD):
        assert masks.decode(GOOD + end, "a.png").tolist() == [[1, 0]]


def test_8_bit_grey_is_read_by_tensorflow_as_stored():
    """Records keep such files unchanged, whatever else they contain."""
    values = values_of(8)
    for data in (
        stored_png(values, 8, GREY, chunk(b"tRNS", b"\0\7")),
        stored_png(values, 8, GREY, chunk(b"gAMA", bytes([0, 0, 177, 143]))),
    ):
        assert masks.holds_plain_ids(data)
        decoded = tf.io.decode_png(data, channels=1)[..., 0].numpy()
        assert (decoded == values).all() and (masks.decode(data, "a.png") == values).all()


def image(*colours):
    return stored_png([colours], 8, RGB)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (
            image((10, 20, 30), (1, 2, 3), (1, 2, 3), (255, 140, 1)),
            r"the colour \(1, 2, 3\), at 2 pixels \(1 more colours at 1 pixels\), is not in the",
        ),
        (image((1, 1, 1), (2, 2, 2)), r"\(1, 1, 1\), at 1 .*equal channels holds the ids, save"),
        (stored_png(np.zeros((1, 2, 3), int), 16, RGB), "8 bits per channel, but this one has 16"),
        (cv2.imencode(".jpg", np.zeros((4, 4), np.uint8))[1].tobytes(), "JPEG file cannot hold a"),
        (b"GIF89a", "not a PNG file"),
        (PNG_MAGIC + chunk(b"tEXt") + GOOD[8:], "its header is damaged"),
        (PNG_MAGIC + chunk(b"IHDR", b"\0") + GOOD[8:], "its header is damaged"),
        (png([b"\0\0"], 1, 3, GREY), "not a readable PNG"),
        (png([b"\0"], 0, 8, GREY), "PNG"),
    ],
    ids=(
        "unknown_colours",
        "grey_as_rgb",
        "16_bit_rgb",
        "jpeg",
        "gif",
        "no_header",
        "short_header",
        "too_few_rows",
        "no_columns",
    ),
)
def test_refused_masks(data, match):
    with pytest.raises(ValueError, match=f"^a.png: .*{match}"):
        masks.decode(data, "a.png", COLOURS)


def test_colours_without_a_unique_class():
    data = image((9, 9, 9), (10, 20, 30))
    with pytest.raises(ValueError, match="a.png: holds colours, and no label set says which"):
        masks.decode(data, "a.png")
    twice = masks.palette(MINE._replace(palette=((9, 9, 9), (9, 9, 9), (10, 20, 30))), "plant")
    with pytest.raises(ValueError, match=r"several classes of the label set have .*\(9, 9, 9\)"):
        masks.decode(data, "a.png", twice)
    # Masks without this colour are read.
    assert masks.decode(image((10, 20, 30)), "a.png", twice).tolist() == [[7]]


def test_indices_that_contradict_their_colours():
    """A program that reduces an RGB mask to a palette numbers the colours in any order."""
    reduced = palette_png([[0, 1]], [MINE.palette[1], MINE.palette[0]])
    with pytest.raises(
        ValueError, match=r"index 0 of its palette has the colour \(255, 140, 0\), .* of id 1 in"
    ):
        masks.decode(reduced, "a.png", COLOURS)
    # The second id of a class, and colours of another palette, contradict nothing.
    for colours in ([MINE.palette[0], (1, 1, 1), MINE.palette[1]], [(9, 9, 9)] * 3):
        assert masks.decode(palette_png([[0, 2]], colours), "a.png", COLOURS).tolist() == [[0, 2]]


def test_values_that_stand_for_ids():
    values = {0: 0, 128: 255, 255: 7}
    for data in (
        stored_png([[0, 255, 128]]),
        palette_png([[0, 255, 128]], np.zeros((256, 3), int)),
    ):
        assert masks.decode(data, "a.png", COLOURS, values).tolist() == [[0, 7, 255]]
    with pytest.raises(ValueError, match="a.png: holds values that are not in mask_values: 3, 9$"):
        masks.decode(stored_png([[0, 9, 3, 3]]), "a.png", COLOURS, values)
