"""What measures the time and the memory of a training."""

import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.costs import train_memory, train_speed
from flowseg.data import records
from flowseg.data.batches import Draw, training_batches
from flowseg.data.labels import CITYSCAPES
from flowseg.training.config import TrainingConfig
from tests.conftest import ROOT, run_command
from tests.support.trainings import by_output

# In a small process: what it forks begins with its size.
PEAKS = """
import sys
from experiments.costs import train_memory
for code in ("pass", "x = bytearray(200 << 20)", "x = bytearray(400 << 20)"):
    print(train_memory.peak([sys.executable, "-c", code]))
try:
    train_memory.peak([sys.executable, "-c", "print('no room'); raise SystemExit(3)"])
except ValueError as error:
    print(error)
"""


def test_peak_memory_is_that_of_the_command():
    done = subprocess.run([sys.executable, "-c", PEAKS], cwd=ROOT, capture_output=True, text=True)
    *peaks, error = done.stdout.splitlines()
    little, more, most = map(float, peaks)
    assert little < 0.15 and more < most
    assert most - more == pytest.approx(200 / 1024, abs=0.02)
    assert error == "exit code 3; it said: no room"


def test_memory_follows_a_line():
    base, each = train_memory.line([1, 2, 4], [1.5, 2.0, 3.0])
    assert (base, each) == (pytest.approx(1.0), pytest.approx(0.5))


def test_a_training_that_fails_is_told():
    asked = ("--train_records", "nowhere/train-*")
    error = run_command("experiments.costs.train_memory", *asked, ok=False).stderr
    assert "a training with batches of 1: exit code 1; it said: error: nowhere/train-*" in error
    error = run_command("experiments.costs.train_memory", *asked, "--batches=2", ok=False).stderr
    assert "--batches: two sizes at least" in error


def test_ways_of_training_tell_when_each_step_ended(kitti_records, tmp_path):
    files = records.match_files(str(kitti_records / "train-*"))
    config = TrainingConfig(backbone="efficientnet_lite0", steps_per_epoch=9)
    draw = Draw([files], batch_size=2, steps_per_epoch=9)
    batches = training_batches(draw, CITYSCAPES, height=32, width=64)
    batches = batches.map(by_output)
    tf.config.run_functions_eagerly(True)  # A few steps are not worth tracing.
    try:
        ways, watching = train_speed.ways(config, CITYSCAPES, batches, tmp_path)
        assert list(ways) == ["one batch", "hand-written", "fit", "+ scores", "+ watching"]
        for name in ("hand-written", "+ watching"):
            run, source = ways[name]
            before = time.perf_counter()
            ends = run(source, 2)
            assert before < ends[0] < ends[1] < time.perf_counter(), name
        before, counted = time.perf_counter(), watching[0].progress.step
        own = train_speed.alone(watching, batches, steps=3)
        assert all(own) and sum(own) < time.perf_counter() - before
        assert watching[0].progress.step == counted + 4
    finally:
        tf.config.run_functions_eagerly(False)


def test_a_step_by_hand_is_that_of_fit():
    def network():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(keras.optimizers.AdamW(0.1), "mse")
        return model

    x, y = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((x, y[..., :2]))
    weights = []
    for way in (train_speed.loop, train_speed.fitting):
        model = network()
        assert len(way(model)(batches, 4)) == 4
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_operators_of_a_trace_are_added_up(tmp_path):
    @tf.function
    def multiply(x):
        return tf.linalg.matmul(x, x) + 1

    x = tf.random.normal((300, 300))
    multiply(x)
    with tf.profiler.experimental.Profile(str(tmp_path)):
        for _ in range(5):
            multiply(x)
    found = train_speed.operators(tmp_path)
    assert found["MatMul"] > 0 and all(seconds >= 0 for seconds in found.values())
    assert "Process" not in found  # ExecutorState::Process is no operator.
