"""Flow files against manually derived bytes, and the flow colours."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from flowseg.data import flow_io


def png_bytes(height, width, rows, bits=16, colour=2):
    """A PNG from raw bytes: `rows` has the samples of each row, big-endian, without filter byte."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


# u = (R - 32768) / 64, v = (G - 32768) / 64, valid = B: (1, -2) is R = 32832, G = 32640. The
# second pixel is unknown, regardless of its R and G.
EXAMPLE_PNG = png_bytes(1, 2, [struct.pack(">6H", 32832, 32640, 1, 40000, 40000, 0)])


def test_decode_kitti_png():
    flow = flow_io.decode_kitti_flow(EXAMPLE_PNG)
    assert flow.dtype == np.float32 and flow.shape == (1, 2, 3)
    assert flow[0].tolist() == [[1, -2, 1], [0, 0, 0]]


def test_encode_kitti_png():
    data = flow_io.encode_kitti_flow([[[1, -2], [3, 4]]], [[1, 0]])
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert bgr.dtype == np.uint16
    assert bgr[0].tolist() == [[1, 32640, 32832], [0, 0, 0]]


def test_kitti_png_order_of_u_and_v():
    flow = np.float32([[[1, -2]]])
    assert (flow_io.decode_kitti_flow(EXAMPLE_PNG)[:, :1, :2] == flow).all()
    swapped = flow_io.decode_kitti_flow(flow_io.encode_kitti_flow(flow[..., ::-1]))
    assert swapped[0, 0].tolist() == [-2, 1, 1]


def test_kitti_png_range():
    # 65535 / 64 - 512 = 511.984375 is the maximum; up to half a step (1/128) beyond is rounded.
    u = [-512, 511.984375, -512 - 1 / 64, 512, np.nan, np.inf, 1e9, 0.25, -512 - 1 / 200]
    flow = np.zeros((1, len(u), 2), np.float32)
    flow[0, :, 0] = u
    decoded = flow_io.decode_kitti_flow(flow_io.encode_kitti_flow(flow))
    assert decoded[0, :, 2].tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert decoded[0, [0, 1, 7, 8], 0].tolist() == [-512, 511.984375, 0.25, -512]
    assert (decoded[decoded[..., 2] == 0] == 0).all()


def test_kitti_png_rounding():
    flow = np.random.default_rng(0).uniform(-400, 400, (7, 9, 2)).astype(np.float32)
    decoded = flow_io.decode_kitti_flow(flow_io.encode_kitti_flow(flow))
    assert np.abs(decoded[..., :2] - flow).max() <= 1 / 128 + 1e-5
    assert decoded[..., 2].all()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (png_bytes(1, 2, [bytes(6)], bits=8), "this one has 8 bits and 3"),
        (png_bytes(1, 2, [bytes(4)], colour=0), "this one has 16 bits and 1"),
        (png_bytes(1, 2, [bytes(16)], colour=6), "this one has 16 bits and 4"),
        (b"", "not a PNG"),
        (b"P6 1 1 255 abc", "not a PNG"),
    ],
)
def test_not_a_flow_png(data, match):
    with pytest.raises(ValueError, match=f"some.png: .*{match}"):
        flow_io.decode_kitti_flow(data, "some.png")


def test_every_truncation_is_detected():
    for length in range(len(EXAMPLE_PNG)):
        with pytest.raises(ValueError, match="some.png: (truncated|not a PNG)"):
            flow_io.check_png(EXAMPLE_PNG[:length], "some.png")
    flow_io.check_png(EXAMPLE_PNG, "some.png")


def test_every_flipped_bit_is_detected():
    for bit in range(len(EXAMPLE_PNG) * 8):
        data = bytearray(EXAMPLE_PNG)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="some.png: "):
            flow_io.check_png(bytes(data), "some.png")


def test_damage_that_opencv_accepts():
    """Wrong pixels with a correct CRC in a stream that is too long: libpng skips its checksum."""
    rows = [bytes(range(240))] * 40
    pixels = b"".join(b"\0" + row for row in rows) + bytes(99)
    undamaged = png_bytes(40, 40, rows)
    start = undamaged.index(b"IDAT")
    stream = bytearray(
        zlib.compress(pixels, 0)
    )  # stored, not compressed: bytes keep their positions
    stream[1000] ^= 1
    body = b"IDAT" + stream
    damaged_chunk = struct.pack(">I", len(stream)) + body + struct.pack(">I", zlib.crc32(body))
    data = undamaged[: start - 4] + damaged_chunk + undamaged[-12:]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    with pytest.raises(ValueError, match="some.png: damaged PNG"):
        flow_io.decode_kitti_flow(data, "some.png")


# 202021.25 is "PIEH" in little-endian bytes; then width 2, height 1, and (u, v) of each pixel.
FLO = b"PIEH" + struct.pack("<ii4f", 2, 1, 1.5, -2.25, 3, 4)


