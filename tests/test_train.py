"""Training as a user runs it: the run folder, resuming, warm starts, and what goes wrong."""

import csv
import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowseg import callbacks, data, records, runs, train
from flowseg import flags as training_flags
from flowseg.labels import CITYSCAPES
from flowseg.model import build_flowseg
from tests.conftest import run_command


def flags(**changes):
    """What `define_training_flags` gives, small."""
    defaults = dict(label_set="cityscapes", weights=None, backbone_weights="none", exchange="both")
    defaults |= dict(steps=20, steps_per_epoch=10, batch_size=2, height=64, width=96, seed=0)
    defaults |= dict(alpha=1.0, beta=1.0, flow_loss="log", learning_rate=1e-3, warmup_steps=2)
    defaults |= dict(weight_decay=1e-4, clip_norm=1.0, train_records=[], val_records=[])
    return SimpleNamespace(**defaults | changes)


def test_run_folder_holds_what_the_contract_names(trained_run):
    files = {path.name for path in trained_run.iterdir()}
    assert files == {
        *("flags.txt", "label_set.json", "model.keras", "best.keras", "checkpoints"),
        *("metrics.json", "history.csv", "tensorboard", *runs.SAMPLE.values()),
    }
    text = (trained_run / "flags.txt").read_text().splitlines()
    assert "--steps=2" in text and "--height=320" in text and f"--run_dir={trained_run}" in text
    scores = json.loads((trained_run / "metrics.json").read_text())
    assert scores["step"] == 2 and scores["validated"]
    assert 0 <= scores["seg/miou"] <= 100 and scores["flow/aepe"] > 0
    rows = list(csv.DictReader((trained_run / "history.csv").open()))
    assert len(rows) == 1
    assert float(rows[0]["val_flow/aepe"]) == pytest.approx(scores["flow/aepe"])
    for name in ("model.keras", "best.keras"):
        network = keras.saving.load_model(trained_run / name, safe_mode=True)
        assert sorted(network.output_names) == ["flow", "seg"]


def test_tensorboard_has_scores_and_pictures(trained_run):
    for split, tags in (
        ("train", {"loss", "seg_loss", "flow_loss", "seg/miou", "flow/aepe", "learning_rate"}),
        ("val", {"loss", "seg/miou", "seg/pixel_accuracy", "flow/aepe", "flow/fl_all"}),
    ):
        events = EventAccumulator(str(trained_run / "tensorboard" / split), {"tensors": 0}).Reload()
        assert tags <= set(events.Tags()["tensors"])
        assert [event.step for event in events.Tensors("loss")] == [2]
    picture = events.Tensors("000003_10")[0].tensor_proto.string_val
    assert picture[2].startswith(b"\x89PNG")


