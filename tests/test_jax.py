"""The same model file, loss and metrics take one training step on the JAX backend."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

# Run by a Python of its own for each backend: Keras fixes its backend when it is imported.
STEP = """
import json, sys
from flowseg import commands
import keras
import numpy as np
from flowseg.runs import load_model
from flowseg.train import compile_model
from flowseg.labels import CITYSCAPES
from types import SimpleNamespace

model, batch, out = sys.argv[1:]
args = SimpleNamespace(steps=10, warmup_steps=0, learning_rate=1e-3, weight_decay=1e-4,
                       clip_norm=1.0, flow_loss="log", alpha=1.0, beta=1.0)
training = compile_model(load_model(model), args, CITYSCAPES)
arrays = np.load(batch)
inputs = {key: arrays[key] for key in ("image1", "image2")}
targets = {key: arrays["seg" if key == "seg" else "flow"] for key in training.output_names}
before = training.get_weights()
logs = training.train_on_batch(inputs, targets, return_dict=True)
moved = sum(not np.array_equal(a, b) for a, b in zip(before, training.get_weights()))
flat = {k: float(v) for k, v in logs.items()}
json.dump({"backend": keras.backend.backend(), "moved": moved, **flat}, open(out, "w"))
"""


def test_one_step_on_jax_equals_one_on_tensorflow(trained_run, kitti_records, tmp_path):
    if not importlib.util.find_spec("jax"):
        pytest.skip("JAX is not installed (the extra `jax`)")
    from flowseg import data, records
    from flowseg.labels import CITYSCAPES

    files = [records.match_files(str(kitti_records / "train-*"))]
    size = {"height": 64, "width": 96}
    batches = data.training_data(files, CITYSCAPES, **size, batch_size=2, steps_per_epoch=1)
    inputs, targets = next(batches.as_numpy_iterator())
    np.savez(tmp_path / "batch.npz", **inputs, **targets)
    results = {}
    for backend in ("tensorflow", "jax"):
        out = tmp_path / f"{backend}.json"
        command = [sys.executable, "-c", STEP, trained_run / "model.keras", tmp_path / "batch.npz"]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        done = subprocess.run(
            [*map(str, command), str(out)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        results[backend] = json.loads(out.read_text())
    ours, theirs = results["tensorflow"], results["jax"]
    assert (ours.pop("backend"), theirs.pop("backend")) == ("tensorflow", "jax")
    # Every weight is moved, by the step or by batch statistics, but for the hand-overs' projections
    # of features that no gradient reaches yet: the same number on both.
    assert ours.pop("moved") == theirs.pop("moved") > 300
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
