"""NaN or Inf steps and loss spikes are reported with their frames, and do not corrupt weights."""

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


def small(**options):
    """Return a compiled network of one layer, with the guarded optimizer."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="only")])
    model.compile(optimizer.GuardedAdamW(0.1, **options), "mse")
    return model


X, Y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)


def test_nonfinite_step_is_skipped():
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


def test_equals_adamw(tmp_path):
    ours, theirs = small(weight_decay=0.01, clipnorm=0.1), small()
    theirs.compile(keras.optimizers.AdamW(0.1, weight_decay=0.01, clipnorm=0.1), "mse")
    theirs.set_weights(ours.get_weights())
    for _ in range(3):
        ours.train_on_batch(X, Y + 1)
        theirs.train_on_batch(X, Y + 1)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # Saving and loading keeps the count.
    ours.train_on_batch(X, Y * np.nan)
    ours.save(tmp_path / "x.keras")
    assert int(keras.saving.load_model(tmp_path / "x.keras").optimizer.skipped) == 1


@pytest.mark.parametrize("accumulate", [None, 2])
def test_equals_adamw_with_options(accumulate):
    """With a schedule, variables excluded from weight decay, and gradient accumulation."""
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.normal(size=(32, 3))), np.float32(rng.normal(size=(32, 2)))
    weights = []
    for kind in (optimizer.GuardedAdamW, keras.optimizers.AdamW):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(n) for n in (8, 2))])
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, 20, alpha=0.01, warmup_target=0.05, warmup_steps=3
        )
        options = {"weight_decay": 0.1, "clipnorm": 0.1, "gradient_accumulation_steps": accumulate}
        adamw = kind(schedule, **options)
        adamw.exclude_from_weight_decay(var_names=["bias"])
        model.compile(adamw, "mse")
        before = model.get_weights()
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for ours, theirs, start in zip(*weights, before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.abs(ours - start).max() > 0.01


def test_variables_without_loss():
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


def run_guard(tmp_path, losses, on_nonfinite="stop", spike=0.0):
    """Return (progress, guard) after steps with these losses; Keras reports their mean."""
    progress = Progress(Phase("both"))

    def fetch_batch(step):
        return [f"set/{step}"], {"image1": np.full(3, step)}, {"seg": np.zeros(2)}

    guard = incidents.Guard(tmp_path, progress, fetch_batch, on_nonfinite, spike)
    model = small()
    model.train_on_batch(X, Y)
    guard.set_model(model)
    guard.on_train_begin()
    guard.on_epoch_begin(0)
    averaged = []
    for loss in losses:
        averaged.append(loss)
        guard.on_train_batch_end(len(averaged) - 1, {"loss": np.mean(averaged)})
        if not math.isfinite(loss):
            averaged = []
    return progress, guard


def test_nonfinite_loss_stops_training(tmp_path):
    with pytest.raises(
        ValueError, match=r"step 3, frames set/2 \(.*step-00000003.npz\).*on_nonfin"
    ):
        run_guard(tmp_path, [1, 2, np.nan])
    record = json.loads((tmp_path / "incidents/step-00000003.json").read_text())
    assert record == {"step": 3, "kind": "nonfinite", "frames": ["set/2"]}
    with np.load(tmp_path / "incidents/step-00000003.npz") as arrays:
        assert arrays["inputs/image1"].tolist() == [2, 2, 2]


def test_nonfinite_losses_are_skipped_up_to_limit(tmp_path, capsys):
    progress, _ = run_guard(tmp_path, [1, np.nan, 1, 1, np.inf], "skip")
    assert (progress.step, progress.incidents) == (5, {"nonfinite": 2})
    assert capsys.readouterr().err.count("is NaN or Inf; skipped") == 2
    with pytest.raises(ValueError, match="is NaN or Inf"):
        run_guard(tmp_path, [1] + [np.nan] * 10, "skip")


def test_nonfinite_weights_stop_training(tmp_path):
    _, guard = run_guard(tmp_path, [1], "skip")
    guard.model.layers[0].kernel.assign([[np.nan], [0]])
    with pytest.raises(ValueError, match="in variables: .*only/kernel"):
        guard.on_train_batch_end(1, {"loss": np.nan})


def test_spikes(tmp_path, capsys):
    progress, _ = run_guard(tmp_path, [1, 1.5] * 10 + [30, 1], spike=10.0)
    assert progress.incidents == {"spike": 1}
    assert "step 21, frames set/20" in capsys.readouterr().err
    # Only the first 20 batches are stored.
    progress, _ = run_guard(tmp_path / "many", [1] * 20 + [30, 0.1] * 25, spike=2.0)
    assert progress.incidents == {"spike": 25}
    assert len(list((tmp_path / "many/incidents").glob("*.npz"))) == 20
    # Not with too few previous losses, and not if disabled.
    assert run_guard(tmp_path, [1, 30], spike=10.0)[0].incidents == {}
    assert run_guard(tmp_path, [1] * 20 + [30])[0].incidents == {}


def test_batch_names(kitti_records):
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
        names = batch_names(draw, step)
        assert [name.split("/")[-1] for name in names] == [n.split("/")[-1] for n in expected]


def test_patience():
    progress = Progress(Phase("both"))
    patience = callbacks.Patience(2, progress)
    patience.set_model(SimpleNamespace(stop_training=False))

    def validate(miou, aepe):
        patience.on_epoch_end(0, {"val_seg/miou": miou, "val_flow/aepe": aepe, "loss": 1})
        return patience.model.stop_training

    assert not validate(10, 5)
    assert not validate(9, 6) and not validate(9, 4)  # Flow improved.
    assert not validate(8, 4.5)
    assert progress.patience == {"seg/miou": [10, 3], "flow/aepe": [4, 1]}
    patience.on_epoch_end(0, {"loss": 1})  # No validation at this epoch.
    assert not patience.model.stop_training
    assert validate(9, 4)
    assert callbacks.out_of_patience(progress.patience, 2) and not callbacks.out_of_patience(
        progress.patience, 3
    )
    assert not callbacks.out_of_patience(progress.patience, 0) and not callbacks.out_of_patience(
        {}, 1
    )
