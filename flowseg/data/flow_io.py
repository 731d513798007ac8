"""Reads, writes and colours flow: 16-bit PNG, `.flo`, PFM, and Middlebury's colour wheel.

Flow is (H, W, 2) float32, (u, v) = (x right, y down) in pixels, with an (H, W) mask of the pixels
where it is known. In memory both are stored in one (H, W, 3) array (u, v, valid).
"""

import re
import zlib
from pathlib import Path

import cv2
import numpy as np

from flowseg.data import image_headers
from flowseg.data.image_headers import PNG_MAGIC

FLO_MAGIC = 202021.25
# Middlebury marks unknown flow with values above 1e9.
FLO_UNKNOWN = 1e9
# Kind, width, height and scale; a single whitespace ends the header.
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,6})\s+(\d{1,6})\s+(-?[0-9.eE+]{1,20})\s")
# Range of a KITTI PNG: 16 bits, steps of 1/64 px, centred.
KITTI_RANGE = (-512.0, 65535 / 64 - 512)


def decode_kitti_flow(data: bytes, name: str | Path = "flow") -> np.ndarray:
    """Bytes of a KITTI flow PNG -> (H, W, 3) float32 (u, v, valid).

    u = (R - 2^15) / 64, v = (G - 2^15) / 64, valid = B > 0 (KITTI 2015 flow development kit,
    `readme.txt`). Unknown pixels get u = v = 0.

    Raises:
        ValueError: not a readable 16-bit, 3-channel PNG; the message starts with `name`.
    """
    red_green_blue = _decode_png_16(data, name, "KITTI")
    valid = red_green_blue[..., 2] > 0
    flow = (red_green_blue[..., :2] - 2.0**15) / 64.0
    flow[~valid] = 0
    return np.dstack([flow, valid.astype(np.float32)])


def encode_kitti_flow(flow: np.ndarray, valid: np.ndarray | None = None) -> bytes:
    """(H, W, 2) flow and its (H, W) mask -> bytes of a KITTI flow PNG; see `decode_kitti_flow`.

    Flow that is not finite or does not fit in 16 bits (beyond -512..511.98 px) is written as
    unknown, because a wrapped or clipped value would be wrong but look valid.
    """
    flow = np.asarray(flow, np.float32)
    fits = np.isfinite(flow).all(-1)
    rounded = np.rint(np.where(fits[..., None], flow, 0).astype(np.float64) * 64 + 2**15)
    fits &= ((rounded >= 0) & (rounded <= 65535)).all(-1)
    if valid is not None:
        fits &= np.asarray(valid) > 0
    png = np.zeros((*flow.shape[:2], 3), np.uint16)
    png[..., 0] = fits
    png[..., 2:0:-1] = np.where(fits[..., None], rounded, 0)
    return cv2.imencode(".png", png)[1].tobytes()


def decode_vkitti2_flow(data: bytes, name: str | Path = "flow") -> np.ndarray:
    """Bytes of a Virtual KITTI 2 flow PNG -> (H, W, 3) float32 (u, v, valid).

    u = (2 R / 65535 - 1) (W - 1), v = (2 G / 65535 - 1) (H - 1), valid = B > 0 (Virtual KITTI 2's
    page, "Optical flow"). Unknown pixels, such as the sky, get u = v = 0.

    Raises:
        ValueError: not a readable 16-bit, 3-channel PNG; the message starts with `name`.
    """
    red_green_blue = _decode_png_16(data, name, "Virtual KITTI 2")
    valid = red_green_blue[..., 2] > 0
    size = np.float32(valid.shape[::-1])
    flow = (np.float32(2) * red_green_blue[..., :2] / np.float32(65535) - 1) * (size - 1)
    flow[~valid] = 0
    return np.dstack([flow, valid.astype(np.float32)])


def _decode_png_16(data, name, kind):
    """(H, W, 3) float32 red, green, blue of a 16-bit flow PNG."""
    check_png(data, name)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{name}: not a readable PNG (damaged or truncated)")
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"{name}: a {kind} flow PNG has 16 bits and 3 channels, but this one has "
            f"{image.dtype.itemsize * 8} bits and {1 if image.ndim == 2 else image.shape[2]}"
        )
    return image[..., ::-1].astype(np.float32)


