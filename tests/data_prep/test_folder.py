"""Tests of the converter of custom folders with masks, flow or both."""

import json
import os
import shutil

import numpy as np
import pytest

from data_prep import kitti, middlebury
from flowseg.data import decoding, labels, records
from flowseg.data.batches import Draw, training_batches
from tests.conftest import run_command
from tests.data_prep.test_middlebury import write_middlebury
from tests.support.made_files import ids, load, motion, picture, read_back, save, splits_of
from tests.support.own_folder import KNOWN, convert, write_classes, write_user_folder

RECORDS = {"000003_10", "000004_10", "deep/er/001", *(f"video/f{k}" for k in (8, 9, 10, 12))}
LABELLED = {"video/f8": 8, "video/f10": 10, "video/f12": 12, "000004_10": 32}


@pytest.fixture
def classes(tmp_path):
    return write_classes(tmp_path / "classes.json")


@pytest.fixture
def folder(tmp_path):
    return write_user_folder(tmp_path / "own")


def test_pixels_ground_truth_and_second_frames(folder, tmp_path, classes, capsys):
    index = convert(folder, tmp_path / "out", classes)
    frames = read_back(tmp_path / "out", labels.load_label_set(str(classes)))
    assert frames.keys() == RECORDS
    for k in (8, 9, 10, 12):
        frame = frames[f"video/f{k}"]
        assert (frame["image1"] == picture(k)).all()
        assert frame["has_image2"] == (k != 12)
        assert (frame["image2"] == picture(k + (k != 12))).all()
        valid = {8: KNOWN, 9: KNOWN, 10: KNOWN | True, 12: KNOWN & False}[k]
        assert (frame["flow"][..., 2] == valid).all()
        assert (frame["flow"][..., :2] == np.where(valid[..., None], motion(k), 0)).all()
    assert (frames["deep/er/001"]["image2"] == picture(22)).all()
    assert (frames["deep/er/001"]["flow"][..., :2] == motion(21)).all()
    # JPEG is decoded exactly as by OpenCV.
    for name, next_name, second in (
        ("000003_10", "000003_11", True),
        ("000004_10",) * 2 + (False,),
    ):
        assert (frames[name]["image1"] == load(folder / f"images/{name}.jpg")).all()
        assert (frames[name]["image2"] == load(folder / f"images/{next_name}.jpg")).all()
        assert frames[name]["has_image2"] == second
    train_ids = np.full(256, 255)
    train_ids[[2, 3, 4, 9]] = 0, 1, 1, 2
    for name, k in LABELLED.items():
        drawn = ids(k, [2, 3, 4, 9, 255] if "video" in name else [2, 9])
        assert (frames[name]["seg"] == train_ids[drawn]).all()
    for name in RECORDS - LABELLED.keys():
        assert (frames[name]["seg"] == 255).all()
    assert {frame["dataset"] for frame in frames.values()} == {b"own"}
    assert index["label_sets"] == ["farm"] and index["records"] == {"train": 7, "val": 0}
    truth = {"image2": 5, "flow": 5, "labels": 4}
    assert {field: index["truth"]["train"][field] for field in truth} == truth
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("own: 10 images, 4 masks, 5 flow files")
    assert not lines[1].startswith("skipped"), "f11, 002 and 000003_11 are second frames"


def test_unused_images_are_reported(folder, tmp_path, classes, capsys):
    for k in (14, 15):
        save(folder / f"images/video/f{k}.png", picture(k))
    assert convert(folder, tmp_path / "out", classes)["records"]["train"] == 7
    message = f"skipped: 2 images with neither mask nor flow, first: {folder}/images/video/f14.png"
    assert message in capsys.readouterr().out.splitlines()
    # With ground truth the first image becomes a record, and the other its second frame.
    save(folder / "masks/video/f14.png", ids(14, [2]))
    assert convert(folder, tmp_path / "more", classes)["records"]["train"] == 8
    assert "skipped" not in capsys.readouterr().out


def test_next(folder, tmp_path, classes):
    for path in (folder / "flow").rglob("*.*"):
        path.unlink()
    for step, seconds in ((0, {}), (2, {8: 10, 10: 12}), (4, {8: 12})):
        convert(folder, tmp_path / str(step), classes, next=step)
        frames = read_back(tmp_path / str(step), labels.load_label_set(str(classes)))
        assert {name for name, frame in frames.items() if frame["has_image2"]} == {
            f"video/f{k}" for k in seconds
        }
        for k, next_number in seconds.items():
            assert (frames[f"video/f{k}"]["image2"] == picture(next_number)).all()


