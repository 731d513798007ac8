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
JPEG = encode(".jpg", _RGB)
MARKED_PNG = png(packed(8, 3), WIDTH, 8, 2, before=chunk(b"eXIf", exif(6)))
# Kinds of image files by name. The same rule decodes them all.
KINDS = {
    "PNG": ("a.png", encode(".png", _RGB)),
    "grey PNG": ("a.png", encode(".png", _RGB[..., 0])),
    "1-bit PNG": ("a.png", png(packed(1), WIDTH, 1, 0)),
    "2-bit PNG": ("a.png", png(packed(2), WIDTH, 2, 0)),
    "4-bit PNG": ("a.png", png(packed(4), WIDTH, 4, 0)),
    "palette PNG": ("a.png", png(packed(8), WIDTH, 8, 3, palette(8))),
    "4-bit palette PNG": ("a.png", png(packed(4), WIDTH, 4, 3, palette(4))),
    "transparent palette PNG": (
        "a.png",
        png(packed(8), WIDTH, 8, 3, palette(8) + chunk(b"tRNS", b"\0\x80")),
    ),
    "grey and alpha PNG": ("a.png", png(packed(8, 2), WIDTH, 8, 4)),
    "RGBA PNG": ("a.png", png(packed(8, 4), WIDTH, 8, 6)),
    "rotated PNG": ("a.png", MARKED_PNG),
    "16-bit grey PNG": ("a.png", encode(".png", blobs(1, high=4096, dtype=np.uint16))),
    "16-bit PNG": ("a.png", encode(".png", blobs(3, high=4096, dtype=np.uint16))),
    "16-bit RGBA PNG": ("a.png", encode(".png", blobs(4, high=4096, dtype=np.uint16))),
    "JPEG": ("a.jpg", JPEG),
    "progressive JPEG": ("a.jpg", encode(".jpg", _RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "grey JPEG": ("a.jpg", encode(".jpg", _RGB[..., 0])),
    "JPEG with EXIF orientation 1": ("a.jpg", marked_jpeg(JPEG, 1)),
    "rotated JPEG": ("a.jpg", marked_jpeg(JPEG, 6)),
    "JPEG with bytes after its end": ("a.jpg", JPEG + b"\0\0\0\x18ftypmp42" * 50 + b"\xff\xd9"),
    "CMYK JPEG": ("a.jpg", cmyk_jpeg(0)),
    "YCCK JPEG": ("a.jpg", cmyk_jpeg(2)),
    "PPM": ("a.ppm", encode(".ppm", _RGB)),
    "grey PGM": ("a.pgm", encode(".pgm", _RGB[..., 0])),
    "16-bit PGM": ("a.pgm", encode(".pgm", blobs(1, high=1024, dtype=np.uint16))),
    "BMP": ("a.bmp", encode(".bmp", _RGB)),
    "BMP with alpha": ("a.bmp", encode(".bmp", blobs(4))),
    "WebP": ("a.webp", encode(".webp", _RGB)),
    "WebP with alpha": ("a.webp", encode(".webp", blobs(4))),
    "TIFF": ("a.tif", encode(".tiff", _RGB)),
    "rotated TIFF": ("a.tif", tiff(_RGB, 6)),
    "16-bit TIFF": ("a.tif", encode(".tiff", blobs(3, high=4096, dtype=np.uint16))),
    "AVIF": ("a.avif", encode(".avif", _RGB)),
    "JPEG 2000": ("a.jp2", encode(".jp2", blobs(3, 64, 96))),
}
