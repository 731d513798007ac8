"""Provides training data: record sets, batches from any step on, validation and preview frames."""

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
    """Find the record sets of a configuration and check each shard.

    Raises:
        ValueError: a set is missing, damaged, or has no ground truth for the configured objective.
    """
    sets = record_sets.find(config.train_records, config.val_records)
    _weights_by_phase(config, sets)
    if config.bad_records == "stop":
        decoding.check_records(sets.files(), label_set)
    return sets


def draws_by_phase(
    config: TrainingConfig, sets: record_sets.RecordSets, task: tasks.Task = tasks.JOINT
) -> dict[str, Draw]:
    """Return the selection of examples for each trained stream: "seg", "flow" or "both".

    Raises:
        ValueError: the settings do not match the sets, or there is nothing to train on.
    """
    max_ranks = record_sets.max_truth_rank(sets.train, config.label_fraction, config.seed)
    unlabelled = "all" if task.needs_pair(config) else "stills" if config.synthetic_flow else "none"
    return {
        learn: Draw(
            sets.train,
            config.batch_size,
            config.steps_per_epoch,
            config.seed,
            weights=weights,
            max_truth_rank=max_ranks,
            unlabelled=unlabelled,
        )
        for learn, weights in _weights_by_phase(config, sets).items()
    }


def _weights_by_phase(config, sets):
    unlabelled = {"seg": config.consistency > 0, "flow": config.photometric > 0}
    return {
        learn: record_sets.draw_weights(
            sets.train,
            config.train_weights,
            learn,
            synthetic_flow=config.synthetic_flow,
            unlabelled=unlabelled.get(learn, False),
        )
        for learn in (("seg", "flow") if config.alternate else (config.learn,))
    }


class BatchSource:
    """Provides training batches from any step on.

    Args:
        config: settings of the run.
        sets: record sets to read.
        label_set: classes of the run.
        progress: progress of the run; its phase decides which examples are drawn.
        task: task to train.
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
        self._outputs, self._pair = task.active_outputs(config), task.needs_pair(config)

    def _examples(self, step, **share):
        return training_batches(
            self._draws[self._progress.phase.learn],
            self._label_set,
            height=self._config.height,
            width=self._config.width,
            first_step=step,
            strength=self._config.augmentation,
            synthetic_flow=self._config.synthetic_flow,
            pair=self._pair,
            **share,
        )

    def batches(self, step: int, host: int = 0, hosts: int = 1) -> tf.data.Dataset:
        """Return batches of (inputs, targets by output), with sample weights if accumulating.

        Args:
            step: the first step.
            host: index of this host's share of each batch.
            hosts: number of shares.
        """
        count = self._config.accumulate
        # Weights span all batches of an accumulated gradient, so read from its first batch on.
        offset = (step - self._progress.phase.since) % count
        examples = self._examples(step - offset, host=host, hosts=hosts)
        batches = examples.map(objective.target_map(self._outputs))
        if count == 1:
            return batches
        return objective.weight_accumulated(batches, count, self._outputs).skip(offset)

    def fetch_batch(self, step: int) -> tuple[list[str], dict, dict]:
        """Return frame names, inputs and targets of one step's batch, as NumPy arrays."""
        names = batch_names(self._draws[self._progress.phase.learn], step)
        return names, *next(self._examples(step).as_numpy_iterator())


def validation_batches(
    config: TrainingConfig,
    sets: record_sets.RecordSets,
    label_set: LabelSet,
    task: tasks.Task = tasks.JOINT,
    copies: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda frames: frames,
) -> tf.data.Dataset | None:
    """Return the validation frames as batches of one, at their original size, or None.

    Args:
        config: settings of the run.
        sets: record sets to read.
        label_set: classes of the run.
        task: task to train.
        copies: see `distribution.Devices.copies`.
    """
    if not sets.val:
        return None
    frames = decoding.validation_data(sets.val, label_set, task.needs_pair(config))
    return copies(frames.map(objective.target_map(task.active_outputs(config))))


def leave_out_damaged(
    sets: record_sets.RecordSets, label_set: LabelSet, folder: Path, progress: Progress
) -> record_sets.RecordSets:
    """Return the sets without damaged records; `progress` records their number."""
    sets, bad = record_sets.without_damaged(sets, label_set, folder)
    if bad:
        progress.incidents["records left out"] = bad
    return sets


def preview_frames(sets: record_sets.RecordSets, label_set: LabelSet) -> tf.data.Dataset:
    """Return frames to draw for TensorBoard: from validation, else from the first training set."""
    return decoding.evaluation_data(sets.val or sets.train[0], label_set)
