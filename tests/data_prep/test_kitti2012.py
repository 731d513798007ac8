"""Tests of the KITTI 2012 converter."""

import shutil

import cv2
import numpy as np
import pytest

from data_prep import kitti, kitti2012
from tests.conftest import run_command
from tests.support.flow_sets import fields_of, kitti_png
from tests.support.made_files import motion, picture, save

TRAINING = "data_stereo_flow/training"


def write_kitti2012(root, count=3, images="colored_0"):
    for k in range(count):
        for name in ("flow_occ", "flow_noc"):
            save(root / TRAINING / name / f"{k:06d}_10.png", kitti_png(motion(k)))
        for n in (10, 11):
            image = picture(100 * k + n)
            image = image if images == "colored_0" else image[..., 0]
            save(root / TRAINING / images / f"{k:06d}_{n}.png", image)
            save(root / "data_stereo_flow/testing" / images / f"{k:06d}_{n}.png", image)
    return root


@pytest.fixture
def folder(tmp_path):
    return write_kitti2012(tmp_path / "kitti")


def assert_refused(source, tmp_path, match, **options):
    with pytest.raises(ValueError, match=match):
        kitti2012.convert([source], tmp_path / "refused", **options)
    assert not list((tmp_path / "refused").glob("[!.]*"))


@pytest.mark.parametrize("part", ["", "data_stereo_flow"])
def test_records_contain_unchanged_files(folder, tmp_path, part):
    index = kitti2012.convert([folder / part], tmp_path / "out", val_fraction=0)
    assert index["records"] == {"train": 3, "val": 0} and index["dataset"] == "kitti2012"
    all_fields = fields_of(tmp_path / "out")
    for k in range(3):
        fields = all_fields[f"{k:06d}_10"]
        assert fields["flow_format"] == b"kitti" and not fields["video"]
        for field, file in {
            "image1": f"colored_0/{k:06d}_10.png",
            "image2": f"colored_0/{k:06d}_11.png",
            "flow": f"flow_occ/{k:06d}_10.png",
            "flow_noc": f"flow_noc/{k:06d}_10.png",
        }.items():
            assert fields[field] == (folder / TRAINING / file).read_bytes()


def test_grey_images_become_rgb(tmp_path):
    from flowseg.data import graph_images

    root = write_kitti2012(tmp_path / "in", 1, "image_0")
    kitti2012.convert([root], tmp_path / "out", val_fraction=0)
    decoded = graph_images.decode(fields_of(tmp_path / "out")["000000_10"]["image1"]).numpy()
    assert (decoded == picture(10)[..., :1]).all() and decoded.shape[2] == 3


def test_test_frames(folder, tmp_path):
    index = kitti2012.convert([folder], tmp_path / "out", testing=True)
    assert index["records"] == {"train": 0, "val": 0, "test": 3}
    assert index["truth"]["test"] | {"image2": 3, "flow": 0} == index["truth"]["test"]


def test_kitti_2015_in_the_same_folder(folder, tmp_path):
    shutil.copytree(folder / TRAINING / "colored_0", folder / TRAINING / "image_2")
    assert_refused(folder, tmp_path, "KITTI 2012 .colored_0. and KITTI 2015 .* into one folder")
    (folder / "data_stereo_flow").rename(folder / "data_scene_flow")
    with pytest.raises(ValueError, match="are unpacked into one folder, where the flow files"):
        kitti.find_frames([folder])


def test_other_folders_are_refused(folder, tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")
    assert_refused(folder / TRAINING, tmp_path, "training: no KITTI 2012 here")
    shutil.rmtree(folder / TRAINING / "flow_occ")
    assert_refused(folder, tmp_path, "no KITTI 2012 here .training/colored_0 or image_0, and")


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("colored_0/000001_11.png", None, "000001_11.png: missing"),
        ("flow_occ/000001_10.png", None, "flow_occ/000001_10.png: missing"),
        ("flow_noc/000001_10.png", kitti_png(motion(0)[1:]), "flow_noc/.*: is 23x32, but"),
        ("flow_occ/000001_10.png", kitti_png(motion(0)[1:]), "flow_occ/.*: is 23x32, but"),
        ("flow_occ/000001_10.png", picture(0), "a KITTI flow PNG has 16 bits"),
    ],
)
def test_bad_frames_are_refused_or_skipped(folder, tmp_path, file, content, match):
    path = folder / TRAINING / file
    path.unlink() if content is None else save(path, content)
    assert_refused(folder, tmp_path, match)
    index = kitti2012.convert([folder], tmp_path / "out", val_fraction=0, on_error="skip")
    assert index["records"]["train"] == 2
    assert [item["frame_id"] for item in index["left_out"]] == ["000001_10"]


def test_command(folder, tmp_path):
    args = ("--source", folder, "--output", tmp_path / "out", "--val_fraction=0")
    assert run_command("data_prep.kitti2012", *args).stderr == ""


def test_real_samples(samples, tmp_path):
    index = kitti2012.convert([samples / "kitti2012"], tmp_path, val_fraction=0, processes=1)
    truth = {"image2": 3, "flow": 3, "flow_noc": 3}
    assert index["truth"]["train"] | truth == index["truth"]["train"]
    all_fields = fields_of(tmp_path)
    assert sorted(all_fields) == ["000027_10", "000138_10", "000174_10"]
    for name, fields in all_fields.items():
        path = samples / "kitti2012/training/flow_occ" / f"{name}.png"
        assert fields["flow"] == path.read_bytes()
        rgb = np.int64(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1])
        assert rgb.shape[:2] == (fields["height"], fields["width"])
