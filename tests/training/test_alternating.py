"""Alternating training: one stream learns at a time, the other stays, and it resumes exactly."""

import csv
import re
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from data_prep import kitti
from experiments.costs import kill_test
from flowseg.data import record_sets, records
from flowseg.training import callbacks
from flowseg.training.progress import Phase, Progress
from tests.conftest import run_command
from tests.support.kitti_writer import write_kitti
from tests.support.trainings import small
from tests.training.test_resume import (
    command,  # noqa: F401
    run,  # noqa: F401
)

# Layers of the decoder: what hands features over is of the stream that gets them.
_SEG = re.compile(r"seg_(?!to_flow)|flow_to_seg")


@pytest.fixture(scope="module")
def single_truths(tmp_path_factory):
    """Globs of two record sets, one with labels alone and one with flow alone."""
    folder = tmp_path_factory.mktemp("single")
    for name, other in (("labels", "data_scene_flow"), ("flow", "data_semantics")):
        write_kitti(folder / name, count=2, sizes=[(96, 160)])
        shutil.rmtree(folder / name / other)
        kitti.convert([folder / name], folder / f"{name}_records", val_fraction=0)
    return ",".join(str(folder / f"{name}_records/train-*") for name in ("labels", "flow"))


@pytest.fixture(scope="module")
def alternating(command, single_truths, tmp_path_factory):  # noqa: F811
    """A command of two phases of two steps and the beginning of a third, and its whole run."""
    asked = [*command, "--train_records", single_truths, "--val_records=", "--nomade_flow"]
    asked += ["--alternate", 1, "--steps", 5, "--steps_per_epoch", 2, "--save_every", 1]
    asked += ["--keep_checkpoints", 9, "--freeze", "encoder", "--batch_size", 2]
    asked += ["--warmup_steps", 0]
    folder = tmp_path_factory.mktemp("runs") / "alternating"
    done = run(asked, folder)
    assert re.findall(r"step \d: \w+ stays as it is now; \w+ learns", done.stdout) == [
        "step 2: seg stays as it is now; flow learns",
        "step 4: flow stays as it is now; seg learns",
    ]
    return asked, folder


def test_in_each_phase_only_sets_with_truth_for_it_are_drawn_from(alternating, single_truths):
    rows = csv.DictReader((alternating[1] / "history.csv").open())
    # Of a batch without truth the loss is 0.
    assert [float(row["loss"]) > 0 for row in rows] == [True] * 5
    sets = list(map(records.match_files, single_truths.split(",")))
    for learn, expected in (("seg", [2, 0]), ("flow", [0, 3]), ("both", [2, 3])):
        assert record_sets.draw_weights(sets, (2, 3), learn, made_flow=False) == expected
    # A still's made second frame teaches flow, too.
    assert record_sets.draw_weights(sets, (2, 3), "flow") == [2, 3]
    with pytest.raises(ValueError, match="no set that is drawn from has truth for seg"):
        record_sets.draw_weights(sets, (0, 1), "seg", made_flow=False)


def moved(before, after):
    """Paths of the weights in which two checkpoints of a run differ."""
    networks = [keras.saving.load_model(path / "training.keras") for path in (before, after)]
    weights = [{w.path: w.numpy() for w in network.weights} for network in networks]
    return {path for path, values in weights[0].items() if (values != weights[1][path]).any()}


def test_each_phase_moves_its_own_stream_alone(alternating):
    checkpoints = sorted((alternating[1] / "checkpoints").glob("step-*"))
    assert len(checkpoints) == 5
    for first, seg in ((0, True), (1, False), (2, False), (3, True)):
        paths = moved(*checkpoints[first : first + 2])
        assert len(paths) > 10
        assert all(bool(_SEG.match(path)) == seg for path in paths), paths


@pytest.mark.parametrize("step", [2, 3])
def test_it_resumes_exactly_within_a_phase_and_at_a_switch(alternating, tmp_path, step):
    asked, whole = alternating
    folder = tmp_path / "resumed"
    shutil.copytree(whole, folder)
    for path in (folder / "checkpoints").iterdir():
        if path.name > f"step-{step:08d}":
            shutil.rmtree(path)
    assert f"resuming after step {step}" in run(asked, folder).stdout
    assert kill_test.differences(whole, folder) == []


def test_a_phase_begins_with_a_new_optimizer_and_a_lower_rate(alternating):
    path = sorted((alternating[1] / "checkpoints").glob("step-*"))[1]
    optimizer = keras.saving.load_model(path / "training.keras").optimizer
    # After 2 of 5 steps.
    assert float(optimizer.learning_rate) == pytest.approx(8e-4 * 3 / 5)
    assert int(optimizer.iterations) == 0
    moments = [v for v in optimizer.variables if v.path.endswith(("momentum", "velocity"))]
    assert len(moments) > 20 and not any(v.numpy().any() for v in moments)


def test_a_stream_has_converged_when_its_own_score_gets_no_better():
    config = small(alternate=2, steps_per_epoch=10, steps=200)
    progress = Progress(Phase("seg"))
    switched = []
    alternate = callbacks.Alternate(config, progress, lambda: switched.append(progress.step))
    alternate.set_model(SimpleNamespace(stop_training=False))

    def epochs(name, scores):
        for score in scores:
            for step in (5, 10):  # A checkpoint is no validation.
                progress.step += 5
                alternate.on_epoch_end(0, {f"val_{name}": score} if step == 10 else {})

    epochs("seg/miou", [20, 30, 29, 31, 31])
    assert progress.phase == Phase("seg", since=0, best=31, waits=1)
    epochs("seg/miou", [30])
    assert switched == [60] and alternate.model.stop_training
    assert progress.phase == Phase("flow", 60)
    # Lower is better; the other stream's score, and what is no number, do not count.
    epochs("flow/aepe", [3, 2, 4, np.nan])
    assert switched == [60, 100] and progress.phase.learn == "seg"
    epochs("flow/aepe", [1, 0.5])
    assert switched == [60, 100, 120]
    # Not at the very end.
    epochs("flow/aepe", [9] * 8)
    assert switched == [60, 100, 120, 150, 170]


@pytest.mark.parametrize(
    "more, told",
    [
        (("--learn", "seg"), "--alternate is for both streams"),
        (("--val_records", "x"), "--alternate: the loss is another one in each phase"),
    ],
)
def test_what_makes_no_sense_with_it(tmp_path, more, told):
    asked = ("--train_records", "x", "--run_dir", tmp_path, "--alternate", 1)
    assert told in run_command("flowseg.train", *asked, *more, ok=False).stderr
