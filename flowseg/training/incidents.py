"""What watches over a training: steps that are no numbers, losses that jump, whom they are due to.

Each incident is told in one line, with the frames of its batch, and written to
RUN/incidents/step-00000123.json beside the batch itself (.npz), for `flowseg.replay`.
"""

import json
import statistics
from collections import deque

import keras
import numpy as np

from flowseg import files
from flowseg.console import warn
from flowseg.errors import ArgumentError

# Losses before a step that its own is held to, and how many there must be.
_WINDOW, _LEAST = 64, 16
# Steps in a row that are no numbers, after which skipping helps no more.
_MOST = 10
# Incidents of a kind whose batches are looked up: it takes reading the epoch up to there again.
_KEPT = 20


class Guard(keras.callbacks.Callback):
    """Counts steps and looks at each one's loss; it comes first.

    Args:
        run_dir: the run folder (pathlib.Path).
        progress: of the training; its `step` counts the steps, its `incidents` what happened.
        batch: function of a step, counted from 0 -> (names of its frames, inputs, targets).
        on_nonfinite: "stop" the training at a step that is no number, or "skip" it.
        spike: times the median of the losses before that a loss is told at; 0: never.
    """

    def __init__(self, run_dir, progress, batch, on_nonfinite, spike):
        super().__init__()
        self.folder, self.progress, self.batch = run_dir / "incidents", progress, batch
        self.on_nonfinite, self.spike = on_nonfinite, spike
        self.losses, self.bad = deque(maxlen=_WINDOW), 0

    def on_train_begin(self, logs=None):
        """Those that were skipped before are told."""
        self.skipped = 0
        self._count_skipped()

    def on_epoch_begin(self, epoch, logs=None):
        """The mean that Keras tells begins anew."""
        self.count, self.mean = 0, 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Look at a step.

        Raises:
            ValueError: it is no number, and that is to stop the training.
        """
        self.progress.step += 1
        mean = float(logs["loss"])
        loss = mean * (self.count + 1) - self.mean * self.count
        if not np.isfinite(mean) or self._was_skipped():
            self._nonfinite()
            return
        self.count, self.mean, self.bad = self.count + 1, mean, 0
        if self.spike and len(self.losses) >= _LEAST:
            usual = statistics.median(self.losses)
            if loss > self.spike * usual:
                warn(f"{self._note('spike')}: loss {loss:.3g}, usually {usual:.3g}")
        self.losses.append(loss)

    def _was_skipped(self):
        # To look would make JAX hand its state over at every step.
        return keras.backend.backend() != "jax" and self._count_skipped()

    def _count_skipped(self):
        now = keras.ops.convert_to_numpy(self.model.optimizer.skipped)
        before, self.skipped = self.skipped, int(now)
        return self.skipped > before

    def on_epoch_end(self, epoch, logs=None):
        """Tell of steps whose gradients alone were no numbers, which JAX tells only here."""
        if self._count_skipped():
            warn(f"until step {self.progress.step}: gradients that are no numbers; skipped")

    def _nonfinite(self):
        self.bad += 1
        told = self._note("nonfinite")
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        spoilt = [v.path for v in self.model.variables if not np.isfinite(np.asarray(v)).all()]
        metrics = {v.path for metric in self.model.metrics for v in metric.variables}
        spoilt = [path for path in spoilt if path not in metrics]
        if self.on_nonfinite == "stop" or spoilt or self.bad >= _MOST:
            why = f"; spoilt: {', '.join(spoilt[:3])}" if spoilt else ""
            raise ArgumentError(
                f"the loss or a gradient is no number{why}. What was kept before stays: "
                "the same command goes on from there; try a smaller learning_rate, or "
                "on_nonfinite skip",
                "learning_rate",
                "on_nonfinite",
                path=told,
            )
        warn(f"{told}: the loss or a gradient is no number; skipped")
        # The means would be no numbers until Keras's epoch ends.
        self.model.reset_metrics()
        self.count, self.mean = 0, 0.0

    def _note(self, kind):
        """Write an incident down; the beginning of a line about it."""
        step, incidents = self.progress.step, self.progress.incidents
        incidents[kind] = incidents.get(kind, 0) + 1
        if incidents[kind] > _KEPT:
            return f"step {step}"
        names, inputs, targets = self.batch(step - 1)
        path = self.folder / f"step-{step:08d}"
        arrays = {f"inputs/{key}": value for key, value in inputs.items()}
        arrays |= {f"targets/{key}": value for key, value in targets.items()}
        with files.whole(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        told = {"step": step, "kind": kind, "frames": names}
        files.write(path.with_suffix(".json"), json.dumps(told, indent=2) + "\n")
        return f"step {step}, of {', '.join(names)} ({path}.npz)"
