"""Speed of the input pipeline: record sets side by side, clips, parts of an example."""

import numpy as np
import pytest

from experiments.costs import input_speed
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.training.config import TrainingConfig
from tests.conftest import run_command
from tests.data import test_clips
from tests.data.test_videos import write_frames


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drives")
    test_clips.convert(test_clips.drive(folder, "a", 4), folder / "records")
    return folder / "records"


def test_pipelines_deliver_pairs_and_clips(drives, kitti_records):
    config = TrainingConfig(height=32, width=48, batch_size=2)
    globs = [f"{kitti_records}/train-*", f"{drives}/train-*"]
    batches_of = input_speed.pipelines(config, CITYSCAPES, globs[1:], 3)
    assert [name.rpartition("/")[2] for name in batches_of] == [
        "records: pairs",
        "records: clips of 3",
    ]
    (pairs, per_pair), (clips, per_clip) = batches_of.values()
    assert (per_pair, per_clip) == (2, 3)
    assert next(iter(pairs))[0]["image1"].shape == (2, 32, 48, 3)
    assert next(iter(clips))[0]["images"].shape == (2, 3, 32, 48, 3)
    assert len(input_speed.pipelines(config, CITYSCAPES, globs, None)) == 2


def test_seconds_do_not_include_the_first_batches(monkeypatch):
    clock = [0.0]

    def batches():
        # The first two take 50 seconds each, the others 2.
        for seconds in (50, 50, *[2] * 9):
            clock[0] += seconds
            yield seconds

    monkeypatch.setattr(input_speed.time, "perf_counter", lambda: clock[0])
    assert input_speed.seconds_per_batch(batches(), 3) == 2


def test_set_without_flow_has_no_parts(tmp_path):
    shards = test_clips.convert(write_frames(tmp_path, "v", range(3)), tmp_path / "out")
    with pytest.raises(ValueError, match="no record of this set has a second frame and flow"):
        input_speed.part_times(TrainingConfig(height=32, width=32), CITYSCAPES, shards)


def test_command(drives):
    printed = run_command(
        "experiments.costs.input_speed",
        *("--records", f"{drives}/train-*", "--clip_frames", 3, "--turns", 1, "--turn", 2),
        *("--height", 32, "--width", 48, "--batch_size", 2),
    ).stdout
    rows = {line.rsplit("  ", 3)[0].strip(): line.split() for line in printed.splitlines()}
    pairs, clips = (
        next(row for name, row in rows.items() if kind in name) for kind in ("pairs", "clips of 3")
    )
    assert float(pairs[-1]) == 1 and float(clips[-1]) > 0
    # A pair has two frames, a clip three.
    for row, frames in ((pairs, 2), (clips, 3)):
        assert np.isclose(float(row[-2]), frames * float(row[-3]), rtol=0.1)
    assert "all of augmentation" in printed and "batch 2, crops of 32x48" in printed
    assert records.count([str(path) for path in drives.glob("*.tfrecord")]) == 4
