"""Writes PNG files byte by byte, with the bit depths and colour types that OpenCV cannot write."""

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(kind, content=b""):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(rows, width, depth, colour_type, chunks=b"", interlaced=0):
    """Return a PNG of these rows, each of them bytes that begin with the number of its filter."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, interlaced)
    data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + data + chunk(b"IEND")


def stored_png(values, depth=8, colour_type=GREY, chunks=b""):
    """Return a PNG that stores `values`, (H, W) or (H, W, channels), unfiltered."""
    values = np.asarray(values)
    bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1)
    return png([b"\0" + row.tobytes() for row in rows], values.shape[1], depth, colour_type, chunks)


def palette_png(indices, colours, depth=8):
    """Return a palette PNG of (H, W) indices into the RGB colours."""
    return stored_png(indices, depth, PALETTE, chunk(b"PLTE", bytes(np.ravel(colours).tolist())))
