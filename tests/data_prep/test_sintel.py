"""Tests of the MPI Sintel converter."""

import shutil

import cv2
import numpy as np
import pytest

from data_prep import sintel
from flowseg.data.flow_io import decode_flow
from tests.conftest import run_command
from tests.support import flow_sets as sets
from tests.support.made_files import HEIGHT, WIDTH, load, motion, picture, save

TRAINING = "training"


@pytest.fixture
def folder(tmp_path):
    for k, scene in enumerate(("alley_1", "market_5")):
        images, flow, _ = sets.noise_video(k)
        sets.write_sintel(tmp_path / "sintel", scene, images, flow)
    return tmp_path / "sintel"


def convert(folder, tmp_path, **options):
    return sintel.convert([folder], tmp_path / "out", val_fraction=0, **options)


def assert_refused(source, tmp_path, match, **options):
    with pytest.raises(ValueError, match=match):
        sintel.convert([source], tmp_path / "refused", **options)
    assert not list((tmp_path / "refused").glob("[!.]*"))


def test_flow_invalid_and_occluded_pixels(folder, tmp_path):
    index = convert(folder, tmp_path)
    assert index["records"]["train"] == 12 and index["videos"] == {"train": 4}
    truth = {"image2": 8, "flow": 8, "occlusion": 8, "flow_noc": 0}
    assert index["truth"]["train"] | truth == index["truth"]["train"]
    all_fields = sets.fields_of(tmp_path / "out")
    invalid = np.zeros((HEIGHT, WIDTH), bool)
    invalid[:3, :4] = True
    for k, scene in enumerate(("alley_1", "market_5")):
        _, flow, _ = sets.noise_video(k)
        for name in ("clean", "final"):
            for n in (1, 2):
                fields = all_fields[f"{name}/{scene}/{n:04d}"]
                assert fields["frame_index"] == n and fields["next_index"] == n + 1
                image = folder / TRAINING / name / scene / f"frame_{n:04d}.png"
                assert fields["image1"] == image.read_bytes()
                vectors = decode_flow(fields["flow"], fields["flow_format"].decode())
                assert (vectors[..., 2] == ~invalid).all()
                assert (vectors[~invalid][:, :2] == flow[n - 1][~invalid]).all()
                occluded = cv2.imdecode(np.frombuffer(fields["occlusion"], np.uint8), -1)
                assert (occluded[:, -1] == 255).all() and not occluded[:, :-1].any()
            last = all_fields[f"{name}/{scene}/0003"]
            assert not last["image2"] and not last["flow"] and not last["occlusion"]


def test_passes_by_flag(folder, tmp_path):
    assert {f.video for f in sintel.find_frames([folder], ["final"])} == {
        "final/alley_1",
        "final/market_5",
    }
    shutil.rmtree(folder / TRAINING / "final")
    assert_refused(folder, tmp_path, "training: passes=final: not in this folder, which has clean")
    with pytest.raises(ValueError, match="passes=albedo: not in this folder"):
        sintel.find_frames([folder], ["albedo"])


def test_both_passes_of_a_scene_are_in_one_split(folder, tmp_path):
    for k in range(2, 6):
        images, flow, _ = sets.noise_video(k, count=2)
        sets.write_sintel(folder, f"cave_{k}", images, flow)
    sintel.convert([folder], tmp_path / "out", val_fraction=0.5)
    scenes = [
        {name.split("/")[1] for name in sets.fields_of(tmp_path / "out", f"{split}-*")}
        for split in ("train", "val")
    ]
    assert all(scenes) and not scenes[0] & scenes[1]


def test_maps_are_optional(folder, tmp_path):
    for name in ("invalid", "occlusions"):
        shutil.rmtree(folder / TRAINING / name)
    index = convert(folder, tmp_path)
    assert index["truth"]["train"] | {"flow": 8, "occlusion": 0} == index["truth"]["train"]
    fields = sets.fields_of(tmp_path / "out")["clean/alley_1/0001"]
    assert fields["flow"] == (folder / TRAINING / "flow/alley_1/frame_0001.flo").read_bytes()


def test_test_frames(folder, tmp_path):
    shutil.copytree(folder / TRAINING / "clean", folder / "test/clean")
    index = sintel.convert([folder], tmp_path / "out", testing=True, passes=["clean"])
    assert index["records"] == {"train": 0, "val": 0, "test": 6}
    assert index["truth"]["test"] | {"image2": 4, "flow": 0} == index["truth"]["test"]


def test_frame_without_flow_is_counted(folder, tmp_path, capsys):
    (folder / TRAINING / "flow/alley_1/frame_0001.flo").unlink()
    index = convert(folder, tmp_path)
    assert index["truth"]["train"] | {"image2": 8, "flow": 6} == index["truth"]["train"]
    assert capsys.readouterr().out.startswith(f"{folder}: 2 of 8 pairs have no flow file\n")


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("clean/alley_1/frame_0002.png", None, "clean/alley_1/frame_0002.png: missing"),
        ("clean/alley_1/frame_0002.png", picture(0)[:, 1:], "is 24x31, but most frames|is 24x31"),
        ("flow/alley_1/frame_0001.flo", sets.flo(motion(0)[1:]), "0001.png: is 24x32, but .*23x32"),
        ("flow/alley_1/frame_0001.flo", sets.flo(motion(0))[:-9], r"\.flo file of 32x24 cannot"),
        ("invalid/alley_1/frame_0001.png", None, "invalid/alley_1/frame_0001.png: missing"),
        ("occlusions/alley_1/frame_0001.png", None, "occlusions/alley_1/frame_0001.png: missing"),
    ],
)
def test_bad_files(folder, tmp_path, file, content, match):
    path = folder / TRAINING / file
    path.unlink() if content is None else save(path, content)
    assert_refused(folder, tmp_path, match)
    index = convert(folder, tmp_path, on_error="skip")
    assert index["left_out"] and index["records"]["train"] >= 8


def test_stereo_set_in_the_same_folder(folder, tmp_path):
    (folder / TRAINING / "disparities").mkdir()
    assert_refused(folder, tmp_path, "Sintel's stereo set .disparities. is unpacked into the same")


def test_other_folders_are_refused(folder, tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")
    assert_refused(folder / TRAINING, tmp_path, "training: no MPI Sintel here")
    assert_refused(folder, tmp_path, "no MPI Sintel here .test/clean", testing=True)


def test_command(folder, tmp_path):
    args = ("--source", folder, "--output", tmp_path / "out", "--val_fraction=0")
    assert run_command("data_prep.sintel", *args, "--passes=clean").stderr == ""
    args = ("--source", folder, "--output", tmp_path / "no", "--passes=depth")
    line = run_command("data_prep.sintel", *args, ok=False).stderr
    assert "training: --passes=depth: not in this folder, which has clean, final" in line


def test_real_samples(samples, tmp_path):
    index = convert(samples / "sintel", tmp_path, processes=1)
    truth = {"image2": 12, "flow": 4, "occlusion": 4}
    assert index["truth"]["train"] | truth == index["truth"]["train"]
    all_fields = sets.fields_of(tmp_path / "out")
    for scene in ("alley_1", "market_5"):
        folder = samples / "sintel/training"
        official = np.fromfile(folder / f"flow/{scene}/frame_0002.flo", "<f4")[3:]
        official = official.reshape(436, 1024, 2)
        invalid = load(folder / f"invalid/{scene}/frame_0002.png") > 0
        flow = decode_flow(all_fields[f"final/{scene}/0002"]["flow"], "flo")
        assert (flow[..., 2] == ~invalid).all()
        assert (flow[~invalid][:, :2] == official[~invalid]).all()
