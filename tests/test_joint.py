"""Joint against separate: what each network is charged for, and the table."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from experiments import joint
from tests.conftest import run_command

BACKBONE = "efficientnet_lite0"


def test_networks_of_one_task_answer_as_the_joint_one_and_hold_less():
    keras.utils.set_random_seed(1)
    networks = joint.task_networks(BACKBONE, ("no exchange",))
    rng = np.random.default_rng(0)
    pair = {f"image{i}": np.float32(rng.uniform(0, 255, (1, 64, 96, 3))) for i in (1, 2)}
    both = networks["no exchange"](pair)
    alone = networks["segmentation only"](pair["image1"])
    moves = networks["flow only"](pair)
    assert set(alone) == {"seg"} and set(moves) == {"flow"}
    np.testing.assert_allclose(alone["seg"], both["seg"], atol=1e-4)
    np.testing.assert_allclose(moves["flow"], both["flow"], atol=1e-4)
    sizes = {name: network.count_params() for name, network in networks.items()}
    assert sizes["encoder"] < sizes["segmentation only"] < sizes["no exchange"]
    assert sizes["flow only"] < sizes["no exchange"]
    names = {layer.name for layer in networks["flow only"].layers[-1].layers}
    assert not any(name.startswith("seg") for name in names)


def test_table_by_hand():
    found = {
        "both": [{"seg/miou": 40.0, "flow/aepe": 2.0}, {"seg/miou": 44.0, "flow/aepe": 3.0}],
        "flow only": [{"flow/aepe": 2.5}],
    }
    spent = dict.fromkeys(found, {"params": 4.0, "gflops": 4.5, "ms": 100.0})
    lines = joint.table(found, spent).splitlines()
    # Deviations over n - 1: sqrt(8), sqrt(1/2); of one value there is none.
    assert lines[2] == "| both | 42.00 ± 2.83 |  | 2.50 ± 0.71 |  | 4.00 | 4.50 | 100.0 |"
    assert lines[3] == "| flow only |  |  | 2.50 |  | 4.00 | 4.50 | 100.0 |"


def test_a_finished_training_is_not_repeated(tmp_path):
    args = SimpleNamespace(
        recipe="r.flags", train_records=["a"], val_records=["b", "c"], train_flag=["--steps=1"]
    )
    args.backbone = BACKBONE
    trained = f"--flagfile=r.flags --train_records=a --backbone={BACKBONE} --seed=0 --val_records="
    trained += " --exchange=both --steps=1"
    done = {"trained": trained, "scored_on": "b,c", "seg/miou": 1.5}
    (tmp_path / "scores.json").write_text(json.dumps(done))
    assert joint.score(tmp_path, "both", 0, args) == done
    args.train_flag = ["--steps=2"]
    with pytest.raises(ValueError, match="other flags or records"):
        joint.score(tmp_path, "both", 0, args)


def test_command(kitti_records, tmp_path):
    sets = ("--train_records", kitti_records / "train-*", "--val_records", kitti_records / "val-*")
    command = ("experiments.joint", *sets, "--output", tmp_path)
    assert "sideways" in run_command(*command, "--variants", "sideways", ok=False).stderr
    assert "multiples of 32" in run_command(*command, "--height", 65, ok=False).stderr
    told = run_command(
        *(*command, "--variants", "flow only", "--seeds", 3, "--rounds", 1),
        *("--height", 64, "--width", 96, "--train_flag=--steps=2", "--train_flag=--batch_size=1"),
        *("--train_flag=--height=32", "--train_flag=--width=64", "--train_flag=--warmup_steps=0"),
    ).stdout
    row = next(line for line in told.splitlines() if line.startswith("| flow only |"))
    assert row.split("|")[2].strip() == "" and float(row.split("|")[4]) > 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["flow only/3/flow/aepe"] > 0 and scores["flow only/cost/ms"] > 0
    assert not any("seg/miou" in key for key in scores)
    flags = (tmp_path / "flow_only_3" / "flags.txt").read_text().splitlines()
    assert {"--alpha=0.0", "--exchange=none", "--seed=3"} <= set(flags)


@pytest.mark.parametrize("variant", joint.VARIANTS)
def test_variants_differ_in_the_loss_and_the_exchange_alone(variant):
    left_out = {"segmentation only": ("--beta=0",), "flow only": ("--alpha=0",)}
    exchange, *losses = joint.VARIANTS[variant]
    assert exchange.startswith("--exchange=") and tuple(losses) == left_out.get(variant, ())
