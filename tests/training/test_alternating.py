"""Alternating training: one stream is trained, the other frozen; it resumes exactly."""

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

# Layers of the decoder; exchange layers belong to the receiving stream.
_SEG = re.compile(r"seg_(?!to_flow)|flow_to_seg")


@pytest.fixture(scope="module")
def single_task_records(tmp_path_factory):
    """Globs of two record sets, one with only labels and one with only flow."""
    folder = tmp_path_factory.mktemp("single")
    for name, other in (("labels", "data_scene_flow"), ("flow", "data_semantics")):
        write_kitti(folder / name, count=2, sizes=[(96, 160)])
        shutil.rmtree(folder / name / other)
        kitti.convert([folder / name], folder / f"{name}_records", val_fraction=0)
    return ",".join(str(folder / f"{name}_records/train-*") for name in ("labels", "flow"))


@pytest.fixture(scope="module")
def alternating(command, single_task_records, tmp_path_factory):  # noqa: F811
    """A command with two phases of two steps and the start of a third, and its run folder."""
    arguments = [
        *command,
        "--train_records",
        single_task_records,
        "--val_records=",
        "--nosynthetic_flow",
    ]
    arguments += ["--alternate", 1, "--steps", 5, "--steps_per_epoch", 2, "--save_every", 1]
    arguments += ["--keep_checkpoints", 9, "--freeze", "encoder", "--batch_size", 2]
    arguments += ["--warmup_steps", 0]
    folder = tmp_path_factory.mktemp("runs") / "alternating"
    done = run(arguments, folder)
    assert re.findall(r"step \d: \w+ is now frozen; training \w+", done.stdout) == [
        "step 2: seg is now frozen; training flow",
        "step 4: flow is now frozen; training seg",
    ]
    return arguments, folder


def test_sets_drawn_in_each_phase(alternating, single_task_records):
    rows = csv.DictReader((alternating[1] / "history.csv").open())
    # A batch without ground truth would have a loss of 0.
    assert [float(row["loss"]) > 0 for row in rows] == [True] * 5
    sets = list(map(records.match_files, single_task_records.split(",")))
    for learn, expected in (("seg", [2, 0]), ("flow", [0, 3]), ("both", [2, 3])):
        assert record_sets.draw_weights(sets, (2, 3), learn, synthetic_flow=False) == expected
    # The synthetic second frame of a still has ground-truth flow, too.
    assert record_sets.draw_weights(sets, (2, 3), "flow") == [2, 3]
    with pytest.raises(ValueError, match="no set with a weight above 0 has ground truth for seg"):
        record_sets.draw_weights(sets, (0, 1), "seg", synthetic_flow=False)


def changed_paths(before, after):
    """Return the paths of the weights in which two checkpoints of a run differ."""
    networks = [keras.saving.load_model(path / "training.keras") for path in (before, after)]
    weights = [{w.path: w.numpy() for w in network.weights} for network in networks]
    return {path for path, values in weights[0].items() if (values != weights[1][path]).any()}


def test_each_phase_trains_one_stream(alternating):
    checkpoints = sorted((alternating[1] / "checkpoints").glob("step-*"))
    assert len(checkpoints) == 5
    for first, seg in ((0, True), (1, False), (2, False), (3, True)):
        paths = changed_paths(*checkpoints[first : first + 2])
        assert len(paths) > 10
        assert all(bool(_SEG.match(path)) == seg for path in paths), paths


@pytest.mark.parametrize("step", [2, 3])
def test_exact_resume(alternating, tmp_path, step):
    arguments, full_run = alternating
    folder = tmp_path / "resumed"
    shutil.copytree(full_run, folder)
    for path in (folder / "checkpoints").iterdir():
        if path.name > f"step-{step:08d}":
            shutil.rmtree(path)
    assert f"resuming after step {step}" in run(arguments, folder).stdout
    assert kill_test.differences(full_run, folder) == []


def test_optimizer_of_second_phase(alternating):
    path = sorted((alternating[1] / "checkpoints").glob("step-*"))[1]
    optimizer = keras.saving.load_model(path / "training.keras").optimizer
    # After 2 of 5 steps, the rate is reduced to 3/5.
    assert float(optimizer.learning_rate) == pytest.approx(8e-4 * 3 / 5)
    assert int(optimizer.iterations) == 0
    moments = [v for v in optimizer.variables if v.path.endswith(("momentum", "velocity"))]
    assert len(moments) > 20 and not any(v.numpy().any() for v in moments)


def test_convergence():
    config = small(alternate=2, steps_per_epoch=10, steps=200)
    progress = Progress(Phase("seg"))
    switched = []
    alternate = callbacks.Alternate(config, progress, lambda: switched.append(progress.step))
    alternate.set_model(SimpleNamespace(stop_training=False))

    def epochs(name, scores):
        for score in scores:
            for step in (5, 10):  # At step 5 there is a checkpoint without validation.
                progress.step += 5
                alternate.on_epoch_end(0, {f"val_{name}": score} if step == 10 else {})

    epochs("seg/miou", [20, 30, 29, 31, 31])
    assert progress.phase == Phase("seg", since=0, best=31, waits=1)
    epochs("seg/miou", [30])
    assert switched == [60] and alternate.model.stop_training
    assert progress.phase == Phase("flow", 60)
    # Lower is better; the other stream's score and NaN do not count.
    epochs("flow/aepe", [3, 2, 4, np.nan])
    assert switched == [60, 100] and progress.phase.learn == "seg"
    epochs("flow/aepe", [1, 0.5])
    assert switched == [60, 100, 120]
    # No switch at the last step.
    epochs("flow/aepe", [9] * 8)
    assert switched == [60, 100, 120, 150, 170]


@pytest.mark.parametrize(
    "more, message",
    [
        (("--learn", "seg"), "--alternate trains both streams"),
        (("--val_records", "x"), "--alternate: each phase has a different loss"),
    ],
)
def test_incompatible_flags(tmp_path, more, message):
    arguments = ("--train_records", "x", "--run_dir", tmp_path, "--alternate", 1)
    assert message in run_command("flowseg.train", *arguments, *more, ok=False).stderr
