"""Videos read back as they were written; interrupted ones keep what can be played."""

import resource
import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from flowseg.media import video_output
from flowseg.media.frames import open_frames, read_image
from flowseg.media.video_output import FORMATS, video_writer

RED = (250, 20, 30)


def solid(height, width, colour=RED):
    return np.full((height, width, 3), colour, np.uint8)


def write_video(path, count, fps=12.5, height=32, width=48):
    with video_writer(path, fps) as write:
        for i in range(count):
            write(solid(height, width, (20 * i, 100, 200)))
    return path


def count_frames(path):
    """Number of frames that can be decoded; `open_frames` needs two."""
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0)))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("fps", [10, 12.5, 30000 / 1001, 59.94, 240, 1000, Fraction(24000, 1001)])
def test_video_reads_back_as_written(tmp_path, fps, suffix, capfd):
    name = f"a{suffix}"
    frames, read_fps, count = open_frames(write_video(tmp_path / name, 6, fps))
    assert capfd.readouterr().err == "", "no messages from FFmpeg"
    assert count == 6 and read_fps == Fraction(fps).limit_denominator(1001)
    frames = list(frames)
    assert [frame.name for frame in frames] == [f"frame {i}" for i in range(6)]
    assert [frame.time for frame in frames] == [i / read_fps for i in range(6)]
    for i, frame in enumerate(frames):
        assert frame.image.shape == (32, 48, 3) and frame.image.dtype == np.uint8
        assert np.abs(frame.image.mean((0, 1)) - (20 * i, 100, 200)).max() < 3, "colours and order"
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_given_times_are_kept(tmp_path, suffix):
    times = [0, 0.04, 0.05, 1.3, 1.301, 7]
    with video_writer(tmp_path / f"a{suffix}", 25) as write:
        for i, when in enumerate(times):
            write(solid(32, 48, (20 * i, 100, 200)), when)
    frames = list(open_frames(tmp_path / f"a{suffix}")[0])
    np.testing.assert_allclose([float(frame.time) for frame in frames], times, atol=1e-3)


def test_times_must_rise(tmp_path):
    with pytest.raises(ValueError, match="frame 1 is not later"):
        with video_writer(tmp_path / "a.mp4", 10) as write:
            write(solid(32, 32), 1)
            write(solid(32, 32), 1)


def test_mp4_suits_browsers(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert tags == (1, 1, 1, 1), "BT.709, limited range"


def test_odd_sizes_are_padded(tmp_path):
    path = write_video(tmp_path / "new" / "folder" / "a.mp4", 3, height=33, width=47)
    assert next(open_frames(path)[0]).image.shape == (34, 48, 3)


def test_interrupted_video_keeps_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), video_writer(path, 10) as write:
            write(solid(32, 32))
            raise error
        assert path.read_bytes() == b"older"
        part = ["a.part.mp4"] * (error is KeyboardInterrupt)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", *part]


@pytest.mark.parametrize("suffix", FORMATS)
def test_ctrl_c_at_any_moment_keeps_the_frames(tmp_path, suffix):
    path, part = tmp_path / f"a{suffix}", tmp_path / f"a.part{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for delay in np.linspace(0.02, 0.06, 12):
            with pytest.raises(KeyboardInterrupt) as raised, video_writer(path, 10) as write:
                write(noise)
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    write(noise)
            assert str(raised.value) == f"{part} holds the {count_frames(part)} frames so far"
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert [file.name for file in tmp_path.iterdir()] == [part.name]


def test_video_writer_errors(tmp_path):
    with (
        pytest.raises(ValueError, match=r"a\.avi.*\.mp4 or \.webm"),
        video_writer(tmp_path / "a.avi", 10),
    ):
        pass
    with pytest.raises(ValueError, match="no frame"), video_writer(tmp_path / "a.mp4", 10):
        pass
    with pytest.raises(ValueError, match="milliseconds"), video_writer(tmp_path / "a.webm", 1001):
        pass
    with pytest.raises(ValueError, match=r"frame 2 is 34x32.*a\.part\.mp4 holds the 2"):
        with video_writer(tmp_path / "a.mp4", 10) as write:
            write(solid(32, 32))
            write(solid(32, 32))
            write(solid(32, 34))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError), video_writer(tmp_path / "file" / "a.mp4", 10):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.part.mp4", "file"]
    assert len(list(open_frames(tmp_path / "a.part.mp4")[0])) == 2


def test_ffmpeg_without_an_encoder(tmp_path, monkeypatch):
    """FFmpeg built without GPL parts has no libx264."""
    monkeypatch.setitem(FORMATS, ".mp4", FORMATS[".mp4"]._replace(codec="absent"))
    with pytest.raises(ValueError, match=r"a\.mp4: .* no encoder absent; write FILE\.webm"):
        write_video(tmp_path / "a.mp4", 3)
    assert list(tmp_path.iterdir()) == []


def test_video_with_lost_frames_is_removed(tmp_path, monkeypatch):
    true_open = video_output._open

    class Lossy:
        def __init__(self, stream):
            self.stream, self.calls = stream, 0

        def encode_lazy(self, picture):
            self.calls += 1
            return [] if self.calls == 2 else self.stream.encode_lazy(picture)

    def lossy_open(*arguments):
        container, stream = true_open(*arguments)
        return container, Lossy(stream)

    monkeypatch.setattr(video_output, "_open", lossy_open)
    with pytest.raises(OSError, match="does not read back"):
        write_video(tmp_path / "a.mp4", 4)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_once(tmp_path, capfd):
    """A limit on the size of files fails like a full disk."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 200, 300, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as raised, video_writer(tmp_path / "a.mp4", 10) as write:
            for image in noise:
                write(image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == str(tmp_path / "a.mp4") and raised.value.strerror
    assert capfd.readouterr().err == "" and list(tmp_path.iterdir()) == []


def test_real_frames_in_video(samples, tmp_path):
    kitti = samples / "kitti/data_scene_flow/training/image_2"
    images = [read_image(kitti / f"00000{n}.png") for n in ("2_10", "2_11")]
    for suffix in FORMATS:
        with video_writer(tmp_path / f"kitti{suffix}", 10) as write:
            for image in images:
                write(image)
        frames, _, _ = open_frames(tmp_path / f"kitti{suffix}")
        for frame, image in zip(frames, images, strict=True):
            assert frame.image.shape == (376, 1242, 3)
            assert np.abs(frame.image[:375].astype(int) - image).mean() < 8
