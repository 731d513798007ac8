"""Training on many devices equals training on one: TensorFlow devices, and JAX hosts."""

import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from flowseg import runs
from flowseg.errors import ArgumentError
from flowseg.network import model
from flowseg.training import distribution
from tests.conftest import ROOT, run_command
from tests.data.test_batches import batches_of, same
from tests.support import small_encoder

# TensorFlow's two devices must be configured before it starts.
TWO = """
import sys
from flowseg.cli import entry
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
"""
# Three steps of a toy model: the devices' valid counts differ, one example of the last batch has a
# NaN, and gradients are clipped.
TOY = """
import json
import sys
from flowseg.cli import entry
import keras
import numpy as np
import tensorflow as tf
from flowseg.training import distribution, optimizer
from flowseg.training.losses import FlowLoss

def fit(kind="one", host=0, hosts=1, coordinator=None):
    devices = distribution.find(
        4, devices=kind, host=host, hosts=hosts, coordinator=coordinator)
    keras.utils.set_random_seed(1)
    with devices.scope():
        image = keras.Input((4, 6, 3))
        flow = keras.layers.Conv2D(2, 1)(image)
        model = keras.Model(image, flow)
        model.compile(optimizer.GuardedAdamW(0.1, clipnorm=0.1), FlowLoss("epe"))
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
        with devices.scope():
            one_batch = tf.data.Dataset.from_tensors((x[ours], y[ours]))
            losses.append(model.fit(one_batch, verbose=0, shuffle=False).history["loss"][0])
    weights = np.concatenate([w.ravel() for w in model.get_weights()]).tolist()
    skipped = int(keras.ops.convert_to_numpy(model.optimizer.skipped))
    return devices.count, losses, weights, skipped

json.dump([fit(**options) for options in json.loads(sys.argv[1])], open(sys.argv[2], "w"))
"""


ON_JAX = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    # Full XLA optimisation would take minutes to compile.
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}


def skip_without_jax():
    if not importlib.util.find_spec("jax"):
        pytest.skip("JAX is not installed (the extra `jax`)")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(code, *args, wait=True, ok=True, **environment):
    """Run Python code with arguments in a separate process; `printed` is its output afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if wait:
        finish([process], ok)
    return process


def finish(processes, ok=True):
    """Wait for processes to succeed or, if not `ok`, to fail."""
    for process in processes:
        process.printed = process.communicate(timeout=1200)[0]
        assert (process.returncode == 0) == ok, process.printed


def assert_equal_results(one, two):
    """Compare the toy model's results on two devices with those on one."""
    assert (one[0], two[0]) == (1, 2)
    # 24 of the 25 valid pixels are in the first device's half.
    np.testing.assert_allclose(two[1][:2], one[1][:2], rtol=1e-5)
    np.testing.assert_allclose(two[2], one[2], rtol=1e-5, atol=1e-6)
    # All devices skipped the step in which only one had the NaN.
    assert one[3] == two[3] == 1 and np.isfinite(two[2]).all()


def test_step_on_two_devices(tmp_path):
    output = tmp_path / "results.json"
    run(TWO + TOY, json.dumps([{"kind": "one"}, {"kind": "all"}]), output)
    assert_equal_results(*json.loads(output.read_text()))


BALANCED = """
import numpy as np
from flowseg.training.losses import SegLoss
rng = np.random.default_rng(0)
labels = tf.constant(rng.choice([0, 1, 2, 255], (4, 5, 6), p=[0.7, 0.2, 0.05, 0.05]))
labels = tf.concat([labels[:2], tf.where(labels[2:] < 2, 255, labels[2:])], 0)
logits = tf.constant(rng.normal(size=(4, 5, 6, 3)), tf.float32)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
def part():
    begin = 2 * tf.distribute.get_replica_context().replica_id_in_sync_group
    return SegLoss("balanced")(labels[begin : begin + 2], logits[begin : begin + 2])
values = strategy.experimental_local_results(tf.function(strategy.run)(part))
single = SegLoss("balanced")(labels, logits)
halves = [SegLoss("balanced")(labels[k : k + 2], logits[k : k + 2]) for k in (0, 2)]
# Keras divides each device's loss by their number, because gradients are summed.
print(*(float(np.squeeze(x)) for x in (np.sum(values), single, np.mean(halves))))
"""


def test_balanced_loss_on_two_devices():
    by_two, by_one, separate = map(float, run(TWO + BALANCED).printed.splitlines()[-1].split())
    assert by_two == pytest.approx(by_one, rel=1e-5)
    assert separate != pytest.approx(by_one, rel=0.01)


def run_on_two_hosts(code, folder):
    """Run the toy model on two JAX hosts; return the results of each."""
    shared = {"hosts": 2, "coordinator": f"localhost:{free_port()}"}
    outputs = [folder / f"{host}.json" for host in range(2)]
    arguments = [json.dumps([{**shared, "host": host}]) for host in range(2)]
    pairs = zip(arguments, outputs, strict=True)
    finish([run(code, argument, path, wait=False, **ON_JAX) for argument, path in pairs])
    return [json.loads(path.read_text())[0] for path in outputs]


def test_step_on_two_hosts(tmp_path):
    skip_without_jax()
    single = tmp_path / "single.json"
    run(TOY, json.dumps([{}]), single, **ON_JAX)
    one = json.loads(single.read_text())[0]
    for two in run_on_two_hosts(TOY, tmp_path):
        assert_equal_results(one, two)


