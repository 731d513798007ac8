"""Interrupted runs resume exactly, or fail with a clear message."""

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
from flowseg import files
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.training import checkpoints, resume
from flowseg.training.config import flag_lines
from flowseg.training.progress import FORMAT, Phase, Progress
from tests.conftest import ROOT, run_command
from tests.support import forked
from tests.support.trainings import compiled, parsed, small


@pytest.fixture(scope="module")
def command(kitti_records):
    """Train six steps, eagerly (tracing takes a minute), with a checkpoint every two steps."""
    flags = {**kill_test._FLAGS, "--steps": 6, "--steps_per_epoch": 4, "--batch_size": 1}
    return [
        sys.executable,
        "-m",
        "tests.support.small_train",
        "--deterministic",
        "--train_records",
        kitti_records / "train-*",
        "--val_records",
        kitti_records / "val-*",
        *(f"{name}={value}" for name, value in flags.items()),
    ]


def run(command, folder, *more, ok=True):
    """Run the command with a run folder; return the CompletedProcess."""
    _, _, *arguments = map(str, [*command, "--run_dir", folder, *more])
    done = forked.run(arguments[0], arguments[1:], ROOT, timeout=600)
    assert (done.returncode == 0) == ok, done.stderr
    return done


@pytest.fixture(scope="module")
def full_run(command, tmp_path_factory):
    """Run folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    run(command, folder)
    return folder


def test_resume_after_kill(command, full_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder, rng = tmp_path / "killed", random.Random(0)
    arguments = [*command, "--run_dir", folder]
    for while_saving in (False, True):
        assert kill_test.kill_once(arguments, folder / "checkpoints", rng, while_saving)
    done = run(command, folder)
    assert "resuming after step" in done.stdout
    assert kill_test.differences(full_run, folder) == []
    assert [p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_ctrl_c_saves_current_step(command, full_run, tmp_path):
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
    printed = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    state, _ = checkpoints.newest(folder / "checkpoints")
    # In the middle of a checkpoint interval, or at its end.
    assert 2 < state["step"] < 6 and f"step {state['step']} is saved; the same command" in printed
    run(command, folder)
    assert kill_test.differences(full_run, folder) == []


def test_damaged_checkpoint(command, full_run, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(full_run, folder)
    newest = folder / "checkpoints/step-00000006"
    content = bytearray((newest / "training.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "training.keras").write_bytes(content)
    done = run(command, folder)
    assert "step-00000006: damaged (training.keras does not match its checksum)" in done.stderr
    assert "resuming after step 4" in done.stdout
    assert kill_test.differences(full_run, folder) == []
    for path in (folder / "checkpoints").iterdir():
        (path / "state.json").write_text("{")
    assert "all checkpoints are damaged" in run(command, folder, ok=False).stderr


def test_finished_run_other_flags_and_lock(command, full_run, tmp_path):
    assert "finished already, 6 steps" in run(command, full_run).stdout
    error = run(command, full_run, "--learning_rate", 1, ok=False).stderr
    assert "trained with other flags (the run has --learning_rate=" in error
    with files.lock(full_run, "another training"):
        error = run(command, full_run, ok=False).stderr
        assert f"{full_run}: another training is using this run folder" in error
    assert "finished already" in run(command, full_run, "--patience", 3, "--save_every", 1).stdout


def test_resume_restores_state(full_run, small_encoder):
    config = parsed("--flagfile", full_run / "flags.txt", "--steps", 9)
    progress, folder = resume.read_progress(full_run, config, CITYSCAPES)
    assert progress.step == 6 and progress.best > 0 and progress.patience["flow/aepe"][0] > 0
    assert progress.best_scores == json.loads((full_run / "metrics.json").read_text())
    training = compiled(config, CITYSCAPES)
    running = checkpoints.load(training, folder)
    saved = keras.saving.load_model(folder / "training.keras")
    assert int(training.optimizer.iterations) == 6 and len(running) > 5
    for ours, theirs in zip(training.variables, saved.variables, strict=False):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for ours, theirs in zip(training.optimizer.variables, saved.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    # The best value of another score is discarded.
    config = parsed("--flagfile", full_run / "flags.txt", "--best_metric", "seg/miou")
    assert resume.read_progress(full_run, config, CITYSCAPES)[0].best is None
    others = CITYSCAPES._replace(names=CITYSCAPES.names[::-1])
    with pytest.raises(ValueError, match="trained on other classes"):
        resume.read_progress(full_run, config, others)


def test_conflict_names_the_flags_of_run_and_command(tmp_path, monkeypatch):
    state = {"format": FORMAT}
    monkeypatch.setattr(checkpoints, "newest", lambda folder: (state, folder))
    files.write_json(tmp_path / "label_set.json", CITYSCAPES._asdict())
    old = small(train_records=("old/train-*",), flip=0.5, synthetic_flow=True)
    files.write(tmp_path / "flags.txt", "\n".join(flag_lines(old)) + "\n")
    new = small(train_records=("new/train-*",), train_weights=(1.0,), synthetic_flow=False)
    with pytest.raises(ArgumentError) as caught:
        resume.read_progress(tmp_path, new, CITYSCAPES)
    assert caught.value.with_flags() == (
        f"{tmp_path}: was trained with other flags ("
        "the run has --synthetic_flow, this command --nosynthetic_flow; "
        "the run has --train_records=old/train-*, this command --train_records=new/train-*; "
        "the run has no --train_weights, this command --train_weights=1): "
        "give another --run_dir, or the same flags to resume"
    )


def test_history(full_run):
    rows = (full_run / "history.csv").read_text().splitlines()
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
def test_fit_segments(step, every, expected):
    per_epoch = every * (2 if every == 4 else 1)
    config = small(steps=10, steps_per_epoch=per_epoch, save_every=every)
    segments = checkpoints.fit_segments(step, config)
    keys = ("steps_per_epoch", "initial_epoch", "epochs", "validation_freq")
    values = [tuple(segment[key] for key in keys) for segment in segments]
    assert values == expected


def test_full_disk_keeps_checkpoints(full_run, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    shutil.copytree(full_run / "checkpoints", folder)
    before = sorted(path.name for path in folder.iterdir())

    class Full:
        metrics = ()

        def save(self, path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(folder, Full(), Progress(Phase("both"), step=99), 1)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_run_folder_of_earlier_version(tmp_path, kitti_records):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/latest.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(ArgumentError, match="by an earlier FlowSeg.*with this run as init_from"):
        resume.read_progress(tmp_path, small(), CITYSCAPES)
    # The message names the renamed flags.
    folder = shutil.copytree(ROOT / "tests/reference/earlier_run", tmp_path / "run")
    arguments = ("--train_records", kitti_records / "train-*", "--run_dir", folder)
    error = run_command("flowseg.train", *arguments, ok=False).stderr
    assert f"{folder}: written by an earlier FlowSeg version and cannot be resumed" in error
    for name in (
        "--weights is now named --init_from",
        "--made_flow is named --synthetic_flow",
        "--synthetic_flow and, outside training, --scale is named --input_scale",
        "--run_dir",
    ):
        assert name in error


def test_unreadable_checkpoint(tmp_path):
    for name in ("training.keras", "metrics.npz"):
        (tmp_path / name).write_bytes(b"half a file")
    with pytest.raises(ValueError, match="cannot be resumed: .*model.keras as init_from"):
        checkpoints.load(None, tmp_path)


def test_unwritable_run_folder(tmp_path, kitti_records):
    (tmp_path / "file").write_text("mine")
    # A file in place of the parent folder, because chmod does not restrict root.
    arguments = ("--train_records", kitti_records / "train-*", "--run_dir", tmp_path / "file/run")
    assert "file/run: Not a directory" in run_command("flowseg.train", *arguments, ok=False).stderr


@pytest.mark.parametrize("keyword", ["stop", "skip"])
def test_damaged_records(keyword, command, kitti_records, tmp_path):
    shard = tmp_path / "train-00000-of-00001.tfrecord"
    content = bytearray(next(kitti_records.glob("train-*")).read_bytes())
    content[-300] ^= 1
    shard.write_bytes(content)
    more = ("--train_records", shard, "--bad_records", keyword, "--steps", 2)
    done = run(command, tmp_path / "run", *more, ok=keyword == "skip")
    message = "record 3: damaged"
    assert message in done.stderr
    if keyword == "skip":
        assert "records left out: 1: see" in done.stdout and "2 steps in" in done.stdout


def test_replay(command, kitti_records, tmp_path):
    # With such a low limit, ordinary steps count as spikes.
    more = ("--spike", 0.01, "--steps", 18, "--steps_per_epoch", 18, "--save_every", 18)
    more += ("--freeze", "encoder", "--learn", "seg")  # Fewer gradients: faster steps.
    done = run(command, tmp_path / "run", *more, "--height", 32, "--width", 32)
    assert "spike: 2: see" in done.stdout
    report = run_command("flowseg.replay", "--run_dir", tmp_path / "run", "--step", 17).stdout
    assert "spike at step 17: " in report and "with the weights after step 18:" in report
    assert "\n  seg: " in report and report.count("gradient ") == 8 and "inf" not in report
    arguments = ("flowseg.replay", "--run_dir", tmp_path / "run", "--step", 5)
    assert (
        "step-00000005.npz: no readable incident batch" in run_command(*arguments, ok=False).stderr
    )


def test_indivisible_intervals(tmp_path, kitti_records):
    arguments = ("--train_records", kitti_records / "train-*", "--run_dir", tmp_path / "run")
    error = run_command("flowseg.train", *arguments, "--save_every", 3, ok=False).stderr
    assert "--save_every=3 must divide --steps_per_epoch=500" in error
