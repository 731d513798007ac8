"""The joint task: outputs of a configuration, and the target and weight of each."""

import numpy as np
import pytest

from flowseg.data.labels import CAMVID
from flowseg.network.model import build_flowseg
from flowseg.training import objective
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Phase
from flowseg.training.tasks import JOINT
from tests.support.trainings import small

PLAIN = ["seg", "flow", "flow_4", "flow_8", "flow_16", "sure_2", "sure_8", "sure_16"]


@pytest.fixture(scope="module")
def network():
    return build_flowseg(11, backbone="efficientnet_lite0")


@pytest.mark.parametrize(
    "settings, more",
    [
        ({}, []),
        ({"photometric": 0.5}, ["photometric"]),
        ({"photometric": 0.5, "consistency": 2.0}, ["photometric", "consistency"]),
        # A loss of weight zero has no output.
        ({"photometric": 0.5, "consistency": 2.0, "beta": 0.0}, ["consistency"]),
    ],
)
def test_active_outputs(network, settings, more):
    config = TrainingConfig(**settings)
    assert list(JOINT.active_outputs(config)) == PLAIN + more
    assert JOINT.needs_pair(config) == bool(more)
    training = JOINT.training_model(network, JOINT.active_outputs(config))
    assert set(training.output) == {*PLAIN, *more}


def test_loss_weights():
    config = TrainingConfig(alpha=2.0, beta=0.5, photometric=4.0, consistency=3.0)
    weights = {name: weight for name, (_, weight) in JOINT.losses(config).items()}
    assert weights == {
        "seg": 2.0,
        "flow": 0.5,
        "flow_4": 0.25,
        "flow_8": 0.25,
        "flow_16": 0.125,
        "sure_2": 0.1,
        "sure_8": 0.1,
        "sure_16": 0.1,
        "photometric": 2.0,
        "consistency": 6.0,
    }


def test_starts_above_stride_16_have_losses(network):
    names = {c: list(JOINT.active_outputs(TrainingConfig(coarsest=c))) for c in (16, 32, 64)}
    assert names[16] == PLAIN
    assert set(names[32]) == {*PLAIN, "flow_32"}
    assert set(names[64]) == {*PLAIN, "flow_32", "flow_64"}
    weights = JOINT.losses(TrainingConfig(coarsest=64, beta=2.0))
    assert weights["flow_32"][1] == weights["flow_64"][1] == pytest.approx(0.3)


def test_target_map():
    inputs, truth = {"image1": 1}, {"seg": 2, "flow": 3, "pair": 4}
    outputs = JOINT.active_outputs(TrainingConfig(photometric=1.0))
    ours, targets = objective.target_map(outputs)(inputs, truth)
    assert ours == inputs
    assert targets == {"seg": 2, **dict.fromkeys(PLAIN[1:], 3), "photometric": 4}


@pytest.mark.parametrize("learn", ["seg", "flow"])
def test_losses_of_single_stream_phase(network, learn):
    config = small(photometric=1.0, consistency=1.0)
    training = objective.compile_training(
        network, config, JOINT.metrics(CAMVID), Phase(learn), JOINT
    )
    streams = {JOINT.outputs[name].stream for name in training.loss}
    assert streams == {learn}
    assert ("photometric" in training.loss) == (learn == "flow")


def test_draw_metrics():
    metrics = JOINT.metrics(CAMVID)
    assert JOINT.draw_metrics(metrics, CAMVID) == {}
    truth = np.zeros((1, 4, 4), np.int32)
    metrics["seg"].update_state(truth, np.eye(11, dtype=np.float32)[truth])
    [(name, image)] = JOINT.draw_metrics(metrics, CAMVID).items()
    assert name == "seg/confusion" and image.dtype == np.uint8 and image.shape[2] == 3
