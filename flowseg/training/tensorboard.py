"""Writes TensorBoard events: scores, speed, images, settings and the layer graph."""

import time

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from flowseg import runs
from flowseg.data.batches import InputClock
from flowseg.media import drawing
from flowseg.network.model import parts
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Progress
from flowseg.training.tasks import JOINT, Task

# In px: full-size KITTI panels would take 3 MB each, every epoch.
_IMAGE_WIDTH = 1280


class TensorBoard(keras.callbacks.Callback):
    """Writes scores, speed and images by global step, under the names that `evaluate` uses.

    Every `log_every` steps, also within an epoch, it writes the losses, the learning rate and the
    speed of the steps since the previous entry, as `steps/...`.

    The layer graph is written once. The run's settings and the scores of its best weights go to a
    separate writer, which creates the run's line under HPARAMS: that page shows only the first few
    of a run's scalars. The callback must follow `KeepBest`, which determines the best scores.
    (Keras's TensorBoard callback writes neither images nor these names.)

    Args:
        run: the run folder, its public network and classes.
        config: settings of the training.
        progress: progress of the training.
        frames: dataset of decoded frames (`decoding.evaluation_data`) that are drawn after every
            `steps_per_epoch`.
        metrics: the scores computed in training, by output.
        clock: measures the time spent waiting for batches; None: not measured.
        task: the trained task, which draws the images.
    """

    def __init__(
        self,
        run: runs.Run,
        config: TrainingConfig,
        progress: Progress,
        frames: tf.data.Dataset,
        metrics: dict[str, keras.metrics.Metric],
        clock: InputClock | None = None,
        task: Task = JOINT,
    ):
        super().__init__()
        self.run, self.config, self.progress = run, config, progress
        self.frames, self.metrics, self.clock, self.task = frames, metrics, clock, task
        # Images of the validation scores; training resets the metrics in the next epoch.
        self.validated = None
        self.writers = {
            split: tf.summary.create_file_writer(str(run.folder / "tensorboard" / split))
            for split in ("train", "val", "best", "")
        }
        self._describe()

    def _describe(self):
        """Write the settings and the layer graph, which do not change."""
        with self.writers["best"].as_default():
            settings = {
                k: v if isinstance(v, bool | int | float) else str(v)
                for k, v in self.config.as_dict().items()
            }
            hparams.hparams(settings, trial_id=str(self.run.folder))
        with self.writers[""].as_default():
            tf.summary.graph(layer_graph(self.run.model))

    def on_epoch_begin(self, epoch, logs=None):
        """Reset the clock; it starts after the first batch, which may trace the graph."""
        self._since = self.validated = None
        self._window = StepWindow()

    def on_train_batch_end(self, batch, logs=None):
        """Read the clock, and write an entry every `log_every` steps."""
        now = time.perf_counter(), self.clock.seconds if self.clock else 0.0, batch
        self._since = self._since or now
        self._until = now
        step, every = self.progress.step, self.config.log_every
        self._window.count(self.progress.incidents.get("nonfinite", 0))
        if every and step % every == 0:
            rate = {"learning_rate": self._learning_rate()}
            with self.writers["train"].as_default():
                for name, value in (self._window.close(logs) | rate).items():
                    if np.isfinite(value):
                        tf.summary.scalar(f"steps/{name}", value, step)
            self.writers["train"].flush()

    def _learning_rate(self):
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_test_end(self, logs=None):
        """Keep images of the validation scores."""
        self.validated = self.task.draw_metrics(self.metrics, self.run.label_set)

    def on_epoch_end(self, epoch, logs=None):
        """Write one entry per score."""
        step, best = self.progress.step, self.progress.best_scores
        for name, value in logs.items():
            split = "val" if name.startswith("val_") else "train"
            if np.isfinite(value):
                with self.writers[split].as_default():
                    tf.summary.scalar(name.removeprefix("val_"), float(value), step)
        with self.writers["train"].as_default():
            weights = {name: float(getattr(self.config, name)) for name in ("alpha", "beta")}
            rate = {"learning_rate": self._learning_rate()}
            for name, value in (rate | self._speed() | weights).items():
                tf.summary.scalar(name, value, step)
        if best.get("step") == step:
            with self.writers["best"].as_default():
                for name, value in best.items():
                    if ("/" in name or name == "loss") and np.isfinite(value):
                        tf.summary.scalar(name, value, step)
        if step % self.config.steps_per_epoch == 0 or step == self.config.steps:
            self._draw(step)
        for writer in self.writers.values():
            writer.flush()

    def _draw(self, step):
        # Without validation, the scores are those of training crops, but full frames are drawn.
        scores, split = self.validated, "val"
        if scores is None:
            scores, split = self.task.draw_metrics(self.metrics, self.run.label_set), "train"
        with self.writers[split].as_default():
            for name, image in scores.items():
                tf.summary.image(name, image[None], step)
            for frame in self.frames.as_numpy_iterator():
                predictions = self.run.predict(frame["image1"], frame["image2"])
                image = self.task.draw(frame, predictions, self.run.label_set)
                image = drawing.shrink(image, _IMAGE_WIDTH)
                tf.summary.image(f"frames/{frame['frame_id'].decode()}", image[None], step)

    def _speed(self):
        """Return the speed of this epoch without its first step; empty if there is only one."""
        seconds, waited, batches = (b - a for a, b in zip(self._since, self._until, strict=True))
        if not batches:
            return {}
        examples = batches * self.config.batch_size
        speed = {"speed/examples_per_second": examples / seconds}
        return speed | {"speed/input_wait": waited / seconds} if self.clock else speed


