"""What TensorBoard shows of a training: scores, speed, pictures, settings, the graph of layers."""

import json
import time

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from flowseg import runs
from flowseg.media import drawing, panels

# In px: whole KITTI panels would be 3 MB each, every epoch.
_PICTURE_WIDTH = 1280


class TensorBoard(keras.callbacks.Callback):
    """Scores, speed and pictures by global step, under the names that `evaluate` uses.

    Beside them, once, the graph of layers; and, in a place of their own, the run's flags with the
    scores of its best weights, as `metrics.json` has them, which make its line under HPARAMS: of
    all scalars of all splits that page would show the first few. It comes after `KeepBest`, which
    writes that file. (Keras's own callback writes neither pictures nor these names.)

    Args:
        run_dir: the run folder (pathlib.Path).
        network: the public two-output network.
        label_set: its classes.
        frames: dataset of decoded frames (`decoding.evaluation_data`) that are drawn after every
            `steps_per_epoch`.
        seg_scores: the `streaming.SegScores` of the training, whose confusion matrix is drawn.
        settings: dict of the run's flags.
        state: of the training.
    """

    def __init__(self, run_dir, network, label_set, frames, seg_scores, settings, state):
        super().__init__()
        self.run = runs.Run(network, label_set, run_dir)
        self.frames = frames
        self.seg_scores, self.settings, self.state = seg_scores, settings, state
        # Variable of seconds spent waiting for batches (`data.clocked`), once there are batches.
        self.confusion = self.waited = None
        self.writers = {
            split: tf.summary.create_file_writer(str(run_dir / "tensorboard" / split))
            for split in ("train", "val", "best", "")
        }

        self._describe()

    def _describe(self):
        """Write what does not change."""
        with self.writers["best"].as_default():
            told = {
                k: v if isinstance(v, bool | int | float) else str(v)
                for k, v in self.settings.items()
            }
            hparams.hparams(told, trial_id=str(self.run.folder))
        with self.writers[""].as_default():
            tf.summary.graph(layer_graph(self.run.model))

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock after the first batch, which may trace."""
        self._since = self.confusion = None

    def on_train_batch_end(self, batch, logs=None):
        """Look at the clock."""
        waited = 0.0 if self.waited is None else float(self.waited.numpy())
        now = time.perf_counter(), waited, batch
        self._since = self._since or now
        self._until = now

    def on_test_end(self, logs=None):
        """Keep the matrix, which the next epoch's training counts anew."""
        self.confusion = self._count_confusion()

    def on_epoch_end(self, epoch, logs=None):
        """Write one entry a score; `logs` are Keras's."""
        step = self.state["step"]
        for name, value in logs.items():
            split = "val" if name.startswith("val_") else "train"
            if np.isfinite(value):
                with self.writers[split].as_default():
                    tf.summary.scalar(name.removeprefix("val_"), float(value), step)
        with self.writers["train"].as_default():
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            for name, value in {"learning_rate": rate, **self._speed(), **self._weights()}.items():
                tf.summary.scalar(name, value, step)
        best = json.loads((self.run.folder / "metrics.json").read_text())
        if best["step"] == step:
            with self.writers["best"].as_default():
                for name, value in best.items():
                    if value is not None and ("/" in name or name == "loss"):
                        tf.summary.scalar(name, value, step)
        if step % self.settings["steps_per_epoch"] == 0 or step == self.settings["steps"]:
            self._draw(step)
        for writer in self.writers.values():
            writer.flush()

    def _draw(self, step):
        validated = self.confusion is not None
        # Without validation: of the training, crops for the matrix, whole frames for the pictures.
        matrix = self.confusion if validated else self._count_confusion()
        with self.writers["val" if validated else "train"].as_default():
            if matrix.any():
                picture = panels.draw_confusion(matrix, self.run.label_set.names)
                tf.summary.image("seg/confusion", picture[None], step)
            for frame in self.frames.as_numpy_iterator():
                answers = self.run.predict(frame["image1"], frame["image2"])
                picture = panels.draw_answers(frame, *answers, self.run.label_set)
                picture = drawing.shrink(picture, _PICTURE_WIDTH)
                tf.summary.image(f"frames/{frame['frame_id'].decode()}", picture[None], step)

    def _count_confusion(self):
        return keras.ops.convert_to_numpy(self.seg_scores.confusion())

    def _speed(self):
        """Of this epoch without its first step; none if it had but that."""
        seconds, waited, batches = (b - a for a, b in zip(self._since, self._until, strict=True))
        if not batches:
            return {}
        examples = batches * self.settings["batch_size"]
        told = {"speed/examples_per_second": examples / seconds}
        return told if self.waited is None else told | {"speed/input_wait": waited / seconds}

    def _weights(self):
        return {name: float(self.settings[name]) for name in ("alpha", "beta")}

    def close(self):
        """Close the files."""
        for writer in self.writers.values():
            writer.close()


def layer_graph(network):
    """The layers of encoder and decoder, and what each is fed, as a GraphDef for TensorBoard.

    One node for every use of a layer. (TensorBoard cannot read Keras 3's own description, and the
    graph of operators takes seconds to trace and has thousands of them.)
    """
    graph = tf.compat.v1.GraphDef()
    made = {}

    def name_of(part, tensor):
        operation, use, _ = tensor._keras_history
        return f"{part.name}/{operation.name}" + f"_use_{use}" * (use > 0)

    for part in (network.get_layer("encoder"), network.get_layer("decoder")):
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
    encoder = network.get_layer("encoder")
    for key, tensor in encoder.output.items():
        for name, node in made.items():
            if name.startswith("decoder/frame") and name.endswith(f"_{key}"):
                node.input.append(name_of(encoder, tensor))
    return graph
