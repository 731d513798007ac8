import numpy as np
import pytest

from experiments.costs import video_speed


def test_table_has_a_row_for_each_operation():
    lines = video_speed.table({(64, 33): 5}).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[2] for row in cells[2:]] == list(video_speed.ROWS)
    for row in cells[2:]:
        assert row[:2] == ["64x33", "5"] and float(row[6]) > 20, "memory of Python and NumPy"


def test_frames_move():
    frames = list(video_speed.moving_frames(64, 33, 3))
    assert frames[0].shape == (33, 64, 3)
    assert np.abs(np.diff(np.float32(frames), axis=0)).mean() > 1


def test_lost_frames_raise(tmp_path):
    with pytest.raises(ValueError, match="5 of 6 frames processed"):
        video_speed.measure(video_speed.write_with_opencv, str(tmp_path / "a.mp4"), 64, 32, 5)
        video_speed.measure(video_speed.read_with_opencv, str(tmp_path / "a.mp4"), 64, 32, 6)
