"""Steps that are no numbers and losses that jump are told, with their frames, and do no harm."""

import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from flowseg.data import records
from flowseg.data.batches import Draw, _drawn, batch_names
from flowseg.training import callbacks, incidents, optimizer
from flowseg.training.progress import Phase, Progress


def small(**how):
    """A compiled network of one layer, by the guarded optimizer."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="only")])
    model.compile(optimizer.GuardedAdamW(0.1, **how), "mse")
    return model


X, Y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)


def test_a_step_that_is_no_number_moves_nothing_but_the_count():
    model = small(weight_decay=0)
    model.train_on_batch(X, Y * np.nan)
    assert int(model.optimizer.skipped) == 1 and int(model.optimizer.iterations) == 1
    assert all(np.isfinite(w).all() for w in model.get_weights())
    before = model.get_weights()
    model.train_on_batch(X * np.inf, Y)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.train_on_batch(X, Y + 1)
    assert int(model.optimizer.skipped) == 2
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_else_it_is_adamw(tmp_path):
    ours, theirs = small(weight_decay=0.01, clipnorm=0.1), small()
    theirs.compile(keras.optimizers.AdamW(0.1, weight_decay=0.01, clipnorm=0.1), "mse")
    theirs.set_weights(ours.get_weights())
    for _ in range(3):
        ours.train_on_batch(X, Y + 1)
        theirs.train_on_batch(X, Y + 1)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # And it comes back from a file, its count with it.
    ours.train_on_batch(X, Y * np.nan)
    ours.save(tmp_path / "x.keras")
    assert int(keras.saving.load_model(tmp_path / "x.keras").optimizer.skipped) == 1


@pytest.mark.parametrize("accumulate", [None, 2])
def test_it_is_adamw_with_a_schedule_exceptions_and_sums_of_gradients(accumulate):
    """What it works out once a step for all variables is what Keras does for each."""
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(32, 3))), np.float32(rng.normal(size=(32, 2)))
    weights = []
    for kind in (optimizer.GuardedAdamW, keras.optimizers.AdamW):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(n) for n in (8, 2))])
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, 20, alpha=0.01, warmup_target=0.05, warmup_steps=3
        )
        how = {"weight_decay": 0.1, "clipnorm": 0.1, "gradient_accumulation_steps": accumulate}
        made = kind(schedule, **how)
        made.exclude_from_weight_decay(var_names=["bias"])
        model.compile(made, "mse")
        before = model.get_weights()
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for ours, theirs, start in zip(*weights, before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.abs(ours - start).max() > 0.01


def test_what_no_loss_reaches_stays():
    inputs = keras.Input((2,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("used", "idle")}
    model = keras.Model(inputs, outputs)
    model.compile(optimizer.GuardedAdamW(0.1), {"used": "mse"})
    before = [w.numpy() for w in model.get_layer("idle").weights]
    used = model.get_layer("used").get_weights()[0]
    model.fit(X, {"used": Y + 1, "idle": Y}, verbose=0)
    for a, b in zip(before, model.get_layer("idle").weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    assert not np.array_equal(used, model.get_layer("used").get_weights()[0])


def watched(tmp_path, losses, on_nonfinite="stop", spike=0.0):
    """(progress, guard) after steps of these losses; a mean, as Keras tells it."""
    progress = Progress(Phase("both"))

    def batch(step):
        return [f"set/{step}"], {"image1": np.full(3, step)}, {"seg": np.zeros(2)}

    guard = incidents.Guard(tmp_path, progress, batch, on_nonfinite, spike)
    model = small()
    model.train_on_batch(X, Y)
    guard.set_model(model)
    guard.on_train_begin()
    guard.on_epoch_begin(0)
    told = []
    for loss in losses:
        told.append(loss)
        guard.on_train_batch_end(len(told) - 1, {"loss": np.mean(told)})
        if not math.isfinite(loss):
            told = []
    return progress, guard


def test_a_loss_that_is_no_number_stops_and_names_its_frames(tmp_path):
    with pytest.raises(ValueError, match=r"step 3, of set/2 \(.*step-00000003.npz\).*on_nonfin"):
        watched(tmp_path, [1, 2, np.nan])
    told = json.loads((tmp_path / "incidents/step-00000003.json").read_text())
    assert told == {"step": 3, "kind": "nonfinite", "frames": ["set/2"]}
    with np.load(tmp_path / "incidents/step-00000003.npz") as kept:
        assert kept["inputs/image1"].tolist() == [2, 2, 2]


def test_or_is_skipped_and_counted_until_it_is_too_much(tmp_path, capsys):
    progress, _ = watched(tmp_path, [1, np.nan, 1, 1, np.inf], "skip")
    assert (progress.step, progress.incidents) == (5, {"nonfinite": 2})
    assert capsys.readouterr().err.count("is no number; skipped") == 2
    with pytest.raises(ValueError, match="is no number"):
        watched(tmp_path, [1] + [np.nan] * 10, "skip")


def test_spoilt_weights_are_told_even_where_steps_are_skipped(tmp_path):
    _, guard = watched(tmp_path, [1], "skip")
    guard.model.layers[0].kernel.assign([[np.nan], [0]])
    with pytest.raises(ValueError, match="spoilt: .*only/kernel"):
        guard.on_train_batch_end(1, {"loss": np.nan})


def test_a_spike_is_told(tmp_path, capsys):
    progress, _ = watched(tmp_path, [1, 1.5] * 10 + [30, 1], spike=10.0)
    assert progress.incidents == {"spike": 1}
    assert "step 21, of set/20" in capsys.readouterr().err
    # The first of many are kept.
    progress, _ = watched(tmp_path / "many", [1] * 20 + [30, 0.1] * 25, spike=2.0)
    assert progress.incidents == {"spike": 25}
    assert len(list((tmp_path / "many/incidents").glob("*.npz"))) == 20
    # Not before there is a usual loss, and not at all if not asked for.
    assert watched(tmp_path, [1, 30], spike=10.0)[0].incidents == {}
    assert watched(tmp_path, [1] * 20 + [30])[0].incidents == {}


def test_names_are_those_of_the_batch(kitti_records):
    files = [records.match_files(str(kitti_records / "train-*"))]
    draw = Draw(files, batch_size=2, steps_per_epoch=3, seed=5)
    ids = {
        fields["image1"]: fields["frame_id"].decode()
        for _, fields in records.read_shard(files[0][0])
    }
    assert len(ids) == 4
    drawn = _drawn(draw, 0).take(10)
    sequence = [ids[records.parse_example(r)["image1"].numpy()] for _, r, _ in drawn]
    for step in (0, 2, 3, 4):
        expected = [f"kitti/{name}" for name in sequence[2 * step : 2 * step + 2]]
        found = batch_names(draw, step)
        assert [name.split("/")[-1] for name in found] == [n.split("/")[-1] for n in expected]


def test_patience_waits_for_each_task():
    progress = Progress(Phase("both"))
    patience = callbacks.Patience(2, progress)
    patience.set_model(SimpleNamespace(stop_training=False))

    def validate(miou, aepe):
        patience.on_epoch_end(0, {"val_seg/miou": miou, "val_flow/aepe": aepe, "loss": 1})
        return patience.model.stop_training

    assert not validate(10, 5)
    assert not validate(9, 6) and not validate(9, 4)  # Flow got better.
    assert not validate(8, 4.5)
    assert progress.patience == {"seg/miou": [10, 3], "flow/aepe": [4, 1]}
    patience.on_epoch_end(0, {"loss": 1})  # No validation here.
    assert not patience.model.stop_training
    assert validate(9, 4)
    assert callbacks.is_spent(progress.patience, 2) and not callbacks.is_spent(progress.patience, 3)
    assert not callbacks.is_spent(progress.patience, 0) and not callbacks.is_spent({}, 1)