def test_next_frame_is_in_the_same_video(tmp_path):
    """The next frame has the same name prefix and is in the same subfolder."""
    for name in ("a_1", "b_2", "sub/a_2", "c_1_left", "c_2_right", "d1_5", "d2_5", "nameless"):
        save(tmp_path / f"images/{name}.png", picture(0))
        save(tmp_path / f"masks/{name}.png", ids(0, [7]))
    index = convert(tmp_path, tmp_path / "out", "cityscapes")
    assert index["truth"]["train"]["image2"] == 0 and index["records"]["train"] == 8


def test_masks_only_and_flow_only(folder, tmp_path, classes):
    (folder / "flow").rename(tmp_path / "flow")
    index = convert(folder, tmp_path / "masks", classes)
    assert index["truth"]["train"]["labels"] == 4 and index["truth"]["train"]["flow"] == 0
    (folder / "masks").rename(folder / "unused")
    (tmp_path / "flow").rename(folder / "flow")
    index = convert(folder, tmp_path / "out")
    assert index["truth"]["train"]["labels"] == 0 and index["truth"]["train"]["flow"] == 5
    assert index["records"]["train"] == 5 and index["label_sets"] == []


def test_numberings(tmp_path, classes):
    """Records store the original ids with the name of their numbering."""
    for label_set, numbering, drawn, expected in (
        ("cityscapes", None, [7, 8, 0, 255], [0, 1, 255, 255]),
        ("camvid", None, [0, 3, 11], [0, 3, 255]),
        ("cityscapes", "camvid", [0, 3, 11], [10, 0, 255]),
        ("cityscapes", "cityscapes_train", [0, 18, 255], [0, 18, 255]),
        # Cityscapes' other ids are no error: they are void for these classes.
        (str(classes), "cityscapes", [7, 21, 8, 255], [0, 2, 255, 255]),
    ):
        place = tmp_path / f"{numbering}{drawn[0]}{len(drawn)}"
        save(place / "images/a.png", picture(1))
        save(place / "masks/a.png", ids(1, drawn))
        convert(place, place / "out", label_set, numbering=numbering)
        frame = read_back(place / "out", labels.load_label_set(label_set))["a"]
        table = np.full(256, -1)
        table[drawn] = expected
        assert (frame["seg"] == table[ids(1, drawn)]).all()


def test_hidden_files_and_links(folder, tmp_path, classes):
    """Names that begin with a dot are ignored; linked subfolders are followed."""
    (folder / "images/.DS_Store").write_bytes(b"x")
    (folder / "images/.cache").mkdir()
    (folder / "images/.cache/readme.txt").write_bytes(b"x")
    (folder / "images/video").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / "images/video")
    assert convert(folder, tmp_path / "out", classes)["records"]["train"] == 7


def test_video_stays_in_one_split(tmp_path, capsys):
    for video in range(12):
        for k in range(3):
            for name, pixels in (("images", picture(k)), ("masks", ids(k, [7]))):
                save(tmp_path / f"{name}/take/{video}/{k}.png", pixels)
                save(tmp_path / f"{name}/{video}_{k}.png", pixels)
    convert(tmp_path, tmp_path / "out", "cityscapes", val_fraction=0.4)
    parts = splits_of(tmp_path / "out")
    videos = [{name.rpartition("/")[0] for name in parts[split] if "/" in name} for split in parts]
    assert not videos[0] & videos[1] and all(videos)
    single = [{name.split("_")[0] for name in parts[split] if "_" in name} for split in parts]
    assert single[0] & single[1], "these are assigned one by one"
    assert capsys.readouterr().err == ""
    for path in (*tmp_path.glob("images/*.png"), *tmp_path.glob("masks/*.png")):
        path.unlink()
    convert(tmp_path, tmp_path / "none", "cityscapes", val_fraction=1e-9)
    assert "val (the frames of each of 12 subfolders stay together)" in capsys.readouterr().err


def test_subsequent_runs(folder, tmp_path, classes, capsys):
    convert(folder, tmp_path / "out", classes, records_per_shard=3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("[!.]*")}
    convert(folder, tmp_path / "out", classes, records_per_shard=3)
    assert capsys.readouterr().out.endswith("already finished, nothing to do\n")
    (tmp_path / "out/train-00001-of-00003.tfrecord").unlink()
    convert(folder, tmp_path / "out", classes, records_per_shard=3)
    assert "resuming, 2 of 3 shards" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("[!.]*")}
    for kwargs in ({"void_ids": [5]}, {"numbering": "cityscapes"}, {"next": 2}):
        other_source = write_user_folder(tmp_path / "other/own")
        shutil.rmtree(other_source / "flow")
        match = f"another conversion, with {next(iter(kwargs))}="
        with pytest.raises(ValueError, match=match):
            convert(other_source, tmp_path / "out", classes, records_per_shard=3, **kwargs)
    # Valid masks are checked again when the classes have changed.
    write_classes(classes, farm=[2, 3, 9])
    with pytest.raises(ValueError, match="masks/video/f.*.png: label ids that farm .* have: 4"):
        convert(folder, tmp_path / "out", classes, records_per_shard=3)