def test_the_same_command_says_that_it_is_finished_and_more_steps_resume(trained_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    again = ("flowseg.train", "--flagfile", folder / "flags.txt", "--run_dir", folder)
    assert "finished already, 2 steps" in run_command(*again).stdout
    small = ("--height", 64, "--width", 96, "--steps", 3, "--val_records=", "--pictures", 0)
    done = run_command(*again, *small)
    assert "resuming after step 2" in done.stdout
    state = json.loads((folder / "checkpoints" / "latest.json").read_text())
    assert (state["step"], state["epoch"]) == (3, 2)
    saved = keras.saving.load_model(folder / "checkpoints" / state["file"])
    assert int(saved.optimizer.iterations) == 3
    assert [path.name for path in (folder / "checkpoints").glob("*.keras")] == [state["file"]]


def test_resume_takes_up_weights_and_optimizer(trained_run):
    args = flags(seed=5)
    training = train.compile_model(train.build_model(args, CITYSCAPES), args, CITYSCAPES)
    state = train.resume(training, trained_run)
    saved = keras.saving.load_model(trained_run / "checkpoints" / state["file"])
    assert int(training.optimizer.iterations) == 2
    for ours, theirs in zip(training.optimizer.variables, saved.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for ours, theirs in zip(training.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_damaged_checkpoint_is_named(trained_run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(trained_run / "checkpoints" / "latest.json", tmp_path / "checkpoints")
    name = json.loads((tmp_path / "checkpoints" / "latest.json").read_text())["file"]
    (tmp_path / "checkpoints" / name).write_bytes(b"half a file")
    args = flags()
    training = train.compile_model(build_flowseg(19), args, CITYSCAPES)
    with pytest.raises(ValueError, match=f"{name}: cannot be resumed from.*model.keras"):
        train.resume(training, tmp_path)


def test_warm_start_copies_all_but_a_head_of_other_classes(trained_run, capsys):
    source = runs.load_model(trained_run / "best.keras")
    target = build_flowseg(4)
    train.copy_weights(source, target)
    assert "seg_logits" in capsys.readouterr().out
    for part, layer in (("encoder", "conv3_block1_1_conv"), ("decoder", "flow_conv2")):
        a, b = (m.get_layer(part).get_layer(layer).get_weights()[0] for m in (source, target))
        np.testing.assert_array_equal(a, b)
    train.copy_weights(source, build_flowseg(19))
    assert capsys.readouterr().out == ""


def test_learns_both_tasks_and_alpha_and_beta_weigh_them(kitti_records):
    files = [records.match_files(str(kitti_records / "train-*"))]
    batches = data.training_data(
        files, CITYSCAPES, height=64, width=96, batch_size=2, steps_per_epoch=9
    )
    batch = next(batches.map(train._coarse_targets).as_numpy_iterator())
    args = flags(alpha=2.0, beta=0.5)
    model = train.build_model(args, CITYSCAPES)
    training = train.compile_model(model, args, CITYSCAPES)
    logs = [training.train_on_batch(*batch, return_dict=True) for _ in range(25)]
    first, last = logs[0], logs[-1]
    # alpha * seg + beta * (flow + flow_8 / 2 + flow_16 / 4)
    flow = first["flow_loss"] + first["flow_8_loss"] / 2 + first["flow_16_loss"] / 4
    assert first["loss"] == pytest.approx(2 * first["seg_loss"] + 0.5 * flow, rel=1e-4)
    assert last["seg_loss"] < 0.6 * first["seg_loss"]
    assert last["flow_loss"] < 0.6 * first["flow_loss"]


def test_best_is_kept_by_the_metric_and_its_direction(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(runs, "save_model", lambda model, path: saved.append(path.name))
    monkeypatch.setattr(callbacks.Checkpoint, "_save_state", lambda self, epoch: None)
    for metric, values, kept in (
        ("seg/miou", (10, 30, 20, float("nan")), 2),
        ("flow/aepe", (5, 7, 3, 4), 2),
    ):
        saved.clear()
        checkpoint = callbacks.Checkpoint(tmp_path, None, metric, None)
        checkpoint.set_model(SimpleNamespace(optimizer=SimpleNamespace(iterations=1)))
        for epoch, value in enumerate(values):
            checkpoint.on_epoch_end(epoch, {f"val_{metric}": value, "loss": 1.0})
        assert saved.count("best.keras") == kept and saved.count("model.keras") == len(values)


def test_without_validation_frames_it_trains_and_says_so(tmp_path, capsys):
    (tmp_path / "index.json").write_text(json.dumps({"records": {"train": 2, "val": 0}}))
    assert train._validation_files([str(tmp_path / "val-*")]) == []
    assert "no frame is for validation" in capsys.readouterr().out
    (tmp_path / "index.json").write_text(json.dumps({"records": {"train": 2, "val": 1}}))
    with pytest.raises(ValueError, match=r"val-\*: no record files match"):
        train._validation_files([str(tmp_path / "val-*")])


def test_run_dir_is_named_after_the_flagfile(monkeypatch):
    for argv in (["t", "--flagfile", "experiments/kitti.flags"], ["t", "--flagfile=a/kitti.flags"]):
        monkeypatch.setattr("sys.argv", argv)
        assert train.default_run_dir() == "runs/kitti"
    monkeypatch.setattr("sys.argv", ["t", "--steps", "2"])
    with pytest.raises(ValueError, match="--run_dir"):
        train.default_run_dir()
    assert training_flags.flagfile_name(["t"]) is None


def test_bad_command_lines_end_in_one_line(tmp_path, kitti_records):
    assert "stpes" in run_command("flowseg.train", "--stpes", 3, ok=False).stderr
    nothing = ("--train_records", tmp_path / "none-*", "--run_dir", tmp_path / "run")
    assert "none-*: no record files" in run_command("flowseg.train", *nothing, ok=False).stderr
    shard = damage(kitti_records, tmp_path, 0.01)
    damaged = ("--train_records", shard, "--run_dir", tmp_path / "run")
    error = run_command("flowseg.train", *damaged, ok=False).stderr
    assert f"{shard}, record 0: damaged" in error


def damage(kitti_records, folder, place):
    """A copy of the made-up training shard with four wrong bytes at that share of its length."""
    shard = folder / "train-00000-of-00001.tfrecord"
    whole = next(kitti_records.glob("train-*")).read_bytes()
    at = int(len(whole) * place)
    shard.write_bytes(whole[:at] + b"????" + whole[at + 4 :])
    return shard


def test_damage_met_in_mid_training_is_named(kitti_records, tmp_path, monkeypatch):
    shard = damage(kitti_records, tmp_path, 0.9)

    def fit(batches, steps_per_epoch, **_):
        for _ in batches.take(steps_per_epoch):
            pass

    # The records' way through training, without the time that a network takes.
    network = SimpleNamespace(fit=fit)
    monkeypatch.setattr(train, "build_model", lambda *_: None)
    monkeypatch.setattr(train, "compile_model", lambda *_: network)
    args = flags(train_records=[str(shard)], made_flow=True, pictures=0, best_metric="loss")
    args.train_weights = None
    for name in ("scale", "stretch", "flip", "colour", "erase"):
        setattr(args, name, 0.0)
    with pytest.raises(ValueError, match=rf"{shard.name}, record \d+: damaged"):
        train.train(args, tmp_path / "run")
