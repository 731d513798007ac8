"""What a training is fed, by its configuration: record sets, batches from a step on, validation."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from flowseg.data import decoding, record_sets
from flowseg.data.batches import Draw, batch_names, training_batches
from flowseg.data.labels import LabelSet
from flowseg.training import objective, tasks
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Progress


def find_sets(config: TrainingConfig, label_set: LabelSet) -> record_sets.RecordSets:
    """The record sets of a training, each shard looked at.

    Raises:
        ValueError: nothing there, damaged, or nothing in it that is to be learnt.
    """
    sets = record_sets.find(config.train_records, config.val_records)
    _weights_by_phase(config, sets)
    if config.bad_records == "stop":
        decoding.check_records(sets.files(), label_set)
    return sets


def draws_by_phase(
    config: TrainingConfig, sets: record_sets.RecordSets, task: tasks.Task = tasks.JOINT
) -> dict[str, Draw]:
    """Which examples make which batch, by what learns: "seg", "flow" or "both".

    Raises:
        ValueError: numbers of the configuration that do not fit the sets; nothing to be learnt.
    """
    limits = record_sets.truth_up_to(sets.train, config.label_fraction, config.seed)
    others = "all" if task.needs_pair(config) else "stills" if config.made_flow else "none"
    return {
        learn: Draw(
            sets.train,
            config.batch_size,
            config.steps_per_epoch,
            config.seed,
            weights=weights,
            truth_up_to=limits,
            without_truth=others,
        )
        for learn, weights in _weights_by_phase(config, sets).items()
    }


def _weights_by_phase(config, sets):
    without_truth = {"seg": config.consistency > 0, "flow": config.photometric > 0}
    return {
        learn: record_sets.draw_weights(
            sets.train,
            config.train_weights,
            learn,
            made_flow=config.made_flow,
            without_truth=without_truth.get(learn, False),
        )
        for learn in (("seg", "flow") if config.alternate else (config.learn,))
    }


class BatchSource:
    """The batches of a training, from any step on.

    Args:
        config: of the training.
        sets: what it reads.
        label_set: its classes.
        progress: its phase says which examples are drawn.
        task: what it trains.
    """

    def __init__(
        self,
        config: TrainingConfig,
        sets: record_sets.RecordSets,
        label_set: LabelSet,
        progress: Progress,
        task: tasks.Task = tasks.JOINT,
    ):
        self._draws = draws_by_phase(config, sets, task)
        self._config, self._label_set, self._progress = config, label_set, progress
        self._outputs, self._pair = task.asked(config), task.needs_pair(config)

    def _examples(self, step, **share):
        return training_batches(
            self._draws[self._progress.phase.learn],
            self._label_set,
            height=self._config.height,
            width=self._config.width,
            first_step=step,
            strength=self._config.augmentation,
            made_flow=self._config.made_flow,
            pair=self._pair,
            **share,
        )

    def batches(self, step: int, host: int = 0, hosts: int = 1) -> tf.data.Dataset:
        """(inputs, targets by output), and with sums of gradients their weights, from a step on.

        Args:
            step: the first.
            host: which share of each batch this is.
            hosts: how many shares.
        """
        count = self._config.accumulate
        # From where a sum of gradients began.
        begun = (step - self._progress.phase.since) % count
        examples = self._examples(step - begun, host=host, hosts=hosts)
        batches = examples.map(objective.target_map(self._outputs))
        if count == 1:
            return batches
        return objective.over_accumulated(batches, count, self._outputs).skip(begun)

    def look_up(self, step: int) -> tuple[list[str], dict, dict]:
        """Frames' names, inputs and targets of one step's batch, in NumPy."""
        names = batch_names(self._draws[self._progress.phase.learn], step)
        return names, *next(self._examples(step).as_numpy_iterator())


def validation_batches(
    config: TrainingConfig,
    sets: record_sets.RecordSets,
    label_set: LabelSet,
    task: tasks.Task = tasks.JOINT,
    copies: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda frames: frames,
) -> tf.data.Dataset | None:
    """Validation frames, each a batch at its own size; None where there are none.

    Args:
        config: of the training.
        sets: what it reads.
        label_set: its classes.
        task: what it trains.
        copies: see `distribution.Spread.copies`.
    """
    if not sets.val:
        return None
    frames = decoding.validation_data(sets.val, label_set, task.needs_pair(config))
    return copies(frames.map(objective.target_map(task.asked(config))))


def leave_out_damaged(
    sets: record_sets.RecordSets, label_set: LabelSet, folder: Path, progress: Progress
) -> record_sets.RecordSets:
    """The sets without their damaged records, which the progress counts."""
    sets, bad = record_sets.without_damaged(sets, label_set, folder)
    if bad:
        progress.incidents["records left out"] = bad
    return sets


def shown_frames(sets: record_sets.RecordSets, label_set: LabelSet) -> tf.data.Dataset:
    """The frames that a training shows: of validation, else of its first set."""
    return decoding.evaluation_data(sets.val or sets.train[0], label_set)
