"""The same model file, loss and metrics take one training step on the JAX backend."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Run by a Python of its own for each backend: Keras fixes its backend when it is imported.
STEP = """
import json, sys
from flowseg.cli import entry
import keras
import numpy as np
from flowseg.data.batches import Draw, training_batches
from flowseg.data.augment import Augmentation
from flowseg.data.labels import CITYSCAPES
from flowseg.runs import load_model
from flowseg.training import objective
from flowseg.training.config import TrainingConfig
from flowseg.training.tasks import JOINT

model, out, without_truth, *files = sys.argv[1:]
config = TrainingConfig(steps=10, warmup_steps=0, learning_rate=1e-3, seg_loss="balanced",
                        photometric=float(without_truth), consistency=float(without_truth))
metrics = JOINT.metrics(CITYSCAPES)
training = objective.compile_training(load_model(model), config, metrics)
# A graph for one step is worth it on JAX alone, where it is what is tested.
training.run_eagerly = keras.backend.backend() == "tensorflow"
draw = Draw([files], batch_size=2, steps_per_epoch=1)
batches = training_batches(draw, CITYSCAPES, height=64, width=96,
                           strength=Augmentation(colour=1.0), pair=True)
inputs, targets = next(batches.as_numpy_iterator())
before = training.get_weights()
held_to = objective.target_map(JOINT.asked(config))
logs = training.fit(batches.map(held_to), steps_per_epoch=1, verbose=0).history
moved = sum(not np.array_equal(a, b) for a, b in zip(before, training.get_weights()))
told = {"backend": keras.backend.backend(), "moved": moved}
told |= {f"mean {k}": float(np.mean(v)) for k, v in {**inputs, **targets}.items()}
json.dump(told | {k: v[0] for k, v in logs.items()}, open(out, "w"))
"""


@pytest.mark.parametrize("without_truth", [0, pytest.param(0.5, marks=pytest.mark.long)])
def test_one_step_on_jax_equals_one_on_tensorflow(
    without_truth, trained_run, kitti_records, tmp_path
):
    if not importlib.util.find_spec("jax"):
        pytest.skip("JAX is not installed (the extra `jax`)")
    files = sorted(kitti_records.glob("train-*"))
    results = {}
    for backend in ("tensorflow", "jax"):
        out = tmp_path / f"{backend}.json"
        command = [sys.executable, "-c", STEP, trained_run / "model.keras", out, without_truth]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        # One step is not worth XLA's best code, which takes minutes to make.
        environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
        command = [str(part) for part in (*command, *files)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results[backend] = json.loads(out.read_text())
    ours, theirs = results["tensorflow"], results["jax"]
    assert (ours.pop("backend"), theirs.pop("backend")) == ("tensorflow", "jax")
    # By the step or by batch statistics: the same number on both.
    assert ours.pop("moved") == theirs.pop("moved") > 300
    assert ours.keys() == theirs.keys()
    assert ("photometric_loss" in ours) == ("consistency_loss" in ours) == bool(without_truth)
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
