"""Reads what the headers of image files say about size, orientation and pixel format.

`graph_images` holds the same rules for TensorFlow graphs.
"""

import os
import re
from collections.abc import Iterator

from flowseg import memory

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
EXIF_MAGIC = b"Exif\0\0"
# Tag of the orientation in EXIF data.
ORIENTATION = 0x0112
# Start-of-frame markers of JPEG: baseline, extended, progressive. TensorFlow may lack the decoders
# of the others (lossless and arithmetic).
PROGRESSIVE = 0xC2
HUFFMAN_FRAMES = (0xC0, 0xC1, PROGRESSIVE)
OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_PPM_HEADER = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)\s+255\s")


def form(data: bytes) -> str:
    """Return the format of an image file that records can store: "png", "jpeg", "ppm", else ""."""
    if data.startswith(PNG_MAGIC):
        return "png"
    if data.startswith(JPEG_MAGIC):
        return "jpeg"
    return "ppm" if _PPM_HEADER.match(data) else ""


def size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a PNG or JPEG file; None for other or damaged files."""
    if data.startswith(PNG_MAGIC + b"\0\0\0\rIHDR"):
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not data.startswith(JPEG_MAGIC):
        return None
    for marker, start, _ in _segments(data):
        if marker in HUFFMAN_FRAMES + OTHER_FRAMES:
            height, width = data[start + 1 : start + 3], data[start + 3 : start + 5]
            return int.from_bytes(width), int.from_bytes(height)
    return None


def require_memory(data: bytes, name: str | os.PathLike) -> None:
    """Raise an error if a PNG or JPEG file is too large to decode, by its header.

    Raises:
        ValueError: see `memory.require_for_image`.
    """
    if frame_size := size(data):
        memory.require_for_image(*frame_size, name)


def ppm_size(data: bytes) -> int:
    """Return how many bytes an 8-bit binary PPM has according to its header."""
    header = _PPM_HEADER.match(data)
    return header.end() + int(header[1]) * int(header[2]) * 3


def orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG or PNG file: 1 (upright, or no mark) to 8."""
    if data.startswith(JPEG_MAGIC):
        blocks = (
            data[start + len(EXIF_MAGIC) : end]
            for marker, start, end in _segments(data)
            if marker == 0xE1 and data.startswith(EXIF_MAGIC, start)
        )
    else:
        blocks = (data[start:end] for kind, start, end in png_chunks(data) if kind == b"eXIf")
    return _exif_orientation(next(blocks, b""))


def png_has_alpha(data: bytes) -> bool:
    """Whether a PNG file has an alpha channel or transparent colours."""
    return data[25:26] in (b"\4", b"\6") or any(kind == b"tRNS" for kind, _, _ in png_chunks(data))


def graph_obstacle(data: bytes) -> str:
    """Say why TensorFlow would decode an image file to other pixels than `images.decode`.

    Returns:
        A reason that completes the sentence "the image ..."; empty if the pixels are the same.
    """
    kind = form(data)
    if kind not in ("png", "jpeg"):
        return "is neither PNG nor JPEG"
    mark = orientation(data)
    if mark != 1:
        return f"has EXIF orientation {mark}, which TensorFlow ignores"
    if kind == "png":
        return "has 16 bits per value" if data[24:25] == b"\x10" else ""
    marker, components = _jpeg_frame(data)
    if marker not in HUFFMAN_FRAMES or components not in (b"\1", b"\3"):
        return "is a CMYK, lossless or arithmetic JPEG"
    return ""


def is_progressive(data: bytes) -> bool:
    """Whether a JPEG file is progressive."""
    return _jpeg_frame(data)[0] == PROGRESSIVE


def _jpeg_frame(data: bytes) -> tuple[int, bytes]:
    """Return the start-of-frame marker of a JPEG file and its number of components."""
    frames = (
        (marker, data[start + 5 : start + 6])
        for marker, start, _ in _segments(data)
        if marker in HUFFMAN_FRAMES + OTHER_FRAMES
    )
    return next(frames, (0xC0, b"\3"))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the content of each JPEG segment before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in (0xDA, 0xD9):
            return
        if marker == 0xFF:  # padding
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without content
            position += 2
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
            yield marker, position + 4, end
            position = end


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of the content of each PNG chunk."""
    position, kind = 8, b""
    while position + 12 <= len(data) and kind != b"IEND":
        kind = data[position + 4 : position + 8]
        end = position + 8 + int.from_bytes(data[position : position + 4])
        yield kind, position + 8, end
        position = end + 4


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, which is a small TIFF file; 1 if it has none."""
    order = {b"II": "little", b"MM": "big"}.get(exif[:2])
    if not order:
        return 1

    def number(start, size):
        return int.from_bytes(exif[start : start + size], order)

    # The first directory: number of entries (2 bytes), then 12 bytes each: tag, type, count, value.
    entries = number(4, 4) + 2
    complete = max((len(exif) - entries) // 12, 0)
    for i in range(min(number(entries - 2, 2), complete)):
        if number(entries + 12 * i, 2) == ORIENTATION:
            value = number(entries + 12 * i + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