def test_flo_example():
    assert flow_io.decode_flo(FLO).tolist() == [[[1.5, -2.25, 1], [3, 4, 1]]]
    assert flow_io.encode_flo([[[1.5, -2.25], [3, 4]]]) == FLO


def test_flo_round_trip_with_unknowns():
    flow = np.random.default_rng(0).normal(0, 50, (5, 8, 2)).astype(np.float32)
    flow[0, 0, 0], flow[1, 1, 1] = np.nan, 2e9
    valid = np.ones((5, 8))
    valid[2, 3] = 0
    decoded = flow_io.decode_flo(flow_io.encode_flo(flow, valid))
    unknown = np.zeros((5, 8), bool)
    unknown[0, 0] = unknown[1, 1] = unknown[2, 3] = True
    assert decoded.dtype == np.float32 and ((decoded[..., 2] == 0) == unknown).all()
    assert (decoded[~unknown][:, :2] == flow[~unknown]).all()
    assert (decoded[unknown] == 0).all()


@pytest.mark.parametrize("data", [b"", FLO[:-1], FLO + b"\0", b"PIEX" + FLO[4:], FLO[:11],
                                  b"PIEH" + struct.pack("<ii", -1, -1) + FLO[12:20]])  # fmt: skip
def test_bad_flo(data):
    with pytest.raises(ValueError, match="some.flo: "):
        flow_io.decode_flo(data, "some.flo")


def test_read_flow(tmp_path):
    (tmp_path / "a.flo").write_bytes(FLO)
    (tmp_path / "a.png").write_bytes(EXAMPLE_PNG)
    assert flow_io.read_flow(tmp_path / "a.flo")[0, 0].tolist() == [1.5, -2.25, 1]
    assert flow_io.read_flow(str(tmp_path / "a.png"))[0, 0].tolist() == [1, -2, 1]
    with pytest.raises(ValueError, match="b.png: no such file"):
        flow_io.read_flow(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(EXAMPLE_PNG[:50])
    with pytest.raises(ValueError, match="c.png: truncated"):
        flow_io.read_flow(tmp_path / "c.png")


def test_real_flow_files(samples):
    kitti = samples / "kitti/data_scene_flow/training"
    flow = flow_io.read_flow(kitti / "flow_occ/000002_10.png")
    assert flow.shape == (375, 1242, 3) and 0.1 < flow[..., 2].mean() < 0.5
    decoded = flow_io.decode_kitti_flow(flow_io.encode_kitti_flow(flow[..., :2], flow[..., 2]))
    assert (decoded == flow).all()
    files = sorted(samples.glob("middlebury/**/*.flo")) + sorted(samples.glob("flyingchairs/*.flo"))
    assert files
    for file in files:
        flow = flow_io.read_flow(file)
        assert np.abs(flow).max() < 1000 and flow[..., 2].mean() > 0.5
        decoded = flow_io.decode_flo(flow_io.encode_flo(flow[..., :2], flow[..., 2]))
        assert (decoded == flow).all()


def colour(u, v, **options):
    return flow_io.flow_to_color(np.float32([[[u, v]]]), max_magnitude=1, **options)[0, 0].astype(
        int
    )


def test_colours():
    # Right is the first colour of the wheel, red; no motion is white; above full speed it darkens.
    assert colour(1, 0).tolist() == [255, 0, 0]
    assert colour(0, 0).tolist() == [255, 255, 255]
    assert colour(0.5, 0).tolist() == [255, 127, 127]
    assert colour(2, 0).tolist() == [191, 0, 0]
    # Down is yellow, left is cyan to blue, up is blue to magenta (Baker et al., figure 6).
    red, green, blue = colour(0, 1)
    assert red > 200 and green > 200 and blue < 30
    red, green, blue = colour(-1, 0)
    assert blue > 200 and green > 150 and red < 30
    red, green, blue = colour(0, -1)
    assert blue > 200 and green < 30


def test_opposite_directions_differ_in_colour():
    for angle in np.linspace(0, np.pi, 12, endpoint=False):
        forward, backward = (colour(s * np.cos(angle), s * np.sin(angle)) for s in (1, -1))
        assert np.abs(forward - backward).sum() > 200


def test_unknown_flow_is_black():
    assert colour(1, 0, valid=np.zeros((1, 1))).tolist() == [0, 0, 0]
    assert colour(np.nan, 0).tolist() == [0, 0, 0]
    # Unknown pixels do not affect the scale: the fastest known pixel has full colour.
    flow = np.float32([[[1000, 0], [4, 0]]])
    image = flow_io.flow_to_color(flow, valid=np.array([[0, 1]]))
    assert image.dtype == np.uint8 and image[0].tolist() == [[0, 0, 0], [255, 0, 0]]
    assert flow_io.flow_to_color(np.full((2, 2, 2), np.inf)).max() == 0
