"""What a training does each time that Keras's epoch ends: weights for use, scores, when to end."""

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

# Scores that are better when higher; all others when lower.
_HIGHER = ("seg/miou", "seg/pixel_accuracy")


def build_callbacks(
    config: TrainingConfig,
    progress: Progress,
    *,
    run: runs.Run,
    training: keras.Model,
    trained: keras.Model,
    metrics: dict[str, keras.metrics.Metric],
    look_up: Callable[[int], tuple],
    frames: tf.data.Dataset,
    running: list[np.ndarray] | None = None,
    clock: InputClock | None = None,
    first_host: bool = True,
    task: Task = JOINT,
) -> tuple[list[keras.callbacks.Callback], KeepState]:
    """The callbacks of a training in the order that they need, and its keeper, which is the last.

    1. `Guard` counts the step, by which all others go.
    2. `CopyWeights` brings the public network up to date, before it is saved or drawn.
    3. `History` and `KeepBest` write; `TensorBoard` shows the best that `KeepBest` found.
    4. `Patience` and `Alternate` decide what comes next, by the same numbers on each host.
    5. `KeepState` saves the progress that all of these have changed.

    Args:
        config: of the training.
        progress: of the training.
        run: the run folder, its public network and classes.
        training: its compiled training form.
        trained: the network in training, whose weights the public one gets.
        metrics: the scores that are counted, by output.
        look_up: see `incidents.Guard`.
        frames: see `tensorboard.TensorBoard`.
        running: see `checkpoints.KeepState`.
        clock: of the batches, where their waits are counted.
        first_host: whether this host writes for all.
        task: what is trained.
    """
    folder = run.folder
    callbacks = [Guard(folder, progress, look_up, config.on_nonfinite, config.spike)]
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
    """Gives the public network what was learnt, each epoch, before the others look at it.

    Args:
        trained: the network in training.
        network: the public one; may be the same.
    """

    def __init__(self, trained, network):
        super().__init__()
        self.trained = trained
        self.network = network

    def on_epoch_end(self, epoch, logs=None):
        """Copy."""
        if self.network is not self.trained:
            self.network.set_weights(self.trained.get_weights())


class KeepBest(keras.callbacks.Callback):
    """Writes the run's last and best weights, and the scores of the best, each whole or not at all.

    Where validation gives no such score there is no best: best.keras then holds the last weights.
    (Keras's ModelCheckpoint writes over the file that stands there, and forgets its best.)

    Args:
        run_dir: the run folder (pathlib.Path).
        network: the public two-output network, which alone is saved for use.
        best_metric: validation score, one of `config.BEST_METRICS`.
        progress: of the training; its `best` and `best_scores` are kept here.
    """

    def __init__(self, run_dir, network, best_metric, progress):
        super().__init__()
        self.run_dir, self.network = run_dir, network
        self.best_metric, self.progress = best_metric, progress

    def on_epoch_end(self, epoch, logs=None):
        """Save; `logs` are Keras's."""
        runs.save_model(self.network, self.run_dir / runs.WEIGHTS["last"])
        score = logs.get(f"val_{self.best_metric}", np.nan)
        score = float(score) if np.isfinite(score) else None
        if not self._is_best(score):
            return
        self.progress.best = score
        runs.save_model(self.network, self.run_dir / runs.WEIGHTS["best"])
        # Validation scores bare, under the names that evaluate gives; without, training's.
        validated = any(key.startswith("val_") for key in logs)
        prefix = "val_" if validated else ""
        scores = {k.removeprefix("val_"): float(v) for k, v in logs.items() if prefix in k}
        about = {"step": self.progress.step, "validated": validated}
        self.progress.best_scores = about | scores
        files.write_json(self.run_dir / "metrics.json", self.progress.best_scores)

    def _is_best(self, score):
        best = self.progress.best
        if best is None or score is None:
            return best is None
        return score > best if self.best_metric in _HIGHER else score < best


class Patience(keras.callbacks.Callback):
    """Ends the training when neither task has got better in so many validations.

    (Keras's EarlyStopping watches one score, and counts anew in a resumed training.)

    Args:
        patience: how many; 0 never ends it.
        progress: of the training; its `patience` says for each score its best value and the
            validations since.
    """

    SCORES = ("seg/miou", "flow/aepe")

    def __init__(self, patience, progress):
        super().__init__()
        self.patience, self.progress = patience, progress

    def on_epoch_end(self, epoch, logs=None):
        """Look at a validation's scores."""
        tasks = self.progress.patience
        for name in self.SCORES:
            score = logs.get(f"val_{name}", np.nan)
            if not np.isfinite(score):
                continue
            best, waits = tasks.get(name, (None, 0))
            better = _is_better(name, score, best)
            tasks[name] = [float(score), 0] if better else [best, waits + 1]
        if is_spent(tasks, self.patience):
            self.model.stop_training = True


def is_spent(tasks: dict[str, list], patience: int) -> bool:
    """Whether no task is to be waited for any more; see `Patience`."""
    return bool(patience and tasks) and all(waits >= patience for _, waits in tasks.values())


def _is_better(name, score, best):
    return best is None or (score > best if name in _HIGHER else score < best)


class Alternate(keras.callbacks.Callback):
    """Ends a phase of alternating training when its stream has converged; then the other learns.

    So SegFlow is trained (Cheng et al., ICCV 2017), segmentation first. The encoder is of the
    stream of segmentation, as SegFlow's ResNet is: it stays while flow learns. A stream has
    converged when its validation score (seg/miou, flow/aepe) has not got better since the phase
    began in `alternate` epochs of `steps_per_epoch`; without such a score, after as many.
    It comes before `KeepState`, so that a checkpoint is of the phase that goes on from it.

    Args:
        config: of the training.
        progress: of the training; its `phase` is ended and begun here.
        switch: function without arguments that compiles the training anew for that phase.
    """

    def __init__(self, config, progress, switch):
        super().__init__()
        self.config, self.progress, self.switch = config, progress, switch

    def on_epoch_end(self, epoch, logs=None):
        """Look at a validation's score; `logs` are Keras's."""
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
            print(f"\nstep {step}: {phase.learn} stays as it is now; {other} learns")
            self.switch()
            # Keras goes on by the new phase only when `fit` begins anew.
            self.model.stop_training = True


class History(keras.callbacks.Callback):
    """Writes history.csv: a line of scores each time that Keras's epoch ends.

    (Keras's CSVLogger keeps the lines of steps that a resumed training makes again.)

    Args:
        path: the file. Of lines that are there, those of later steps than the progress's go.
        progress: of the training.
    """

    def __init__(self, path, progress):
        super().__init__()
        self.path, self.progress = path, progress
        lines = csv.DictReader(path.read_text().splitlines()) if path.is_file() else []
        self.lines = [line for line in lines if int(line["step"]) <= progress.step]

    def on_epoch_end(self, epoch, logs=None):
        """Write."""
        scores = {name: float(value) for name, value in sorted(logs.items())}
        self.lines.append({"step": self.progress.step, **scores})
        names = list(dict.fromkeys(name for line in self.lines for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.lines)
        files.write(self.path, text.getvalue())
