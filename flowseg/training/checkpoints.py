"""The state that a training goes on from: written whole, checksummed, the last few kept.

RUN/checkpoints/step-00000500/
    training.keras    the network in training, with its optimizer
    metrics.npz       the running scores, for a state in the middle of an interval
    state.json        step, best score so far and the like; SHA-256 of the two others

A folder gets its name when all of it is written. What was damaged since is passed over with a
warning, in favour of the one before.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import keras
import numpy as np

from flowseg import files
from flowseg.console import warn
from flowseg.errors import ArgumentError

# What a checkpoint's network is loaded with: layers, scores, losses and the optimizer register
# themselves.
from flowseg.network import model  # noqa: F401
from flowseg.scoring import streaming  # noqa: F401
from flowseg.training import losses, optimizer, unsupervised_losses  # noqa: F401
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Progress

_NETWORK, _METRICS, _STATE = "training.keras", "metrics.npz", "state.json"


def save(folder: Path, training: keras.Model, progress: Progress, keep: int) -> None:
    """Write the state of a compiled training.

    Args:
        folder: that of the checkpoints (pathlib.Path).
        training: the compiled `keras.Model`.
        progress: of it.
        keep: how many checkpoints are left, with this one.

    Raises:
        OSError: naming the file: it cannot be written; those before stay.
    """
    with files.whole(folder / f"step-{progress.step:08d}") as temporary:
        temporary.mkdir()
        training.save(temporary / _NETWORK)
        np.savez(temporary / _METRICS, *[np.asarray(v) for v in _running(training)])
        sums = {name: _sum(temporary / name) for name in (_NETWORK, _METRICS)}
        files.write(
            temporary / _STATE, json.dumps({**progress.as_dict(), "sha256": sums}, indent=2) + "\n"
        )
    # With what kills left half written.
    for old in [*_all(folder)[:-keep], *folder.glob(".partial-step-*")]:
        shutil.rmtree(old)


def newest(folder: Path) -> tuple[dict | None, Path | None]:
    """(state.json, folder) of the newest sound checkpoint; (None, None) where there is none at all.

    Raises:
        ValueError: there are some, and all are damaged.
    """
    found = _all(folder)
    for path in found[::-1]:
        try:
            state = json.loads((path / _STATE).read_text())
            for name, told in state["sha256"].items():
                if _sum(path / name) != told:
                    raise ValueError(f"{name} is not what was written")
            return state, path
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warn(f"{path}: damaged ({error}); looking at the checkpoint before")
    if found:
        raise ArgumentError(
            "all checkpoints are damaged; remove them to begin anew, with this run's model.keras "
            "as init_from",
            "init_from",
            path=folder,
        )
    return None, None


def network(path: Path) -> keras.Model:
    """The compiled training network of a checkpoint's folder."""
    return keras.saving.load_model(path / _NETWORK)


def load(training: keras.Model, path: Path) -> list[np.ndarray]:
    """Give a compiled training the weights and the optimizer's state of a checkpoint.

    Returns:
        The running scores, for `KeepState`.

    Raises:
        ValueError: it cannot be read, or is of another network.
    """
    try:
        saved = network(path)
        training.set_weights(saved.get_weights())
        training.optimizer.build(training.trainable_variables)
        _assign(training.optimizer.variables, saved.optimizer.variables)
        with np.load(path / _METRICS) as running:
            return [running[name] for name in running.files]
    except Exception as error:  # zipfile, h5py and Keras each raise their own.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArgumentError(
            f"cannot be resumed from: of another network ({reason}); begin in another run_dir, "
            "with this run's model.keras as init_from",
            "run_dir",
            "init_from",
            path=path,
        ) from error


def stretches(step: int, config: TrainingConfig) -> list[dict]:
    """How `fit` goes on from a step: what is left of an epoch of Keras's, whole ones, the last.

    Keras's epoch is what lies between two checkpoints; `steps_per_epoch` is a whole number of them,
    after which there is validation.

    Returns:
        Keywords of `fit`, one dict a call.
    """
    steps, interval = config.steps, config.checkpoint_interval
    rest = min(-step % interval, steps - step)
    whole, last = divmod(steps - step - rest, interval)
    found = []
    for length, count in ((rest, 1), (interval, whole), (last, 1)):
        if not length or not count:
            continue
        first = step // interval
        step += length * count
        ends = range(first + 1, first + count + 1)
        validated = [n for n in ends if n * interval % config.steps_per_epoch == 0]
        if step == steps and ends[-1] not in validated:
            validated.append(ends[-1])
        found.append({
            "steps_per_epoch": length,
            "initial_epoch": first,
            "epochs": first + count,
            "validation_freq": validated,
        })  # fmt: skip
    return found


class KeepState(keras.callbacks.Callback):
    """Keeps what a training goes on from, at the end of each of Keras's epochs and when asked to.

    It comes last: what the others do at a step is done when its state is kept. Ctrl-C and SIGTERM
    end the training after the step at work, and keep its state; a second one ends it at once.

    Args:
        folder: of the checkpoints.
        progress: of the training.
        keep: how many checkpoints.
        running: the running scores to go on with, in the middle of one of Keras's epochs; or None.
    """

    def __init__(self, folder, progress, keep, running=None):
        super().__init__()
        self.folder, self.progress, self.keep = folder, progress, keep
        self.running, self.asked = running, False
        self.since = time.monotonic()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """While it lasts, signals are heard."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Whoever started the thread hears them.
            return
        numbers = signal.SIGINT, signal.SIGTERM
        before = [signal.getsignal(number) for number in numbers]

        def hear(number, frame):
            self.asked = True
            self._restore(numbers, before)
            print("\nstopping after this step; once more to leave at once", file=sys.stderr)

        for number in numbers:
            signal.signal(number, hear)
        try:
            yield
        finally:
            self._restore(numbers, before)

    @staticmethod
    def _restore(numbers, handlers):
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)

    def on_epoch_begin(self, epoch, logs=None):
        """Put back the running scores, which Keras has just set to zero."""
        if self.running is not None:
            _assign(_running(self.model), self.running)
            self.running = None

    def on_train_batch_end(self, batch, logs=None):
        """Leave if asked to.

        Raises:
            KeyboardInterrupt: the state is kept.
        """
        if self.asked:
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            self._save()
            raise KeyboardInterrupt(
                f"step {self.progress.step} is kept; the same command goes on from there"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Keep it."""
        self._save()

    def _save(self):
        now = time.monotonic()
        self.progress.seconds, self.since = self.progress.seconds + now - self.since, now
        save(self.folder, self.model, self.progress, self.keep)


def lock(run_dir: Path) -> TextIO:
    """Keep other trainings out of a run folder, until the returned file is closed or we end.

    Raises:
        ValueError: another training is at work there.
        OSError: the folder cannot be written into.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    held = open(run_dir / ".lock", "w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        raise ValueError(f"{run_dir}: another training is at work in this run folder") from error
    return held


def _all(folder):
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _sum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _running(training):
    """The variables of losses and scores."""
    return [variable for metric in training.metrics for variable in metric.variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
