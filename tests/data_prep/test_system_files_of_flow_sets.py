"""The readers of sets with flow ignore what systems leave in folders, as all others do."""

import pytest

from data_prep import flyingthings3d, hd1k, kitti2012, sintel, vkitti2
from tests.data_prep.test_kitti2012 import write_kitti2012
from tests.data_prep.test_system_files import litter
from tests.support import flow_sets as sets


def write_vkitti2(root):
    images, flow, backward = sets.noise_video(0)
    video, masked = ("Scene01", "clone", "Camera_0"), (sets.with_masks(f) for f in (flow, backward))
    sets.write_vkitti2(root, video, images, *masked)


def write_hd1k(root):
    images, flow, _ = sets.noise_video(0)
    sets.write_hd1k(root, 0, images, sets.with_masks(flow))


def write_sintel(root):
    images, flow, _ = sets.noise_video(0)
    sets.write_sintel(root, "alley_1", images, flow)


def write_things(root):
    sets.write_things(root, "TRAIN/A/0000", *sets.noise_video(0))


def write_subset(root):
    sets.write_things_subset(root, "train", *sets.noise_video(0))


@pytest.mark.parametrize(
    ("reader", "write"),
    [
        (vkitti2, write_vkitti2),
        (kitti2012, write_kitti2012),
        (hd1k, write_hd1k),
        (sintel, write_sintel),
        (flyingthings3d, write_things),
        (flyingthings3d, write_subset),
    ],
)
def test_system_files_are_ignored(tmp_path, capsys, reader, write):
    write(tmp_path / "set")
    before, printed = reader.find_frames([tmp_path / "set"]), capsys.readouterr().out
    litter(tmp_path / "set")
    assert before and reader.find_frames([tmp_path / "set"]) == before
    assert capsys.readouterr().out == printed
