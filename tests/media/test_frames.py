from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from flowseg.media.drawing import write_png
from flowseg.media.frames import natural_key, open_frames, read_image, video_writer

RED = (250, 20, 30)


def solid(height, width, colour=RED):
    return np.full((height, width, 3), colour, np.uint8)


def write_frames(folder, names, height=16, width=24):
    """Write frames whose grey value is 10 times their index in `names`."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        write_png(folder / name, solid(height, width, (10 * i,) * 3))
    return folder


def write_video(path, count, fps=12.5, height=32, width=48):
    with video_writer(path, fps) as write:
        for i in range(count):
            write(solid(height, width, (20 * i, 100, 200)))
    return path


def test_read_image_is_rgb(tmp_path):
    write_png(tmp_path / "a.png", solid(4, 6))
    image = read_image(tmp_path / "a.png")
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8
    assert (image == RED).all()


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("grey.png", np.uint8([[0, 128, 255]]), [[0] * 3, [128] * 3, [255] * 3]),
        # OpenCV writes blue, green, red(, alpha).
        ("alpha.png", np.uint8([[[1, 2, 3, 0], [4, 5, 6, 255]]]), [[3, 2, 1], [6, 5, 4]]),
        ("grey.ppm", np.uint8([[[7, 8, 9]]]), [[9, 8, 7]]),
        ("colour.tiff", np.uint8([[[7, 8, 9]]]), [[9, 8, 7]]),
    ],
)
def test_read_image_conversions(tmp_path, name, pixels, expected):
    assert cv2.imwrite(str(tmp_path / name), pixels)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.tolist() == [expected]


def test_read_image_missing_file(tmp_path):
    with pytest.raises(ValueError, match="absent.png: no such"):
        read_image(tmp_path / "absent.png")


def test_natural_order():
    names = ["image_10.png", "image_2.png", "Image_1.png", "image_02.png", "a.png", "2.png"]
    assert sorted(names, key=natural_key) == [
        "2.png",
        "a.png",
        "Image_1.png",
        "image_02.png",
        "image_2.png",
        "image_10.png",
    ]
    kitti = ["000002_10.png", "000002_11.png", "000003_10.png", "000010_10.png"]
    assert sorted(reversed(kitti), key=natural_key) == kitti


def test_folder_order_and_other_files(tmp_path):
    names = ["image_1.png", "image_2.png", "image_10.png"]
    folder = write_frames(tmp_path / "clip", names)
    for other in ("mask.npy", "notes.txt", "._image_1.png"):
        (folder / other).write_bytes(b"x")
    frames, fps, count = open_frames(folder)
    frames = list(frames)
    assert [name for name, _ in frames] == names
    assert [int(image[0, 0, 0]) for _, image in frames] == [0, 10, 20]
    assert fps is None and count == 3


def test_folder_is_read_lazily(tmp_path):
    folder = write_frames(tmp_path / "clip", ["1.png", "2.png", "3.png"])
    frames, _, _ = open_frames(folder)
    next(frames)
    (folder / "3.png").write_bytes(b"damaged")
    next(frames)
    with pytest.raises(ValueError, match="3.png"):
        next(frames)


def test_frame_of_another_size(tmp_path):
    folder = write_frames(tmp_path / "clip", ["1.png", "2.png", "10.png"])
    write_png(folder / "10.png", solid(17, 24))
    frames, _, _ = open_frames(folder)
    next(frames), next(frames)
    with pytest.raises(ValueError, match=r"10\.png: 24x17 px, but .* 24x16 px"):
        next(frames)


@pytest.mark.parametrize("names", [[], ["only.png"]])
def test_too_few_frames_in_a_folder(tmp_path, names):
    folder = write_frames(tmp_path / "clip", names)
    with pytest.raises(ValueError, match=f"clip: holds {len(names)} image files"):
        open_frames(folder)


def test_invalid_inputs(tmp_path):
    write_png(tmp_path / "a.png", solid(4, 4))
    with pytest.raises(ValueError, match="a.png: a single image"):
        open_frames(tmp_path / "a.png")
    with pytest.raises(ValueError, match="absent: no such"):
        open_frames(tmp_path / "absent")


def test_unreadable_video(tmp_path, capfd):
    good = write_video(tmp_path / "good.mp4", 5).read_bytes()
    for content in (b"no video at all" * 100, good[: len(good) // 2], b""):
        (tmp_path / "bad.mp4").write_bytes(content)
        with pytest.raises(ValueError, match="bad.mp4"):
            open_frames(tmp_path / "bad.mp4")
    assert capfd.readouterr().err == "", "no messages from OpenCV"
    write_video(tmp_path / "one.mp4", 1)
    with pytest.raises(ValueError, match="one.mp4: holds 1 readable"):
        open_frames(tmp_path / "one.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("fps", [10, 12.5, 30000 / 1001, 59.94])
def test_video_reads_back_as_written(tmp_path, fps, suffix, capfd):
    name = f"a{suffix}"
    frames, read_fps, count = open_frames(write_video(tmp_path / name, 6, fps))
    assert capfd.readouterr().err == "", "no messages from OpenCV"
    assert count == 6 and read_fps == pytest.approx(fps, rel=1e-4)
    frames = list(frames)
    assert [name for name, _ in frames] == [f"frame {i}" for i in range(6)]
    for i, (_, image) in enumerate(frames):
        assert image.shape == (32, 48, 3)
        assert np.abs(image.mean((0, 1)) - (20 * i, 100, 200)).max() < 6, "colours and order"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_odd_sizes_are_padded(tmp_path):
    path = write_video(tmp_path / "new" / "folder" / "a.mp4", 3, height=33, width=47)
    assert next(open_frames(path)[0])[1].shape == (34, 48, 3)


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


def test_ctrl_c_during_write_keeps_frame(tmp_path, monkeypatch):
    """Python raises it right after OpenCV's call, which succeeded."""
    true_writer = cv2.VideoWriter

    def stopped_writer(*arguments):
        writer = true_writer(*arguments)

        def write(frame):
            writer.write(frame)
            raise KeyboardInterrupt

        return SimpleNamespace(isOpened=writer.isOpened, release=writer.release, write=write)

    monkeypatch.setattr(cv2, "VideoWriter", stopped_writer)
    with pytest.raises(KeyboardInterrupt, match="a.part.mp4 holds the 1 frames so far"):
        write_video(tmp_path / "a.mp4", 3)
    # `open_frames` requires two frames, so the video is read with OpenCV.
    assert cv2.VideoCapture(str(tmp_path / "a.part.mp4"), cv2.CAP_FFMPEG).read()[0]


