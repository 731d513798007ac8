"""Writes and loads checkpoints: writes are atomic, files have checksums, the last few are kept.

RUN/checkpoints/step-00000500/
    training.keras    the training model, with its optimizer
    metrics.npz       the running metrics, to resume in the middle of a Keras epoch
    state.json        step, best score so far and other progress; SHA-256 of these entries and of
                      the other two files

A folder is renamed into place once it is complete. A checkpoint that was damaged later is skipped
with a warning, and the previous one is used.
"""

import contextlib
import hashlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from flowseg import files
from flowseg.console import warn
from flowseg.errors import ArgumentError

# Imported because loading a checkpoint's network needs these layers, scores, losses and the
# optimizer to be registered.
from flowseg.network import model  # noqa: F401
from flowseg.scoring import streaming  # noqa: F401
from flowseg.training import losses, optimizer, unsupervised_losses  # noqa: F401
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Progress

_NETWORK, _METRICS, _STATE = "training.keras", "metrics.npz", "state.json"


def save(folder: Path, training: keras.Model, progress: Progress, keep: int) -> None:
    """Write a checkpoint of a compiled training model.

    Args:
        folder: folder of the checkpoints (pathlib.Path).
        training: the compiled training model.
        progress: progress of the run.
        keep: number of checkpoints to keep, including this one.

    Raises:
        OSError: a file, named in the error, cannot be written; earlier checkpoints are kept.
    """
    with files.atomic(folder / f"step-{progress.step:08d}") as temporary:
        temporary.mkdir()
        training.save(temporary / _NETWORK)
        np.savez(temporary / _METRICS, *[np.asarray(v) for v in _running(training)])
        sums = {name: _sha256(temporary / name) for name in (_NETWORK, _METRICS)}
        state = progress.as_dict()
        sums[_STATE] = _sha256_of_state(state)
        files.write(temporary / _STATE, json.dumps({**state, "sha256": sums}, indent=2) + "\n")
    # Remove old checkpoints, and partial ones that killed runs left.
    for old in [*_folders(folder)[:-keep], *folder.glob(".partial-step-*")]:
        shutil.rmtree(old)


def newest(folder: Path) -> tuple[dict | None, Path | None]:
    """Return the progress and the folder of the newest intact checkpoint; (None, None): none.

    Raises:
        ValueError: all existing checkpoints are damaged.
    """
    paths = _folders(folder)
    for path in paths[::-1]:
        try:
            state = json.loads((path / _STATE).read_text())
            sums = state.pop("sha256")
            # Earlier versions wrote no checksum of the state.
            actual = {_STATE: _sha256_of_state(state)} if _STATE in sums else {}
            actual |= {name: _sha256(path / name) for name in (_NETWORK, _METRICS)}
            for name, checksum in actual.items():
                if sums[name] != checksum:
                    raise ValueError(f"{name} does not match its checksum")
            return state, path
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warn(f"{path}: damaged ({error}); trying the previous checkpoint")
    if paths:
        raise ArgumentError(
            "all checkpoints are damaged; remove them to restart, with this run's model.keras "
            "as init_from",
            "init_from",
            path=folder,
        )
    return None, None


def network(path: Path) -> keras.Model:
    """Load the compiled training model from a checkpoint's folder."""
    return keras.saving.load_model(path / _NETWORK)


def load(training: keras.Model, path: Path) -> list[np.ndarray]:
    """Restore the weights and optimizer state of a compiled training model from a checkpoint.

    Returns:
        The running metrics, for `KeepState`.

    Raises:
        ValueError: the checkpoint cannot be read, or belongs to another network.
    """
    try:
        saved = network(path)
        training.set_weights(saved.get_weights())
        training.optimizer.build(training.trainable_variables)
        _assign(training.optimizer.variables, saved.optimizer.variables)
        with np.load(path / _METRICS) as running:
            return [running[name] for name in running.files]
    except Exception as error:  # zipfile, h5py and Keras each raise their own types.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArgumentError(
            f"cannot be resumed: it belongs to another network ({reason}); start in another "
            "run_dir, with this run's model.keras as init_from",
            "run_dir",
            "init_from",
            path=path,
        ) from error


def fit_segments(step: int, config: TrainingConfig) -> list[dict]:
    """Plan the calls of `fit` from `step` on: rest of the Keras epoch, full epochs, partial last.

    A Keras epoch is the interval between two checkpoints. `steps_per_epoch`, the interval between
    validations, is a multiple of it.

    Returns:
        Keyword arguments of `fit`, one dict per call.
    """
    steps, interval = config.steps, config.checkpoint_interval
    rest = min(-step % interval, steps - step)
    full, last = divmod(steps - step - rest, interval)
    segments = []
    for length, count in ((rest, 1), (interval, full), (last, 1)):
        if not length or not count:
            continue
        first = step // interval
        step += length * count
        ends = range(first + 1, first + count + 1)
        validated = [n for n in ends if n * interval % config.steps_per_epoch == 0]
        if step == steps and ends[-1] not in validated:
            validated.append(ends[-1])
        segments.append({
            "steps_per_epoch": length,
            "initial_epoch": first,
            "epochs": first + count,
            "validation_freq": validated,
        })  # fmt: skip
    return segments


class KeepState(keras.callbacks.Callback):
    """Saves a checkpoint at the end of each Keras epoch and on Ctrl-C or SIGTERM.

    It must be the last callback, so that the others have finished the step when it is saved. Ctrl-C
    and SIGTERM end training after the current step, which is saved; a second signal ends it
    immediately.

    Args:
        folder: folder of the checkpoints.
        progress: progress of the run.
        keep: number of checkpoints to keep.
        running: the running metrics to restore in the middle of a Keras epoch; else None.
    """

    def __init__(self, folder, progress, keep, running=None):
        super().__init__()
        self.folder, self.progress, self.keep = folder, progress, keep
        self.running, self.stop_requested = running, False
        self.since = time.monotonic()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Context in which Ctrl-C and SIGTERM are handled."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Only the main thread can handle signals.
            return
        numbers = signal.SIGINT, signal.SIGTERM
        before = [signal.getsignal(number) for number in numbers]

        def handle(number, frame):
            self.stop_requested = True
            self._restore(numbers, before)
            print("\nstopping after this step; repeat to stop immediately", file=sys.stderr)

        for number in numbers:
            signal.signal(number, handle)
        try:
            yield
        finally:
            self._restore(numbers, before)

    @staticmethod
    def _restore(numbers, handlers):
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)

    def on_epoch_begin(self, epoch, logs=None):
        """Restore the running metrics, which Keras has just reset."""
        if self.running is not None:
            _assign(_running(self.model), self.running)
            self.running = None

    def on_train_batch_end(self, batch, logs=None):
        """Save and stop if a signal was received.

        Raises:
            KeyboardInterrupt: the state was saved.
        """
        if self.stop_requested:
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            self._save()
            raise KeyboardInterrupt(
                f"step {self.progress.step} is saved; the same command resumes from there"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Save a checkpoint."""
        self._save()

    def _save(self):
        now = time.monotonic()
        self.progress.seconds, self.since = self.progress.seconds + now - self.since, now
        save(self.folder, self.model, self.progress, self.keep)


def _folders(folder):
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_state(state):
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _running(training):
    """Return the variables of losses and scores."""
    return [variable for metric in training.metrics for variable in metric.variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
