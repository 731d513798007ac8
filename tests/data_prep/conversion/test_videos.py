"""Frames of videos that are stored as numbered files."""

from pathlib import Path

import pytest

from data_prep.conversion.videos import fill_gaps, list_frames, number_videos, numbered


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_numbers_of_files(tmp_path):
    folder = touch(tmp_path, "image_0.png", "image_10.png", "image_2.png", "a.npy", "._image_3.png")
    numbers = numbered(folder, "image_*.png")
    assert {number: path.name for number, path in numbers.items()} == {
        0: "image_0.png",
        2: "image_2.png",
        10: "image_10.png",
    }


@pytest.mark.parametrize("name", ["frame_0001.png", "0001_10.png", "x.png", "٣.png"])
def test_files_of_another_data_set_are_refused(tmp_path, name):
    with pytest.raises(
        ValueError, match=f"{name}: unexpected file name .*NUMBER.png.: are two data"
    ):
        numbered(touch(tmp_path, "00001.png", name), "*.png")


def test_two_files_with_the_same_number_are_refused(tmp_path):
    with pytest.raises(ValueError, match="001.png: same frame number as 00001.png"):
        numbered(touch(tmp_path, "00001.png", "001.png"), "*.png")


def test_gaps_are_filled():
    assert fill_gaps([7, 4, 5, 9]) == [4, 5, 6, 7, 8, 9]
    assert fill_gaps([3, 10**9]) == [3, 10**9] and fill_gaps([]) == []


def test_missing_image_is_no_second_frame(tmp_path):
    touch(tmp_path, "0.png", "1.png", "3.png")
    files = {"image1": numbered(tmp_path, "*.png"), "labels": {1: Path("m")}}
    frames = list_frames("v", 1, lambda k: tmp_path / f"{k}.png", files, label_set="camvid")
    assert [frame.frame_id for frame in frames] == ["v/0", "v/1", "v/2", "v/3"]
    seconds = [frame.files.get("image2", Path("-")).name for frame in frames]
    assert seconds == ["1.png", "-", "3.png", "-"]
    assert [frame.frame_index for frame in frames] == [0, 1, 2, 3]
    assert [frame.label_set for frame in frames] == ["", "camvid", "", ""]


def test_one_wrong_number_gives_no_missing_frames(tmp_path):
    touch(tmp_path, "0.png", "1.png", "1000000000.png")
    frames = list_frames("v", 1, lambda k: None, {"image1": numbered(tmp_path, "*.png")})
    assert [frame.frame_index for frame in frames] == [0, 1, 10**9]


def test_subfolders_whose_names_differ_in_the_last_number_are_videos():
    names = [
        "a/f8",
        "a/f010",
        "b/1_left",
        "b/1_right",
        "c/x",
        "c/1",
        "1",
        "2",
        "d/99999999999999999999",
    ]
    numbers = number_videos({name: Path(f"{name}.png") for name in names})
    assert numbers == {"a/f8": 8, "a/f010": 10}
