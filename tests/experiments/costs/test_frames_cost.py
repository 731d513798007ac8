import numpy as np
import pytest

from experiments.costs import frames_cost
from flowseg import runs
from flowseg.media.drawing import write_png
from tests.conftest import ROOT, run_command


def test_scoring_rows_add_up(trained_run, kitti_records):
    run = runs.load_run(trained_run)
    shards = [str(path) for path in sorted(kitti_records.glob("val-*"))]
    seconds, peaks = frames_cost.scoring_cost(run, shards, 3)
    assert set(seconds) == {"whole", *frames_cost.SCORING} and list(peaks) == [3]
    parts = [seconds[row] for row in seconds if row != "whole" and not row.startswith(" ")]
    assert 0 < sum(parts) <= seconds["whole"]
    inside = sum(seconds[row] for row in seconds if row.startswith("  of it"))
    assert 0 < inside <= seconds["counting scores"]
    # TensorFlow and the network take more than the lower bound; no test takes the upper bound.
    assert 200 < peaks[3] < 24_000


def test_drawing(trained_run, tmp_path):
    for n in range(3):
        write_png(tmp_path / f"{n}.png", np.full((64, 96, 3), 80 * n, np.uint8))
    seconds, peaks = frames_cost.drawing_cost(runs.load_run(trained_run), tmp_path, 7)
    assert set(seconds) == {"whole", *frames_cost.DRAWING} and list(peaks) == [7]
    assert "7 frames in" in frames_cost.table(seconds, peaks, 7)


def test_function_that_is_never_called():
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
        assert "give either --records" in done.stderr