def test_mixed_with_middlebury(folder, tmp_path, classes):
    """Missing labels or flow are masked in every data set."""
    convert(folder, tmp_path / "custom_records", classes)
    middlebury.convert([write_middlebury(tmp_path / "in")], tmp_path / "other", val_fraction=0)
    files = [
        records.match_files(tmp_path / name / "train-*") for name in ("custom_records", "other")
    ]
    label_set = labels.load_label_set(str(classes))
    for part in files:
        decoding.check_records(part, label_set)
    size = {"height": 16, "width": 16}
    drawn = Draw(files, batch_size=8, steps_per_epoch=4)
    kinds = set()
    for _, targets in training_batches(drawn, label_set, **size, synthetic_flow=False).take(4):
        assert targets["seg"].shape == (8, 16, 16) and targets["flow"].shape == (8, 16, 16, 3)
        has_labels = (targets["seg"].numpy() != 255).any((1, 2)).tolist()
        has_flow = (targets["flow"].numpy()[..., 2] > 0).any((1, 2)).tolist()
        kinds |= set(zip(has_labels, has_flow, strict=True))
    assert kinds == {(True, True), (True, False), (False, True)}


def test_command(folder, tmp_path, classes):
    args = ("--source", folder, "--output", tmp_path / "out", "--val_fraction=0", "--void_ids=0,5")
    done = run_command("data_prep.folder", *args, "--label_set", classes, "--dataset=mine")
    assert done.stderr == "" and "10 images, 4 masks, 5 flow files" in done.stdout
    frames = read_back(tmp_path / "out", labels.load_label_set(str(classes)))
    assert {frame["dataset"] for frame in frames.values()} == {b"mine"}
    index = json.loads((tmp_path / "out/index.json").read_text())
    del index["settings"]["records_per_shard"]
    assert index["settings"] == {
        **{"val_fraction": 0, "seed": 0, "next": 1, "numbering": "farm"},
        **{"void_ids": [0, 5], "mask_values": []},
    }
    line = run_command("data_prep.folder", *args, "--next=-1", ok=False).stderr
    assert "--next=-1" in line


def test_real_kitti_as_custom_folder(samples, tmp_path):
    """The frames are the same as from the KITTI converter."""
    (tmp_path / "in").mkdir()
    for name, official in (
        ("images", "data_scene_flow/training/image_2"),
        ("flow", "data_scene_flow/training/flow_occ"),
        ("masks", "data_semantics/training/semantic"),
    ):
        os.symlink(samples / "kitti" / official, tmp_path / "in" / name)
    index = convert(tmp_path / "in", tmp_path / "own", "cityscapes")
    assert index["records"]["train"] == 2 and index["truth"]["train"]["image2"] == 2
    kitti.convert([samples / "kitti"], tmp_path / "kitti", val_fraction=0)
    custom, official = read_back(tmp_path / "own"), read_back(tmp_path / "kitti")
    assert custom.keys() == official.keys() == {"000002_10", "000003_10"}
    for name, frame in custom.items():
        for field in ("image1", "image2", "flow", "seg"):
            assert (frame[field] == official[name][field]).all()


def test_real_videos(samples, tmp_path):
    """DAVIS: JPEG frames in subfolders, masks of 0 and 1."""
    (tmp_path / "in").mkdir()
    os.symlink(samples / "davis/JPEGImages/480p", tmp_path / "in/images")
    masks = sorted((samples / "davis/Annotations/480p").glob("libby/*.png"))
    for path in masks:
        save(tmp_path / "in/masks/libby" / path.name, np.uint8(load(path) > 127))
    classes = tmp_path / "davis.json"
    content = {"names": ["back", "thing"], "palette": [[0, 0, 0], [255, 0, 0]]}
    classes.write_text(json.dumps({**content, "ids": {"davis": [0, 1]}}))
    index = convert(tmp_path / "in", tmp_path / "out", classes)
    assert index["records"]["train"] == len(masks) == index["truth"]["train"]["image2"] + 1
    frames = read_back(tmp_path / "out", labels.load_label_set(str(classes)))
    for path in masks[:-1]:
        frame = frames[f"libby/{path.stem}"]
        assert (frame["seg"] == (load(path) > 127)).all()
        next_path = samples / f"davis/JPEGImages/480p/libby/{int(path.stem) + 1:05d}.jpg"
        assert (frame["image2"] == load(next_path)).all()
