"""Videos as cameras, broadcasters and editors write them, compared with the original frames."""

import gc
import http.server
import os
import struct
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from flowseg.media.frames import open_frames
from flowseg.media.video_filters import progressive
from flowseg.media.video_output import video_writer

ACCURATE = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
# AVColorSpace: BT.709, BT.601 and BT.2020. AVColorRange: limited and full.
BT709, BT601, BT2020, LIMITED, FULL = 1, 5, 9, 1, 2


def scene(height=96, width=128, count=6, step=2):
    """Soft blobs that move left by `step` px per frame."""
    size = height, width + step * count, 3
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    blobs = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 20, 230, cv2.NORM_MINMAX)
    # Mostly grey, because most codecs store a quarter of the colours.
    blobs = cv2.addWeighted(blobs, 0.3, np.repeat(blobs[..., :1], 3, 2), 0.7, 0)
    return [np.ascontiguousarray(blobs[:, step * i : step * i + width]) for i in range(count)]


def encode(path, images, codec="libx264", **more):
    """Write a video with any encoder.

    `more`: pix_fmt; colorspace and color_range, tagged and used for conversion; options; rate; pts
    in units of time_base; first_field ("tff" or "bff"), for interlaced frames.
    """
    pix_fmt, rate = more.get("pix_fmt", "yuv420p"), more.get("rate", 25)
    matrix, colour_range = more.get("colorspace"), more.get("color_range")
    time_base = more.get("time_base", Fraction(1) / rate)
    height, width = images[0].shape[:2]
    flags = {"flags": "+ilme+ildct"} if "first_field" in more else {}
    fields = None
    with av.open(f"file:{path}", "w", options=more.get("container_options")) as container:
        stream = container.add_stream(
            codec,
            rate,
            options=more.get("options", {}) | flags,
            time_base=time_base,
            width=width,
            height=height,
        )
        stream.pix_fmt = pix_fmt
        if matrix:
            stream.codec_context.colorspace = matrix
        if colour_range:
            stream.codec_context.color_range = colour_range
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pix_fmt,
                interpolation=ACCURATE,
                dst_colorspace=matrix,
                dst_color_range=colour_range,
            )
            frame.pts = more["pts"][number] if "pts" in more else number
            frame.time_base = time_base
            if "first_field" in more:
                fields = fields or field_marker(frame, more["first_field"])
                fields.vpush(frame)
                frame = fields.vpull()
            container.mux(stream.encode_lazy(frame))
        container.mux(stream.encode_lazy(None))
    return path


