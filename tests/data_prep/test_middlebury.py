"""Tests of the Middlebury converter: records with partly unknown flow."""

import shutil

import numpy as np
import pytest

from data_prep import middlebury
from flowseg.data import flow_io
from tests.conftest import run_command
from tests.support.made_files import load, motion, picture, read_back, save, warp_error

NAMES = ["Dimetrodon", "Grove2", "Venus"]
UNKNOWN = np.zeros((24, 32), bool)
UNKNOWN[3, 5] = UNKNOWN[20:, :4] = True


def write_middlebury(folder):
    """Write three sequences with ground truth (the last with only two frames) and one without."""
    for k, name in enumerate(NAMES):
        for i in (10, 11) if name == "Venus" else range(7, 15):
            save(folder / f"other-data/{name}/frame{i:02d}.png", picture(100 * k + i))
        save(folder / f"other-gt-flow/{name}/flow10.flo", flow_io.encode_flo(motion(k), ~UNKNOWN))
    for i in (10, 11):
        save(folder / f"other-data/Walking/frame{i}.png", picture(i))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_middlebury(tmp_path / "middlebury")


def assert_refused(source, tmp_path, match):
    with pytest.raises(ValueError, match=match):
        middlebury.convert([source], tmp_path / "refused")
    assert not (tmp_path / "refused" / "index.json").exists()


def test_pixels_and_flow(folder, tmp_path, capsys):
    index = middlebury.convert([folder], tmp_path / "out", val_fraction=1)
    frames = read_back(tmp_path / "out")
    assert sorted(frames) == NAMES
    for k, name in enumerate(NAMES):
        frame = frames[name]
        assert (frame["image1"] == picture(100 * k + 10)).all()
        assert (frame["image2"] == picture(100 * k + 11)).all() and frame["has_image2"]
        assert (frame["flow"][..., :2] == np.where(UNKNOWN[..., None], 0, motion(k))).all()
        assert (frame["flow"][..., 2] == ~UNKNOWN).all()
        assert (frame["seg"] == 255).all() and frame["dataset"] == b"middlebury"
    assert index["records"] == {"train": 0, "val": 3} and index["left_out"] == []
    captured = capsys.readouterr()
    assert captured.err == "", "a set without train records was requested"
    walking = "other-data/Walking: skipped, it has no other-gt-flow/Walking/flow10.flo"
    assert walking in captured.out and captured.out.count("skipped") == 1


def test_hash_split(folder, tmp_path, capsys):
    index = middlebury.convert([folder], tmp_path / "out", val_fraction=0)
    assert index["records"] == {"train": 3, "val": 0}
    assert index["settings"] == {"val_fraction": 0, "seed": 0, "records_per_shard": 32}
    # Three frames are too few for a fraction of 0.1: the empty split causes a warning.
    middlebury.convert([folder], tmp_path / "few")
    assert "no frame falls into val: choose another --seed" in capsys.readouterr().err


@pytest.mark.parametrize("frame", ["frame10.png", "frame11.png"])
def test_ground_truth_without_frames(folder, tmp_path, frame):
    (folder / "other-data/Grove2" / frame).unlink()
    assert_refused(folder, tmp_path, f"other-data/Grove2/{frame}: missing")
    index = middlebury.convert([folder], tmp_path / "out", on_error="skip")
    assert [item["frame_id"] for item in index["left_out"]] == ["Grove2"]
    shutil.rmtree(folder / "other-data")
    assert_refused(folder, tmp_path, "other-data/[A-Z][a-z0-9]*/frame10.png: missing")


def test_sequences_without_ground_truth_are_reported(folder, tmp_path, capsys):
    (folder / "other-data/Walking/frame11.png").unlink()
    shutil.rmtree(folder / "other-gt-flow/Grove2")
    index = middlebury.convert([folder], tmp_path / "out", val_fraction=0)
    assert index["records"]["train"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split("/")[-1] for line in lines[:2]] == ["Grove2", "Walking"]


