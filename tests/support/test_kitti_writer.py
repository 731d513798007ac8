"""The synthetic KITTI data has the properties that the other tests assume."""

import cv2
import numpy as np
import pytest

from flowseg.data import flow_io
from tests.support.kitti_writer import SKY, make_frame, write_kitti


@pytest.mark.parametrize("k", range(4))
def test_flow_warps_image2_to_image1(k):
    frame = make_frame(k)
    y, x = np.mgrid[:96, :160].astype(np.float32)
    u, v = frame["flow"][..., 0], frame["flow"][..., 1]
    first, second = frame["image1"].astype(np.float32), frame["image2"].astype(np.float32)

    def error(u, v, where):
        moved = cv2.remap(second, x + u, y + v, cv2.INTER_LINEAR)
        return np.abs(moved - first).mean(-1)[where].mean()

    occluded = frame["valid"] & ~frame["visible"]
    correct = error(u, v, frame["visible"])
    assert correct < 3
    assert correct < 0.5 * error(0 * u, 0 * v, frame["visible"])
    assert correct < 0.9 * error(v, u, frame["visible"])
    assert correct < 0.1 * error(u, v, occluded) and occluded.sum() > 200
    assert (frame["valid"] == (frame["labels"] != SKY)).all()


def test_frames_are_deterministic(tmp_path):
    few = write_kitti(tmp_path / "few", count=1, first_id=1, height=32, width=48)
    more = write_kitti(tmp_path / "more", count=2, height=32, width=48)
    for file in few.rglob("*.png"):
        assert file.read_bytes() == (more / file.relative_to(few)).read_bytes()
    assert (make_frame(1, 0, 32, 48)["image1"] != make_frame(1, 1, 32, 48)["image1"]).any()


def test_flow_files(tmp_path):
    training = write_kitti(tmp_path, count=1) / "data_scene_flow/training"
    frame = make_frame(0)
    for folder, known in (("flow_occ", frame["valid"]), ("flow_noc", frame["visible"])):
        stored = flow_io.read_flow(training / folder / "000000_10.png")
        assert (stored[..., 2] == known).all()
        assert (stored[known, :2] == frame["flow"][known]).all()
