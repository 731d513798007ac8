"""What TensorBoard shows of a training: scores, speed, pictures, settings, the graph of layers."""

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

# In px: whole KITTI panels would be 3 MB each, every epoch.
_PICTURE_WIDTH = 1280


class TensorBoard(keras.callbacks.Callback):
    """Scores, speed and pictures by global step, under the names that `evaluate` uses.

    Beside them, once, the graph of layers; and, in a place of their own, the run's settings with
    the scores of its best weights, which make its line under HPARAMS: of all scalars of all splits
    that page would show the first few. It comes after `KeepBest`, which finds the best. (Keras's
    own callback writes neither pictures nor these names.)

    Args:
        run: the run folder, its public network and classes.
        config: of the training.
        progress: of the training.
        frames: dataset of decoded frames (`decoding.evaluation_data`) that are drawn after every
            `steps_per_epoch`.
        metrics: the scores that the training counts, by output.
        clock: of the batches, where their waits are counted.
        task: what is trained; draws.
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
        # Pictures of the validation's scores, which the next epoch's training counts anew.
        self.validated = None
        self.writers = {
            split: tf.summary.create_file_writer(str(run.folder / "tensorboard" / split))
            for split in ("train", "val", "best", "")
        }
        self._describe()

    def _describe(self):
        """Write what does not change."""
        with self.writers["best"].as_default():
            settings = {
                k: v if isinstance(v, bool | int | float) else str(v)
                for k, v in self.config.as_dict().items()
            }
            hparams.hparams(settings, trial_id=str(self.run.folder))
        with self.writers[""].as_default():
            tf.summary.graph(layer_graph(self.run.model))

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock after the first batch, which may trace."""
        self._since = self.validated = None

    def on_train_batch_end(self, batch, logs=None):
        """Look at the clock."""
        now = time.perf_counter(), self.clock.seconds if self.clock else 0.0, batch
        self._since = self._since or now
        self._until = now

    def on_test_end(self, logs=None):
        """Keep pictures of the validation's scores."""
        self.validated = self.task.draw_metrics(self.metrics, self.run.label_set)

    def on_epoch_end(self, epoch, logs=None):
        """Write one entry a score; `logs` are Keras's."""
        step, best = self.progress.step, self.progress.best_scores
        for name, value in logs.items():
            split = "val" if name.startswith("val_") else "train"
            if np.isfinite(value):
                with self.writers[split].as_default():
                    tf.summary.scalar(name.removeprefix("val_"), float(value), step)
        with self.writers["train"].as_default():
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            weights = {name: float(getattr(self.config, name)) for name in ("alpha", "beta")}
            for name, value in {"learning_rate": rate, **self._speed(), **weights}.items():
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
        # Without validation: of the training, crops for the scores, whole frames for the pictures.
        scores, split = self.validated, "val"
        if scores is None:
            scores, split = self.task.draw_metrics(self.metrics, self.run.label_set), "train"
        with self.writers[split].as_default():
            for name, picture in scores.items():
                tf.summary.image(name, picture[None], step)
            for frame in self.frames.as_numpy_iterator():
                predictions = self.run.predict(frame["image1"], frame["image2"])
                picture = self.task.draw(frame, predictions, self.run.label_set)
                picture = drawing.shrink(picture, _PICTURE_WIDTH)
                tf.summary.image(f"frames/{frame['frame_id'].decode()}", picture[None], step)

    def _speed(self):
        """Of this epoch without its first step; none if it had but that."""
        seconds, waited, batches = (b - a for a, b in zip(self._since, self._until, strict=True))
        if not batches:
            return {}
        examples = batches * self.config.batch_size
        speed = {"speed/examples_per_second": examples / seconds}
        return speed | {"speed/input_wait": waited / seconds} if self.clock else speed


def layer_graph(network: keras.Model) -> tf.compat.v1.GraphDef:
    """The layers of encoder and decoder, and what each is fed, as a GraphDef for TensorBoard.

    One node for every use of a layer. (TensorBoard cannot read Keras 3's own description, and the
    graph of operators takes seconds to trace and has thousands of them.)
    """
    graph = tf.compat.v1.GraphDef()
    made = {}

    def name_of(part, tensor):
        operation, use, _ = tensor._keras_history
        return f"{part.name}/{operation.name}" + f"_use_{use}" * (use > 0)

    encoder, decoder = parts(network)
    for part in (encoder, decoder):
        waiting = keras.tree.flatten(part.output)
        while waiting:
            tensor = waiting.pop()
            name = name_of(part, tensor)
            if name in made:
                continue
            operation, use, _ = tensor._keras_history
            fed = operation._inbound_nodes[use].input_tensors
            node = made[name] = graph.node.add(name=name, op=type(operation).__name__)
            node.input.extend(sorted({name_of(part, source) for source in fed}))
            waiting += fed
    # What the decoder is fed is told by its inputs' names: frame1_stride4 is the encoder's stride4.
    for key, tensor in encoder.output.items():
        for name, node in made.items():
            if name.startswith("decoder/frame") and name.endswith(f"_{key}"):
                node.input.append(name_of(encoder, tensor))
    return graph
