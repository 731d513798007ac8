"""Many devices do what one does with the whole batch: TensorFlow's, and those of JAX's hosts."""

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
from flowseg.network.model import build_flowseg
from flowseg.training import distribution
from tests.conftest import ROOT, run_command
from tests.data.test_batches import batches_of, same

# TensorFlow must be told of two devices before it starts.
TWO = """
import sys
from flowseg.cli import entry
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
"""
# Three steps of a toy: valid counts differ, one example of the last batch has a NaN, and gradients
# are clipped.
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
    spread = distribution.find(
        4, devices=kind, host=host, hosts=hosts, coordinator=coordinator)
    keras.utils.set_random_seed(1)
    with spread.scope():
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


def run(code, *args, wait=True, ok=True, **environment):
    """Python code with arguments in a Python of its own; what it says is `told` then."""
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
    """Wait until they end, well or, if not `ok`, with an error."""
    for process in processes:
        process.told = process.communicate(timeout=1200)[0]
        assert (process.returncode == 0) == ok, process.told


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
whole = SegLoss("balanced")(labels, logits)
alone = [SegLoss("balanced")(labels[k : k + 2], logits[k : k + 2]) for k in (0, 2)]
# Keras has each device's loss divided by their number, for gradients that are summed.
print(*(float(np.squeeze(x)) for x in (np.sum(values), whole, np.mean(alone))))
"""


def test_classes_are_balanced_over_all_devices():
    by_two, by_one, apart = map(float, run(TWO + BALANCED).told.splitlines()[-1].split())
    assert by_two == pytest.approx(by_one, rel=1e-5)
    assert apart != pytest.approx(by_one, rel=0.01)


def by_two_hosts(code, folder):
    """What the toy tells on each of two JAX hosts."""
    shared = {"hosts": 2, "coordinator": f"localhost:{free_port()}"}
    told = [folder / f"{host}.json" for host in range(2)]
    asked = [json.dumps([{**shared, "host": host}]) for host in range(2)]
    pairs = zip(asked, told, strict=True)
    finish([run(code, how, path, wait=False, **ON_JAX) for how, path in pairs])
    return [json.loads(path.read_text())[0] for path in told]


def test_a_step_on_two_hosts_is_that_of_one(tmp_path):
    wants_jax()
    alone = tmp_path / "alone.json"
    run(TOY, json.dumps([{}]), alone, **ON_JAX)
    one = json.loads(alone.read_text())[0]
    for two in by_two_hosts(TOY, tmp_path):
        assert_as_one(one, two)


@pytest.mark.long
def test_hosts_may_be_far_apart_before_their_first_step(tmp_path):
    """Gloo, by which those of CPUs talk, gives up after 30 s unless they talked before."""
    wants_jax()
    begin = "    keras.utils.set_random_seed(1)\n"
    assert TOY.count(begin) == 1
    late = TOY.replace(begin, f"    import time; time.sleep(40 * host)\n{begin}")
    first, second = by_two_hosts(late, tmp_path)
    assert first[:3] == second[:3] and first[0] == 2


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


TRAIN = "import runpy; runpy.run_module('tests.support.eager_train', run_name='__main__')"


def command(kitti_records, run_dir, **changes):
    """Flags of a training of one step."""
    asked = {"backbone": "efficientnet_lite0", "steps": 1, "steps_per_epoch": 1, "batch_size": 2}
    asked |= {"height": 64, "width": 96, "warmup_steps": 0, "pictures": 0, "run_dir": run_dir}
    asked |= {"train_records": kitti_records / "train-*", **changes}
    return [f"--{name}={value}" for name, value in asked.items()]


def first_losses(run_dir):
    """Every output's loss in the first line of history.csv."""
    first = next(csv.DictReader((run_dir / "history.csv").open()))
    return {name: float(value) for name, value in first.items() if name.endswith("loss")}


def assert_same_losses(run_dir, other):
    ours, theirs = first_losses(run_dir), first_losses(other)
    assert ours.keys() == theirs.keys() and len(ours) == 9
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=2e-3), name


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Weights to start from: backends draw random ones differently."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("start") / "start.keras"
    runs.save_model(build_flowseg(19, backbone="efficientnet_lite0"), path)
    return path


@pytest.fixture(scope="module")
def alone(kitti_records, start, tmp_path_factory):
    """The run of one device."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    run_command("tests.support.eager_train", *command(kitti_records, folder, init_from=start))
    return folder


@pytest.mark.long
def test_two_devices_train_and_validate_as_one(alone, start, kitti_records, tmp_path):
    folder = tmp_path / "run"
    validated = {"val_records": kitti_records / "val-*", "init_from": start}
    run(TWO + TRAIN, *command(kitti_records, folder, **validated), "--devices=all")
    shown = first_losses(folder)
    assert shown.pop("val_loss") > 0
    assert {k: v for k, v in shown.items() if not k.startswith("val_")} == pytest.approx(
        first_losses(alone), rel=1e-4
    )
    # Every device scored every frame: the same as once.
    scored = tmp_path / "scores.json"
    asked = ("--run_dir", folder, "--records", kitti_records / "val-*", "--metrics_json", scored)
    run_command("flowseg.evaluate", *asked)
    ours = json.loads((folder / "metrics.json").read_text())
    for name in ("seg/miou", "flow/aepe", "flow/fl_all"):
        assert ours[name] == pytest.approx(json.loads(scored.read_text())[name], rel=1e-3), name
    # One device goes on.
    asked = command(kitti_records, folder, **validated, steps=2)
    assert "resuming after step 1" in run_command("tests.support.eager_train", *asked).stdout
    assert [row["step"] for row in csv.DictReader((folder / "history.csv").open())] == ["1", "2"]


@pytest.mark.long
def test_two_hosts_train_one_run_that_tensorflow_takes(alone, start, kitti_records, tmp_path):
    wants_jax()
    folder = tmp_path / "run"
    shared = {"hosts": 2, "coordinator": f"localhost:{free_port()}"}
    shared = command(kitti_records, folder, init_from=start, **shared)
    module = "from flowseg.cli import entry; from flowseg import train; train.run()"
    hosts = [run(module, *shared, f"--host={k}", wait=False, **ON_JAX) for k in range(2)]
    finish(hosts)
    assert_same_losses(folder, alone)
    # Host 0 alone wrote.
    assert len(list((folder / "tensorboard/train").iterdir())) == 1
    answers = runs.load_run(folder).predict(*np.zeros((2, 32, 48, 3), np.uint8))
    assert [answer.shape for answer in answers] == [(32, 48), (32, 48, 2)]
    asked = command(kitti_records, folder, steps=2)
    assert "resuming after step 1" in run_command("tests.support.eager_train", *asked).stdout


def test_what_cannot_be_spread():
    with pytest.raises(ArgumentError, match="^hosts: .*set KERAS_BACKEND=jax"):
        distribution.find(2, hosts=2)
    # One device is all there is here.
    assert distribution.find(3, devices="all") == distribution.ONE
    uneven = TOY.replace("        4, devices", "        3, devices")
    assert uneven != TOY
    told = run(TWO + uneven, json.dumps([{"kind": "all"}]), "-", ok=False).told
    assert "batch_size=3 cannot be shared by 2 devices evenly" in told
