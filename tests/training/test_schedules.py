"""Accumulated gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flowseg.data.labels import CAMVID
from flowseg.training import checkpoints, objective
from flowseg.training.progress import Phase, Progress
from flowseg.training.tasks import JOINT
from tests.support.trainings import by_output, compiled, small


def training(**changes):
    """A small network, compiled, with a frozen encoder."""
    config = small(backbone="efficientnet_lite0", freeze="encoder", warmup_steps=0, **changes)
    network = compiled(config, CAMVID)
    network.run_eagerly = True  # A few steps are not worth tracing.
    return network


def batch(seed):
    """One example of noise, with both truths."""
    rng = np.random.default_rng(seed)
    pair = {f"image{i}": np.float32(rng.uniform(0, 255, (1, 32, 64, 3))) for i in (1, 2)}
    truth = {"flow": np.ones((1, 32, 64, 3), "float32"), "seg": rng.integers(0, 11, (1, 32, 64))}
    return by_output(pair, truth)


def learnt(network):
    return [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_weights_change_by_the_mean_gradient_of_so_many_batches_and_it_resumes_between(tmp_path):
    network = training(accumulate=2)
    start = learnt(network)
    network.train_on_batch(*batch(0))
    assert same(learnt(network), start)
    checkpoints.save(tmp_path, network, Progress(Phase("both"), step=1), 1)
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
    network, outputs = training(accumulate=2), JOINT.asked(small())
    inputs, targets = (dict(part) for part in batch(0))
    few, many = (dict(targets), batch(1)[1])
    few["seg"] = np.where(np.arange(64) < 8, targets["seg"], 255)
    few = by_output(inputs, {**few, "flow": targets["flow"] * (np.arange(32) < 2)[:, None, None]})
    pair = [few, (batch(1)[0], many)]
    source = tf.data.Dataset.from_generator(
        lambda: iter(pair), output_signature=tf.nest.map_structure(tf.type_spec_from_value, pair[0])
    )
    weighed = list(objective.over_accumulated(source, 2, outputs))
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
    for part in objective.over_accumulated(empty, 2, outputs):
        assert loss(*part) == pytest.approx(0, abs=1e-6)