def test_invalid_folders(folder, tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")
    assert_refused(folder / "other-data", tmp_path, "other-data: no Middlebury ground truth here")
    shutil.rmtree(folder / "other-gt-flow")
    assert_refused(
        folder, tmp_path, r"middlebury: no Middlebury ground truth here \(other-gt-flow/"
    )


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("other-gt-flow/Venus/flow10.flo", b"PIEH", "not a .flo file"),
        ("other-gt-flow/Venus/flow10.flo", flow_io.encode_kitti_flow(motion(0)), "not a .flo file"),
        ("other-gt-flow/Venus/flow10.flo", flow_io.encode_flo(motion(0)[1:]), "is 23x32, but"),
        ("other-gt-flow/Venus/flow10.flo", flow_io.encode_flo(motion(0), UNKNOWN < 0), "without a"),
        ("other-data/Venus/frame11.png", picture(0)[1:], "is 23x32, but frame10.png is 24x32"),
        ("other-data/Venus/frame10.png", b"\x89PNG\r\n\x1a\n", "truncated PNG"),
    ],
)
def test_bad_files(folder, tmp_path, file, content, match):
    save(folder / file, content)
    assert_refused(folder, tmp_path, f"{file}: .*{match}")


def test_same_sequence_in_two_sources(folder, tmp_path):
    other = write_middlebury(tmp_path / "other")
    with pytest.raises(ValueError, match="other/.*/frame10.png: duplicate frame id"):
        middlebury.convert([folder, other], tmp_path / "out")


def test_second_run(folder, tmp_path, capsys):
    index = middlebury.convert([folder], tmp_path / "out", val_fraction=1)
    assert middlebury.convert([folder], tmp_path / "out", val_fraction=1) == index
    assert capsys.readouterr().out.endswith("already finished, nothing to do\n")
    # A sequence with new ground truth makes it another conversion.
    save(folder / "other-gt-flow/Walking/flow10.flo", flow_io.encode_flo(motion(9)))
    with pytest.raises(ValueError, match="another conversion, of different frames"):
        middlebury.convert([folder], tmp_path / "out", val_fraction=1)


def test_command(folder, tmp_path):
    args = ("--source", folder, "--output", tmp_path / "out", "--val_fraction=1")
    done = run_command("data_prep.middlebury", *args)
    assert done.stderr == "" and "Walking: skipped" in done.stdout
    args = ("--source", folder / "other-data", "--output", tmp_path / "no")
    assert (
        "no Middlebury ground truth" in run_command("data_prep.middlebury", *args, ok=False).stderr
    )


def test_real_samples(samples, tmp_path):
    source = samples / "middlebury"
    index = middlebury.convert([source], tmp_path, val_fraction=1)
    assert index["records"] == {"train": 0, "val": 3} and index["left_out"] == []
    frames = read_back(tmp_path)
    assert sorted(frames) == ["Grove2", "RubberWhale", "Venus"]
    for name, frame in frames.items():
        for i in (1, 2):
            assert (
                frame[f"image{i}"] == load(source / f"other-data/{name}/frame1{i - 1}.png")
            ).all()
        truth = np.fromfile(source / f"other-gt-flow/{name}/flow10.flo", "<f4")[3:]
        truth = truth.reshape(*frame["seg"].shape, 2)
        known = np.abs(truth).max(-1) < 1e9
        assert (frame["flow"][..., 2] == known).all()
        assert (frame["flow"][known][:, :2] == truth[known]).all()
        assert not frame["flow"][~known].any() and np.abs(frame["flow"]).max() < 100
        true = warp_error(frame, frame["flow"][..., :2])
        for wrong in (frame["flow"][..., 1::-1], -frame["flow"][..., :2]):
            assert true < 0.7 * warp_error(frame, wrong)
    # The official flow is not known at every pixel there.
    assert 0.9 < frames["RubberWhale"]["flow"][..., 2].mean() < 1