class StepWindow:
    """Mean losses and speed over the steps since the previous entry.

    Keras logs means since the beginning of its epoch, or since a skipped step.
    """

    def __init__(self):
        self._skipped = None
        self._reset()

    def _reset(self):
        # Steps in Keras's means, now and at the previous entry; the sums at that entry.
        self._steps, self._written, self._sums = 0, 0, {}
        # Number and time of the step at which the speed is measured from.
        self._timed = None

    def count(self, skipped: int) -> None:
        """Count a step; `skipped` is the number of skipped steps of the run so far."""
        was_skipped = self._skipped not in (None, skipped)
        self._skipped = skipped
        if was_skipped:
            self._reset()
            return
        self._steps += 1
        # The first step of an epoch is not timed, because it may trace the graph.
        self._timed = self._timed or (self._steps, time.perf_counter())

    def close(self, logs: dict[str, float]) -> dict[str, float]:
        """Return the mean losses and the steps per second, and open the next window."""
        steps, now = self._steps - self._written, time.perf_counter()
        if not steps:
            return {}
        sums = {k: float(v) * self._steps for k, v in logs.items() if k.endswith("loss")}
        values = {k: (total - self._sums.get(k, 0.0)) / steps for k, total in sums.items()}
        if timed := self._steps - self._timed[0]:
            values["steps_per_second"] = timed / (now - self._timed[1])
        self._written, self._sums, self._timed = self._steps, sums, (self._steps, now)
        return values


def layer_graph(network: keras.Model) -> tf.compat.v1.GraphDef:
    """Build a GraphDef of the layers of encoder and decoder and their inputs, for TensorBoard.

    Each use of a layer is a node. (TensorBoard cannot read Keras 3's model description, and the
    graph of operators takes seconds to trace and has thousands of nodes.)
    """
    graph = tf.compat.v1.GraphDef()
    nodes = {}

    def name_of(part, tensor):
        operation, use, _ = tensor._keras_history
        return f"{part.name}/{operation.name}" + f"_use_{use}" * (use > 0)

    encoder, decoder = parts(network)
    for part in (encoder, decoder):
        pending = keras.tree.flatten(part.output)
        while pending:
            tensor = pending.pop()
            name = name_of(part, tensor)
            if name in nodes:
                continue
            operation, use, _ = tensor._keras_history
            inputs = operation._inbound_nodes[use].input_tensors
            node = nodes[name] = graph.node.add(name=name, op=type(operation).__name__)
            node.input.extend(sorted({name_of(part, source) for source in inputs}))
            pending += inputs
    # Decoder inputs are matched to encoder outputs by name: frame1_stride4 is stride4 of frame 1.
    for key, tensor in encoder.output.items():
        for name, node in nodes.items():
            if name.startswith("decoder/frame") and name.endswith(f"_{key}"):
                node.input.append(name_of(encoder, tensor))
    return graph
