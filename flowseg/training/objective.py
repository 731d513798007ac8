"""Training objective: targets, losses, weights and optimizer for each phase."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from flowseg.data.labels import IGNORE_LABEL
from flowseg.network.model import set_learning
from flowseg.training import tasks
from flowseg.training.config import TrainingConfig
from flowseg.training.optimizer import make_optimizer
from flowseg.training.progress import Phase


def target_map(outputs: dict[str, tasks.Output]) -> Callable[[dict, dict], tuple[dict, dict]]:
    """Return a function for `Dataset.map` that maps a batch's targets to the network's outputs.

    Args:
        outputs: outputs of the network being trained, by name.
    """

    def by_output(inputs, targets):
        return inputs, {name: targets[output.target] for name, output in outputs.items()}

    return by_output


def weight_accumulated(
    batches: tf.data.Dataset, count: int, outputs: dict[str, tasks.Output]
) -> tf.data.Dataset:
    """Weight losses so that batches of one accumulated gradient share a mean over valid pixels.

    Without weights, each of the `count` batches would average over its own valid pixels, and a
    batch with few of them would count as much as one with many. (Unsupervised losses, whose valid
    pixels depend on the predictions, and the class balance are still computed for each batch.)

    Args:
        batches: dataset of (inputs, targets by output) that starts with the first batch of an
            accumulated gradient.
        count: number of batches whose gradients are accumulated.
        outputs: the trained outputs, by name.

    Returns:
        Dataset of (inputs, targets, weights): (B,) for each output, constant within a batch.
    """
    valid = {
        "seg": lambda target: target != IGNORE_LABEL,
        "flow": lambda target: target[..., 2] > 0,
        "pair": lambda target: tf.ones_like(target[..., 0], tf.bool),
    }

    def add_weights(inputs, targets):
        by_target = {}
        for name, output in outputs.items():
            if output.target in by_target:
                continue
            mask = valid[output.target](targets[name])
            pixels = tf.math.count_nonzero(mask, axis=(1, 2, 3), dtype=tf.float32)
            share = tf.math.divide_no_nan(pixels, tf.reduce_mean(pixels))
            by_target[output.target] = tf.broadcast_to(share[:, None], tf.shape(mask)[:2])
        return inputs, targets, {name: by_target[o.target] for name, o in outputs.items()}

    return batches.batch(count, drop_remainder=True).map(add_weights).unbatch()


def compile_training(
    network: keras.Model,
    config: TrainingConfig,
    metrics: dict[str, keras.metrics.Metric],
    phase: Phase | None = None,
    task: tasks.Task = tasks.JOINT,
) -> keras.Model:
    """Build the training model of `network`, which shares its layers, and compile it for a phase.

    Args:
        network: the public network, see `resume.build_networks`.
        config: settings of the run.
        metrics: the scores to compute, by output.
        phase: default: a single phase from the first step to the last.
        task: task to train.
    """
    training = task.training_model(network, task.active_outputs(config))
    compile_phase(training, config, metrics, phase or Phase(config.learn), task)
    return training


def compile_phase(
    training: keras.Model,
    config: TrainingConfig,
    metrics: dict[str, keras.metrics.Metric],
    phase: Phase,
    task: tasks.Task = tasks.JOINT,
) -> None:
    """Compile the training model for a phase: one loss per trained output, weighted.

    A phase starts with a new optimizer, because Adam's moments are outdated after thousands of
    steps in which the other stream changed.
    """
    # The encoder is frozen in a flow phase: it would drift from the frozen segmentation stream.
    freeze_encoder = config.alternate and phase.learn == "flow"
    set_learning(training, phase.learn, "encoder" if freeze_encoder else config.freeze)
    losses = task.losses(config)
    # Keras silently ignores outputs that the loss dict lacks.
    if set(losses) != set(training.output):
        raise AssertionError(f"losses {sorted(losses)}, outputs {sorted(training.output)}")
    # A frozen stream has no losses.
    active = {
        name: loss
        for name, loss in losses.items()
        if phase.learn in ("both", task.outputs[name].stream)
    }
    training.compile(
        make_optimizer(config, phase.since),
        loss={name: loss for name, (loss, _) in active.items()},
        loss_weights={name: weight for name, (_, weight) in active.items()},
        metrics=metrics,
    )
    _create_variables(training, target_map(task.active_outputs(config)))


def _create_variables(training, by_output):
    """Create the variables of optimizer, losses and metrics with a tiny batch, without a step.

    If the first step created them, TensorFlow would trace it twice, which takes a minute. (On JAX,
    `fit` itself creates them before the first step.)
    """
    if keras.backend.backend() != "tensorflow":
        return
    image = np.zeros((1, 32, 32, 3), np.float32)
    blank = {"seg": np.zeros((1, 32, 32), np.int32), "flow": image}
    blank["pair"] = np.zeros((1, 32, 32, 7), np.float32)
    inputs, targets = by_output({"image1": image, "image2": image}, blank)
    with keras.StatelessScope():  # Creates variables without changing any.
        predictions = training(inputs)
        training.compute_loss(inputs, targets, predictions)
        training.compute_metrics(inputs, targets, predictions)
    training.optimizer.build(training.trainable_variables)