@pytest.mark.long
def test_hosts_with_delayed_start(tmp_path):
    """Gloo, which connects CPU hosts, times out after 30 s unless they communicated before."""
    skip_without_jax()
    begin = "    keras.utils.set_random_seed(1)\n"
    assert TOY.count(begin) == 1
    late = TOY.replace(begin, f"    import time; time.sleep(40 * host)\n{begin}")
    first, second = run_on_two_hosts(late, tmp_path)
    assert first[:3] == second[:3] and first[0] == 2


def test_hosts_share_each_batch(kitti_records):
    files = sorted(map(str, kitti_records.glob("train-*")))
    options = {"batch_size": 4, "steps_per_epoch": 2, "seed": 3, "first_step": 1}
    batches = batches_of([files], 3, **options)
    shares = [batches_of([files], 3, **options, host=host, hosts=2) for host in range(2)]
    for k, batch in enumerate(batches):
        joined = [
            {key: np.concatenate([a[key], b[key]]) for key in a}
            for a, b in zip(shares[0][k], shares[1][k], strict=True)
        ]
        assert same(joined, batch)


TRAIN = "import runpy; runpy.run_module('tests.support.small_train', run_name='__main__')"
# The same for JAX, where TensorFlow's eager mode has no use.
TRAIN_ON_JAX = """
from flowseg import train
from tests.support import small_encoder
small_encoder.install()
train.entry_point()
"""


def command(kitti_records, run_dir, **changes):
    """Return the flags of a training of one step."""
    values = {"backbone": "efficientnet_lite0", "steps": 1, "steps_per_epoch": 1, "batch_size": 2}
    values |= {"height": 64, "width": 96, "warmup_steps": 0, "pictures": 0, "run_dir": run_dir}
    values |= {"train_records": kitti_records / "train-*", **changes}
    return [f"--{name}={value}" for name, value in values.items()]


def first_losses(run_dir):
    """Return every output's loss in the first line of history.csv."""
    first = next(csv.DictReader((run_dir / "history.csv").open()))
    return {name: float(value) for name, value in first.items() if name.endswith("loss")}


def assert_same_losses(run_dir, other):
    ours, theirs = first_losses(run_dir), first_losses(other)
    assert ours.keys() == theirs.keys() and len(ours) == 9
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=2e-3), name


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """File of initial weights, because backends initialise differently."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("start") / "start.keras"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(model, "build_encoder", small_encoder.build_encoder)
        runs.save_model(model.build_flowseg(19), path)
    return path


@pytest.fixture(scope="module")
def single_run(kitti_records, start, tmp_path_factory):
    """Run folder of a training on one device."""
    folder = tmp_path_factory.mktemp("runs") / "single"
    run_command("tests.support.small_train", *command(kitti_records, folder, init_from=start))
    return folder


@pytest.mark.long
def test_training_on_two_devices(single_run, start, kitti_records, tmp_path):
    folder = tmp_path / "run"
    validated = {"val_records": kitti_records / "val-*", "init_from": start}
    run(TWO + TRAIN, *command(kitti_records, folder, **validated), "--devices=all")
    losses = first_losses(folder)
    assert losses.pop("val_loss") > 0
    assert {k: v for k, v in losses.items() if not k.startswith("val_")} == pytest.approx(
        first_losses(single_run), rel=1e-4
    )
    # Every device scored every frame, with the same result as on one device.
    scored = tmp_path / "scores.json"
    flags = ("--run_dir", folder, "--records", kitti_records / "val-*", "--metrics_json", scored)
    run_command("flowseg.evaluate", *flags)
    ours = json.loads((folder / "metrics.json").read_text())
    for name in ("seg/miou", "flow/aepe", "flow/fl_all"):
        assert ours[name] == pytest.approx(json.loads(scored.read_text())[name], rel=1e-3), name
    # One device resumes the training.
    flags = command(kitti_records, folder, **validated, steps=2)
    assert "resuming after step 1" in run_command("tests.support.small_train", *flags).stdout
    assert [row["step"] for row in csv.DictReader((folder / "history.csv").open())] == ["1", "2"]


@pytest.mark.long
def test_training_on_two_hosts(single_run, start, kitti_records, tmp_path):
    skip_without_jax()
    folder = tmp_path / "run"
    shared = {"hosts": 2, "coordinator": f"localhost:{free_port()}"}
    shared = command(kitti_records, folder, init_from=start, **shared)
    hosts = [run(TRAIN_ON_JAX, *shared, f"--host={k}", wait=False, **ON_JAX) for k in range(2)]
    finish(hosts)
    assert_same_losses(folder, single_run)
    # Only host 0 wrote.
    assert len(list((folder / "tensorboard/train").iterdir())) == 1
    predictions = runs.load_run(folder).predict(*np.zeros((2, 32, 48, 3), np.uint8))
    assert [prediction.shape for prediction in predictions] == [(32, 48), (32, 48, 2)]
    flags = command(kitti_records, folder, steps=2)
    assert "resuming after step 1" in run_command("tests.support.small_train", *flags).stdout


def test_invalid_devices():
    with pytest.raises(ArgumentError, match="^hosts: .*set KERAS_BACKEND=jax"):
        distribution.find(2, hosts=2)
    # This machine has only one device.
    assert distribution.find(3, devices="all") == distribution.ONE_DEVICE
    uneven = TOY.replace("        4, devices", "        3, devices")
    assert uneven != TOY
    printed = run(TWO + uneven, json.dumps([{"kind": "all"}]), "-", ok=False).printed
    assert "batch_size=3 cannot be split evenly over 2 devices" in printed
