"""Run folders: where a training leaves its weights, and how the other commands ask it.

flags.txt        the flags of the run, reloadable by --flagfile
label_set.json   its classes
model.keras      the network with the last weights, best.keras with the best
checkpoints/     the training's full state after its last epoch, to resume from
sample_image*.png a real pair of its data, on which exports are checked
metrics.json     validation scores of the best weights (without validation: on the training crops)
history.csv      every score of every epoch
tensorboard/     events
"""

import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from flowseg import files
from flowseg.data.labels import LabelSet, from_dict
from flowseg.media.resize import largest_class, resize, resize_flow
from flowseg.network import packed_weights

# Also registers the network's own layers, so that a saved model loads in safe mode.
from flowseg.network.model import confident_model

SAMPLE = {"image1": "sample_image1.png", "image2": "sample_image2.png"}
WEIGHTS = {"best": "best.keras", "last": "model.keras"}


class Run(NamedTuple):
    """A trained network, its classes, and the folder that both are from."""

    model: keras.Model
    label_set: LabelSet
    folder: Path | None = None

    def predict(self, image1, image2, scale=1.0):
        """Raw answers to one pair, at its own size.

        Args:
            image1: (H, W, 3) RGB 0..255, the earlier frame.
            image2: (H, W, 3), the later frame.
            scale: the frames are resized by it for the network, and the answers back.

        Returns:
            (H, W, C) float32 logits and (H, W, 2) float32 flow in the frames' own pixels.
        """
        size = image1.shape[:2]
        answers = _ask(self.model, image1, image2, scale)
        return resize(answers["seg"], size), resize_flow(answers["flow"], size)

    def predict_pair(self, image1, image2, scale=1.0):
        """(H, W) uint8 train ids and (H, W, 2) float32 flow of one pair; see `predict`."""
        size = image1.shape[:2]
        answers = _ask(self.model, image1, image2, scale)
        return largest_class(answers["seg"], size), resize_flow(answers["flow"], size)

    def predict_confidence(self, image1, image2, scale=1.0):
        """(H, W) float32, 0..1: the probability that `predict`'s flow is right.

        That is within 3 px, of the resized frames, or 5 %. For one pair: the network is composed
        anew and run again. For many, `model.confident_model` gives all three answers in one pass.
        """
        sure = _ask(confident_model(self.model), image1, image2, scale)["confidence"]
        return resize(sure[..., None], image1.shape[:2])[..., 0]


def _ask(model, image1, image2, scale):
    """A model's answers to one pair of frames resized by `scale`, without the batch's axis."""
    size = [max(1, round(n * scale)) for n in image1.shape[:2]]
    frames = {
        key: resize(np.asarray(image), tuple(size))[None].astype(np.float32)
        for key, image in (("image1", image1), ("image2", image2))
    }
    return {key: np.asarray(x)[0] for key, x in model.predict_on_batch(frames).items()}


def load_run(run_dir, weights="best"):
    """A trained run.

    Args:
        run_dir: folder of a training, or one that a run was packed into (see `packed`), where
            "best" and "last" are one. Not looked at for "pretrained".
        weights: "best", "last", or "pretrained": the network that comes with the package.

    Raises:
        ValueError: no such folder, or one without (readable) weights.
    """
    run_dir = packed_weights.BOX if weights == "pretrained" else Path(run_dir)
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir}: no such run folder")
    if packed_weights.is_packed(run_dir):
        label_set = load_run_labels(run_dir)
        return Run(packed_weights.read_network(run_dir, len(label_set.names)), label_set, run_dir)
    model = load_model(run_dir / WEIGHTS[weights])
    label_set = load_run_labels(run_dir)
    classes = model.output["seg"].shape[-1]
    if classes != len(label_set.names):
        raise ValueError(
            f"{run_dir}: label_set.json has {len(label_set.names)} classes, the network {classes}"
        )
    return Run(model, label_set, run_dir)


def load_model(path):
    """A network from a `.keras` file, in Keras's safe mode.

    Raises:
        ValueError: missing or unreadable.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path}: missing; a run folder has it after its first epoch: train first "
            "(python -m flowseg.train)"
        )
    try:
        model = keras.saving.load_model(path, compile=False)
        network = (set(model.input), set(model.output)) == ({"image1", "image2"}, {"seg", "flow"})
    except Exception as error:  # zipfile, h5py, json and Keras each raise their own.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: damaged, or no Keras file ({reason})") from error
    if not network:
        raise ValueError(f"{path}: a Keras model, but not a FlowSeg network")
    return model


def load_run_labels(run_dir):
    """The classes of a run.

    Raises:
        ValueError: its label_set.json is missing or damaged.
    """
    path = Path(run_dir) / "label_set.json"
    try:
        return from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: the run's classes cannot be read: {error}") from error


def save_model(model, path):
    """Write a `.keras` file whole or not at all."""
    with files.whole(path) as temporary:
        model.save(temporary)
