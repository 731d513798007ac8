"""Tests of the FlyingThings3D converter: the full form and the subset."""

import shutil

import cv2
import numpy as np
import pytest

from data_prep import flyingthings3d as reader
from flowseg.data.flow_io import decode_flow
from tests.conftest import run_command
from tests.support import flow_sets as sets
from tests.support.made_files import motion, picture, save
from tests.support.png_writer import stored_png


def assert_refused(source, tmp_path, match, **options):
    with pytest.raises(ValueError, match=match):
        reader.convert([source], tmp_path / "refused", **options)
    assert not list((tmp_path / "refused").glob("[!.]*"))


@pytest.fixture
def full(tmp_path):
    """As officially, the last frames have flow into the future, and the first into the past."""
    for k, scene in enumerate(("TRAIN/A/0000", "TRAIN/B/0003", "TEST/A/0000")):
        images, flow, backward = sets.noise_video(k)
        beyond = motion(7)
        root = tmp_path / "things"
        sets.write_things(root, scene, images, [*flow, beyond], backward)
        path = f"optical_flow/{scene}/into_past/left/OpticalFlowIntoPast_0006_L.pfm"
        save(root / path, sets.pfm(beyond))
    return tmp_path / "things"


@pytest.fixture
def subset(tmp_path):
    """Videos of frames 0 to 2 and 3 to 4 in train, and of frames 0 to 1 in val."""
    root = tmp_path / "in/FlyingThings3D_subset"
    for k, (split, first, count) in enumerate((("train", 0, 3), ("train", 3, 2), ("val", 0, 2))):
        images, flow, backward = sets.noise_video(k, count)
        sets.write_things_subset(root, split, images, flow, backward, first)
    return root


def assert_flow(fields, flow, backward):
    assert fields["flow_format"] == b"flo"
    for name, expected in (("flow", flow), ("backward_flow", backward)):
        assert (decode_flow(fields[name], "flo")[..., :2] == expected).all()


def test_full_form(full, tmp_path, capsys):
    index = reader.convert([full], tmp_path / "out")
    assert index["records"] == {"train": 6, "val": 3} and index["videos"] == {"train": 2, "val": 1}
    all_fields = sets.fields_of(tmp_path / "out")
    for k, scene in enumerate(("TRAIN/A/0000", "TRAIN/B/0003", "TEST/A/0000")):
        _, flow, backward = sets.noise_video(k)
        for n in range(2):
            fields = all_fields[f"{scene}/clean/left/{n + 6:04d}"]
            assert_flow(fields, flow[n], backward[n])
            assert fields["frame_index"] == n + 6 and fields["next_index"] == n + 7
            path = full / "frames_cleanpass" / scene / f"left/{n + 7:04d}.png"
            assert fields["image2"] == path.read_bytes()
        last = all_fields[f"{scene}/clean/left/0008"]
        assert not last["image2"] and not last["flow"] and not last["backward_flow"]
    line = capsys.readouterr().out.splitlines()[0]
    assert "6 flow files are not read, because the other frame" in line


def test_byte_order_and_unknown_values(full, tmp_path):
    flow = motion(1).copy()
    flow[3, 4] = np.nan, 1
    path = full / "optical_flow/TRAIN/A/0000/into_future/left/OpticalFlowIntoFuture_0006_L.pfm"
    save(path, sets.pfm(flow, ">"))
    reader.convert([full], tmp_path / "out")
    decoded = decode_flow(
        sets.fields_of(tmp_path / "out")["TRAIN/A/0000/clean/left/0006"]["flow"], "flo"
    )
    known = np.isfinite(flow).all(-1)
    assert (decoded[..., 2] == known).all() and (decoded[known][:, :2] == flow[known]).all()


def test_passes_and_sides(full, tmp_path):
    images, flow, backward = sets.noise_video(9)
    shutil.rmtree(full / "frames_cleanpass/TRAIN/B")
    shutil.rmtree(full / "optical_flow/TRAIN/B")
    shutil.rmtree(full / "frames_cleanpass/TEST")
    shutil.rmtree(full / "optical_flow/TEST")
    sets.write_things(full, "TRAIN/A/0000", images, flow, backward, name="final", side="right")
    sets.write_things(full, "TRAIN/A/0000", images, flow, backward, name="final")
    both = reader.find_frames([full], ["clean", "final"])
    assert {frame.video for frame in both["train"]} == {
        "TRAIN/A/0000/clean/left",
        "TRAIN/A/0000/final/left",
    }
    right = reader.find_frames([full], ["final"], ["right"])["train"]
    assert [path.name for path in right[0].files.values()] == [
        "0006.png",
        "0007.png",
        "OpticalFlowIntoFuture_0006_R.pfm",
        "OpticalFlowIntoPast_0007_R.pfm",
    ]
    with pytest.raises(ValueError, match="TRAIN/A/0000: sides=top: not in this folder, which has"):
        reader.find_frames([full], ["clean"], ["top"])
    shutil.rmtree(full / "frames_finalpass")
    with pytest.raises(ValueError, match="passes=final: not in this folder, which has clean"):
        reader.find_frames([full], ["final"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (sets.pfm(motion(0))[:-100], "0007_L.pfm: a PFM of 32x24 cannot have 9116 bytes"),
        (sets.pfm(motion(0)[1:]), "0007_L.pfm: is 23x32, but 0007.png is 24x32"),
        (sets.flo(motion(0)), "0007_L.pfm: is not a PFM file"),
        (b"Pf\n32 24\n-1\n" + bytes(32 * 24 * 4), "has one channel; flow is a PFM of three"),
    ],
)
def test_bad_pfm(full, tmp_path, content, match):
    path = full / "optical_flow/TRAIN/A/0000/into_future/left/OpticalFlowIntoFuture_0007_L.pfm"
    save(path, content)
    assert_refused(full, tmp_path, match)
    index = reader.convert([full], tmp_path / "out", on_error="skip")
    assert [item["frame_id"] for item in index["left_out"]] == ["TRAIN/A/0000/clean/left/0007"]


