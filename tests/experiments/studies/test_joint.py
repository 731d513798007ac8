"""Joint and single-task networks: outputs, costs, flags and the table."""

import keras
import numpy as np
import pytest

from experiments.studies import joint
from flowseg.network.model import parts
from tests.conftest import run_command
from tests.support import markdown

BACKBONE = "efficientnet_lite0"


def test_single_task_networks_equal_the_joint_one_and_are_smaller():
    keras.utils.set_random_seed(1)
    networks = joint.task_networks(BACKBONE, ("no exchange",))
    rng = np.random.default_rng(0)
    pair = {f"image{i}": np.float32(rng.uniform(0, 255, (1, 64, 96, 3))) for i in (1, 2)}
    both = networks["no exchange"](pair)
    segmentation = networks["segmentation only"](pair["image1"])
    flow = networks["flow only"](pair)
    assert set(segmentation) == {"seg"} and set(flow) == {"flow"}
    np.testing.assert_allclose(segmentation["seg"], both["seg"], atol=1e-4)
    np.testing.assert_allclose(flow["flow"], both["flow"], atol=1e-4)
    sizes = {name: network.count_params() for name, network in networks.items()}
    assert sizes["encoder"] < sizes["segmentation only"] < sizes["no exchange"]
    assert sizes["flow only"] < sizes["no exchange"]
    names = {layer.name for layer in parts(networks["flow only"]).decoder.layers}
    assert not any(name.startswith("seg") for name in names)


def test_table_by_hand():
    scores = {
        "no exchange": [{"seg/miou": 39.0, "flow/aepe": 2.5}, {"seg/miou": 41.0, "flow/aepe": 3.0}],
        "both": [{"seg/miou": 40.0, "flow/aepe": 2.0}, {"seg/miou": 44.0, "flow/aepe": 3.0}],
        "flow only": [{"flow/aepe": 2.5}],
    }
    keys = {"seg/miou": "mIoU", "flow/aepe": "AEPE", "flow/fl_all": "Fl"}
    costs = dict.fromkeys(scores, {"params": 4.0, "gflops": 4.5, "ms": 100.0})
    rows = markdown.rows(joint.table(scores, keys, costs))
    assert rows[0] == ["", "mIoU", "AEPE", "Fl", "parameters, M", "GFLOPs", "ms"]
    # Deviations over n - 1: sqrt(8), sqrt(1/2); a single value has none.
    assert rows[2] == ["both", "42.00 ± 2.83", "2.50 ± 0.71", "", "4.00", "4.50", "100.0"]
    # Seed by seed: +1, +3 and -0.5, 0. Single-task networks have other initial weights.
    difference = ["... minus no exchange", "+2.00 ± 1.41", "-0.25 ± 0.35", "", "", "", ""]
    assert rows[3] == difference
    assert rows[4] == ["flow only", "", "2.50", "", "4.00", "4.50", "100.0"]
    assert len(rows) == 5
    assert markdown.rows(joint.table({"both": scores["both"]}, keys))[1:] == [
        ["both", "42.00 ± 2.83", "2.50 ± 0.71", ""]
    ]


def test_small_classes_are_averaged():
    scores = {"seg/iou/pole": 10.0, "seg/iou/person": 30.0, "seg/iou/road": 90.0}
    assert joint._add_small_classes(scores)["seg/small"] == 20.0
    assert joint._add_small_classes({"flow/aepe": 1.0}) == {"flow/aepe": 1.0}


def test_training_flags():
    flags = joint.training_flags("flow only", "3", "r.flags", ["a", "b"], BACKBONE, ["--steps=2"])
    expected = f"--flagfile=r.flags --train_records=a,b --backbone={BACKBONE} --seed=3 "
    expected += "--val_records= --exchange=none --learn=flow --steps=2"
    assert flags == expected.split()


def test_costs_of_the_requested_networks(small_encoder):
    costs = joint.costs(BACKBONE, ["flow only"], 32, 64, 1, 1)
    assert set(costs) == {"encoder", "segmentation only", "flow only"}
    assert costs["encoder"]["gflops"] < costs["segmentation only"]["gflops"]
    assert all(cost["ms"] > 0 for cost in costs.values())


def test_command_checks_flags_before_training(tmp_path):
    command = ("experiments.studies.joint", "--train_records", "a", "--val_records", "b")
    command += ("--output", tmp_path)
    assert "sideways" in run_command(*command, "--variants", "sideways", ok=False).stderr
    assert "multiples of 32" in run_command(*command, "--height", 65, ok=False).stderr


@pytest.mark.parametrize("variant", joint.VARIANTS)
def test_variants_differ_only_in_loss_and_exchange(variant):
    learn_flags = {"segmentation only": ("--learn=seg",), "flow only": ("--learn=flow",)}
    exchange, *losses = joint.VARIANTS[variant]
    assert exchange.startswith("--exchange=") and tuple(losses) == learn_flags.get(variant, ())
