"""What the network in training is taught, and how: targets, losses and the optimizer, by phase."""

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
    """Function for `Dataset.map`: (inputs, targets) of a batch -> the same by output.

    Args:
        outputs: of the network in training, by name.
    """

    def by_output(inputs, targets):
        return inputs, {name: targets[output.target] for name, output in outputs.items()}

    return by_output


def over_accumulated(
    batches: tf.data.Dataset, count: int, outputs: dict[str, tasks.Output]
) -> tf.data.Dataset:
    """Weigh each batch's losses so that all whose gradients are summed have one common mean.

    The mean over `count` batches of losses, each over its own valid pixels, would let a batch with
    few of them count as much as one with many. (How many pixels count without truth is the
    network's own finding: those losses, and classes' balance, stay each batch's own.)

    Args:
        batches: dataset of (inputs, targets by output), from the first of a sum on.
        count: how many are summed.
        outputs: those that are taught, by name.

    Returns:
        Dataset of (inputs, targets, weights): (B,) an output, alike for the whole batch.
    """
    known = {
        "seg": lambda target: target != IGNORE_LABEL,
        "flow": lambda target: target[..., 2] > 0,
        "pair": lambda target: tf.ones_like(target[..., 0], tf.bool),
    }

    def weigh(inputs, targets):
        by_target = {}
        for name, output in outputs.items():
            if output.target in by_target:
                continue
            mask = known[output.target](targets[name])
            pixels = tf.math.count_nonzero(mask, axis=(1, 2, 3), dtype=tf.float32)
            share = tf.math.divide_no_nan(pixels, tf.reduce_mean(pixels))
            by_target[output.target] = tf.broadcast_to(share[:, None], tf.shape(mask)[:2])
        return inputs, targets, {name: by_target[o.target] for name, o in outputs.items()}

    return batches.batch(count, drop_remainder=True).map(weigh).unbatch()


def compile_training(
    network: keras.Model,
    config: TrainingConfig,
    metrics: dict[str, keras.metrics.Metric],
    phase: Phase | None = None,
    task: tasks.Task = tasks.JOINT,
) -> keras.Model:
    """The training form of `network`, compiled for a phase; its layers are the network's.

    Args:
        network: the public network.
        config: of the training.
        metrics: the scores to count, by output.
        phase: default: the one phase from the first step to the last.
        task: what is trained.
    """
    training = task.training_model(network, task.asked(config))
    compile_phase(training, config, metrics, phase or Phase(config.learn), task)
    return training


def compile_phase(
    training: keras.Model,
    config: TrainingConfig,
    metrics: dict[str, keras.metrics.Metric],
    phase: Phase,
    task: tasks.Task = tasks.JOINT,
) -> None:
    """Compile a phase of a training: one loss an output that learns, weighted by alpha and beta.

    A phase begins with a new optimizer, since Adam's moments are of no use after thousands of steps
    in which the other stream has moved.
    """
    # A flow that alternates would draw the encoder away from segmentation, which cannot follow.
    kept = config.alternate and phase.learn == "flow"
    set_learning(training, phase.learn, "encoder" if kept else config.freeze)
    losses = task.losses(config)
    # A loss dict that misses an output would train silently without it.
    if set(losses) != set(training.output):
        raise AssertionError(f"losses {sorted(losses)}, outputs {sorted(training.output)}")
    # Of a stream that does not learn, nothing is taught.
    taught = {
        name: loss
        for name, loss in losses.items()
        if phase.learn in ("both", task.outputs[name].stream)
    }
    training.compile(
        make_optimizer(config, phase.since),
        loss={name: loss for name, (loss, _) in taught.items()},
        loss_weights={name: weight for name, (_, weight) in taught.items()},
        metrics=metrics,
    )
    _make_variables(training, target_map(task.asked(config)))


def _make_variables(training, by_output):
    """Make the variables of optimizer, losses and metrics, by one tiny batch without a step.

    If the first step had to make them, TensorFlow would trace it twice, which takes a minute. (On
    JAX `fit` makes them first.)
    """
    if keras.backend.backend() != "tensorflow":
        return
    image = np.zeros((1, 32, 32, 3), np.float32)
    blank = {"seg": np.zeros((1, 32, 32), np.int32), "flow": image}
    blank["pair"] = np.zeros((1, 32, 32, 7), np.float32)
    inputs, targets = by_output({"image1": image, "image2": image}, blank)
    with keras.StatelessScope():  # Makes variables, and changes none.
        answers = training(inputs)
        training.compute_loss(inputs, targets, answers)
        training.compute_metrics(inputs, targets, answers)
    training.optimizer.build(training.trainable_variables)