def decode_pfm_flow(data: bytes, name: str | Path = "flow") -> np.ndarray:
    """Bytes of a PFM of three channels -> (H, W, 3) float32 (u, v, valid).

    As FlyingThings3D stores flow (Mayer et al. 2016): rows from the bottom up, the third channel
    unused, the sign of the scale gives the byte order. Values that are not finite are unknown.

    Raises:
        ValueError: not such a file, or truncated; the message starts with `name`.
    """
    header = _PFM_HEADER.match(data)
    if not header or header[1] != b"PF":
        kind = "has one channel" if header else "is not a PFM file (its header is missing)"
        raise ValueError(f"{name}: {kind}; flow is a PFM of three channels, header PF")
    width, height, scale = int(header[2]), int(header[3]), float(header[4])
    size = len(data) - header.end()
    if not width or not height or not scale or size != width * height * 12:
        raise ValueError(f"{name}: a PFM of {width}x{height} cannot have {size} bytes of pixels")
    order = "<" if scale < 0 else ">"
    pixels = np.frombuffer(data, f"{order}f4", offset=header.end()).reshape(height, width, 3)
    flow = pixels[::-1, :, :2].astype(np.float32)
    valid = np.isfinite(flow).all(-1) & (np.abs(flow) < FLO_UNKNOWN).all(-1)
    return np.dstack([np.where(valid[..., None], flow, 0), valid]).astype(np.float32)


def decode_flo(data: bytes, name: str | Path = "flow") -> np.ndarray:
    """Bytes of a Middlebury `.flo` -> (H, W, 3) float32 (u, v, valid).

    Raises:
        ValueError: wrong magic number or length; the message starts with `name`.
    """
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(FLO_MAGIC):
        raise ValueError(f"{name}: not a .flo file (its magic number {FLO_MAGIC} is missing)")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, 4))
    if width <= 0 or height <= 0 or len(data) != 12 + width * height * 8:
        raise ValueError(f"{name}: a .flo file of {width}x{height} cannot have {len(data)} bytes")
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)
    # NaN compares False, so it counts as unknown too.
    valid = (np.abs(flow) < FLO_UNKNOWN).all(-1)
    return np.dstack([np.where(valid[..., None], flow, 0), valid]).astype(np.float32)


def encode_flo(flow: np.ndarray, valid: np.ndarray | None = None) -> bytes:
    """(H, W, 2) flow and its (H, W) mask -> bytes of a Middlebury `.flo`."""
    flow = np.array(flow, "<f4")
    if valid is not None:
        flow[np.asarray(valid) <= 0] = 1e10
    height, width = flow.shape[:2]
    return np.float32(FLO_MAGIC).tobytes() + np.int32([width, height]).tobytes() + flow.tobytes()


def decode_flow(data: bytes, flow_format: str, name: str | Path = "flow") -> np.ndarray:
    """Bytes in a format of `flowseg.data.records` -> (H, W, 3) float32 (u, v, valid).

    Raises:
        ValueError: not a valid file of this format; the message starts with `name`.
    """
    decoders = {
        "kitti": decode_kitti_flow,
        "vkitti2": decode_vkitti2_flow,
        "flo": decode_flo,
    }
    return decoders[flow_format](data, name)


