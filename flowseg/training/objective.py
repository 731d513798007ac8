"""What the network in training is taught, and how: losses, their weights, the optimizer."""

import keras
import numpy as np
import tensorflow as tf

from flowseg.data.labels import IGNORE_LABEL
from flowseg.network.model import set_learning, training_model
from flowseg.scoring.streaming import FlowScores, SegScores
from flowseg.training.losses import ConfidenceLoss, FlowLoss, SegLoss
from flowseg.training.optimizer import make_optimizer
from flowseg.training.unsupervised_losses import ConsistencyLoss, PhotometricLoss

# Weight of each output's loss; alpha and beta scale them. Coarser flows count less.
_FLOW_WEIGHTS = {"flow": 1.0, "flow_4": 0.5, "flow_8": 0.5, "flow_16": 0.25}
# And of the confidence in each step's flow; at coarse steps half a pixel of theirs is right enough.
_SURE_WEIGHT, _SURE_TOLERANCES = 0.2, {"sure_2": 3.0, "sure_8": 4.0, "sure_16": 8.0}


# Outputs that are taught without truth; see `model.training_model`.
UNLABELLED = ("photometric", "consistency")


def unlabelled(args):
    """Weight of each output that the flags have taught without truth; see `training_model`."""
    weights = {"photometric": args.beta * args.photometric}
    weights["consistency"] = args.alpha * args.consistency
    return {key: weight for key, weight in weights.items() if weight}


def every_target(inputs, targets, unlabelled=()):
    """Targets of `training_model`: coarser flows and confidences are held to the flow's truth.

    Args:
        inputs: of `batches.training_batches`, as for targets.
        targets: with `pair` where something is unlabelled.
        unlabelled: see `model.training_model`.
    """
    held = dict.fromkeys((*_FLOW_WEIGHTS, *_SURE_TOLERANCES), targets["flow"])
    paired = {key: targets["pair"] for key in unlabelled}
    return inputs, {"seg": targets["seg"], **held, **paired}


def over_accumulated(batches, count, outputs):
    """Weigh each batch's losses so that all whose gradients are summed have one common mean.

    The mean over `count` batches of losses, each over its own valid pixels, would let a batch with
    few of them count as much as one with many. (How many pixels count without truth is the
    network's own finding: those losses, and classes' balance, stay each batch's own.)

    Args:
        batches: dataset of (inputs, targets) of `every_target`, from the first of a sum on.
        count: how many are summed.
        outputs: names of those that are taught.

    Returns:
        Dataset of (inputs, targets, weights): (B,) an output, alike for the whole batch.
    """

    def weigh(inputs, targets):
        known = {"seg": targets["seg"] != IGNORE_LABEL, "flow": targets["flow"][..., 2] > 0}
        weights = {}
        for stream, mask in known.items():
            pixels = tf.math.count_nonzero(mask, axis=(1, 2, 3), dtype=tf.float32)
            share = tf.math.divide_no_nan(pixels, tf.reduce_mean(pixels))
            weights[stream] = tf.broadcast_to(share[:, None], tf.shape(mask)[:2])
        even = tf.ones_like(weights["seg"])
        weighed = {key: even if key in UNLABELLED else weights[_stream(key)] for key in outputs}
        return inputs, targets, weighed

    return batches.batch(count, drop_remainder=True).map(weigh).unbatch()


def compile_model(model, args, label_set, seg_scores=None, phase=None):
    """The training form of `model`, compiled as `teach` does it.

    Args:
        model: of `build_models`.
        args: the training's flags.
        label_set: its classes.
        seg_scores: the metric that is to count classes; default: one of its own.
        phase: see `callbacks.Alternate`; default: the one phase from the first step to the last.
    """
    training = training_model(model, tuple(unlabelled(args)))
    phase = phase or {"learn": args.learn, "since": 0}
    teach(training, args, phase, seg_scores or SegScores(label_set.names))
    return training


def teach(training, args, phase, seg_scores):
    """Compile a phase of a training: one loss an output that learns, weighted by alpha and beta.

    A phase begins with a new optimizer, since Adam's moments are of no use after thousands of steps
    in which the other stream has moved.
    """
    learn = phase["learn"]
    # A flow that alternates would draw the encoder away from segmentation, which cannot follow.
    kept = args.alternate and learn == "flow"
    set_learning(training, learn, "encoder" if kept else args.freeze)
    losses, weights = weighted_losses(args)
    # A loss dict that misses an output would train silently without it.
    if set(losses) != set(training.output):
        raise AssertionError(f"losses {sorted(losses)}, outputs {sorted(training.output)}")
    # Of a stream that does not learn, nothing is taught.
    taught = [key for key in losses if learn == "both" or _stream(key) == learn]
    training.compile(
        make_optimizer(args, phase["since"]),
        loss={key: losses[key] for key in taught},
        loss_weights={key: weights[key] for key in taught},
        metrics={"seg": seg_scores, "flow": FlowScores()},
    )
    _make_variables(training, args)


def weighted_losses(args):
    """The loss of each output, and what it is weighted by."""
    losses = {"seg": SegLoss(args.seg_loss)}
    losses |= dict.fromkeys(_FLOW_WEIGHTS, FlowLoss(args.flow_loss))
    losses |= {key: ConfidenceLoss(tolerance) for key, tolerance in _SURE_TOLERANCES.items()}
    weights = {**_FLOW_WEIGHTS, **dict.fromkeys(_SURE_TOLERANCES, _SURE_WEIGHT)}
    weights = {"seg": args.alpha, **{key: args.beta * weight for key, weight in weights.items()}}
    without_truth = {"photometric": PhotometricLoss(), "consistency": ConsistencyLoss()}
    for key, weight in unlabelled(args).items():
        losses[key], weights[key] = without_truth[key], weight
    return losses, weights


def _stream(output):
    """Which stream an output teaches."""
    return "seg" if output in ("seg", "consistency") else "flow"


def _make_variables(training, args):
    """Make the variables of optimizer, losses and metrics, by one tiny batch without a step.

    If the first step had to make them, TensorFlow would trace it twice, which takes a minute. (On
    JAX `fit` makes them first.)
    """
    if keras.backend.backend() != "tensorflow":
        return
    image = np.zeros((1, 32, 32, 3), np.float32)
    blank = {"seg": np.zeros((1, 32, 32), np.int32), "flow": image}
    blank["pair"] = np.zeros((1, 32, 32, 7), np.float32)
    pair = {"image1": image, "image2": image}
    inputs, targets = every_target(pair, blank, tuple(unlabelled(args)))
    with keras.StatelessScope():  # Makes variables, and changes none.
        answers = training(inputs)
        training.compute_loss(inputs, targets, answers)
        training.compute_metrics(inputs, targets, answers)
    training.optimizer.build(training.trainable_variables)