def test_video_writer_errors(tmp_path):
    with (
        pytest.raises(ValueError, match=r"a\.avi.*\.mp4 or \.webm"),
        video_writer(tmp_path / "a.avi", 10),
    ):
        pass
    with pytest.raises(ValueError, match="no frame"), video_writer(tmp_path / "a.mp4", 10):
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


def test_video_with_lost_frames_is_removed(tmp_path, monkeypatch):
    true_writer = cv2.VideoWriter

    def lossy_writer(*arguments):
        writer = true_writer(*arguments)
        calls = iter(range(100))

        def write(frame):
            if next(calls) != 1:
                writer.write(frame)

        return SimpleNamespace(isOpened=writer.isOpened, release=writer.release, write=write)

    monkeypatch.setattr(cv2, "VideoWriter", lossy_writer)
    with pytest.raises(OSError, match="does not read back"):
        write_video(tmp_path / "a.mp4", 4)
    assert list(tmp_path.iterdir()) == []


def test_real_folders(samples):
    frames, _, count = open_frames(samples / "clips/val/video_1000")
    frames = list(frames)
    assert [name for name, _ in frames] == [f"image_{i}.png" for i in range(22)] and count == 22
    assert {image.shape for _, image in frames} == {(160, 240, 3)}
    # In natural order neighbouring frames are more similar than in plain alphabetical order.
    images = np.float32([image for _, image in frames])
    steps = np.abs(np.diff(images, axis=0)).mean()
    plain = sorted(range(22), key=lambda i: f"image_{i}.png")
    assert steps < np.abs(np.diff(images[plain], axis=0)).mean()

    name, image = next(open_frames(samples / "davis/JPEGImages/480p/libby")[0])
    assert name == "00000.jpg" and image.shape == (480, 854, 3)
    assert open_frames(samples / "camvid/val")[2] == 101
    kitti = samples / "kitti/data_scene_flow/training/image_2"
    assert [name for name, _ in open_frames(kitti)[0]][:2] == ["000002_10.png", "000002_11.png"]


def test_real_frames_in_video(samples, tmp_path):
    kitti = samples / "kitti/data_scene_flow/training/image_2"
    images = [read_image(kitti / f"00000{n}.png") for n in ("2_10", "2_11")]
    with video_writer(tmp_path / "kitti.mp4", 10) as write:
        for image in images:
            write(image)
    frames, _, _ = open_frames(tmp_path / "kitti.mp4")
    for (_, decoded), image in zip(frames, images, strict=True):
        assert decoded.shape == (376, 1242, 3)
        assert np.abs(decoded[:375].astype(int) - image).mean() < 8