def read_flow(path: str | Path) -> np.ndarray:
    """Read flow from a KITTI PNG or a `.flo` file as (H, W, 3) float32 (u, v, valid).

    Raises:
        ValueError: the file is missing, or is not a valid flow file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    decode = decode_flo if path.suffix == ".flo" else decode_kitti_flow
    return decode(path.read_bytes(), path)


def check_png(data: bytes, name: str | Path) -> None:
    """Raise ValueError unless `data` is a complete, undamaged PNG; the message starts with `name`.

    An image that is too large to decode (see `image_headers.require_memory`) raises it, too.

    OpenCV and libpng silently fill in some damaged files (a wrong Adler-32, a truncated end), so
    this checks every chunk's CRC, the end chunk, and the checksum of the compressed stream.
    """
    if not data.startswith(PNG_MAGIC):
        raise ValueError(f"{name}: not a PNG file")
    image_headers.require_memory(data, name)
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    # Four channels of 16 bits and a filter byte per row, twice, because rows may be interlaced.
    limit = 2 * height * (8 * width + 1) + 2**20
    position, stream, kind = 8, [], None
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4])
        body, end = position + 8, position + 12 + length
        if len(data) < position + 12 or len(data) < end:
            raise ValueError(f"{name}: truncated PNG (its end is missing)")
        kind = data[position + 4 : body]
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ValueError(f"{name}: damaged PNG (wrong checksum at byte {position})")
        if kind == b"IDAT":
            stream.append(data[body : end - 4])
        position = end
    decompressor, pending, size = zlib.decompressobj(), b"".join(stream), 0
    try:
        # Piece by piece: a few megabytes can decompress to more than the memory holds.
        while not decompressor.eof and pending and size <= limit:
            size += len(decompressor.decompress(pending, 2**20))
            pending = decompressor.unconsumed_tail
    except zlib.error as error:
        raise ValueError(f"{name}: damaged PNG ({error})") from error
    if size > limit:
        raise ValueError(f"{name}: damaged PNG (holds more pixels than its header states)")
    if not decompressor.eof:
        raise ValueError(f"{name}: damaged PNG (its pixels are incomplete)")


def _colour_wheel():
    """(55, 3) wheel of Baker et al., A Database and Evaluation Methodology for Optical Flow."""
    # Red to yellow, green, cyan, blue, magenta, red: length, channel that changes, its direction.
    ramps = ((15, 1, 1), (6, 0, -1), (4, 2, 1), (11, 1, -1), (13, 0, 1), (6, 2, -1))
    wheel, colour = [], np.array([255.0, 0, 0])
    for length, channel, sign in ramps:
        ramp = np.floor(255 * np.arange(length) / length)
        segment = np.tile(colour, (length, 1))
        segment[:, channel] = ramp if sign > 0 else 255 - ramp
        wheel.append(segment)
        colour[channel] = 255 if sign > 0 else 0
    return np.concatenate(wheel)


_WHEEL = _colour_wheel()
_ROWS_AT_ONCE = 64


def flow_to_color(
    flow: np.ndarray, max_magnitude: float | None = None, valid: np.ndarray | None = None
) -> np.ndarray:
    """Colour flow as Middlebury does: hue is direction, saturation is speed, white is no motion.

    Args:
        flow: (H, W, 2) in pixels.
        max_magnitude: speed of full saturation, in pixels; default: the 99th percentile of the
            valid speeds, at least 1 px, so that single outliers do not make all other colours pale.
        valid: (H, W); where it is 0 the colour is black.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    flow = np.asarray(flow, np.float32)
    known = np.isfinite(flow).all(-1)
    if valid is not None:
        known &= np.asarray(valid) > 0
    flow = np.where(known[..., None], flow, 0)
    speed = np.hypot(flow[..., 0], flow[..., 1])
    if max_magnitude is None:
        max_magnitude = max(float(np.percentile(speed[known], 99)), 1.0) if known.any() else 1.0
    image = np.zeros((*known.shape, 3), np.uint8)
    # A few rows at a time: colouring a large camera image at once takes gigabytes of memory.
    for top in range(0, len(image), _ROWS_AT_ONCE):
        rows = np.s_[top : top + _ROWS_AT_ONCE]
        image[rows] = _wheel_colours(flow[rows], speed[rows] / max(float(max_magnitude), 1e-6))
    image[~known] = 0
    return image


def _wheel_colours(flow, radius):
    """(H, W, 3) uint8 colours of flow whose speed is `radius` times that of full saturation."""
    angle = np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi
    position = (angle + 1) / 2 * (len(_WHEEL) - 1)
    lower = np.floor(position).astype(int)
    fraction = (position - lower)[..., None]
    hue = ((1 - fraction) * _WHEEL[lower] + fraction * _WHEEL[(lower + 1) % len(_WHEEL)]) / 255
    inside = (radius <= 1)[..., None]
    radius = np.minimum(radius, 1)[..., None]
    return np.uint8(np.floor(255 * np.where(inside, 1 - radius * (1 - hue), hue * 0.75)))


def fill_holes(flow: np.ndarray) -> np.ndarray:
    """(H, W, 3) (u, v, valid) -> (H, W, 2), with unknown pixels filled as in KITTI's kit.

    Pixels between two known pixels of a row get the smaller u and the smaller v of the two; pixels
    beyond the outermost known ones get the flow of the nearest known pixel. Rows above the first
    and below the last row with known pixels copy that row (`interpolateBackground` of io_flow.h,
    KITTI 2015 development kit). Other rows without known pixels remain 0.
    """
    flow, valid = flow[..., :2].copy(), flow[..., 2] > 0
    if valid.all():
        return flow
    width = valid.shape[1]
    column = np.arange(width)
    before = np.maximum.accumulate(np.where(valid, column, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, column, width)[:, ::-1], axis=1)[:, ::-1]
    rows = np.nonzero(valid.any(1))[0]
    for row in rows:
        left, right = before[row], after[row]
        left, right = np.where(left < 0, right, left), np.where(right == width, left, right)
        flow[row] = np.minimum(flow[row, left], flow[row, right])
    if rows.size:
        flow[: rows[0]], flow[rows[-1] + 1 :] = flow[rows[0]], flow[rows[-1]]
    return flow
