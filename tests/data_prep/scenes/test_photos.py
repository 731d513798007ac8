"""Tests of finding photographs in a folder."""

import pytest

from data_prep.scenes.photos import find_photos


def test_find_photos_ignores_subfolders(tmp_path):
    for name in ("b.JPG", "a.png", "c.ppm", "d.jpeg", ".hidden.png", "notes.txt", "sub/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.name for path in find_photos(str(tmp_path))]
    assert names == ["a.png", "b.JPG", "c.ppm", "d.jpeg"]


def test_find_photos_errors(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        find_photos(tmp_path / "nowhere")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    with pytest.raises(ValueError, match=r"no photographs directly in it \(.png, .jpg"):
        find_photos(tmp_path)
