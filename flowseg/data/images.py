"""Decodes image files by one rule, for every command, reader, client and server.

A frame is (H, W, 3) uint8 RGB. The EXIF orientation is applied, grey and palettes become RGB, an
alpha channel is dropped, and 16-bit values are reduced to 8 bits with one bit depth for a whole set
of files. Needs only NumPy and OpenCV.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from flowseg import console
from flowseg.data import image_headers
from flowseg.data.flow_io import check_png
from flowseg.errors import ArgumentError

# Image formats that OpenCV's wheels read correctly (for PAM they swap the colours).
IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jp2",
    ".webp",
    ".avif",
    ".tif",
    ".tiff",
    ".bmp",
    ".dib",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".ras",
    ".sr",
)
# Bit depths of cameras, in files of 16 bits.
BIT_DEPTHS = (8, 10, 12, 14, 16)
# Keeps 16-bit values. Not IMREAD_COLOR_RGB, with which OpenCV 5.0 reads wrong values from 16-bit
# TIFF files.
_BGR = cv2.IMREAD_COLOR_BGR | cv2.IMREAD_ANYDEPTH
# What each EXIF orientation does to the stored pixels.
_TURNS = {
    1: lambda image: image,
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What libjpeg prints, and OpenCV ignores, when it fills in missing parts of an image.
_JPEG_DAMAGE = ("premature end", "Premature end", "bad Huffman code", "found marker")


def read_image(path: str | os.PathLike, bit_depth: int | None = None) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Args:
        path: the file.
        bit_depth: see `decode`; `find_bit_depth` finds that of a set of files.

    Raises:
        ValueError: the file is missing, or see `decode`.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such image file")
    return decode(path.read_bytes(), path, bit_depth)


def decode(data: bytes, name: str | os.PathLike, bit_depth: int | None = None) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB.

    Args:
        data: content of a file of any format in `IMAGE_SUFFIXES`.
        name: name of the file, for messages.
        bit_depth: how many bits of 16-bit values are in use, 8 to 16: an 8-bit value is
            `value >> (bit_depth - 8)`. Images of 8 bits ignore it.

    Raises:
        ValueError: damaged, truncated, not an image, or neither 8 nor 16 bits; a 16-bit image
            without `bit_depth`, or with a larger value than it allows.
    """
    image = _decode(data, name)
    return image if image.dtype == np.uint8 else _reduce(image, name, bit_depth)


def _decode(data, name):
    """Return (H, W, 3) RGB, uint8 or uint16."""
    form = image_headers.form(data)
    if form == "png":
        check_png(data, name)
    elif form == "jpeg":
        image_headers.require_memory(data, name)
    elif form == "ppm" and len(data) != image_headers.ppm_size(data):
        raise ValueError(
            f"{name}: the PPM has {len(data)} bytes, but its header implies "
            f"{image_headers.ppm_size(data)}"
        )
    elif data.startswith(_TIFF_MAGICS):
        # OpenCV reads other types as if they were 16-bit values.
        stored = _opencv(data, cv2.IMREAD_UNCHANGED, name)
        if stored is not None and stored.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"{name}: holds values of type {stored.dtype}: save it with 8 or 16 bits per value"
            )
    # By the orientation that `graph_obstacle` reads; in other formats OpenCV applies it.
    marked = form in ("png", "jpeg")
    flags = _BGR | cv2.IMREAD_IGNORE_ORIENTATION if marked else _BGR
    image = (_decode_jpeg if form == "jpeg" else _opencv)(data, flags, name)
    if image is None:
        raise ValueError(f"{name}: not a readable image (damaged, truncated or not an image)")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _TURNS[image_headers.orientation(data)](image) if marked else image


def _decode_jpeg(data, flags, name):
    with console.captured_stderr() as printed:
        image = _opencv(data, flags, name)
    for line in printed:
        if "JPEG" not in line:  # of another thread
            print(line, file=sys.stderr)
    # Some cameras pad the pixels of baseline files with extraneous bytes.
    texts = _JPEG_DAMAGE + (("extraneous",) if image_headers.is_progressive(data) else ())
    damage = [line for line in printed if any(text in line for text in texts)]
    if image is None or damage:
        raise ValueError(f"{name}: truncated or damaged JPEG{f' ({damage[0]})' if damage else ''}")
    return image


def _opencv(data, flags, name):
    try:
        with quiet_opencv():
            return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise ValueError(f"{name}: OpenCV cannot read this image: {error.err}") from error


def _reduce(image, name, bit_depth):
    """16-bit values -> 8-bit values."""
    if bit_depth is None:
        raise ArgumentError(
            "has 16 bits per value: save it with 8 bits, or give bit_depth, the number of bits in "
            f"use ({', '.join(map(str, BIT_DEPTHS))})",
            "bit_depth",
            path=name,
        )
    if not 8 <= bit_depth <= 16:
        raise ArgumentError(f"bit_depth={bit_depth}: must be 8 to 16", "bit_depth")
    largest = int(image.max())
    if largest >> bit_depth:
        raise ArgumentError(
            f"holds the value {largest}, but bit_depth={bit_depth} allows at most "
            f"{2**bit_depth - 1}",
            "bit_depth",
            path=name,
        )
    return (image >> (bit_depth - 8)).astype(np.uint8)


def find_bit_depth(paths: Iterable[str | os.PathLike]) -> int | None:
    """Find the bit depth of the 16-bit images of a set, and print it.

    It is the smallest of `BIT_DEPTHS` that holds their largest value.

    Args:
        paths: all image files of the set. Files that cannot be read are ignored here; reading them
            raises an error later.

    Returns:
        The bit depth; None if no image has 16 bits.
    """
    paths, count, largest = list(paths), 0, 0
    for path in paths:
        with contextlib.suppress(ValueError, OSError):
            if _may_have_16_bits(path):
                image = _decode(Path(path).read_bytes(), path)
                if image.dtype == np.uint16:
                    count, largest = count + 1, max(largest, int(image.max()))
    if not count:
        return None
    depth = next(depth for depth in BIT_DEPTHS if not largest >> depth)
    print(
        f"{count} of {len(paths)} images have 16 bits per value; the largest value is {largest}, "
        f"so {depth} bits are in use (bit_depth overrides this)"
    )
    return depth


def _may_have_16_bits(path):
    """Tell by the first bytes, because most sets are 8-bit PNG or JPEG files."""
    with open(path, "rb") as file:
        head = file.read(25)
    form = image_headers.form(head)
    eight_bits = form in ("jpeg", "ppm") or head[:2] == b"BM" or head[8:12] == b"WEBP"
    return head[24:] == b"\x10" if form == "png" else not eight_bits


def has_alpha(data: bytes, name: str | os.PathLike) -> bool:
    """Whether a readable image file has an alpha channel or transparent colours."""
    form = image_headers.form(data)
    if form == "png":
        return image_headers.png_has_alpha(data)
    if form in ("jpeg", "ppm"):
        return False
    image = _opencv(data, cv2.IMREAD_UNCHANGED, name)
    return image is not None and image.ndim == 3 and image.shape[2] == 4


def for_records(data: bytes, image: np.ndarray) -> tuple[bytes, str]:
    """Return an image file as records store it, and its format, see `records.make_example`.

    The bytes are unchanged if TensorFlow decodes them to the same pixels; otherwise the pixels are
    stored as PNG.

    Args:
        data: content of the file.
        image: its pixels, as `decode` returns them.
    """
    form = image_headers.form(data)
    if form == "ppm" or not image_headers.graph_obstacle(data):
        return data, form
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes(), "png"


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log while failures are reported by our own error messages."""
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
