"""Every reader ignores what macOS, Windows and network storage leave in folders."""

from pathlib import Path

import numpy as np
import pytest

from data_prep import (
    camvid,
    cityscapes,
    clips,
    davis,
    flyingchairs,
    folder,
    kitti,
    kitti_step,
    middlebury,
)
from data_prep.conversion.label_maps import choose_ids
from data_prep.scenes.photos import find_photos
from flowseg import system_files
from flowseg.data.labels import load_label_set
from flowseg.media import frames
from tests.data_prep.test_camvid import write_camvid
from tests.data_prep.test_cityscapes_videos import write_frame, write_labels
from tests.data_prep.test_clips import masks, write_clip
from tests.data_prep.test_davis import write_list, write_sequence
from tests.data_prep.test_flyingchairs import write_pairs
from tests.data_prep.test_kitti_step import write_set
from tests.data_prep.test_middlebury import write_middlebury
from tests.support import city_frames
from tests.support.made_files import ids, picture, save
from tests.support.own_folder import write_classes, write_user_folder

# The content of an AppleDouble file, ._NAME, which holds the attributes of NAME.
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X"
FILES = (".DS_Store", "Thumbs.db", "desktop.ini", "ehthumbs.db", "Icon\r")
FOLDERS = ("__MACOSX", "@eaDir", ".AppleDouble", "$RECYCLE.BIN")


def litter(root):
    """Leave in every folder what systems leave: files, companions of files, and copies of both."""
    for parent in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        inside = [path for path in parent.iterdir() if path.is_file()]
        for path in inside:
            (parent / f"._{path.name}").write_bytes(APPLE_DOUBLE)
            (parent / f"{path.name}:Zone.Identifier").write_bytes(b"[ZoneTransfer]")
        for name in FOLDERS:
            (parent / name).mkdir()
            for path in inside:
                (parent / name / path.name).write_bytes(APPLE_DOUBLE)
        for name in FILES:
            (parent / name).write_bytes(b"x")


def list_kitti(place):
    city_frames.write_kitti(place / "data_semantics", city_frames.make_frames())
    return lambda: kitti.find_frames([place])


def list_kitti_test(place):
    for k in (10, 11):
        save(place / f"data_scene_flow/testing/image_2/000000_{k}.png", picture(k))
    return lambda: kitti.find_frames([place], testing=True)


def list_camvid(place):
    write_camvid(place)
    return lambda: camvid.find_frames([place])


def list_cityscapes(place):
    for split in ("train", "val"):
        city_frames.write_cityscapes(place, city_frames.make_frames(), split)
    return lambda: cityscapes.find_frames([place])


def list_cityscapes_videos(place):
    for k in (18, 19):
        write_frame(place, f"ulm_000000_{k:06d}")
    write_labels(place, "ulm_000000_000019")
    return lambda: cityscapes.find_frames([place], frames="sequence")


def without_encoders(splits):
    """Two partial functions of the same arguments are not equal."""
    return [frame._replace(encoders={}) for frames in splits.values() for frame in frames]


def list_clips(place):
    write_clip(place / "train/video_0", mask=masks(0))
    return lambda: without_encoders(clips.find_frames([place]))


def list_davis(place):
    write_list(write_sequence(place, "bear") / "ImageSets/2017/train.txt", "bear")
    return lambda: without_encoders(davis.find_frames([place]))


def list_kitti_step(place):
    write_set(place)
    return lambda: kitti_step.find_frames([place])


def list_flyingchairs(place):
    write_pairs(place / "data")
    return lambda: flyingchairs.find_frames(place)


def list_middlebury(place):
    write_middlebury(place)
    return lambda: middlebury.find_frames([place])


def list_own(place):
    write_user_folder(place)
    classes = load_label_set(write_classes(place.parent / "classes.json"))
    return lambda: folder.find_frames(place, mask_ids=choose_ids(classes))


def list_photos(place):
    save(place / "a.jpg", picture(0))
    return lambda: find_photos(place)


def list_video(place):
    for k in range(3):
        save(place / f"{k}.png", picture(k))
    return lambda: [frame.name for frame in frames.open_frames(place)[0]]


READERS = (
    list_kitti, list_kitti_test, list_camvid, list_cityscapes, list_flyingchairs,
    list_middlebury, list_own, list_photos, list_video, list_cityscapes_videos,
    list_clips, list_davis, list_kitti_step,
)  # fmt: skip


@pytest.mark.parametrize("prepare", READERS, ids=lambda reader: reader.__name__)
def test_readers_ignore_system_files(tmp_path, prepare):
    list_frames = prepare(tmp_path / "set")
    before = list_frames()
    litter(tmp_path / "set")
    assert before and list_frames() == before


def test_records_of_a_littered_folder(tmp_path):
    save(tmp_path / "in/images/a.png", picture(1))
    save(tmp_path / "in/masks/a.png", ids(1, [7]))
    litter(tmp_path / "in")
    index = folder.convert([tmp_path / "in"], tmp_path / "out", 0, label_set="cityscapes")
    assert index["records"]["train"] == 1 and index["class_pixels"] == {
        "cityscapes": {"7": picture(1)[..., 0].size}
    }


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, "._a.png", "a.png:Zone.Identifier", ".x"])
def test_system_names(name):
    assert system_files.is_system_file(name)
    assert system_files.is_system_file(name.upper())
    assert system_files.is_system_file(Path("a/b") / name)


@pytest.mark.parametrize("name", ["a.png", "thumbs.png", "a.db", "Icon.png", "@a.png", "_a.png"])
def test_other_names(name):
    assert not system_files.is_system_file(Path(".hidden/__MACOSX") / name)


def test_paths_are_sorted_and_judged_below_the_root(tmp_path):
    root = tmp_path / ".hidden"
    for name in ("b.png", "a.png", "@eaDir/c.png"):
        save(root / name, np.zeros((1, 1), np.uint8))
    assert [path.name for path in system_files.glob(root, "**/*.png")] == ["a.png", "b.png"]
