import re

import cv2
import numpy as np
import pytest

from flowseg.errors import ArgumentError
from flowseg.media.drawing import write_png
from flowseg.media.frames import natural_key, open_frames, read_image, sequences

RED = (250, 20, 30)


def solid(height, width, colour=RED):
    return np.full((height, width, 3), colour, np.uint8)


def write_frames(folder, names, height=16, width=24):
    """Write frames whose grey value is 10 times their index in `names`."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        write_png(folder / name, solid(height, width, (10 * i,) * 3))
    return folder


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
    assert [frame.name for frame in frames] == names
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 10, 20]
    assert fps is None and count == 3 and {frame.time for frame in frames} == {None}


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


def names_by_sequence(path, **options):
    return [[frame.name for frame in part] for part in sequences(open_frames(path, **options)[0])]


@pytest.mark.parametrize(
    ("names", "expected", "warning"),
    [
        (["1.png", "2.png", "3.png"], [3], None),
        (["a.png", "b.png", "c.png"], [3], None),
        (["f_2.png", "f_03.png", "F_4.jpg"], [3], None),
        (["1.png", "2.png", "30.png", "31.png"], [2, 2], "2.png to 30.png"),
        (["1.png", "2.png", "9.png", "12.png", "13.png", "14.png"], [2, 1, 3], "9.png and 1 more"),
        (["000002_10.png", "000002_11.png", "000003_10.png", "000003_11.png"], [2, 2], "gaps"),
        (["2.png", "30.png"], [2], "in steps of 28: a pair spans 28 numbers"),
        (["0.png", "5.png", "10.png"], [3], "in steps of 5"),
        (["0.png", "5.png", "10.png", "20.png"], [3, 1], "in steps of 5.*10.png to 20.png"),
    ],
)
def test_gaps_in_the_numbers_begin_a_sequence(tmp_path, capsys, names, expected, warning):
    folder = write_frames(tmp_path / "clip", names)
    parts = names_by_sequence(folder)
    assert [len(part) for part in parts] == expected and sum(parts, []) == names
    error = capsys.readouterr().err
    if warning is None:
        assert error == ""
    else:
        assert re.search(warning, error) and error.startswith(f"warning: {folder}: ")
        assert error.count("\n") == 1
    assert names_by_sequence(folder, allow_gaps=True) == [names]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "names", [["1.png", "17.png", "20.png", "54.png"], ["a1.png", "b2.png"], ["1.png", "x.png"]]
)
def test_numbers_without_a_constant_step_are_refused(tmp_path, names):
    folder = write_frames(tmp_path / "clip", names)
    with pytest.raises(ArgumentError, match="clip: the numbers .* constant step") as raised:
        open_frames(folder)
    assert "--allow_gaps" in raised.value.with_flags()
    assert names_by_sequence(folder, allow_gaps=True) == [names]


def test_numbered_pattern(tmp_path):
    names = ["00008.png", "00009.png", "00010.png"]
    others = ["8.png", "000011.png", "00011.jpg", "a00012.png"]
    folder = write_frames(tmp_path / "clip", names + others)
    assert names_by_sequence(str(folder / "%05d.png")) == [names]
    assert open_frames(folder / "%05d.png")[2] == 3
    write_frames(folder, ["left1.png", "left2.png", "left04.png", "left10.png"])
    assert names_by_sequence(folder / "left%d.png") == [["left1.png", "left2.png"], ["left10.png"]]
    with pytest.raises(ValueError, match="x%d.png: 0 files have such names"):
        open_frames(folder / "x%d.png")
    with pytest.raises(ValueError, match="absent: no such folder"):
        open_frames(tmp_path / "absent/%d.png")


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


def test_real_folders(samples):
    frames, _, count = open_frames(samples / "clips/val/video_1000")
    frames = list(frames)
    assert [frame.name for frame in frames] == [f"image_{i}.png" for i in range(22)] and count == 22
    assert {frame.image.shape for frame in frames} == {(160, 240, 3)}
    # In natural order neighbouring frames are more similar than in plain alphabetical order.
    images = np.float32([frame.image for frame in frames])
    steps = np.abs(np.diff(images, axis=0)).mean()
    plain = sorted(range(22), key=lambda i: f"image_{i}.png")
    assert steps < np.abs(np.diff(images[plain], axis=0)).mean()

    frame = next(open_frames(samples / "davis/JPEGImages/480p/libby")[0])
    assert frame.name == "00000.jpg" and frame.image.shape == (480, 854, 3)
    assert open_frames(samples / "camvid/val")[2] == 101
    kitti = samples / "kitti/data_scene_flow/training/image_2"
    names = [[frame.name for frame in part] for part in sequences(open_frames(kitti)[0])]
    assert names[0] == ["000002_10.png", "000002_11.png"]
    assert {len(part) for part in names} == {2}, "frames of different scenes are not a pair"
