"""What a training leaves behind each epoch: checkpoints, scores, TensorBoard pictures."""

import json
import time

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from flowseg import panels, pictures, runs

# Of TensorBoard's pictures, in px: whole KITTI panels would be 3 MB each, every epoch.
_PICTURE_WIDTH = 1280
# Scores that are better when higher; all others when lower.
_HIGHER = ("seg/miou", "seg/pixel_accuracy")


class StopAtStep(keras.callbacks.Callback):
    """Ends the training after so many more steps, also in the middle of an epoch."""

    def __init__(self, steps):
        super().__init__()
        self.remaining = steps

    def on_train_batch_end(self, batch, logs=None):
        """Count."""
        # Counted here: to ask the optimizer makes JAX hand its state over at every step.
        self.remaining -= 1
        if self.remaining <= 0:
            self.model.stop_training = True


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


class Checkpoint(keras.callbacks.Callback):
    """Writes the run's weights and the state to resume from, each whole or not at all.

    Where validation gives no such score there is no best: best.keras then holds the last weights.

    Args:
        run_dir: the run folder (pathlib.Path).
        network: the public two-output network, which alone is saved for use.
        best_metric: validation score, as in `flags.BEST_METRICS`.
        best: the best score so far; None before the first.
    """

    def __init__(self, run_dir, network, best_metric, best):
        super().__init__()
        self.run_dir = run_dir
        self.network = network
        self.best_metric = best_metric
        self.best = best

    def on_epoch_end(self, epoch, logs=None):
        """Save; `logs` are Keras's.

        Raises:
            ValueError: the training has diverged; what was saved before stays.
        """
        if not np.isfinite(logs["loss"]):
            raise ValueError(
                f"{self.run_dir}: the loss is no number any more in epoch {epoch + 1}; the weights "
                "of the epoch before are kept. Try a smaller --learning_rate"
            )
        runs.save_model(self.network, self.run_dir / runs.WEIGHTS["last"])
        score = logs.get(f"val_{self.best_metric}", np.nan)
        score = float(score) if np.isfinite(score) else None
        if self._is_best(score):
            self.best = score
            runs.save_model(self.network, self.run_dir / runs.WEIGHTS["best"])
            # Validation scores bare, under the names that evaluate gives; without, training's.
            validated = any(key.startswith("val_") for key in logs)
            prefix = "val_" if validated else ""
            scores = {k.removeprefix("val_"): float(v) for k, v in logs.items() if prefix in k}
            about = {"step": int(self.model.optimizer.iterations), "validated": validated}
            runs.write_json(self.run_dir / "metrics.json", about | scores)
        self._save_state(epoch + 1)

    def _is_best(self, score):
        if self.best is None:
            return True
        if score is None:
            return False
        return score > self.best if self.best_metric in _HIGHER else score < self.best

    def _save_state(self, epoch):
        folder = self.run_dir / "checkpoints"
        name = f"epoch-{epoch:05d}.keras"
        runs.save_model(self.model, folder / name)
        step = int(self.model.optimizer.iterations)
        state = {"step": step, "epoch": epoch, "file": name}
        state |= {"best": self.best, "best_metric": self.best_metric}
        runs.write_json(folder / "latest.json", state)
        for old in folder.glob("epoch-*.keras"):
            if old.name != name:
                old.unlink()


class TensorBoard(keras.callbacks.Callback):
    """Scores, speed and pictures by global step, under the names that `evaluate` uses.

    Beside them, once, the graph of layers; and, in a place of their own, the run's flags with the
    scores of its best weights, as `metrics.json` has them, which make its line under HPARAMS: of
    all scalars of all splits that page would show the first few. It comes after `Checkpoint`, which
    writes that file. (Keras's own callback writes neither pictures nor these names.)

    Args:
        run_dir: the run folder (pathlib.Path).
        network: the public two-output network.
        label_set: its classes.
        frames: dataset of decoded frames (`data.evaluation_data`) that are drawn every epoch.
        seg_scores: the `metrics.SegScores` of the training, whose confusion matrix is drawn.
        settings: dict of the run's flags.
        waited: variable of seconds spent waiting for batches (`data.clocked`).
    """

    def __init__(self, run_dir, network, label_set, frames, seg_scores, settings, waited):
        super().__init__()
        self.run = runs.Run(network, label_set, run_dir)
        self.frames = frames
        self.seg_scores, self.settings, self.waited = seg_scores, settings, waited
        self.confusion = None
        self.writers = {
            split: tf.summary.create_file_writer(str(run_dir / "tensorboard" / split))
            for split in ("train", "val", "best", "")
        }

    def on_train_begin(self, logs=None):
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
        self._since = None

    def on_train_batch_end(self, batch, logs=None):
        """Look at the clock."""
        now = time.perf_counter(), float(self.waited.numpy()), batch
        self._since = self._since or now
        self._until = now

    def on_test_end(self, logs=None):
        """Keep the matrix, which the next epoch's training counts anew."""
        self.confusion = self._count_confusion()

    def on_epoch_end(self, epoch, logs=None):
        """Write one entry a score; `logs` are Keras's."""
        step = int(self.model.optimizer.iterations)
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
        validated = self.confusion is not None
        # Without validation: of the training, crops for the matrix, whole frames for the pictures.
        matrix = self.confusion if validated else self._count_confusion()
        with self.writers["val" if validated else "train"].as_default():
            if matrix.any():
                picture = panels.draw_confusion(matrix, self.run.label_set.names)
                tf.summary.image("seg/confusion", picture[None], step)
            for frame in self.frames.as_numpy_iterator():
                answers = self.run.predict_pair(frame["image1"], frame["image2"])
                picture = panels.draw_answers(frame, *answers, self.run.label_set)
                picture = pictures.shrink(picture, _PICTURE_WIDTH)
                tf.summary.image(f"frames/{frame['frame_id'].decode()}", picture[None], step)
        for writer in self.writers.values():
            writer.flush()

    def _count_confusion(self):
        return keras.ops.convert_to_numpy(self.seg_scores.confusion())

    def _speed(self):
        """Of this epoch without its first step; none if it had but that."""
        seconds, waited, batches = (b - a for a, b in zip(self._since, self._until, strict=True))
        if not batches:
            return {}
        examples = batches * self.settings["batch_size"]
        return {
            "speed/examples_per_second": examples / seconds,
            "speed/input_wait": waited / seconds,
        }

    def _weights(self):
        return {name: float(self.settings[name]) for name in ("alpha", "beta")}

    def on_train_end(self, logs=None):
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
