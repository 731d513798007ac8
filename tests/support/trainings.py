"""Small trainings: their configuration, from keywords or a command line, and compiled networks."""

import keras
from absl.flags import FLAGS

from flowseg.cli import flags as shared_flags
from flowseg.training import objective, resume
from flowseg.training.config import TrainingConfig
from flowseg.training.tasks import JOINT


def small(**changes):
    """Return a configuration of few steps on small crops."""
    defaults = {
        "steps": 20,
        "steps_per_epoch": 10,
        "batch_size": 2,
        "height": 64,
        "width": 96,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
    }
    return TrainingConfig(**defaults | changes)


def parsed(*argv):
    """Return the configuration of a command line."""
    before = set(FLAGS)
    shared_flags.define_training_flags(train_records_required=False)
    try:
        FLAGS(["train", *map(str, argv)])
        return shared_flags.training_config(FLAGS)
    finally:
        # Other commands in this process define flags with the same names.
        for name in set(FLAGS) - before:
            delattr(FLAGS, name)


def by_output(inputs, targets, config=None):
    """Return a batch with the targets of each output."""
    return objective.target_map(JOINT.active_outputs(config or TrainingConfig()))(inputs, targets)


def compiled(config, label_set, network=None) -> keras.Model:
    """Return the network in training, compiled like in `loop.train`."""
    network = network or resume.build_networks(config, label_set)[1]
    return objective.compile_training(network, config, JOINT.metrics(label_set))
