"""A training step on the JAX backend equals one on TensorFlow: the same file, loss and metrics."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from flowseg import runs
from flowseg.network.model import build_flowseg
from tests.conftest import ROOT

# Runs in a separate Python process per backend, because Keras sets its backend on import.
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

model, out, unsupervised, *files = sys.argv[1:]
config = TrainingConfig(steps=10, warmup_steps=0, learning_rate=1e-3, seg_loss="balanced",
                        photometric=float(unsupervised), consistency=float(unsupervised))
metrics = JOINT.metrics(CITYSCAPES)
training = objective.compile_training(load_model(model), config, metrics)
# Only on JAX is the compiled step tested.
training.run_eagerly = keras.backend.backend() == "tensorflow"
draw = Draw([files], batch_size=2, steps_per_epoch=1)
batches = training_batches(draw, CITYSCAPES, height=64, width=96,
                           strength=Augmentation(colour=1.0), pair=True)
inputs, targets = next(batches.as_numpy_iterator())
before = training.get_weights()
by_output = objective.target_map(JOINT.active_outputs(config))
logs = training.fit(batches.map(by_output), steps_per_epoch=1, verbose=0).history
moved = sum(not np.array_equal(a, b) for a, b in zip(before, training.get_weights()))
results = {"backend": keras.backend.backend(), "moved": moved}
results |= {f"mean {k}": float(np.mean(v)) for k, v in {**inputs, **targets}.items()}
json.dump(results | {k: v[0] for k, v in logs.items()}, open(out, "w"))
"""


@pytest.mark.parametrize(
    ("encoder", "unsupervised"),
    [
        ("small", 0),
        pytest.param("small", 0.5, marks=pytest.mark.long),
        pytest.param("efficientnet_lite0", 0, marks=pytest.mark.long),
    ],
)
def test_step_on_jax_equals_tensorflow(encoder, unsupervised, trained_run, kitti_records, tmp_path):
    if not importlib.util.find_spec("jax"):
        pytest.skip("JAX is not installed (the extra `jax`)")
    path = trained_run / "model.keras"
    if encoder != "small":
        path = tmp_path / "model.keras"
        runs.save_model(build_flowseg(19, backbone=encoder), path)
    files = sorted(kitti_records.glob("train-*"))
    results = {}
    for backend in ("tensorflow", "jax"):
        out = tmp_path / f"{backend}.json"
        command = [sys.executable, "-c", STEP, path, out, unsupervised]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        # Full XLA optimisation would take minutes to compile.
        environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
        command = [str(part) for part in (*command, *files)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results[backend] = json.loads(out.read_text())
    ours, theirs = results["tensorflow"], results["jax"]
    assert (ours.pop("backend"), theirs.pop("backend")) == ("tensorflow", "jax")
    # Changed by the step or as batch statistics: the same number of weights on both.
    assert ours.pop("moved") == theirs.pop("moved") > (100 if encoder == "small" else 300)
    assert ours.keys() == theirs.keys()
    assert ("photometric_loss" in ours) == ("consistency_loss" in ours) == bool(unsupervised)
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
