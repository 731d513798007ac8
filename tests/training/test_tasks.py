"""The joint task: which outputs a configuration asks for, and what each is held to."""

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
        # Of weight zero, nothing is asked.
        ({"photometric": 0.5, "consistency": 2.0, "beta": 0.0}, ["consistency"]),
    ],
)
def test_outputs_that_a_configuration_asks_for_are_those_of_the_network(network, settings, more):
    config = TrainingConfig(**settings)
    assert list(JOINT.asked(config)) == PLAIN + more
    assert JOINT.needs_pair(config) == bool(more)
    training = JOINT.training_model(network, JOINT.asked(config))
    assert set(training.output) == {*PLAIN, *more}


def test_weights_are_alphas_and_betas():
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


def test_each_output_is_held_to_its_target():
    inputs, truth = {"image1": 1}, {"seg": 2, "flow": 3, "pair": 4}
    outputs = JOINT.asked(TrainingConfig(photometric=1.0))
    ours, targets = objective.target_map(outputs)(inputs, truth)
    assert ours == inputs
    assert targets == {"seg": 2, **dict.fromkeys(PLAIN[1:], 3), "photometric": 4}


@pytest.mark.parametrize("learn", ["seg", "flow"])
def test_a_phase_of_one_stream_has_losses_of_that_alone(network, learn):
    config = small(photometric=1.0, consistency=1.0)
    training = objective.compile_training(
        network, config, JOINT.metrics(CAMVID), Phase(learn), JOINT
    )
    streams = {JOINT.outputs[name].stream for name in training.loss}
    assert streams == {learn}
    assert ("photometric" in training.loss) == (learn == "flow")


def test_pictures_show_the_metrics_once_something_is_counted():
    metrics = JOINT.metrics(CAMVID)
    assert JOINT.draw_metrics(metrics, CAMVID) == {}
    truth = np.zeros((1, 4, 4), np.int32)
    metrics["seg"].update_state(truth, np.eye(11, dtype=np.float32)[truth])
    [(name, picture)] = JOINT.draw_metrics(metrics, CAMVID).items()
    assert name == "seg/confusion" and picture.dtype == np.uint8 and picture.shape[2] == 3
