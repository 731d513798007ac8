"""Detects NaN or Inf steps and loss spikes, and records the frames responsible.

Each incident is reported in one line, with the frames of its batch, and written to
RUN/incidents/step-00000123.json next to the batch itself (.npz), for `flowseg.replay`.
"""

import json
import statistics
from collections import deque

import keras
import numpy as np

from flowseg import files
from flowseg.console import warn
from flowseg.errors import ArgumentError

# Number of previous losses with which a loss is compared, and the minimum for a comparison.
_WINDOW, _MIN_LOSSES = 64, 16
# Consecutive NaN or Inf steps after which skipping is pointless.
_MAX_CONSECUTIVE = 10
# Maximum number of stored batches per kind of incident: to fetch one, the epoch is read again up to
# its step.
_MAX_STORED = 20


class Guard(keras.callbacks.Callback):
    """Counts steps and checks the loss of each; must be the first callback.

    Args:
        run_dir: the run folder (pathlib.Path).
        progress: progress of the run; its `step` and `incidents` are updated here.
        fetch_batch: function of a step, counted from 0 -> (names of its frames, inputs, targets).
        on_nonfinite: "stop" if the loss or a gradient is NaN or Inf, or "skip" the step.
        spike: factor over the median of previous losses above which a loss is reported; 0: never.
    """

    def __init__(self, run_dir, progress, fetch_batch, on_nonfinite, spike):
        super().__init__()
        self.folder, self.progress, self.fetch_batch = run_dir / "incidents", progress, fetch_batch
        self.on_nonfinite, self.spike = on_nonfinite, spike
        self.losses, self.consecutive = deque(maxlen=_WINDOW), 0

    def on_train_begin(self, logs=None):
        """Ignore steps skipped in earlier calls of `fit`, which have been reported."""
        self.skipped = 0
        self._count_skipped()

    def on_epoch_begin(self, epoch, logs=None):
        """Reset the running mean, because Keras restarts the mean loss in its logs."""
        self.count, self.mean = 0, 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Check the loss of a step.

        Raises:
            ValueError: the loss or a gradient is NaN or Inf, and training must stop.
        """
        self.progress.step += 1
        mean = float(logs["loss"])
        loss = mean * (self.count + 1) - self.mean * self.count
        if not np.isfinite(mean) or self._was_skipped():
            self._nonfinite()
            return
        self.count, self.mean, self.consecutive = self.count + 1, mean, 0
        if self.spike and len(self.losses) >= _MIN_LOSSES:
            median = statistics.median(self.losses)
            if loss > self.spike * median:
                warn(f"{self._record('spike')}: loss {loss:.3g}, recent median {median:.3g}")
        self.losses.append(loss)

    def _was_skipped(self):
        # Reading the counter would make JAX synchronise its state at every step.
        return keras.backend.backend() != "jax" and self._count_skipped()

    def _count_skipped(self):
        now = keras.ops.convert_to_numpy(self.model.optimizer.skipped)
        before, self.skipped = self.skipped, int(now)
        return self.skipped > before

    def on_epoch_end(self, epoch, logs=None):
        """Report NaN or Inf gradients of steps with a finite loss; JAX exposes them only here."""
        if self._count_skipped():
            warn(f"up to step {self.progress.step}: NaN or Inf gradients; skipped")

    def _nonfinite(self):
        self.consecutive += 1
        incident = self._record("nonfinite")
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        nonfinite = [v.path for v in self.model.variables if not np.isfinite(np.asarray(v)).all()]
        metrics = {v.path for metric in self.model.metrics for v in metric.variables}
        nonfinite = [path for path in nonfinite if path not in metrics]
        if self.on_nonfinite == "stop" or nonfinite or self.consecutive >= _MAX_CONSECUTIVE:
            variables = f"; in variables: {', '.join(nonfinite[:3])}" if nonfinite else ""
            raise ArgumentError(
                f"the loss or a gradient is NaN or Inf{variables}. Earlier checkpoints are intact: "
                "the same command resumes from the last one; try a smaller learning_rate, or "
                "on_nonfinite skip",
                "learning_rate",
                "on_nonfinite",
                path=incident,
            )
        warn(f"{incident}: the loss or a gradient is NaN or Inf; skipped")
        # Otherwise the means would be NaN until the end of Keras's epoch.
        self.model.reset_metrics()
        self.count, self.mean = 0, 0.0

    def _record(self, kind):
        """Write an incident to files; return its description, for the start of a message."""
        step, incidents = self.progress.step, self.progress.incidents
        incidents[kind] = incidents.get(kind, 0) + 1
        if incidents[kind] > _MAX_STORED:
            return f"step {step}"
        names, inputs, targets = self.fetch_batch(step - 1)
        path = self.folder / f"step-{step:08d}"
        arrays = {f"inputs/{key}": value for key, value in inputs.items()}
        arrays |= {f"targets/{key}": value for key, value in targets.items()}
        with files.atomic(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        record = {"step": step, "kind": kind, "frames": names}
        files.write(path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
        return f"step {step}, frames {', '.join(names)} ({path}.npz)"
