"""Accumulated gradients, and trainings that differ in flags side by side."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.studies import schedules
from flowseg.data.labels import CAMVID
from flowseg.training import checkpoints, objective, resume
from tests.commands.test_train import flags
from tests.support import markdown


def training(**changes):
    """A small network, compiled, with a frozen encoder."""
    args = flags(backbone="efficientnet_lite0", freeze="encoder", warmup_steps=0, **changes)
    compiled = objective.compile_model(resume.build_models(args, CAMVID)[1], args, CAMVID)
    compiled.run_eagerly = True  # A few steps are not worth tracing.
    return compiled


def batch(seed):
    """One example of noise, with both truths."""
    rng = np.random.default_rng(seed)
    pair = {f"image{i}": np.float32(rng.uniform(0, 255, (1, 32, 64, 3))) for i in (1, 2)}
    truth = {"flow": np.ones((1, 32, 64, 3), "float32"), "seg": rng.integers(0, 11, (1, 32, 64))}
    return objective.every_target(pair, truth)


def learnt(network):
    return [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_weights_change_by_the_mean_gradient_of_so_many_batches_and_it_resumes_between(tmp_path):
    network = training(accumulate=2)
    start = learnt(network)
    network.train_on_batch(*batch(0))
    assert same(learnt(network), start)
    checkpoints.save(tmp_path, network, {"step": 1}, 1)
    network.train_on_batch(*batch(1))
    assert not same(learnt(network), start)
    resumed = training(accumulate=2)
    checkpoints.load(resumed, tmp_path / "step-00000001")
    resumed.train_on_batch(*batch(1))
    assert same(learnt(resumed), learnt(network))
    # The same batch twice has the mean gradient of one.
    twice, once = training(accumulate=2), training()
    for _ in range(2):
        twice.train_on_batch(*batch(0))
    once.train_on_batch(*batch(0))
    moved = 0
    for ours, theirs, before in zip(learnt(twice), learnt(once), start, strict=True):
        moved = max(moved, np.abs(theirs - before).max())
        # Norms' statistics have moved between the two batches, but serve no training.
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert moved > 5e-4


def test_summed_batches_have_one_common_mean():
    """What Keras makes of the weights is the loss of all examples as one batch."""
    network = training(accumulate=2)
    inputs, targets = (dict(part) for part in batch(0))
    few, many = (dict(targets), batch(1)[1])
    few["seg"] = np.where(np.arange(64) < 8, targets["seg"], 255)
    few = objective.every_target(
        inputs, {**few, "flow": targets["flow"] * (np.arange(32) < 2)[:, None, None]}
    )
    pair = [few, (batch(1)[0], many)]
    source = tf.data.Dataset.from_generator(
        lambda: iter(pair), output_signature=tf.nest.map_structure(tf.type_spec_from_value, pair[0])
    )
    weighed = list(objective.over_accumulated(source, 2, network.output))
    assert len(weighed) == 2

    def loss(x, y, weights=None):
        return float(keras.ops.sum(network.compute_loss(x, y, network(x, training=False), weights)))

    joined = tf.nest.map_structure(lambda a, b: np.concatenate([a, b]), *pair)
    whole = loss(*joined)
    assert np.mean([loss(*part) for part in weighed]) == pytest.approx(whole, rel=1e-4)
    # Each over its own pixels, the mean would be another one.
    assert np.mean([loss(*part) for part in pair]) != pytest.approx(whole, rel=1e-2)
    # Without any truth there is no loss, and no division by zero.
    none = {key: np.full_like(y, 255 if key == "seg" else 0) for key, y in many.items()}
    empty = tf.data.Dataset.from_tensors((inputs, none)).repeat(2)
    for part in objective.over_accumulated(empty, 2, network.output):
        assert loss(*part) == pytest.approx(0, abs=1e-6)


def test_table_compares_with_the_first_variant_seed_by_seed():
    found = {
        "fixed": [{"seg/miou": 40.0, "flow/aepe": 2.0}, {"seg/miou": 42.0, "flow/aepe": 3.0}],
        "a": [{"seg/miou": 41.0, "flow/aepe": 1.5}, {"seg/miou": 43.0, "flow/aepe": 2.5}],
        "b": [{"seg/miou": 40.0, "flow/aepe": 3.0}, {"seg/miou": 40.0, "flow/aepe": 2.0}],
    }
    rows = markdown.rows(schedules.table(found))[1:]
    more = "... more than fixed"
    assert [row[0] for row in rows] == ["fixed", "a", more, "b", more]
    assert rows[2] == [more, "+1.00 ± 0.00", "", "-0.50 ± 0.00", "", ""]
    assert rows[4] == [more, "-1.00 ± 1.41", "", "+0.00 ± 1.41", "", ""]


def test_variants():
    assert schedules.parse(["fixed:", "two: --a=1 --b='x y'"]) == {
        "fixed": [],
        "two": ["--a=1", "--b=x y"],
    }
    for texts in (["fixed"], [":--a"], ["a:", "a:--b"]):
        with pytest.raises(ValueError, match="NAME:FLAGS, each name once"):
            schedules.parse(texts)


def test_a_finished_training_is_not_repeated_and_a_failed_one_says_so(tmp_path):
    args = SimpleNamespace(
        recipe="r.flags", train_records=["a"], val_records=["b"], train_flag=["--steps=1"]
    )
    trained = "--flagfile=r.flags --train_records=a --seed=0 --val_records= --steps=1 --x=2"
    done = {"trained": trained, "scored_on": "b", "seg/miou": 1.5}
    (tmp_path / "scores.json").write_text(json.dumps(done))
    assert schedules.score(tmp_path, ["--x=2"], "0", args) == done
    with pytest.raises(ValueError, match="other flags or records"):
        schedules.score(tmp_path, [], "0", args)
    with pytest.raises(ValueError, match="the training failed"):
        schedules.score(tmp_path / "new", [], "0", args)