def field_marker(frame, first_field):
    """A filter graph that marks frames as interlaced; PyAV cannot set the mark itself."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    return (
        graph.link_nodes(
            source, graph.add("setfield", first_field), graph.add("buffersink")
        ).configure()
        or graph
    )


def assert_frames(path, originals, most=3.0):
    """Compare all frames of a video with the originals; return (frames, fps, count)."""
    frames, fps, count = open_frames(path)
    frames = list(frames)
    assert len(frames) == len(originals)
    for frame, original in zip(frames, originals, strict=True):
        assert frame.image.shape == original.shape and frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - original).mean() < most
    return frames, fps, count


H264 = "a.mp4", "libx264", "yuv420p", {"crf": "8"}
MPEG2 = "a.mpg", "mpeg2video", "yuv420p", {"b": "20M"}
PRORES = "a.mov", "prores_ks", "yuv422p10le", {}
PAL = "a.dv", "dvvideo", "yuv420p", {}
NTSC = "a.avi", "dvvideo", "yuv411p", {}


@pytest.mark.parametrize(
    ("file", "size", "rate", "first_field"),
    [
        (H264, (96, 128), 25, "tff"),
        (H264, (96, 128), 25, "bff"),
        (MPEG2, (96, 128), 25, "tff"),
        (MPEG2, (96, 128), 25, "bff"),
        (PRORES, (96, 128), 25, "tff"),
        (PRORES, (96, 128), 25, "bff"),
        # DV always has the bottom field first.
        (PAL, (576, 720), 25, "bff"),
        (NTSC, (480, 720), Fraction(30000, 1001), "bff"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) and len(value) == 4 else None,
)
def test_interlaced_frames(tmp_path, file, size, rate, first_field):
    name, codec, pix_fmt, options = file
    fields = scene(*size, count=12, step=3)
    # Each frame is woven from two moments: its first field is that of the original.
    originals, woven = fields[::2], []
    later_rows = slice(1, None, 2) if first_field == "tff" else slice(0, None, 2)
    for first, second in zip(fields[::2], fields[1::2], strict=True):
        frame = first.copy()
        frame[later_rows] = second[later_rows]
        woven.append(frame)
    more = {"pix_fmt": pix_fmt, "options": options, "rate": rate, "first_field": first_field}
    encode(tmp_path / name, woven, codec, **more)
    frames, fps, _ = assert_frames(tmp_path / name, originals)
    assert fps == rate and [frame.time for frame in frames] == [i / fps for i in range(6)]
    # The moments differ by more than the limit on errors, so weaving would be noticed.
    rows = np.abs(np.float32([frame.image for frame in frames]) - originals)[:, later_rows]
    assert rows.mean() < np.abs(np.float32(woven) - originals)[:, later_rows].mean() * 0.6


def test_progressive_frames_after_interlaced_ones_are_unchanged():
    marks = ["tff", "tff", "prog", "prog", "prog"]
    images, marked = scene(count=5), []
    for number, (image, mark) in enumerate(zip(images, marks, strict=True)):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        graph = field_marker(frame, mark)
        graph.vpush(frame)
        marked.append(graph.vpull())
    result = list(progressive(iter(marked), Fraction(1, 25)))
    assert [frame.pts * frame.time_base for frame in result] == [Fraction(i, 25) for i in range(5)]
    same = [
        bool((after.to_ndarray() == before.to_ndarray()).all())
        for after, before in zip(result, marked, strict=True)
    ]
    assert same == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("codec", "name", "options"),
    [
        ("libsvtav1", "a.mp4", {"crf": "10", "preset": "12"}),
        ("libsvtav1", "a.mkv", {"crf": "10", "preset": "12"}),
        ("libx265", "a.mp4", {"crf": "5", "x265-params": "log-level=none"}),
        ("libvpx-vp9", "a.webm", {"crf": "5", "b": "0", "cpu-used": "8"}),
        ("mpeg4", "a.avi", {"qmin": "1", "qmax": "2"}),
        ("mjpeg", "a.avi", {"qmin": "1", "qmax": "2"}),
        ("ffv1", "a.mkv", {}),
    ],
)
def test_codecs(tmp_path, codec, name, options):
    images = scene()
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    encode(tmp_path / name, images, codec, options=options, pix_fmt=pix_fmt)
    frames, fps, count = assert_frames(tmp_path / name, images)
    assert fps == 25 and count == 6 and frames[-1].time == Fraction(5, 25)


@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_colours_use_the_declared_matrix_and_range(tmp_path, matrix, colour_range):
    path = tmp_path / "a.mp4"
    images = scene()
    tags = {"colorspace": matrix, "color_range": colour_range}
    encode(path, images, pix_fmt="yuv444p", options={"crf": "1"}, **tags)
    frames, *_ = assert_frames(path, images, 1)
    error = np.float32([frame.image for frame in frames]) - images
    # FFmpeg's conversion to full range, in `encode`, rounds chroma down.
    most = 0.3 if colour_range == LIMITED else 1
    assert np.abs(error.mean((0, 1, 2))).max() < most, "no shift in any channel"


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "grey"),
    [
        ("ffv1", "gray", True),
        ("ffv1", "gray16le", True),
        ("ffv1", "yuv420p10le", False),
        ("ffv1", "yuva444p", False),
        ("qtrle", "argb", False),
        ("png", "rgb48be", False),
        ("libx264", "gray", True),
    ],
)
def test_pixel_formats_become_rgb(tmp_path, codec, pix_fmt, grey):
    images = scene()
    if grey:
        images = [np.repeat(image[..., :1], 3, 2) for image in images]
    path = tmp_path / ("a.mov" if codec in ("qtrle", "png") else "a.mkv")
    options = {"crf": "5"} if codec == "libx264" else {}
    tag = FULL if grey else None
    encode(path, images, codec, pix_fmt=pix_fmt, color_range=tag, options=options)
    assert_frames(path, images, 1)


def patch_matrix(path, a, b, c, d):
    """Set the display matrix in the `tkhd` box of an MP4, as phones do."""
    data = bytearray(path.read_bytes())
    # Version 0: 40 bytes between the box's type and the matrix.
    at = data.index(b"tkhd") + 4 + 40
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    struct.pack_into(">9i", data, at, *values)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
    ],
)
def test_rotation_marks_are_applied(tmp_path, matrix, shown):
    images = scene()
    path = encode(tmp_path / "a.mp4", images, options={"crf": "5"})
    patch_matrix(path, *matrix)
    frames, *_ = assert_frames(path, [shown(image) for image in images])
    assert all(frame.image.flags.c_contiguous for frame in frames)


def test_rotated_and_interlaced(tmp_path):
    images = scene(step=0)
    path = encode(tmp_path / "a.mp4", images, options={"crf": "5"}, first_field="tff")
    patch_matrix(path, 0, 1, -1, 0)
    assert_frames(path, [np.rot90(image, -1) for image in images])


@pytest.mark.parametrize("fields", [{}, {"first_field": "tff"}], ids=["progressive", "interlaced"])
def test_memory_of_frames_is_freed_at_once(tmp_path, fields):
    path = encode(tmp_path / "a.mp4", scene(count=40), **fields)
    frames, *_ = open_frames(path)
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in frames) == 40
        left = sum(isinstance(item, av.VideoFrame) for item in gc.get_objects())
    finally:
        gc.enable()
    assert left < 5


def test_rotation_by_other_angles_is_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", scene())
    patch_matrix(path, 1, 1, -1, 1)
    with pytest.raises(ValueError, match=r"a\.mp4: is marked as rotated by -?45 degrees"):
        open_frames(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_varying_rate_keeps_the_times(tmp_path, name):
    milliseconds = [0, 40, 55, 300, 310, 1000]
    path = tmp_path / name
    images = scene()
    encode(path, images, options={"crf": "5"}, pts=milliseconds, time_base=Fraction(1, 1000))
    frames, *_ = assert_frames(path, images)
    assert [round(1000 * frame.time) for frame in frames] == milliseconds


def test_rounded_times_become_those_of_the_rate(tmp_path):
    """Matroska stores milliseconds, so 29.97 frames per second look irregular."""
    rate = Fraction(30000, 1001)
    encode(tmp_path / "a.mkv", scene(count=60), rate=rate)
    frames, fps, count = open_frames(tmp_path / "a.mkv")
    assert fps == rate and count == 60
    assert [frame.time for frame in frames] == [i / rate for i in range(60)]


# AVI does not store times.
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_high_rate_is_kept(tmp_path, name):
    encode(tmp_path / name, scene(), rate=1000)
    frames, fps, count = open_frames(tmp_path / name)
    assert fps == 1000 and count == 6
    assert [frame.time for frame in frames] == [Fraction(i, 1000) for i in range(6)]


@pytest.mark.parametrize(("height", "width"), [(97, 128), (96, 131), (33, 47)])
def test_odd_sizes(tmp_path, height, width):
    images = scene(height, width)
    encode(tmp_path / "a.mkv", images, "ffv1", pix_fmt="yuv444p")
    assert_frames(tmp_path / "a.mkv", images)


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"-x.mp4", b"a:b.mp4", b"http:x.mp4", b"%d.mp4"])
def test_unusual_file_names(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    with video_writer(path, 10) as write:
        for image in scene():
            write(image)
    assert_frames(path, scene())
    assert [os.fsencode(file.name) for file in tmp_path.iterdir()] == [name]


def test_metadata_in_another_encoding(tmp_path):
    path = encode(tmp_path / "a.mkv", scene())
    data = path.read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"L\xe9vf"))
    assert_frames(path, scene(), 5)


def test_truncated_video_ends_early_with_a_warning(tmp_path, capfd):
    images = scene(count=60)
    path = tmp_path / "a.mp4"
    with video_writer(path, 10) as write:
        for image in images:
            write(image)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    frames, _, count = open_frames(path)
    read = len(list(frames))
    assert 2 <= read < 60 and count == 60
    error = capfd.readouterr().err
    assert error.startswith(f"warning: {path}: ") and error.count("\n") == 1
    assert "of the 60 frames in its header could be read" in error


@pytest.mark.parametrize("threads", range(3))
def test_damage_in_the_middle_is_reported_in_one_line(tmp_path, capfd, threads):
    path = encode(tmp_path / "a.mp4", scene(192, 256, count=40), options={"crf": "5", "g": "10"})
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(threads)
    for at in rng.integers(len(data) // 3, len(data) // 2, 200):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    frames, *_ = open_frames(path)
    # Some frames may be lost; none is read twice.
    assert 10 < len({frame.name for frame in frames}) <= 40
    error = capfd.readouterr().err
    assert error.startswith(f"warning: {path}: ") and error.count("\n") == 1
    assert "the first near frame" in error or "decoding failed near frame" in error


def test_reading_can_stop_early(tmp_path, capfd):
    path = encode(tmp_path / "a.mp4", scene(count=30))
    frames, *_ = open_frames(path)
    assert next(frames).name == "frame 0"
    frames = None
    assert capfd.readouterr().err == ""


def test_unreadable_videos(tmp_path, capfd):
    good = encode(tmp_path / "good.mp4", scene()).read_bytes()
    path = tmp_path / "bad.mp4"
    for content in (b"no video at all" * 100, good[: len(good) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.mp4: not a video that FFmpeg can read"):
            open_frames(path)
    encode(tmp_path / "one.mp4", scene(count=1))
    with pytest.raises(ValueError, match=r"one\.mp4: holds 1 readable frames"):
        open_frames(tmp_path / "one.mp4")
    assert capfd.readouterr().err == "", "no messages from FFmpeg"


def test_video_without_frames(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", 25, width=64, height=48)
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match=r"a\.mkv: (holds 0 readable|not a video)"):
        open_frames(tmp_path / "a.mkv")


def test_sound_only(tmp_path):
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"a\.m4a: has no video stream"):
        open_frames(path)


def test_size_that_changes(tmp_path):
    """Raw streams can be joined: the second has another size."""
    parts = [scene(), scene(64, 96)]
    paths = [encode(tmp_path / f"{n}.h264", part) for n, part in enumerate(parts)]
    joined = tmp_path / "a.h264"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    frames, *_ = open_frames(joined)
    with pytest.raises(ValueError, match=r"frame 6 has 96x64 px, but the frames .* 128x96"):
        list(frames)


def test_address(tmp_path):
    encode(tmp_path / "a.mp4", scene(), options={"crf": "5"})

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        assert_frames(address + "a.mp4", scene())
        with pytest.raises(ValueError, match=f"{address}absent.mp4: not a video .*404"):
            open_frames(address + "absent.mp4")
        server.shutdown()
    with pytest.raises(ValueError, match="not a video that FFmpeg can read"):
        open_frames(address + "a.mp4")


def test_memory_does_not_grow_with_length(tmp_path):
    images = scene(240, 320) * 250
    frames, *_ = open_frames(encode(tmp_path / "a.mp4", images, options={"preset": "ultrafast"}))
    resident = []
    for _ in frames:
        with open("/proc/self/statm") as file:
            resident.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    # 1000 frames are 230 MB.
    assert max(resident[500:]) - resident[500] < 30e6
