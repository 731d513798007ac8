"""Tests of the errors of the custom folder converter: each names the file and the fix."""

import numpy as np
import pytest

from flowseg.data import flow_io, labels
from tests.support.made_files import ids, motion, picture, read_back, save
from tests.support.own_folder import convert, write_classes, write_user_folder


@pytest.fixture
def classes(tmp_path):
    return write_classes(tmp_path / "classes.json")


@pytest.fixture
def folder(tmp_path):
    return write_user_folder(tmp_path / "custom")


def assert_refused(folder, tmp_path, match, classes=None, **kwargs):
    with pytest.raises(ValueError, match=match):
        convert(folder, tmp_path / "refused", classes, **kwargs)
    assert not (tmp_path / "refused" / "index.json").exists()


@pytest.mark.parametrize(
    ("label_set", "kwargs", "bad"),
    [
        ("custom", {}, 5), ("custom", {"void_ids": ["6"]}, 5),
        ("custom", {"void_ids": ["0", "5"]}, None),
        ("custom", {}, 255 - 1), ("camvid", {}, 255), ("camvid", {"void_ids": ["255"]}, None),
        ("cityscapes", {}, 34), ("cityscapes", {"void_ids": ["34"]}, None),
    ],
)  # fmt: skip
def test_unknown_ids(tmp_path, classes, label_set, kwargs, bad):
    valid = 7 if label_set == "cityscapes" else 9
    present = bad or int(kwargs["void_ids"][-1])
    save(tmp_path / "custom/images/a.png", picture(1))
    save(tmp_path / "custom/masks/a.png", ids(1, [valid, present]))
    label_set = classes if label_set == "custom" else label_set
    if bad:
        match = f"masks/a.png: label ids that .* does not have: {bad}$"
        assert_refused(tmp_path / "custom", tmp_path, match, label_set, **kwargs)
    else:
        convert(tmp_path / "custom", tmp_path / "out", label_set, **kwargs)
        seg = read_back(tmp_path / "out", labels.load_label_set(str(label_set)))["a"]["seg"]
        assert ((seg == 255) == (ids(1, [valid, present]) == present)).all()


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"classes": None}, "custom/masks: these masks need label_set, which names their classes"),
        ({"classes": "nothing"}, "nothing: neither a built-in label set"),
        ({"numbering": "kitti"}, "^numbering=kitti: label set classes has farm, cityscapes"),
        ({"void_ids": ["3"]}, "^void_ids=3: is crop in label set classes"),
        ({"void_ids": ["256"]}, r"^void_ids=256: ids are in 0\.\.255"),
        ({"void_ids": ["1", "x"]}, "^void_ids=1,x: not a list of numbers"),
        ({"mask_values": ["0", "255"]}, "^mask_values=0,255: label set classes has 3 classes"),
        ({"mask_values": [0, 0, 1]}, "^mask_values=0,0,1: values are in 0..255, and all different"),
        ({"mask_values": [0, 1, 256]}, r"^mask_values=0,1,256: values are in 0\.\.255"),
        ({"mask_values": ["x"]}, "^mask_values=x: not a list of numbers"),
        (
            {"mask_values": [0, 1, 9], "void_ids": [9]},
            "^void_ids=9: is weed in mask_values=0,1,9",
        ),
        (
            {"mask_values": [0, 1, 9], "numbering": "cityscapes"},
            "^mask_values=0,1,9: each class of .* needs an id",
        ),
        ({"mask_values": [0, 1], "classes": None}, "^mask_values needs label_set"),
        ({"next": 0}, r"flow/000003_10.flo: has no second .*images .next=0. .and 4 more files"),
        ({"next": 3}, r"flow/000003_10.flo: has no second .*images .next=3"),
    ],
)
def test_invalid_flags(folder, tmp_path, classes, kwargs, match):
    assert_refused(folder, tmp_path, match, **{"classes": classes, **kwargs})


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("images/deep/er/002.ppm", None, "flow/deep/er/001.FLO: has no second frame"),
        (
            "images/000004_10.jpg",
            None,
            "masks/000004_10.png: its image is missing in .*custom/images",
        ),
        ("flow/nothing.flo", b"x", "flow/nothing.flo: its image is missing"),
        ("flow/video/f12.flo", flow_io.encode_flo(motion(1)), "f12.flo: has no second frame"),
        ("flow/video/f8.png", b"x", "f8.png: same name as f8.flo: keep one"),
        ("images/video/f8.jpg", b"x", "f8.png: same name as f8.jpg: keep one"),
        ("images/video/f08.png", picture(0), "f8.png: same frame number as f08.png"),
        ("images/video/notes.txt", b"x", "notes.txt: unexpected file type .*jpg"),
        ("masks/video/f9.jpg", picture(0), r"f9.jpg: .*\(expected .png\): .* JPEG changes"),
        ("masks/video/f9.png", ids(0, [2])[1:], "masks/video/f9.png: is 23x32"),
        ("masks/video/f9.png", picture(0), "masks/video/f9.png: the colour .* at .* pixels"),
        ("masks/video/f9.png", np.uint16(ids(0, [2])) * 999, "f9.png: the largest value is 1998"),
        ("images/video/f9.png", b"no", "images/video/f9.png: not a readable image"),
        ("flow/video/f9.png", picture(0), "flow/video/f9.png: .*16 bits and 3 channels"),
        ("flow/video/f8.flo", b"PIEH", "flow/video/f8.flo: not a .flo"),
    ],
)
def test_invalid_files(folder, tmp_path, classes, file, content, match):
    if content is None:
        (folder / file).unlink()
    else:
        save(folder / file, content)
    assert_refused(folder, tmp_path, match, classes)


def test_missing_or_invalid_folders(tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere/images: no such folder")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        convert(tmp_path, tmp_path / "refused")
    (tmp_path / "masks").unlink()
    assert_refused(
        tmp_path, tmp_path, "no ground truth here: neither masks.* nor flow", "cityscapes"
    )
