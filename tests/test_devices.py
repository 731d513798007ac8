"""Many devices do what one does with the whole batch: by TensorFlow's strategy and on JAX's hosts."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from flowseg import data, devices
from flowseg.labels import CITYSCAPES
from tests.conftest import ROOT
from tests.test_training_data import batches_of, same
from tests.test_train import flags

# TensorFlow must be told of two devices before it starts.
TWO = """
import sys
from flowseg import commands
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
"""
# Three steps of a toy, on one device and on two: valid counts differ, the last batch has a NaN in
# the half of one device, and gradients are clipped.
TOY = """
import json
from types import SimpleNamespace
import keras
import numpy as np
from flowseg import devices, guards
from flowseg.losses import FlowLoss

def fit(kind):
    args = SimpleNamespace(devices=kind, hosts=1, host=0, coordinator=None)
    spread = devices.find(args, 4)
    keras.utils.set_random_seed(1)
    with spread.scope():
        image = keras.Input((4, 6, 3))
        flow = keras.layers.Conv2D(2, 1)(image)
        model = keras.Model(image, flow)
        model.compile(guards.GuardedAdamW(0.1, clipnorm=0.1), FlowLoss("epe"))
    rng = np.random.default_rng(0)
    losses = []
    for step in range(3):
        x = rng.normal(size=(4, 4, 6, 3)).astype("float32")
        y = np.float32(10 * rng.normal(size=(4, 4, 6, 3)))
        y[..., 2] = 0
        y[0, :, :, 2] = 1
        y[3, 1, 2, 2] = 1
        if step == 2:
            x[3, 1, 2] = np.nan
        one_batch = tf.data.Dataset.from_tensors((x, y))
        losses.append(model.fit(one_batch, verbose=0, shuffle=False).history["loss"][0])
    weights = np.concatenate([w.ravel() for w in model.get_weights()]).tolist()
    skipped = model.optimizer.skipped
    return spread.count, losses, weights, int(keras.ops.convert_to_numpy(skipped))

json.dump([fit("one"), fit("all")], open(sys.argv[1], "w"))
"""


def run(code, *args, wait=True, **environment):
    """Python code with arguments in a Python of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if wait:
        told = process.communicate(timeout=600)[0]
        assert process.returncode == 0, told
    return process


def test_a_step_on_two_devices_is_that_of_one(tmp_path):
    run(TWO + TOY, tmp_path / "told.json")
    one, two = json.loads((tmp_path / "told.json").read_text())
    assert (one[0], two[0]) == (1, 2)
    # 24 of the 25 valid pixels are in the first device's half.
    np.testing.assert_allclose(two[1][:2], one[1][:2], rtol=1e-5)
    np.testing.assert_allclose(two[2], one[2], rtol=1e-5, atol=1e-6)
    # No device took the step in which but one of them saw the NaN.
    assert one[3] == two[3] == 1 and np.isfinite(two[2]).all()


def test_hosts_share_each_batch(kitti_records):
    files = sorted(map(str, kitti_records.glob("train-*")))
    how = {"batch_size": 4, "steps_per_epoch": 2, "seed": 3, "first_step": 1}
    whole = batches_of([files], 3, **how)
    shares = [batches_of([files], 3, **how, host=host, hosts=2) for host in range(2)]
    for k, batch in enumerate(whole):
        joined = [
            {key: np.concatenate([a[key], b[key]]) for key in a}
            for a, b in zip(shares[0][k], shares[1][k], strict=True)
        ]
        assert same(joined, batch)


@pytest.mark.parametrize(
    "asked, told",
    [
        ({"hosts": 2}, "set KERAS_BACKEND=jax"),
        ({"devices": "all"}, None),
    ],
)
def test_what_cannot_be_spread(asked, told):
    args = flags(**{"devices": "one", "hosts": 1, "host": 0, "coordinator": None, **asked})
    if told is None:
        # One device is all there is here.
        assert devices.find(args, 3) == devices.ONE
        return
    with pytest.raises(ValueError, match=told):
        devices.find(args, 3)
