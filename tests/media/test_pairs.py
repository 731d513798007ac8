"""Frames and frame pairs that callers pass, and the stream of consecutive frames."""

import weakref

import numpy as np
import pytest

from flowseg.media.drawing import write_png
from flowseg.media.pairs import as_frame, frames_of_one_size, read_pair, stream

FRAME = np.full((4, 6, 3), 200, np.uint8)


def test_frames_from_arrays_and_files(tmp_path):
    write_png(tmp_path / "a.png", FRAME)
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert (as_frame(path, "image1") == FRAME).all()
    assert as_frame(FRAME, "image1") is FRAME
    for dtype in (np.float16, np.float32, np.float64):
        image = as_frame(FRAME.astype(dtype), "image1")
        assert image.dtype == np.float32 and (image == 200).all()
    # Black frames and dark integer values are valid; only fractions up to 1 mean a 0..1 range.
    for dark in (np.zeros((4, 6, 3)), np.float32(FRAME > 99)):
        assert (as_frame(dark, "image1") == dark).all()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME[..., 0], r"image1: has shape \(4, 6\), but a frame is \(height, width, 3\)"),
        (FRAME[None], r"image1: has shape \(1, 4, 6, 3\)"),
        (np.zeros((4, 6, 4), np.uint8), r"image1: has shape \(4, 6, 4\)"),
        (FRAME[:0], r"image1: has shape \(0, 6, 3\)"),
        (None, r"image1: has shape \(\)"),
        (FRAME.astype(np.int64), "image1: has values of type int64"),
        (FRAME.astype(np.uint16) * 257, "image1: has values of type uint16"),
        (FRAME > 0, "image1: has values of type bool"),
        (np.where(FRAME > 0, np.nan, 0), "image1: has values that are NaN or infinite"),
        (np.full((4, 6, 3), np.inf), "image1: has values that are NaN or infinite"),
        (FRAME / 255.0, "from 0 to 1, .*: multiply it by 255"),
        (FRAME - 210.0, "image1: has values from -10 to -10"),
        (FRAME * 2.0, "image1: has values from 400 to 400"),
        ("nowhere.png", "nowhere.png: no such image file"),
    ],
)
def test_invalid_frames(frame, message):
    with pytest.raises(ValueError, match=message):
        as_frame(frame, "image1")


def test_pair_of_two_sizes(tmp_path):
    assert [image.shape for image in read_pair(FRAME, FRAME + 1.0)] == [(4, 6, 3), (4, 6, 3)]
    with pytest.raises(ValueError, match="^image1 is 6x4 px but image2 is 6x3 px: both frames"):
        read_pair(FRAME, FRAME[:3])
    write_png(tmp_path / "a.png", FRAME)
    with pytest.raises(ValueError, match=r"a\.png is 6x4 px but image2 is 5x4 px"):
        read_pair(tmp_path / "a.png", FRAME[:, :5])
    with pytest.raises(ValueError, match="image2: has values of type int32"):
        read_pair(FRAME, FRAME.astype(np.int32))


def test_video_of_two_sizes(tmp_path):
    write_png(tmp_path / "a.png", FRAME)
    frames = frames_of_one_size([FRAME, tmp_path / "a.png", FRAME[:, :5]])
    assert (next(frames) == next(frames)).all()
    with pytest.raises(ValueError, match="frame 2: 5x4 px, but the frames before it have 6x4 px"):
        next(frames)
    with pytest.raises(ValueError, match="frame 1: has values of type int64"):
        list(frames_of_one_size([FRAME, FRAME.astype(np.int64)]))


def streamed(count):
    """Output of a stream of frames 0, 1, .., and the encoded frames; encoding adds 100."""
    encoded = []

    def encode(frame):
        encoded.append(frame)
        return frame + 100

    frames = stream(range(count), encode, lambda a, b: (("seg", a, b), ("flow", a, b)))
    return list(frames), encoded


def test_each_frame_is_encoded_once():
    predictions, encoded = streamed(3)
    assert encoded == [0, 1, 2]
    assert predictions == [
        (("seg", 100, 101), ("flow", 100, 101)),
        (("seg", 101, 102), ("flow", 101, 102)),
        (("seg", 102, 101), None),  # The last frame, with the previous one.
    ]


def test_stream_of_one_or_no_frame():
    assert streamed(1) == ([(("seg", 100, 100), None)], [0])
    assert streamed(0) == ([], [])


def test_prediction_after_next_frame():
    read = []

    def frames():
        for number in range(4):
            read.append(number)
            yield number

    predictions = stream(frames(), lambda frame: frame, lambda a, b: (a, b))
    assert read == []
    assert next(predictions) == (0, 1) and read == [0, 1]
    assert next(predictions) == (1, 2) and read == [0, 1, 2]


def test_features_in_memory():
    class Features:
        alive = weakref.WeakSet()
        most = 0

        def __init__(self):
            self.alive.add(self)
            Features.most = max(Features.most, len(self.alive))

    for _ in stream(range(50), lambda frame: Features(), lambda a, b: (0, 0)):
        pass
    # At most two: features of the last frame and of the next one.
    assert Features.most == 2
