"""Callbacks that save weights and scores and decide when to stop, at the end of each epoch."""

import csv
import io
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from flowseg import files, runs
from flowseg.data.batches import InputClock
from flowseg.training.checkpoints import KeepState
from flowseg.training.config import TrainingConfig
from flowseg.training.incidents import Guard
from flowseg.training.objective import compile_phase
from flowseg.training.progress import Phase, Progress
from flowseg.training.tasks import JOINT, Task
from flowseg.training.tensorboard import TensorBoard

# Scores for which higher is better; for all others lower is better.
_HIGHER = ("seg/miou", "seg/pixel_accuracy")


def build_callbacks(
    config: TrainingConfig,
    progress: Progress,
    *,
    run: runs.Run,
    training: keras.Model,
    trained: keras.Model,
    metrics: dict[str, keras.metrics.Metric],
    fetch_batch: Callable[[int], tuple],
    frames: tf.data.Dataset,
    running: list[np.ndarray] | None = None,
    clock: InputClock | None = None,
    first_host: bool = True,
    task: Task = JOINT,
) -> tuple[list[keras.callbacks.Callback], KeepState]:
    """Build the callbacks of a run in the required order; also return the last one, `KeepState`.

    1. `Guard` counts the steps; all others use its count.
    2. `CopyWeights` updates the public network before it is saved or used for drawing.
    3. `History` and `KeepBest` write files; `TensorBoard` shows the best scores of `KeepBest`.
    4. `Patience` and `Alternate` decide how to continue, from the same scores on each host.
    5. `KeepState` saves the progress, which all of these update.

    Args:
        config: settings of the run.
        progress: progress of the run.
        run: the run folder, its public network (see `resume.build_networks`) and classes.
        training: the compiled training model.
        trained: the network being trained, whose weights are copied to the public one.
        metrics: the scores to compute, by output.
        fetch_batch: see `incidents.Guard`.
        frames: see `tensorboard.TensorBoard`.
        running: see `checkpoints.KeepState`.
        clock: clock of the batches, if waiting times are measured.
        first_host: whether this host writes the run folder.
        task: task to train.
    """
    folder = run.folder
    callbacks = [Guard(folder, progress, fetch_batch, config.on_nonfinite, config.spike)]
    if first_host:
        callbacks += [
            CopyWeights(trained, run.model),
            History(folder / "history.csv", progress),
            KeepBest(folder, run.model, config.best_metric, progress),
            TensorBoard(run, config, progress, frames, metrics, clock, task),
        ]
    callbacks.append(Patience(config.patience, progress))
    if config.alternate:

        def switch():
            compile_phase(training, config, metrics, progress.phase, task)

        callbacks.append(Alternate(config, progress, switch))
    keeper = KeepState(folder / "checkpoints", progress, config.keep_checkpoints, running)
    return [*callbacks, keeper], keeper


class CopyWeights(keras.callbacks.Callback):
    """Copies the trained weights to the public network at the end of each epoch.

    Args:
        trained: the network being trained.
        network: the public network; may be the same.
    """

    def __init__(self, trained, network):
        super().__init__()
        self.trained = trained
        self.network = network

    def on_epoch_end(self, epoch, logs=None):
        """Copy the weights."""
        if self.network is not self.trained:
            self.network.set_weights(self.trained.get_weights())


class KeepBest(keras.callbacks.Callback):
    """Writes the run's last and best weights, and the best scores, each atomically.

    Without a validation score, best.keras contains the last weights. (Keras's ModelCheckpoint
    writes in place, and forgets the best score when a run is resumed.)

    Args:
        run_dir: the run folder (pathlib.Path).
        network: the public two-output network, the only one that is saved for use.
        best_metric: validation score, one of `config.BEST_METRICS`.
        progress: progress of the run; `best` and `best_scores` are updated here.
    """

    def __init__(self, run_dir, network, best_metric, progress):
        super().__init__()
        self.run_dir, self.network = run_dir, network
        self.best_metric, self.progress = best_metric, progress

    def on_epoch_end(self, epoch, logs=None):
        """Save the weights and scores."""
        runs.save_model(self.network, self.run_dir / runs.WEIGHTS["last"])
        score = logs.get(f"val_{self.best_metric}", np.nan)
        score = float(score) if np.isfinite(score) else None
        if not self._is_best(score):
            return
        self.progress.best = score
        runs.save_model(self.network, self.run_dir / runs.WEIGHTS["best"])
        # Validation scores under the names that evaluate uses; without validation, training scores.
        validated = any(key.startswith("val_") for key in logs)
        prefix = "val_" if validated else ""
        scores = {k.removeprefix("val_"): float(v) for k, v in logs.items() if prefix in k}
        metadata = {"step": self.progress.step, "validated": validated}
        self.progress.best_scores = metadata | scores
        files.write_json(self.run_dir / "metrics.json", self.progress.best_scores)

    def _is_best(self, score):
        best = self.progress.best
        if best is None or score is None:
            return best is None
        return score > best if self.best_metric in _HIGHER else score < best