def test_missing_frame_inside_a_video(full, tmp_path):
    (full / "frames_cleanpass/TRAIN/A/0000/left/0007.png").unlink()
    assert_refused(full, tmp_path, "TRAIN/A/0000/left/0007.png: missing")
    index = reader.convert([full], tmp_path / "out", on_error="skip")
    assert index["records"] == {"train": 5, "val": 3}


def test_frame_of_another_size(full, tmp_path):
    save(full / "frames_cleanpass/TRAIN/A/0000/left/0007.png", picture(0)[1:])
    assert_refused(full, tmp_path, "0007.png: is .*23")


def test_subset_is_cut_into_videos_by_its_flow(subset, tmp_path):
    index = reader.convert([subset.parent], tmp_path / "out")
    assert index["records"] == {"train": 5, "val": 2} and index["videos"] == {"train": 2, "val": 1}
    all_fields = sets.fields_of(tmp_path / "out")
    for k, (video, numbers) in enumerate(
        (("train/clean/left/0000000", (0, 1)), ("train/clean/left/0000003", (3,)),
         ("val/clean/left/0000000", (0,)))
    ):  # fmt: skip
        _, flow, backward = sets.noise_video(k, len(numbers) + 1)
        for n, number in enumerate(numbers):
            assert_flow(all_fields[f"{video}/{number:07d}"], flow[n], backward[n])
        last = all_fields[f"{video}/{numbers[-1] + 1:07d}"]
        assert not last["image2"] and last["video"].decode() == video


def test_subset_without_one_flow_file(subset, tmp_path, capsys):
    (subset / "train/flow/left/into_future/0000001.flo").unlink()
    index = reader.convert([subset], tmp_path / "out")
    truth = {"image2": 3, "flow": 2, "backward_flow": 3}
    assert index["truth"]["train"] | truth == index["truth"]["train"]
    assert "1 of 4 pairs have no flow file\n" in capsys.readouterr().out
    # Without both there is no link left, so that a new video begins.
    (subset / "train/flow/left/into_past/0000002.flo").unlink()
    assert len({frame.video for frame in reader.find_frames([subset])["train"]}) == 3


def test_subset_with_a_missing_image(subset, tmp_path):
    (subset / "train/image_clean/left/0000002.png").unlink()
    assert_refused(subset, tmp_path, "image_clean/left/0000002.png: missing")
    index = reader.convert([subset], tmp_path / "out", on_error="skip")
    assert index["records"] == {"train": 4, "val": 2}


def test_occlusion_maps_of_the_subset(subset, tmp_path):
    occluded = np.random.default_rng(0).integers(0, 2, picture(0).shape[:2])
    for split, number in (("train", 0), ("train", 1), ("train", 3), ("val", 0)):
        path = subset / split / f"flow_occlusions/left/into_future/{number:07d}.png"
        save(path, stored_png(occluded, depth=1))
    reader.convert([subset], tmp_path / "out")
    data = sets.fields_of(tmp_path / "out")["train/clean/left/0000000/0000001"]["occlusion"]
    assert ((cv2.imdecode(np.frombuffer(data, np.uint8), -1) > 0) == occluded).all()


def test_both_forms_in_one_folder(full, subset, tmp_path):
    shutil.copytree(subset, full / "FlyingThings3D_subset")
    assert_refused(full, tmp_path, "both the full set and the subset here: source is")


def test_driving_and_monkaa_are_named(full, capsys):
    (full / "frames_cleanpass/15mm_focallength/left").mkdir(parents=True)
    assert reader.find_frames([full])
    assert "skipped, not of FlyingThings3D: 15mm_focallength" in capsys.readouterr().out


def test_other_folders_are_refused(full, tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")
    assert_refused(full / "frames_cleanpass", tmp_path, "no FlyingThings3D here: source is")
    shutil.rmtree(full / "optical_flow")
    assert_refused(full, tmp_path, "no flow of these frames here .folder optical_flow")


def test_command(full, tmp_path):
    args = ("--source", full, "--output", tmp_path / "out", "--passes=clean", "--sides=left")
    assert run_command("data_prep.flyingthings3d", *args).stderr == ""
