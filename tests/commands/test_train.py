"""Training as a user runs it: the run folder, resuming, warm starts and errors."""

import csv
import errno
import json
import math
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowseg import runs, train
from flowseg.cli import flags as shared_flags
from flowseg.data import record_sets, records
from flowseg.data.batches import Draw, training_batches
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.network.model import build_flowseg
from flowseg.training import callbacks, checkpoints, loop, objective, resume
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Phase, Progress
from tests.conftest import ROOT, run_command
from tests.support.trainings import by_output, compiled, small


def test_run_folder_has_the_documented_files(trained_run):
    files = {path.name for path in trained_run.iterdir()}
    assert files == {
        "flags.txt",
        "label_set.json",
        "model.keras",
        "best.keras",
        "checkpoints",
        ".lock",
        "metrics.json",
        "history.csv",
        "tensorboard",
        *runs.SAMPLE.values(),
    }
    text = (trained_run / "flags.txt").read_text().splitlines()
    assert "--steps=2" in text and "--height=96" in text and f"--run_dir={trained_run}" in text
    scores = json.loads((trained_run / "metrics.json").read_text())
    assert scores["step"] == 2 and scores["validated"]
    assert 0 <= scores["seg/miou"] <= 100 and scores["flow/aepe"] > 0
    rows = list(csv.DictReader((trained_run / "history.csv").open()))
    assert len(rows) == 1
    assert float(rows[0]["val_flow/aepe"]) == pytest.approx(scores["flow/aepe"])
    for name in ("model.keras", "best.keras"):
        network = keras.saving.load_model(trained_run / name, safe_mode=True)
        assert sorted(network.output_names) == ["flow", "seg"]