class Patience(keras.callbacks.Callback):
    """Ends training when neither task has improved for `patience` validations.

    (Keras's EarlyStopping monitors one score, and restarts its count when a run is resumed.)

    Args:
        patience: number of validations; 0 never ends training.
        progress: progress of the run; its `patience` stores, for each score, the best value and
            the number of validations since then.
    """

    SCORES = ("seg/miou", "flow/aepe")

    def __init__(self, patience, progress):
        super().__init__()
        self.patience, self.progress = patience, progress

    def on_epoch_end(self, epoch, logs=None):
        """Check the scores of a validation."""
        monitored = self.progress.patience
        for name in self.SCORES:
            score = logs.get(f"val_{name}", np.nan)
            if not np.isfinite(score):
                continue
            best, waits = monitored.get(name, (None, 0))
            better = _is_better(name, score, best)
            monitored[name] = [float(score), 0] if better else [best, waits + 1]
        if out_of_patience(monitored, self.patience):
            self.model.stop_training = True


def out_of_patience(monitored: dict[str, list], patience: int) -> bool:
    """Return whether every monitored score has exhausted the patience; see `Patience`."""
    return bool(patience and monitored) and all(w >= patience for _, w in monitored.values())


def _is_better(name, score, best):
    return best is None or (score > best if name in _HIGHER else score < best)


class Alternate(keras.callbacks.Callback):
    """Switches alternating training to the other stream when the current one has converged.

    SegFlow is trained like this (Cheng et al., ICCV 2017), segmentation first. The encoder belongs
    to the segmentation stream, like SegFlow's ResNet: it is frozen while flow is trained. A stream
    has converged when its validation score (seg/miou, flow/aepe) has not improved for `alternate`
    epochs of `steps_per_epoch` within the phase; without such a score, after `alternate` epochs.
    This callback precedes `KeepState`, so that a checkpoint stores the phase to resume with.

    Args:
        config: settings of the run.
        progress: progress of the run; its `phase` is changed here.
        switch: function without arguments that recompiles the training model for the new phase.
    """

    def __init__(self, config, progress, switch):
        super().__init__()
        self.config, self.progress, self.switch = config, progress, switch

    def on_epoch_end(self, epoch, logs=None):
        """Check the score of a validation."""
        step, phase = self.progress.step, self.progress.phase
        if step % self.config.steps_per_epoch or step >= self.config.steps:
            return
        name = {"seg": "seg/miou", "flow": "flow/aepe"}[phase.learn]
        score = logs.get(f"val_{name}", np.nan)
        if np.isfinite(score) and _is_better(name, score, phase.best):
            phase.best, phase.waits = float(score), 0
            return
        phase.waits += 1
        if phase.waits >= self.config.alternate:
            other = "flow" if phase.learn == "seg" else "seg"
            self.progress.phase = Phase(other, step)
            print(f"\nstep {step}: {phase.learn} is now frozen; training {other}")
            self.switch()
            # Keras uses the recompiled model only from the next call of `fit` on.
            self.model.stop_training = True


class History(keras.callbacks.Callback):
    """Writes history.csv: a line of scores at the end of each Keras epoch.

    (Keras's CSVLogger keeps the lines of steps that a resumed run repeats.)

    Args:
        path: the file. Existing lines of steps after `progress.step` are removed.
        progress: progress of the run.
    """

    def __init__(self, path, progress):
        super().__init__()
        self.path, self.progress = path, progress
        lines = csv.DictReader(path.read_text().splitlines()) if path.is_file() else []
        self.lines = [line for line in lines if int(line["step"]) <= progress.step]

    def on_epoch_end(self, epoch, logs=None):
        """Write the file with a new line."""
        scores = {name: float(value) for name, value in sorted(logs.items())}
        self.lines.append({"step": self.progress.step, **scores})
        names = list(dict.fromkeys(name for line in self.lines for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.lines)
        files.write(self.path, text.getvalue())
