"""Defines training tasks: outputs with their targets and losses, scores and images.

A task specifies the outputs of the network being trained, each with its target, loss, loss weight
and the stream that it trains; the scores to compute; and the images to draw for TensorBoard. The
training loop (`loop.train`) does not depend on the names of the outputs.
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
    """One output of the network being trained.

    Attributes:
        stream: the stream that its loss trains: "seg" or "flow".
        target: name of its target in `data.examples`: "seg", "flow", or, if its loss needs no
            ground truth, "pair" (both frames).
    """

    stream: str
    target: str


class Task(NamedTuple):
    """A training task.

    Attributes:
        name: name of the task.
        outputs: every output that the network may have, by name.
        losses: function of the configuration -> for each configured output, its loss and weight.
        training_model: function of the public network (see `resume.build_networks`) and the names
            of these outputs -> a model with these outputs that shares the network's layers.
        metrics: function of the classes -> the streaming scores by output.
        draw: function of (decoded frame, predictions, classes) -> an image (H, W, 3) uint8.
        draw_metrics: function of (metrics, classes) -> images by name.
    """

    name: str
    outputs: dict[str, Output]
    losses: Callable[[TrainingConfig], dict[str, tuple[keras.losses.Loss, float]]]
    training_model: Callable[[keras.Model, Collection[str]], keras.Model]
    metrics: Callable[[LabelSet], dict[str, keras.metrics.Metric]]
    draw: Callable[[dict, tuple, LabelSet], np.ndarray]
    draw_metrics: Callable[[dict, LabelSet], dict[str, np.ndarray]]

    def active_outputs(self, config: TrainingConfig) -> dict[str, Output]:
        """Return the outputs that a configuration requires, by name."""
        return {name: self.outputs[name] for name in self.losses(config)}

    def needs_pair(self, config: TrainingConfig) -> bool:
        """Return whether any output is trained without ground truth, on both frames."""
        return any(output.target == "pair" for output in self.active_outputs(config).values())


# Weight of each output's loss; alpha and beta scale them. Coarser flows count less.
_FLOW_WEIGHTS = {"flow": 1.0, "flow_4": 0.5, "flow_8": 0.5, "flow_16": 0.25}
# Strides at which the flow may start, above 16.
_START_WEIGHTS = {"flow_32": 0.15, "flow_64": 0.15}
# Loss weight and tolerances (px) of each stride's confidence; at strides 8 and 16 the tolerance is
# half a pixel of that stride.
_CONFIDENCE_WEIGHT, _CONFIDENCE_TOLERANCES = 0.2, {"sure_2": 3.0, "sure_8": 4.0, "sure_16": 8.0}


def _joint_losses(config):
    losses = {"seg": (SegLoss(config.seg_loss), config.alpha)}
    starts = {
        k: w for k, w in _START_WEIGHTS.items() if int(k.removeprefix("flow_")) <= config.coarsest
    }
    for name, weight in {**_FLOW_WEIGHTS, **starts}.items():
        losses[name] = FlowLoss(config.flow_loss), config.beta * weight
    for name, tolerance in _CONFIDENCE_TOLERANCES.items():
        losses[name] = ConfidenceLoss(tolerance), config.beta * _CONFIDENCE_WEIGHT
    if config.beta * config.photometric:
        losses["photometric"] = PhotometricLoss(), config.beta * config.photometric
    if config.alpha * config.consistency:
        losses["consistency"] = ConsistencyLoss(), config.alpha * config.consistency
    return losses


def _joint_model(network, outputs):
    unlabelled = [name for name in outputs if _JOINT_OUTPUTS[name].target == "pair"]
    return model.training_model(network, tuple(unlabelled))


def _joint_metrics(label_set):
    return {"seg": SegScores(label_set.names), "flow": FlowScores()}


def _draw_joint(frame, predictions, label_set):
    seg, flow = predictions
    return panels.draw_predictions(frame, seg, flow, label_set)


def _draw_joint_metrics(metrics, label_set):
    matrix = keras.ops.convert_to_numpy(metrics["seg"].confusion())
    return {"seg/confusion": panels.draw_confusion(matrix, label_set.names)} if matrix.any() else {}


_JOINT_OUTPUTS = {
    "seg": Output("seg", "seg"),
    **dict.fromkeys(
        (*_FLOW_WEIGHTS, *_START_WEIGHTS, *_CONFIDENCE_TOLERANCES), Output("flow", "flow")
    ),
    "photometric": Output("flow", "pair"),
    "consistency": Output("seg", "pair"),
}

# Joint segmentation and optical flow of a frame pair.
JOINT = Task(
    name="joint",
    outputs=_JOINT_OUTPUTS,
    losses=_joint_losses,
    training_model=_joint_model,
    metrics=_joint_metrics,
    draw=_draw_joint,
    draw_metrics=_draw_joint_metrics,
)