def test_finished_run_is_reported_and_more_steps_resume(trained_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    arguments = ("--flagfile", folder / "flags.txt", "--run_dir", folder)
    assert "finished already, 2 steps" in run_command("flowseg.train", *arguments).stdout
    error = run_command("flowseg.train", *arguments, "--height", 64, ok=False).stderr
    assert "trained with other flags (the run has --height=96, this command --height=64)" in error
    more = ("--steps", 3, "--val_records=", "--pictures", 0)
    done = run_command("tests.support.small_train", *arguments, *more)
    assert "resuming after step 2" in done.stdout
    assert "resuming with --steps=3" in done.stdout.replace("--pictures=0, ", "")
    state, state_folder = checkpoints.newest(folder / "checkpoints")
    assert state["step"] == 3
    saved = keras.saving.load_model(state_folder / "training.keras")
    assert int(saved.optimizer.iterations) == 3
    # Without validation, the confusion matrix is that of the training crops.
    events = EventAccumulator(str(folder / "tensorboard/train"), {"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("seg/confusion")] == [3]
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000003"]


def test_full_disk_keeps_the_old_weights(tmp_path):
    class Network:
        def save(self, path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "model.keras").write_bytes(b"whole")
    with pytest.raises(OSError, match="No space left") as caught:
        runs.save_model(Network(), tmp_path / "model.keras")
    assert caught.value.filename == str(tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert (tmp_path / "model.keras").read_bytes() == b"whole"


def test_warm_start_skips_the_head_if_classes_differ(trained_run, small_encoder, capsys):
    source = runs.load_model(trained_run / "best.keras")
    target = build_flowseg(4)
    resume.copy_weights(source, target)
    assert "seg_logits" in capsys.readouterr().err
    for part, layer in (("encoder", "stride8_conv"), ("decoder", "flow_conv2")):
        a, b = (m.get_layer(part).get_layer(layer).get_weights()[0] for m in (source, target))
        np.testing.assert_array_equal(a, b)
    same = build_flowseg(19)
    resume.copy_weights(source, same)
    assert capsys.readouterr().err == ""
    head = same.get_layer("decoder").get_layer("seg_logits")
    head.set_weights([w * 0 for w in head.get_weights()])
    # The same number of classes, but different ones: the head is unchanged.
    resume.copy_weights(source, same, same_classes=False)
    assert "seg_logits" in capsys.readouterr().err
    assert not any(w.any() for w in head.get_weights())


@pytest.mark.parametrize("encoder", ["small", pytest.param("resnet50", marks=pytest.mark.long)])
def test_both_losses_fall_and_are_weighted_by_alpha_and_beta(encoder, kitti_records, request):
    if encoder == "small":
        request.getfixturevalue("small_encoder")
    files = [records.match_files(str(kitti_records / "train-*"))]
    batches = training_batches(Draw(files, 2, 9), CITYSCAPES, height=64, width=96)
    batch = next(batches.map(by_output).as_numpy_iterator())
    training = compiled(small(alpha=2.0, beta=0.5, steps=40), CITYSCAPES)
    logs = [training.train_on_batch(*batch, return_dict=True) for _ in range(40)]
    first, last = logs[0], logs[-1]
    # alpha * seg + beta * (flow + flow_4 / 2 + flow_8 / 2 + flow_16 / 4
    #                       + (sure_2 + sure_8 + sure_16) / 5)
    flow = first["flow_loss"] + first["flow_4_loss"] / 2 + first["flow_8_loss"] / 2
    flow += first["flow_16_loss"] / 4
    flow += sum(first[f"sure_{stride}_loss"] for stride in (2, 8, 16)) / 5
    assert {k: v.tolerance for k, v in training.loss.items() if k.startswith("sure")} == {
        **{"sure_2": 3, "sure_8": 4, "sure_16": 8}
    }
    assert first["loss"] == pytest.approx(2 * first["seg_loss"] + 0.5 * flow, rel=1e-4)
    assert last["seg_loss"] < 0.6 * first["seg_loss"]
    assert last["flow_loss"] < 0.6 * first["flow_loss"]


def test_bfloat16_trains_and_saves_float32(kitti_records, small_encoder):
    files = [records.match_files(str(kitti_records / "train-*"))]
    batches = training_batches(Draw(files, 2, 1), CITYSCAPES, height=64, width=96)
    inputs, targets = next(batches.map(by_output).as_numpy_iterator())
    config = small(precision="bfloat16", learning_rate=1e-3)
    network, trained = resume.build_networks(config, CITYSCAPES)
    decoder = trained.get_layer("decoder")
    assert decoder.get_layer("flow_fine_conv1").compute_dtype == "bfloat16"
    assert {w.dtype for w in trained.weights} == {w.dtype for w in network.weights} == {"float32"}
    # Both start with the same weights, and the global policy is reset afterwards.
    for ours, theirs in zip(network.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert keras.config.dtype_policy().name == "float32"
    training = compiled(config, CITYSCAPES, trained)
    # Eager: a graph is not worth building for one step.
    training.run_eagerly = True
    exact = compiled(config, CITYSCAPES, network)
    exact.run_eagerly = True
    expected = exact.test_on_batch(inputs, targets, return_dict=True)
    logs = training.test_on_batch(inputs, targets, return_dict=True)
    assert logs["loss"] == pytest.approx(expected["loss"], rel=0.05)
    training.train_on_batch(inputs, targets)
    copying = callbacks.CopyWeights(trained, network)
    copying.on_epoch_end(0)
    head = "seg_logits"
    theirs = decoder.get_layer(head).get_weights()[0]
    np.testing.assert_array_equal(
        network.get_layer("decoder").get_layer(head).get_weights()[0], theirs
    )
    outputs = network.predict_on_batch(inputs)
    assert outputs["seg"].dtype == outputs["flow"].dtype == np.float32
    assert all(layer.compute_dtype == "float32" for layer in network.get_layer("decoder").layers)


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (1.0, -1.0), (math.inf, 1.0)])
def test_invalid_record_set_weights_raise(weights):
    assert record_sets.draw_weights([["a"], ["b"]], (3.0, 1.0)) == [3.0, 1.0]
    assert record_sets.draw_weights([["a"], ["b"]]) == [1.0, 1.0]
    listed = ",".join(f"{weight:g}" for weight in weights)
    with pytest.raises(ArgumentError, match=f"^train_weights={listed}: give one number per record"):
        record_sets.draw_weights([["a"], ["b"]], weights)


def test_best_weights_follow_the_metric(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(runs, "save_model", lambda model, path: saved.append(path.name))
    for metric, values, best_count in (
        ("seg/miou", (10, 30, 20, float("nan")), 2),
        ("flow/aepe", (5, 7, 3, 4), 2),
    ):
        saved.clear()
        checkpoint = callbacks.KeepBest(tmp_path, None, metric, Progress(Phase("both"), step=1))
        for epoch, value in enumerate(values):
            checkpoint.on_epoch_end(epoch, {f"val_{metric}": value, "loss": 1.0})
        assert saved.count("best.keras") == best_count and saved.count("model.keras") == len(values)


def test_missing_validation_frames_are_reported(tmp_path, capsys):
    index = {"files": {}, "records": {"train": 2, "val": 0}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    train = tmp_path / "train-x"
    train.touch()
    globs = ([str(train)], [str(tmp_path / "val-*")])
    assert record_sets.find(*globs) == ([[str(train)]], [])
    assert "index.json lists no validation frames" in capsys.readouterr().err
    index["records"]["val"] = 1
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"val-\*: no record files match"):
        record_sets.find(*globs)


def test_recipes_use_existing_flags():
    help_text = run_command("flowseg.train", "--help").stdout
    recipes = list((ROOT / "experiments").glob("*.flags"))
    assert len(recipes) >= 4
    for recipe in recipes:
        lines = [line for line in recipe.read_text().splitlines() if line.startswith("-")]
        for line in lines:
            assert f"\n  {line.partition('=')[0]}: " in help_text, (recipe.name, line)
        assert len({line.partition("=")[0] for line in lines}) == len(lines) > 5


def test_run_dir_is_named_after_the_flagfile(monkeypatch):
    for argv in (["t", "--flagfile", "experiments/kitti.flags"], ["t", "--flagfile=a/kitti.flags"]):
        monkeypatch.setattr("sys.argv", argv)
        assert train.default_run_dir() == "runs/kitti"
    monkeypatch.setattr("sys.argv", ["t", "--steps", "2"])
    with pytest.raises(ValueError, match="--run_dir"):
        train.default_run_dir()
    assert shared_flags.flagfile_name(["t"]) is None


def test_invalid_commands_are_reported_in_one_line(tmp_path, kitti_records):
    assert "stpes" in run_command("flowseg.train", "--stpes", 3, ok=False).stderr
    missing = ("--train_records", tmp_path / "none-*", "--run_dir", tmp_path / "run")
    assert "none-*: no record files" in run_command("flowseg.train", *missing, ok=False).stderr
    shard = damage(kitti_records, tmp_path, 0.01)
    damaged = ("--train_records", shard, "--run_dir", tmp_path / "run")
    error = run_command("flowseg.train", *damaged, ok=False).stderr
    assert f"{shard}, record 0: damaged" in error


def damage(kitti_records, folder, place):
    """A copy of the synthetic training shard with four wrong bytes at `place` of its length."""
    shard = folder / "train-00000-of-00001.tfrecord"
    data = next(kitti_records.glob("train-*")).read_bytes()
    position = int(len(data) * place)
    shard.write_bytes(data[:position] + b"????" + data[position + 4 :])
    return shard


@pytest.mark.parametrize("split", ["train", "val"])
def test_damage_during_training_is_reported(split, kitti_records, tmp_path, monkeypatch):
    shard = damage(kitti_records, tmp_path, 0.9)
    sound = next(kitti_records.glob("train-*"))

    def fit(batches, steps_per_epoch, validation_data, **_):
        for _ in batches.take(steps_per_epoch):
            pass
        for _ in validation_data:
            pass

    # Reads the records as training does, without the time for a network.
    network = SimpleNamespace(fit=fit)
    monkeypatch.setattr(resume, "build_networks", lambda *_: (None, None))
    monkeypatch.setattr(objective, "compile_training", lambda *_: network)
    monkeypatch.setattr(callbacks, "TensorBoard", lambda *_: None)
    shards = {"train": sound, "val": sound, split: shard}
    config = TrainingConfig(**{f"{name}_records": (str(path),) for name, path in shards.items()})
    with pytest.raises(ValueError, match=rf"{shard.name}, record \d+: damaged"):
        loop.train(config, tmp_path / "run")
