"""Gradient accumulation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flowseg.data.labels import CAMVID
from flowseg.training import checkpoints, objective
from flowseg.training.progress import Phase, Progress
from flowseg.training.tasks import JOINT
from tests.support.trainings import by_output, compiled, small


@pytest.fixture(autouse=True)
def _small_encoder(small_encoder):
    """All networks of these tests have a small encoder."""


def training(**changes):
    """Return a small compiled network with a frozen encoder."""
    config = small(freeze="encoder", warmup_steps=0, **changes)
    network = compiled(config, CAMVID)
    network.run_eagerly = True  # Tracing takes longer than a few eager steps.
    return network


def batch(seed):
    """Return one example of noise, with ground truth for both tasks."""
    rng = np.random.default_rng(seed)
    pair = {f"image{i}": np.float32(rng.uniform(0, 255, (1, 32, 64, 3))) for i in (1, 2)}
    truth = {"flow": np.ones((1, 32, 64, 3), "float32"), "seg": rng.integers(0, 11, (1, 32, 64))}
    return by_output(pair, truth)


def trainable_weights(network):
    return [keras.ops.convert_to_numpy(v) for v in network.trainable_variables]


def same(ours, theirs):
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_accumulated_step(tmp_path):
    network = training(accumulate=2)
    start = trainable_weights(network)
    network.train_on_batch(*batch(0))
    assert same(trainable_weights(network), start)
    checkpoints.save(tmp_path, network, Progress(Phase("both"), step=1), 1)
    network.train_on_batch(*batch(1))
    assert not same(trainable_weights(network), start)
    resumed = training(accumulate=2)
    checkpoints.load(resumed, tmp_path / "step-00000001")
    resumed.train_on_batch(*batch(1))
    assert same(trainable_weights(resumed), trainable_weights(network))
    # The mean gradient of the same batch twice is that of the batch.
    twice, once = training(accumulate=2), training()
    for _ in range(2):
        twice.train_on_batch(*batch(0))
    once.train_on_batch(*batch(0))
    change = 0
    for ours, theirs, before in zip(
        trainable_weights(twice), trainable_weights(once), start, strict=True
    ):
        change = max(change, np.abs(theirs - before).max())
        # The norms' statistics changed between the batches, but training does not use them.
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert change > 5e-4


def test_weights_of_accumulated_batches():
    """The weighted mean loss equals the loss of all examples as one batch."""
    network, outputs = training(accumulate=2), JOINT.active_outputs(small())
    inputs, targets = (dict(part) for part in batch(0))
    few, many = (dict(targets), batch(1)[1])
    few["seg"] = np.where(np.arange(64) < 8, targets["seg"], 255)
    few = by_output(inputs, {**few, "flow": targets["flow"] * (np.arange(32) < 2)[:, None, None]})
    pair = [few, (batch(1)[0], many)]
    source = tf.data.Dataset.from_generator(
        lambda: iter(pair), output_signature=tf.nest.map_structure(tf.type_spec_from_value, pair[0])
    )
    weighted = list(objective.weight_accumulated(source, 2, outputs))
    assert len(weighted) == 2

    def loss(x, y, weights=None):
        return float(keras.ops.sum(network.compute_loss(x, y, network(x, training=False), weights)))

    joined = tf.nest.map_structure(lambda a, b: np.concatenate([a, b]), *pair)
    expected = loss(*joined)
    assert np.mean([loss(*part) for part in weighted]) == pytest.approx(expected, rel=1e-4)
    # The unweighted mean, over each batch's valid pixels, differs.
    assert np.mean([loss(*part) for part in pair]) != pytest.approx(expected, rel=1e-2)
    # Without ground truth the loss is zero, without a division by zero.
    none = {key: np.full_like(y, 255 if key == "seg" else 0) for key, y in many.items()}
    empty = tf.data.Dataset.from_tensors((inputs, none)).repeat(2)
    for part in objective.weight_accumulated(empty, 2, outputs):
        assert loss(*part) == pytest.approx(0, abs=1e-6)
