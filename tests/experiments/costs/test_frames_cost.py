import numpy as np
import pytest

from experiments.costs import frames_cost
from flowseg import runs
from flowseg.media.drawing import write_png
from tests.conftest import ROOT, run_command


def test_rows_add_up_and_frames_are_repeated(trained_run, kitti_records):
    run = runs.load_run(trained_run)
    shards = [str(path) for path in sorted(kitti_records.glob("val-*"))]
    told, peaks = frames_cost.scoring_cost(run, shards, 3)
    assert set(told) == {"whole", *frames_cost.SCORING} and list(peaks) == [3]
    parts = [told[row] for row in told if row != "whole" and not row.startswith(" ")]
    assert 0 < sum(parts) <= told["whole"]
    inside = sum(told[row] for row in told if row.startswith("  of it"))
    assert 0 < inside <= told["counting scores"]
    # A network and TensorFlow take so much at least, and no test takes so much at most.
    assert 200 < peaks[3] < 24_000


def test_drawing(trained_run, tmp_path):
    for n in range(3):
        write_png(tmp_path / f"{n}.png", np.full((64, 96, 3), 80 * n, np.uint8))
    told, peaks = frames_cost.drawing_cost(runs.load_run(trained_run), tmp_path, 7)
    assert set(told) == {"whole", *frames_cost.DRAWING} and list(peaks) == [7]
    assert "7 frames in" in frames_cost.table(told, peaks, 7)


def test_a_row_of_nothing_is_an_error():
    with pytest.raises(KeyError):
        frames_cost.profiled(lambda: None, {"row": ("runs.py", "predict_logits")})


def test_command(kitti_records, tmp_path):
    records = ("--records", kitti_records / "val-*", "--frames", 1)
    done = run_command(
        "experiments.costs.frames_cost",
        "--weights",
        "pretrained",
        *records,
        "--json",
        tmp_path / "cost.json",
    )
    assert "1 frames in" in done.stdout and (tmp_path / "cost.json").is_file()
    both = ("--input", ROOT / "experiments/pictures")
    for wrong in ((), (*records, *both)):
        done = run_command(
            "experiments.costs.frames_cost", "--weights", "pretrained", *wrong, ok=False
        )
        assert "give --records" in done.stderr
