"""Tasks: what a training trains, and what its outputs are held to.

A task says which outputs the network in training has, and for each the target, the loss, its weight
and the stream that it trains; which scores are counted; and which pictures show them. The loop
(`loop.train`) knows no output by name.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import keras
import numpy as np

from flowseg.data.labels import LabelSet
from flowseg.media import panels
from flowseg.network import model
from flowseg.scoring.streaming import FlowScores, SegScores
from flowseg.training.config import TrainingConfig
from flowseg.training.losses import ConfidenceLoss, FlowLoss, SegLoss
from flowseg.training.unsupervised_losses import ConsistencyLoss, PhotometricLoss


class Output(NamedTuple):
    """One output of the network in training.

    Attributes:
        stream: the stream that its loss trains: "seg" or "flow".
        target: what it is held to, as `data.examples` names it: "seg", "flow", or "pair", both
            frames, where it needs no truth.
    """

    stream: str
    target: str


class Task(NamedTuple):
    """What a training trains.

    Attributes:
        name: of the task.
        outputs: every output that the network may have, by name.
        losses: function of the configuration: for each output that it asks for, its loss and the
            weight of that.
        training_model: function of the public network and the names of these outputs: the network
            with them, its layers shared.
        metrics: function of the classes: the streaming scores by output.
        draw: function of (decoded frame, predictions, classes): a picture (H, W, 3) uint8.
        draw_metrics: function of (metrics, classes): pictures by name.
    """

    name: str
    outputs: dict[str, Output]
    losses: Callable[[TrainingConfig], dict[str, tuple[keras.losses.Loss, float]]]
    training_model: Callable[[keras.Model, Collection[str]], keras.Model]
    metrics: Callable[[LabelSet], dict[str, keras.metrics.Metric]]
    draw: Callable[[dict, tuple, LabelSet], np.ndarray]
    draw_metrics: Callable[[dict, LabelSet], dict[str, np.ndarray]]

    def asked(self, config: TrainingConfig) -> dict[str, Output]:
        """The outputs that a configuration asks for, by name."""
        return {name: self.outputs[name] for name in self.losses(config)}

    def needs_pair(self, config: TrainingConfig) -> bool:
        """Whether some output is trained without truth, on both frames."""
        return any(output.target == "pair" for output in self.asked(config).values())


# Weight of each output's loss; alpha and beta scale them. Coarser flows count less.
_FLOW_WEIGHTS = {"flow": 1.0, "flow_4": 0.5, "flow_8": 0.5, "flow_16": 0.25}
# And of the confidence in each step's flow; at coarse steps half a pixel of theirs is right enough.
_SURE_WEIGHT, _SURE_TOLERANCES = 0.2, {"sure_2": 3.0, "sure_8": 4.0, "sure_16": 8.0}


def _joint_losses(config):
    losses = {"seg": (SegLoss(config.seg_loss), config.alpha)}
    for name, weight in _FLOW_WEIGHTS.items():
        losses[name] = FlowLoss(config.flow_loss), config.beta * weight
    for name, tolerance in _SURE_TOLERANCES.items():
        losses[name] = ConfidenceLoss(tolerance), config.beta * _SURE_WEIGHT
    if config.beta * config.photometric:
        losses["photometric"] = PhotometricLoss(), config.beta * config.photometric
    if config.alpha * config.consistency:
        losses["consistency"] = ConsistencyLoss(), config.alpha * config.consistency
    return losses


def _joint_model(network, outputs):
    without_truth = [name for name in outputs if _JOINT_OUTPUTS[name].target == "pair"]
    return model.training_model(network, tuple(without_truth))


def _joint_metrics(label_set):
    return {"seg": SegScores(label_set.names), "flow": FlowScores()}


def _draw_joint(frame, predictions, label_set):
    seg, flow = predictions
    return panels.draw_answers(frame, seg, flow, label_set)


def _draw_joint_metrics(metrics, label_set):
    matrix = keras.ops.convert_to_numpy(metrics["seg"].confusion())
    return {"seg/confusion": panels.draw_confusion(matrix, label_set.names)} if matrix.any() else {}


_JOINT_OUTPUTS = {
    "seg": Output("seg", "seg"),
    **dict.fromkeys((*_FLOW_WEIGHTS, *_SURE_TOLERANCES), Output("flow", "flow")),
    "photometric": Output("flow", "pair"),
    "consistency": Output("seg", "pair"),
}

# Classes and flow of a pair of frames, together.
JOINT = Task(
    name="joint",
    outputs=_JOINT_OUTPUTS,
    losses=_joint_losses,
    training_model=_joint_model,
    metrics=_joint_metrics,
    draw=_draw_joint,
    draw_metrics=_draw_joint_metrics,
)
