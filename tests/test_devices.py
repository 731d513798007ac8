"""Many devices do what one does with the whole batch: TensorFlow's, and those of JAX's hosts."""

import importlib.util
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from flowseg import devices
from tests.conftest import ROOT
from tests.test_train import flags
from tests.test_training_data import batches_of, same

# TensorFlow must be told of two devices before it starts.
TWO = """
import sys
from flowseg import commands
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
"""
# Three steps of a toy: valid counts differ, one example of the last batch has a NaN, and gradients
# are clipped.
TOY = """
import json
import sys
from types import SimpleNamespace
from flowseg import commands
import keras
import numpy as np
import tensorflow as tf
from flowseg import devices, guards
from flowseg.losses import FlowLoss

def fit(kind="one", host=0, hosts=1, coordinator=None):
    args = SimpleNamespace(devices=kind, host=host, hosts=hosts, coordinator=coordinator)
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
        ours = np.s_[4 // hosts * host : 4 // hosts * (host + 1)]
        with spread.scope():
            one_batch = tf.data.Dataset.from_tensors((x[ours], y[ours]))
            losses.append(model.fit(one_batch, verbose=0, shuffle=False).history["loss"][0])
    weights = np.concatenate([w.ravel() for w in model.get_weights()]).tolist()
    skipped = int(keras.ops.convert_to_numpy(model.optimizer.skipped))
    return spread.count, losses, weights, skipped

json.dump([fit(**how) for how in json.loads(sys.argv[1])], open(sys.argv[2], "w"))
"""


ON_JAX = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    # A few steps are not worth XLA's best code, which takes minutes to make.
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}


def wants_jax():
    if not importlib.util.find_spec("jax"):
        pytest.skip("JAX is not installed (the extra `jax`)")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def assert_as_one(one, two):
    """Hold what the toy tells of two devices to what it tells of one."""
    assert (one[0], two[0]) == (1, 2)
    # 24 of the 25 valid pixels are in the first device's half.
    np.testing.assert_allclose(two[1][:2], one[1][:2], rtol=1e-5)
    np.testing.assert_allclose(two[2], one[2], rtol=1e-5, atol=1e-6)
    # No device took the step in which but one of them saw the NaN.
    assert one[3] == two[3] == 1 and np.isfinite(two[2]).all()


def test_a_step_on_two_devices_is_that_of_one(tmp_path):
    told = tmp_path / "told.json"
    run(TWO + TOY, json.dumps([{"kind": "one"}, {"kind": "all"}]), told)
    assert_as_one(*json.loads(told.read_text()))


def test_a_step_on_two_hosts_is_that_of_one(tmp_path):
    wants_jax()
    alone = tmp_path / "alone.json"
    run(TOY, json.dumps([{}]), alone, **ON_JAX)
    shared = {"hosts": 2, "coordinator": f"localhost:{free_port()}"}
    hosts = []
    for host in range(2):
        how = json.dumps([{**shared, "host": host}])
        hosts.append(run(TOY, how, tmp_path / f"{host}.json", wait=False, **ON_JAX))
    for process in hosts:
        told = process.communicate(timeout=300)[0]
        assert process.returncode == 0, told
    one = json.loads(alone.read_text())[0]
    for host in range(2):
        assert_as_one(one, json.loads((tmp_path / f"{host}.json").read_text())[0])


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
