"""Image files of every kind that people have, each written by a few lines."""

import struct
import zlib

import cv2
import numpy as np

HEIGHT, WIDTH = 24, 40


def blobs(channels=3, height=HEIGHT, width=WIDTH, high=256, dtype=np.uint8, seed=0):
    """Smooth values, (H, W) or (H, W, channels), from 0 to about `high`."""
    drawn = np.random.default_rng(seed).uniform(0, high - 1, (5, 7, channels))
    smooth = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_LINEAR)
    return smooth.round().astype(dtype)


def encode(suffix, pixels, *parameters):
    """RGB(A) or grey pixels -> bytes of an image file, by OpenCV."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    return cv2.imencode(suffix, pixels, parameters)[1].tobytes()


def exif(orientation, order="<", entries=()):
    """EXIF data with an orientation after other `entries`: (tag, type, count, value)."""
    rows = [struct.pack(f"{order}HHII", *entry) for entry in entries]
    rows.append(struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0))
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(rows)) + b"".join(rows) + bytes(4)


def segment(marker, content):
    """A JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def marked_jpeg(jpeg, orientation, order="<", before=b""):
    """A JPEG file with an EXIF orientation, after the segments `before`."""
    data = before + segment(0xE1, b"Exif\0\0" + exif(orientation, order, [(0x100, 4, 1, 7)]))
    return jpeg[:2] + data + jpeg[2:]


def chunk(kind, content):
    """A PNG chunk."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(rows, width, bits, colour_type, before=b"", after=b""):
    """A PNG file of packed rows, (H, bytes) uint8; chunks `before` and `after` the pixels."""
    rows = np.uint8(rows)
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + after
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def packed(bits, channels=1, seed=0):
    """Random packed rows for `png`."""
    size = (HEIGHT, WIDTH * channels * bits // 8)
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def palette(bits, seed=0):
    """A PLTE chunk of random colours."""
    return chunk(b"PLTE", np.random.default_rng(seed).bytes(3 * 2**bits))


def cmyk_jpeg(adobe=0):
    """A JPEG file of four components: CMYK (`adobe` 0) or YCCK (2), or without that mark (None).

    The components are scans of grey JPEG files, which have the same tables.
    """
    planes = np.moveaxis(blobs(4), 2, 0)
    files = [encode(".jpg", plane, cv2.IMWRITE_JPEG_QUALITY, 95) for plane in planes]
    tables = files[0][files[0].index(b"\xff\xdb") : files[0].index(b"\xff\xc0")]
    huffman = files[0][files[0].index(b"\xff\xc4") : files[0].index(b"\xff\xda")]
    components = b"".join(bytes([k, 0x11, 0]) for k in range(4))
    frame = segment(0xC0, struct.pack(">BHHB", 8, HEIGHT, WIDTH, 4) + components)
    mark = b"" if adobe is None else segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    scans = b""
    for k, file in enumerate(files):
        scan = file[file.index(b"\xff\xda") + 10 : -2]
        scans += segment(0xDA, bytes([1, k, 0, 0, 63, 0])) + scan
    return b"\xff\xd8" + mark + tables + frame + huffman + scans + b"\xff\xd9"


def tiff(pixels, orientation):
    """An uncompressed TIFF file with an orientation."""
    data = encode(".tiff", pixels, cv2.IMWRITE_TIFF_COMPRESSION, 1)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


_RGB = blobs()
_DEEP = {"high": 4096, "dtype": np.uint16}
JPEG = encode(".jpg", _RGB)
_PALETTE = palette(8) + chunk(b"tRNS", b"\0\x80")
_PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
_VIDEO = b"\0\0\0\x18ftypmp42" * 50 + b"\xff\xd9"
# Files by the rows of the table in docs/files.md: (suffix, content).
KINDS = {
    "PNG: RGB, grey, palette, 1 to 8 bits": [
        (".png", encode(".png", _RGB)),
        (".png", encode(".png", _RGB[..., 0])),
        *((".png", png(packed(bits), WIDTH, bits, 0)) for bits in (1, 2, 4)),
        *((".png", png(packed(bits), WIDTH, bits, 3, palette(bits))) for bits in (1, 2, 4, 8)),
    ],
    "PNG with alpha or a transparent colour": [
        (".png", png(packed(8, 2), WIDTH, 8, 4)),
        (".png", png(packed(8, 4), WIDTH, 8, 6)),
        (".png", png(packed(8), WIDTH, 8, 3, _PALETTE)),
    ],
    "PNG of 16 bits": [(".png", encode(".png", blobs(channels, **_DEEP))) for channels in (1, 3)],
    "PNG with an EXIF orientation": [
        (".png", png(packed(8, 3), WIDTH, 8, 2, chunk(b"eXIf", exif(6)))),
        (".png", png(packed(8, 3), WIDTH, 8, 2, after=chunk(b"eXIf", exif(6)))),
    ],
    "JPEG: RGB, grey, progressive": [
        (".jpg", JPEG),
        (".jpg", encode(".jpg", _RGB[..., 0])),
        (".jpg", encode(".jpg", _RGB, *_PROGRESSIVE)),
        (".jpg", marked_jpeg(JPEG, 1)),
    ],
    "JPEG with bytes after its end": [(".jpg", JPEG + _VIDEO), (".jpg", JPEG + JPEG)],
    "JPEG with an EXIF orientation": [(".jpg", marked_jpeg(JPEG, 6))],
    "JPEG: CMYK": [(".jpg", cmyk_jpeg(0)), (".jpg", cmyk_jpeg(2))],
    "JPEG, truncated": [(".jpg", JPEG[: len(JPEG) // 2]), (".jpg", JPEG[:-2])],
    "JPEG, truncated and ended": [(".jpg", JPEG[:-100] + b"\xff\xd9")],
    "PPM of 8 bits": [(".ppm", encode(".ppm", _RGB))],
    "PGM and PBM of 8 bits": [
        (".pgm", encode(".pgm", _RGB[..., 0])),
        (".pbm", encode(".pbm", _RGB[..., 0] // 128 * 255)),
    ],
    "PPM and PGM of 16 bits": [
        (".ppm", encode(".ppm", blobs(3, **_DEEP))),
        (".pgm", encode(".pgm", blobs(1, **_DEEP))),
    ],
    "BMP, WebP, AVIF, JPEG 2000": [
        (".bmp", encode(".bmp", _RGB)),
        (".bmp", encode(".bmp", blobs(4))),
        (".webp", encode(".webp", _RGB)),
        (".webp", encode(".webp", blobs(4))),
        (".avif", encode(".avif", _RGB)),
        (".jp2", encode(".jp2", blobs(3, 64, 96))),
    ],
    "TIFF of 8 bits": [(".tif", encode(".tiff", _RGB)), (".tiff", tiff(_RGB, 6))],
    "TIFF of 16 bits": [(".tif", encode(".tiff", blobs(3, **_DEEP)))],
    "TIFF of floating-point numbers": [(".tif", encode(".tiff", np.float32(_RGB)))],
}
