"""A training that is stopped, killed or damaged goes on as if nothing had happened, or says why."""

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from experiments.costs import kill_test
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.training import checkpoints, resume
from flowseg.training.progress import Phase, Progress
from tests.conftest import ROOT, run_command
from tests.support import forked
from tests.support.trainings import compiled, parsed, small


@pytest.fixture(scope="module")
def command(kitti_records):
    """A training of six steps, saved after every second; without a graph, which takes a minute."""
    flags = {**kill_test._FLAGS, "--steps": 6, "--steps_per_epoch": 4, "--batch_size": 1}
    return [
        sys.executable,
        "-m",
        "tests.support.eager_train",
        "--deterministic",
        "--train_records",
        kitti_records / "train-*",
        "--val_records",
        kitti_records / "val-*",
        *(f"{name}={value}" for name, value in flags.items()),
    ]


def run(command, folder, *more, ok=True):
    """The CompletedProcess of a training into a folder."""
    _, _, *asked = map(str, [*command, "--run_dir", folder, *more])
    done = forked.run(asked[0], asked[1:], ROOT, timeout=600)
    assert (done.returncode == 0) == ok, done.stderr
    return done


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The run folder of the undisturbed training."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(command, folder)
    return folder


def test_killed_in_mid_training_and_while_saving(command, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder, rng = tmp_path / "killed", random.Random(0)
    asked = [*command, "--run_dir", folder]
    for while_saving in (False, True):
        assert kill_test.kill_once(asked, folder / "checkpoints", rng, while_saving)
    done = run(command, folder)
    assert "resuming after step" in done.stdout
    assert kill_test.differences(whole, folder) == []
    assert [p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_ctrl_c_keeps_the_step_at_work(command, whole, tmp_path):
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        [*map(str, command), "--run_dir", str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any((folder / "checkpoints").glob("step-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    state, _ = checkpoints.newest(folder / "checkpoints")
    # In the middle of what lies between two checkpoints, or at its end.
    assert 2 < state["step"] < 6 and f"step {state['step']} is kept; the same command" in told
    run(command, folder)
    assert kill_test.differences(whole, folder) == []


def test_a_damaged_checkpoint_falls_back_to_the_one_before(command, whole, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(whole, folder)
    newest = folder / "checkpoints/step-00000006"
    content = bytearray((newest / "training.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "training.keras").write_bytes(content)
    done = run(command, folder)
    assert "step-00000006: damaged (training.keras is not what was written)" in done.stderr
    assert "resuming after step 4" in done.stdout
    assert kill_test.differences(whole, folder) == []
    for path in (folder / "checkpoints").iterdir():
        (path / "state.json").write_text("{")
    assert "all checkpoints are damaged" in run(command, folder, ok=False).stderr


def test_finished_other_flags_and_two_at_once(command, whole, tmp_path):
    assert "finished already, 6 steps" in run(command, whole).stdout
    told = run(command, whole, "--learning_rate", 1, ok=False).stderr
    assert "trained with other flags (--learning_rate=" in told
    with checkpoints.lock(whole):
        told = run(command, whole, ok=False).stderr
        assert f"{whole}: another training is at work in this run folder" in told
    assert "finished already" in run(command, whole, "--patience", 3, "--save_every", 1).stdout


def test_resume_takes_up_weights_and_optimizer(whole):
    config = parsed("--flagfile", whole / "flags.txt", "--steps", 9)
    progress, folder = resume.read_progress(whole, config, CITYSCAPES)
    assert progress.step == 6 and progress.best > 0 and progress.patience["flow/aepe"][0] > 0
    assert progress.best_scores == json.loads((whole / "metrics.json").read_text())
    training = compiled(config, CITYSCAPES)
    running = checkpoints.load(training, folder)
    saved = keras.saving.load_model(folder / "training.keras")
    assert int(training.optimizer.iterations) == 6 and len(running) > 5
    for ours, theirs in zip(training.variables, saved.variables, strict=False):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for ours, theirs in zip(training.optimizer.variables, saved.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    # The best so far by another score counts no more.
    config = parsed("--flagfile", whole / "flags.txt", "--best_metric", "seg/miou")
    assert resume.read_progress(whole, config, CITYSCAPES)[0].best is None
    others = CITYSCAPES._replace(names=CITYSCAPES.names[::-1])
    with pytest.raises(ValueError, match="trained on other classes"):
        resume.read_progress(whole, config, others)


def test_history_and_board_go_on_at_their_steps(whole):
    rows = (whole / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "4", "6"]
    names = rows[0].split(",")
    validated = [row.split(",")[names.index("val_loss")] != "" for row in rows[1:]]
    # After --steps_per_epoch 4, and at the end.
    assert validated == [False, True, True]


@pytest.mark.parametrize(
    "step, every, expected",
    [
        (0, 4, [(4, 0, 2, [2]), (2, 2, 3, [3])]),
        (4, 4, [(4, 1, 2, [2]), (2, 2, 3, [3])]),
        (6, 4, [(2, 1, 2, [2]), (2, 2, 3, [3])]),
        (9, 4, [(1, 2, 3, [3])]),
        (0, 16, [(10, 0, 1, [1])]),
    ],
)
def test_stretches(step, every, expected):
    per_epoch = every * (2 if every == 4 else 1)
    config = small(steps=10, steps_per_epoch=per_epoch, save_every=every)
    stretches = checkpoints.stretches(step, config)
    keys = ("steps_per_epoch", "initial_epoch", "epochs", "validation_freq")
    found = [tuple(stretch[key] for key in keys) for stretch in stretches]
    assert found == expected


def test_a_full_disk_keeps_the_checkpoint_before(whole, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", folder)
    before = sorted(path.name for path in folder.iterdir())

    class Full:
        metrics = ()

        def save(self, path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(folder, Full(), Progress(Phase("both"), step=99), 1)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_run_folders_of_an_earlier_version_are_not_resumed(tmp_path, kitti_records):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/latest.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(ArgumentError, match="of an earlier FlowSeg.*with this run as init_from"):
        resume.read_progress(tmp_path, small(), CITYSCAPES)
    # The one line names the flags that have other names now.
    folder = shutil.copytree(ROOT / "tests/reference/earlier_run", tmp_path / "run")
    asked = ("--train_records", kitti_records / "train-*", "--run_dir", folder)
    told = run_command("flowseg.train", *asked, ok=False).stderr
    assert f"{folder}: of an earlier FlowSeg" in told
    for name in ("--weights is --init_from now", "--scale is --input_scale", "--run_dir"):
        assert name in told


def test_a_state_of_another_network(tmp_path):
    for name in ("training.keras", "metrics.npz"):
        (tmp_path / name).write_bytes(b"half a file")
    with pytest.raises(ValueError, match="cannot be resumed from.*model.keras as init_from"):
        checkpoints.load(None, tmp_path)


def test_a_folder_that_cannot_be_written_into(tmp_path, kitti_records):
    (tmp_path / "file").write_text("mine")
    # What chmod forbids is not forbidden to everyone: a file in the folder's place is.
    asked = ("--train_records", kitti_records / "train-*", "--run_dir", tmp_path / "file/run")
    assert "file/run: Not a directory" in run_command("flowseg.train", *asked, ok=False).stderr


@pytest.mark.parametrize("keyword", ["stop", "skip"])
def test_damaged_records_stop_it_or_are_left_out(keyword, command, kitti_records, tmp_path):
    shard = tmp_path / "train-00000-of-00001.tfrecord"
    content = bytearray(next(kitti_records.glob("train-*")).read_bytes())
    content[-300] ^= 1
    shard.write_bytes(content)
    more = ("--train_records", shard, "--bad_records", keyword, "--steps", 2)
    done = run(command, tmp_path / "run", *more, ok=keyword == "skip")
    told = "record 3: damaged"
    assert told in done.stderr
    if keyword == "skip":
        assert "records left out: 1: see" in done.stdout and "2 steps in" in done.stdout


def test_a_replayed_batch_tells_its_losses(command, kitti_records, tmp_path):
    # So low a bar makes incidents of sound steps.
    more = ("--spike", 0.01, "--steps", 18, "--steps_per_epoch", 18, "--save_every", 18)
    more += ("--freeze", "encoder")
    done = run(command, tmp_path / "run", *more, "--height", 32, "--width", 32)
    assert "spike: 2: see" in done.stdout
    told = run_command("flowseg.replay", "--run_dir", tmp_path / "run", "--step", 17).stdout
    assert "spike at step 17: " in told and "with the weights after step 18:" in told
    assert "\n  seg: " in told and told.count("gradient ") == 8 and "inf" not in told
    asked = ("flowseg.replay", "--run_dir", tmp_path / "run", "--step", 5)
    assert "step-00000005.npz: no batch of an incident" in run_command(*asked, ok=False).stderr


def test_intervals_that_do_not_fit(tmp_path, kitti_records):
    asked = ("--train_records", kitti_records / "train-*", "--run_dir", tmp_path / "run")
    told = run_command("flowseg.train", *asked, "--save_every", 3, ok=False).stderr
    assert "--save_every=3 must divide --steps_per_epoch=500" in told
