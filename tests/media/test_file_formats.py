"""All image and video formats that are listed are written by OpenCV and read back."""

import cv2
import numpy as np
import pytest

from flowseg.media.frames import IMAGE_SUFFIXES, open_frames, read_image
from flowseg.media.video import VIDEO_SUFFIXES


def write_image(path):
    """Write smooth blobs, in the colours that the format supports; return the pixels (RGB)."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    blobs = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    if path.suffix in (".pgm", ".pbm"):
        grey = blobs[..., 0]
        blobs = np.repeat((grey if path.suffix == ".pgm" else grey // 128 * 255)[..., None], 3, 2)
        assert cv2.imwrite(str(path), blobs[..., 0])
    else:
        assert cv2.imwrite(str(path), blobs[..., ::-1])
    return blobs


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_image_formats(tmp_path, suffix):
    paths = [tmp_path / f"{n}{suffix}" for n in (1, 2)]
    written = [write_image(path) for path in paths]
    frames, _, count = open_frames(tmp_path)
    for frame, pixels in zip(frames, written, strict=True):
        # JPEG and AVIF are lossy.
        assert frame.image.shape == pixels.shape
        assert np.abs(frame.image - np.float32(pixels)).mean() < 8
    assert count == 2
    with pytest.raises(ValueError, match=f"1{suffix}: a single image"):
        open_frames(paths[0])


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_read_image_names_a_bad_file(tmp_path, suffix):
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    write_image(good)
    data = good.read_bytes()
    for content in (data[: len(data) // 2], data[:-20], b"no image", b""):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=f"bad{suffix}"):
            read_image(bad)


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_video_formats(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    images = [np.full((64, 96, 3), (100, 30 * i, 200), np.uint8) for i in range(6)]
    if suffix == ".gif":
        animation = cv2.Animation()
        animation.frames, animation.durations = images, [100] * 6
        assert cv2.imwriteanimation(str(path), animation)
    else:
        code = {".webm": "VP80", ".ogv": "VP80", ".flv": "FLV1"}.get(suffix, "mp4v")
        sink = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), 25, (96, 64)
        )
        for image in images:
            sink.write(image)
        sink.release()
    frames, fps, count = open_frames(path)
    images_read = [frame.image for frame in frames]
    # MPEG containers have no frame count.
    assert len(images_read) == 6 and count == (None if suffix in (".mpg", ".mpeg") else 6)
    assert fps == (10 if suffix == ".gif" else 25)
    for i, image in enumerate(images_read):
        # OpenCV wrote in the order blue, green, red.
        assert np.abs(image.mean((0, 1)) - (200, 30 * i, 100)).max() < 8
