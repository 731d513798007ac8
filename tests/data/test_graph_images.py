"""TensorFlow graphs decode image files to the pixels of `images.decode`, or refuse them."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import graph_images, image_headers, images
from tests.support.image_files import (
    JPEG,
    KINDS,
    WIDTH,
    blobs,
    chunk,
    encode,
    exif,
    marked_jpeg,
    packed,
    png,
    segment,
)

SAMPLING = ("444", "422", "420", "440", "411")


@pytest.fixture(scope="module")
def decode():
    return tf.function(graph_images.decode, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(decode, kind):
    for suffix, data in KINDS[kind]:
        try:
            expected = images.decode(data, f"a{suffix}", bit_depth=12)
        except ValueError:
            expected = None
        obstacle = image_headers.graph_obstacle(data)
        if obstacle or (expected is None and "ended" not in kind):
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode(data)
        elif expected is not None:
            np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("orientation", range(10))
def test_orientations_are_read_as_in_python(decode, orientation):
    marks = [
        marked_jpeg(JPEG, orientation, "<"),
        marked_jpeg(JPEG, orientation, ">", segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0Exif")),
        *(
            png(packed(8, 3), WIDTH, 8, 2, **{place: chunk(b"eXIf", exif(orientation, order))})
            for place, order in (("before", "<"), ("after", ">"))
        ),
    ]
    for data in marks:
        if image_headers.orientation(data) == 1:
            assert orientation in (0, 1, 9)
            np.testing.assert_array_equal(decode(data), images.decode(data, "a"))
        else:
            with pytest.raises(
                tf.errors.InvalidArgumentError,
                match=rf"image has an EXIF orientation.*\] \[{orientation}\]",
            ):
                decode(data)


def test_damaged_exif_is_read_as_in_python(decode):
    for order in "<>":
        complete = b"Exif\0\0" + exif(6, order, [(0x100, 4, 1, 7)])
        for end in range(0, len(complete) + 1, 2):
            data = JPEG[:2] + segment(0xE1, complete[:end]) + JPEG[2:]
            try:
                np.testing.assert_array_equal(decode(data), images.decode(data, "a"))
            except tf.errors.InvalidArgumentError:
                assert image_headers.orientation(data) == 6


@pytest.mark.parametrize("sampling", SAMPLING)
def test_subsampled_colours(decode, sampling):
    value = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    pixels = np.random.default_rng(0).integers(0, 256, (75, 101, 3), np.uint8)
    for image in (pixels, blobs(3, 75, 101)):
        for progressive in (0, 1):
            options = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, value)
            data = encode(".jpg", image, *options, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
            np.testing.assert_array_equal(decode(data), images.decode(data, "a"))


def test_real_jpeg_files(decode, samples):
    paths = sorted((samples / "davis/JPEGImages").rglob("*.jpg"))[::40]
    paths += sorted((samples / "cityscapes_video/images").rglob("*.jpg"))[::40]
    assert len(paths) >= 5
    for path in paths:
        np.testing.assert_array_equal(decode(path.read_bytes()), images.read_image(path))
