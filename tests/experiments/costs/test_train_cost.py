"""Measurements of the time and the memory of a training."""

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

# In a small process, because a forked process starts with the memory of its parent.
PEAKS = """
import sys
from experiments.costs import train_memory
for code in ("pass", "x = bytearray(200 << 20)", "x = bytearray(400 << 20)"):
    print(train_memory.peak([sys.executable, "-c", code]))
try:
    train_memory.peak([sys.executable, "-c", "print('disk full'); raise SystemExit(3)"])
except ValueError as error:
    print(error)
"""


def test_peak_memory_of_a_command():
    completed = subprocess.run(
        [sys.executable, "-c", PEAKS], cwd=ROOT, capture_output=True, text=True
    )
    *peaks, error = completed.stdout.splitlines()
    little, more, most = map(float, peaks)
    assert little < 0.15 and more < most
    assert most - more == pytest.approx(200 / 1024, abs=0.02)
    assert error == "exit code 3; last output: disk full"


def test_line_through_peaks():
    base, each = train_memory.line([1, 2, 4], [1.5, 2.0, 3.0])
    assert (base, each) == (pytest.approx(1.0), pytest.approx(0.5))


def test_failing_training_is_reported():
    flags = ("--train_records", "nowhere/train-*")
    error = run_command("experiments.costs.train_memory", *flags, ok=False).stderr
    assert "a training with batches of 1: exit code 1; last output: error: nowhere/train-*" in error
    error = run_command("experiments.costs.train_memory", *flags, "--batches=2", ok=False).stderr
    assert "--batches: needs at least two sizes" in error


def test_ways_of_training_record_step_ends(kitti_records, small_encoder, tmp_path):
    files = records.match_files(str(kitti_records / "train-*"))
    config = TrainingConfig(steps_per_epoch=9)
    draw = Draw([files], batch_size=2, steps_per_epoch=9)
    batches = training_batches(draw, CITYSCAPES, height=32, width=64)
    batches = batches.map(by_output)
    tf.config.run_functions_eagerly(True)  # Tracing takes longer than a few eager steps.
    try:
        ways, callbacks = train_speed.ways(config, CITYSCAPES, batches, tmp_path)
        assert list(ways) == ["one batch", "hand-written", "fit", "+ scores", "+ watching"]
        for name in ("hand-written", "+ watching"):
            run, source = ways[name]
            before = time.perf_counter()
            ends = run(source, 2)
            assert before < ends[0] < ends[1] < time.perf_counter(), name
        before, counted = time.perf_counter(), callbacks[0].progress.step
        seconds = train_speed.alone(callbacks, batches, steps=3)
        assert all(seconds) and sum(seconds) < time.perf_counter() - before
        assert callbacks[0].progress.step == counted + 4
    finally:
        tf.config.run_functions_eagerly(False)


def test_hand_written_step_equals_fit():
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


def test_operator_times_of_a_trace(tmp_path):
    @tf.function
    def multiply(x):
        return tf.linalg.matmul(x, x) + 1

    x = tf.random.normal((300, 300))
    multiply(x)
    with tf.profiler.experimental.Profile(str(tmp_path)):
        for _ in range(5):
            multiply(x)
    totals = train_speed.operators(tmp_path)
    assert totals["MatMul"] > 0 and all(seconds >= 0 for seconds in totals.values())
    assert "Process" not in totals  # ExecutorState::Process is not an operator.
