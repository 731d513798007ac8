"""Frames as callers give them, and consecutive ones as a stream."""

import weakref

import numpy as np
import pytest

from flowseg.media.drawing import write_png
from flowseg.media.pairs import as_frame, frames_of_one_size, read_pair, stream

FRAME = np.full((4, 6, 3), 200, np.uint8)


def test_frames_are_arrays_or_files(tmp_path):
    write_png(tmp_path / "a.png", FRAME)
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert (as_frame(path, "image1") == FRAME).all()
    assert as_frame(FRAME, "image1") is FRAME
    for dtype in (np.float16, np.float32, np.float64):
        image = as_frame(FRAME.astype(dtype), "image1")
        assert image.dtype == np.float32 and (image == 200).all()
    # Black, and almost black of whole numbers, are frames; only fractions are not of 0..255.
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
def test_what_is_no_frame_is_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        as_frame(frame, "image1")


def test_a_pair_has_one_size(tmp_path):
    assert [image.shape for image in read_pair(FRAME, FRAME + 1.0)] == [(4, 6, 3), (4, 6, 3)]
    with pytest.raises(ValueError, match="^image1 is 6x4 px but image2 is 6x3 px: both frames"):
        read_pair(FRAME, FRAME[:3])
    write_png(tmp_path / "a.png", FRAME)
    with pytest.raises(ValueError, match=r"a\.png is 6x4 px but image2 is 5x4 px"):
        read_pair(tmp_path / "a.png", FRAME[:, :5])
    with pytest.raises(ValueError, match="image2: has values of type int32"):
        read_pair(FRAME, FRAME.astype(np.int32))


def test_a_video_has_one_size(tmp_path):
    write_png(tmp_path / "a.png", FRAME)
    frames = frames_of_one_size([FRAME, tmp_path / "a.png", FRAME[:, :5]])
    assert (next(frames) == next(frames)).all()
    with pytest.raises(ValueError, match="frame 2: 5x4 px, but the frames before it have 6x4 px"):
        next(frames)
    with pytest.raises(ValueError, match="frame 1: has values of type int64"):
        list(frames_of_one_size([FRAME, FRAME.astype(np.int64)]))


def streamed(count):
    """What a stream of frames 0, 1, .. yields, where encoding adds 100 and is noted."""
    encoded = []

    def encode(frame):
        encoded.append(frame)
        return frame + 100

    frames = stream(range(count), encode, lambda a, b: (("seg", a, b), ("flow", a, b)))
    return list(frames), encoded


def test_each_frame_is_encoded_once_and_decoded_with_the_next():
    answers, encoded = streamed(3)
    assert encoded == [0, 1, 2]
    assert answers == [
        (("seg", 100, 101), ("flow", 100, 101)),
        (("seg", 101, 102), ("flow", 101, 102)),
        (("seg", 102, 101), None),  # The last frame, with the previous one.
    ]


def test_one_frame_and_none():
    assert streamed(1) == ([(("seg", 100, 100), None)], [0])
    assert streamed(0) == ([], [])


def test_a_prediction_comes_as_soon_as_the_next_frame():
    read = []

    def frames():
        for number in range(4):
            read.append(number)
            yield number

    answers = stream(frames(), lambda frame: frame, lambda a, b: (a, b))
    assert read == []
    assert next(answers) == (0, 1) and read == [0, 1]
    assert next(answers) == (1, 2) and read == [0, 1, 2]


def test_memory_stays_flat():
    class Features:
        alive = weakref.WeakSet()
        most = 0

        def __init__(self):
            self.alive.add(self)
            Features.most = max(Features.most, len(self.alive))

    for _ in stream(range(50), lambda frame: Features(), lambda a, b: (0, 0)):
        pass
    # The last two, and the one that comes next.
    assert Features.most == 2
