"""Every kind of image file is decoded by one rule, or refused by name."""

import cv2
import numpy as np
import pytest

from flowseg.data import image_headers, images
from flowseg.media.frames import open_frames
from flowseg.media.pairs import frames_of_one_size, read_pair
from tests.support.image_files import (
    HEIGHT,
    JPEG,
    WIDTH,
    blobs,
    chunk,
    cmyk_jpeg,
    encode,
    exif,
    marked_jpeg,
    packed,
    palette,
    png,
    segment,
    tiff,
)

# What each orientation does to the stored pixels (EXIF 2.32, tag 274).
UPRIGHT = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed(orientation, order):
    stored = images.decode(JPEG, "a.jpg")
    expected = UPRIGHT[orientation](stored)
    for before in (b"", XMP):
        data = marked_jpeg(JPEG, orientation, order, before)
        assert image_headers.orientation(data) == orientation
        np.testing.assert_array_equal(images.decode(data, "a.jpg"), expected)
    pixels = packed(8, 3).reshape(HEIGHT, WIDTH, 3)
    mark = chunk(b"eXIf", exif(orientation, order))
    for place in ("before", "after"):
        data = png(packed(8, 3), WIDTH, 8, 2, **{place: mark})
        assert image_headers.orientation(data) == orientation
        np.testing.assert_array_equal(images.decode(data, "a.png"), UPRIGHT[orientation](pixels))
    data = tiff(pixels, orientation)
    np.testing.assert_array_equal(images.decode(data, "a.tif"), UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_unknown_orientations_mean_upright(orientation):
    data = marked_jpeg(JPEG, orientation)
    assert image_headers.orientation(data) == 1 and not image_headers.graph_obstacle(data)
    np.testing.assert_array_equal(images.decode(data, "a"), images.decode(JPEG, "a"))


def test_damaged_exif_means_upright():
    for end in range(0, 40, 3):
        block = (b"Exif\0\0" + exif(6))[:end]
        data = JPEG[:2] + segment(0xE1, block) + JPEG[2:]
        upright = image_headers.orientation(data) == 1
        assert images.decode(data, "a").shape == (
            (HEIGHT, WIDTH, 3) if upright else (WIDTH, HEIGHT, 3)
        )


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_orientation_in_other_formats(suffix):
    mark = np.frombuffer(exif(6), np.uint8)
    pixels = blobs()[..., ::-1]
    data = cv2.imencodeWithMetadata(suffix, pixels, [cv2.IMAGE_METADATA_EXIF], [mark])[1]
    assert images.decode(data.tobytes(), "a").shape == (WIDTH, HEIGHT, 3)


def test_grey_palette_and_alpha():
    grey = packed(8)
    rgb = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(images.decode(encode(".png", grey), "a"), rgb)
    grey_alpha = np.dstack([grey, packed(8, seed=1)]).reshape(HEIGHT, -1)
    np.testing.assert_array_equal(images.decode(png(grey_alpha, WIDTH, 8, 4), "a"), rgb)
    colours = np.frombuffer(palette(8)[8:-4], np.uint8).reshape(256, 3)
    with_palette = png(grey, WIDTH, 8, 3, palette(8))
    np.testing.assert_array_equal(images.decode(with_palette, "a"), colours[grey])
    rgba = blobs(4)
    for suffix in (".png", ".tiff", ".bmp"):
        data = encode(suffix, rgba)
        np.testing.assert_array_equal(images.decode(data, "a"), rgba[..., :3])
        assert images.has_alpha(data, "a")
    assert not images.has_alpha(encode(".bmp", rgba[..., :3]), "a")
    one_bit = images.decode(png(packed(1), WIDTH, 1, 0), "a")
    np.testing.assert_array_equal(one_bit[..., 0], 255 * np.unpackbits(packed(1), axis=1))


def test_cmyk():
    planes = np.moveaxis(blobs(4), 2, 0).astype(float)
    # Adobe stores inverted ink, so that a product of two planes is light.
    expected = np.dstack([plane * planes[3] / 255 for plane in planes[:3]])
    image = images.decode(cmyk_jpeg(0), "a.jpg")
    assert np.abs(image - expected).mean() < 2


def test_bytes_after_the_end_of_a_jpeg():
    expected = images.decode(JPEG, "a")
    video = b"\0\0\0\x18ftypmp42" * 1000
    for rest in (b"\0", bytes(5000), video, video + b"\xff\xd9", JPEG, b"text"):
        np.testing.assert_array_equal(images.decode(JPEG + rest, "a"), expected)


@pytest.mark.parametrize("progressive", [0, 1])
def test_truncated_jpeg(progressive, capfd):
    data = encode(".jpg", blobs(3, 200, 300), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    half = data[: len(data) // 2]
    noise = np.random.default_rng(0).bytes(5000)
    hidden = [half, data[:-3], half + data, half + b"text" * 100, half + noise]
    cut = [half, data[:-20], data[:-2], data[:-1], half + bytes(1000), half + b"ftypmp42" * 100]
    for content in [*cut, *(part + b"\xff\xd9" for part in hidden)]:
        with pytest.raises(ValueError, match=r"a\.jpg: truncated or damaged JPEG"):
            images.decode(content, "a.jpg")
    assert capfd.readouterr().err == "", "no messages from libjpeg"


def test_extraneous_bytes_are_no_damage(capfd):
    """Some cameras pad the pixels."""
    data = JPEG[:-2] + bytes(300) + b"\xff\xd9"
    np.testing.assert_array_equal(images.decode(data, "a"), images.decode(JPEG, "a"))
    assert capfd.readouterr().err == ""


def test_values_that_are_no_pixels():
    data = encode(".tiff", np.float32(blobs()))
    with pytest.raises(ValueError, match=r"a\.tif: holds values of type float32"):
        images.decode(data, "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm", ".jp2"])
@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_bit_depth(suffix, depth):
    pixels = blobs(3, 64, 96, 2**depth, np.uint16)
    data = encode(suffix, pixels)
    expected = np.uint8(pixels >> (depth - 8))
    np.testing.assert_array_equal(images.decode(data, "a", bit_depth=depth), expected)
    assert expected.max() > 200, "not dark"


def test_16_bits_need_a_bit_depth(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(".png", blobs(1, high=4096, dtype=np.uint16)))
    with pytest.raises(ValueError, match=r"a\.png: has 16 bits per value.*bit_depth"):
        images.read_image(path)
    with pytest.raises(ValueError, match=r"a\.png: holds the value 39\d\d, but bit_depth=10"):
        images.read_image(path, bit_depth=10)
    with pytest.raises(ValueError, match="bit_depth=7: must be 8 to 16"):
        images.read_image(path, bit_depth=7)
    with pytest.raises(ValueError, match="16 bits per value"):
        list(frames_of_one_size([path, path]))


def test_one_bit_depth_for_a_set(tmp_path, capsys):
    """The dark frame alone would have 10 bits; the 8-bit frame is not changed."""
    dark, bright = np.full((2, 4, 6), [[[700]], [[3000]]], np.uint16)
    names = ("0.png", "1.png", "2.png", "3.jpg")
    contents = (dark, bright, dark // 8)
    paths = [tmp_path / name for name in names]
    for path, pixels in zip(paths, contents, strict=False):
        path.write_bytes(encode(".png", pixels))
    paths[2].write_bytes(encode(".png", np.uint8(dark // 8)))
    paths[3].write_bytes(encode(".jpg", np.full((4, 6), 90, np.uint8)))
    assert images.find_bit_depth(paths) == 12
    printed = capsys.readouterr().out
    assert "2 of 4 images have 16 bits per value; the largest value is 3000, so 12 bits" in printed
    frames = [frame.image for frame in open_frames(tmp_path)[0]]
    assert [int(image[0, 0, 0]) for image in frames] == [700 >> 4, 3000 >> 4, 700 // 8, 90]
    frames = [frame.image for frame in open_frames(tmp_path, bit_depth=16)[0]]
    assert [int(image[0, 0, 0]) for image in frames] == [700 >> 8, 3000 >> 8, 700 // 8, 90]
    pair = read_pair(paths[0], paths[1])
    assert [int(image[0, 0, 0]) for image in pair] == [700 >> 4, 3000 >> 4]
    assert int(read_pair(paths[0], paths[0])[0][0, 0, 0]) == 700 >> 2
    assert images.find_bit_depth(paths[2:]) is None


def test_bit_depth_ignores_damaged_files(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(".png", np.full((4, 6), 900, np.uint16)))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-20])
    (tmp_path / "c.tif").write_bytes(b"no image")
    assert (
        images.find_bit_depth([tmp_path / f"{n}" for n in ("a.png", "b.png", "c.tif", "d")]) == 10
    )
