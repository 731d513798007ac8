"""Tests of the HD1K converter."""

import shutil

import numpy as np
import pytest

from data_prep import hd1k
from flowseg.data.flow_io import decode_flow
from tests.conftest import run_command
from tests.support import flow_sets as sets
from tests.support.made_files import HEIGHT, WIDTH, motion, picture, save

FLOW, IMAGES = "hd1k_flow_gt/flow_occ", "hd1k_input/image_2"


@pytest.fixture
def folder(tmp_path):
    """Sequences of three frames; as officially, the last frames have flow files, too."""
    for k in range(3):
        images, flow, _ = sets.noise_video(k)
        last = np.ones_like(flow[0])
        sets.write_hd1k(tmp_path / "hd1k", k, images, sets.with_masks([*flow, last]))
    return tmp_path / "hd1k"


def convert(folder, tmp_path, **options):
    return hd1k.convert([folder], tmp_path / "out", val_fraction=0, **options)


def assert_refused(source, tmp_path, match):
    with pytest.raises(ValueError, match=match):
        hd1k.convert([source], tmp_path / "refused")
    assert not list((tmp_path / "refused").glob("[!.]*"))


def test_pairs_stay_in_their_sequence(folder, tmp_path, capsys):
    index = convert(folder, tmp_path)
    assert index["records"]["train"] == 9 and index["videos"] == {"train": 3}
    all_fields = sets.fields_of(tmp_path / "out")
    assert sorted(all_fields) == [f"{k:06d}/{n:04d}" for k in range(3) for n in range(3)]
    for k in range(3):
        _, flow, _ = sets.noise_video(k)
        for n in range(3):
            fields = all_fields[f"{k:06d}/{n:04d}"]
            assert fields["video"].decode() == f"{k:06d}" and fields["frame_index"] == n
            if n == 2:
                assert not fields["image2"] and not fields["flow"]
                continue
            second = folder / IMAGES / f"{k:06d}_{n + 1:04d}.png"
            assert fields["image2"] == second.read_bytes()
            assert (decode_flow(fields["flow"], "kitti")[..., :2] == flow[n]).all()
    line = capsys.readouterr().out.splitlines()[0]
    assert "3 flow files are not read, because the other frame" in line
    assert line.endswith(f"{FLOW}/000000_0002.png")


def test_frame_without_flow_is_counted(folder, tmp_path, capsys):
    (folder / FLOW / "000001_0000.png").unlink()
    index = convert(folder, tmp_path)
    assert index["truth"]["train"]["flow"] == 5 and index["truth"]["train"]["image2"] == 6
    assert "1 of 6 pairs have no flow file; 3 flow files" in capsys.readouterr().out


def test_missing_frame_inside_a_sequence(folder, tmp_path):
    (folder / IMAGES / "000001_0001.png").unlink()
    assert_refused(folder, tmp_path, "000001_0001.png: missing")
    index = convert(folder, tmp_path, on_error="skip")
    assert [item["frame_id"] for item in index["left_out"]] == ["000001/0001"]
    assert index["records"]["train"] == 8 and index["truth"]["train"]["flow"] == 4


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        (f"{IMAGES}/000001_0001.png", picture(0)[1:], "0001.png: is .*23"),
        (f"{FLOW}/000001_0000.png", sets.kitti_png(motion(0)[1:]), "is 23x32, but"),
        (f"{FLOW}/000001_0000.png", picture(0), "a KITTI flow PNG has 16 bits"),
        (
            f"{FLOW}/000001_0000.png",
            sets.kitti_png(motion(0), np.zeros((HEIGHT, WIDTH), bool)),
            "without a single valid pixel",
        ),
    ],
)
def test_bad_files(folder, tmp_path, file, content, match):
    save(folder / file, content)
    assert_refused(folder, tmp_path, match)
    assert convert(folder, tmp_path, on_error="skip")["left_out"]


def test_another_set_in_the_same_folder(folder, tmp_path):
    save(folder / IMAGES / "000000_10.png", picture(0))
    assert_refused(folder, tmp_path, r"000000_10.png: not a file of HD1K .* into the same folder")


def test_other_folders_are_refused(folder, tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")
    assert_refused(folder / IMAGES, tmp_path, "no HD1K here .hd1k_input/image_2/")
    shutil.rmtree(folder / FLOW)
    assert_refused(folder, tmp_path, "no HD1K here .hd1k_flow_gt/flow_occ/")


def test_command(folder, tmp_path):
    args = ("--source", folder, "--output", tmp_path / "out", "--val_fraction=0")
    assert run_command("data_prep.hd1k", *args).stderr == ""
