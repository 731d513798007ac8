"""Loads trained runs from their folders and predicts with them.

A run folder contains:

flags.txt          the flags of the run, as a file for --flagfile
label_set.json     the classes
model.keras        the network with its last weights
best.keras         the network with its best weights
checkpoints/       the complete training state, for resuming
sample_image*.png  a frame pair from the run's data, on which exports are checked
metrics.json       validation scores of the best weights (without validation: training scores)
history.csv        all scores of each epoch
tensorboard/       TensorBoard events
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np

from flowseg import files, memory, packaged
from flowseg.data.labels import LabelSet, from_dict, with_new_numberings
from flowseg.media import pairs
from flowseg.media.frames import open_frames, sequences
from flowseg.media.pairs import Frame
from flowseg.media.resize import largest_class, resize, resize_flow
from flowseg.network import packed_weights

# Also registers the network's custom layers, so that a saved model loads in safe mode.
from flowseg.network.model import confident_model, streaming_models

SAMPLE = {"image1": "sample_image1.png", "image2": "sample_image2.png"}
WEIGHTS = {"best": "best.keras", "last": "model.keras"}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained network, its classes, and the folder that both were loaded from.

    Frames are (H, W, 3) RGB arrays, uint8 or floating-point 0..255, or paths of image files.
    Predictions have the resolution of the frame. `scale` is the factor by which frames are resized
    before they enter the network; predictions are resized back.
    """

    model: keras.Model
    label_set: LabelSet
    folder: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, indexed by train id."""
        return tuple(self.label_set.names)

    @property
    def palette(self) -> np.ndarray:
        """RGB colours of the classes, (C, 3) uint8; `palette[seg]` is a colour image of `seg`."""
        return np.array(self.label_set.palette, np.uint8)

    def predict(
        self, image1: Frame, image2: Frame, scale: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict the classes of a frame and its optical flow to the next frame.

        Args:
            image1: the earlier frame.
            image2: the later frame, of the same size.
            scale: resize factor, see the class.

        Returns:
            (H, W) uint8 train ids and (H, W, 2) float32 flow, in pixels to the right and down.

        Raises:
            ValueError: a frame is invalid, the frames differ in size, the scale is not positive, or
                the frames are too large for the available memory.
        """
        outputs, size = _predict_pair(self.model, image1, image2, scale)
        return largest_class(outputs["seg"], size), resize_flow(outputs["flow"], size)

    def predict_logits(
        self, image1: Frame, image2: Frame, scale: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict (H, W, C) float32 logits and (H, W, 2) float32 flow; see `predict`."""
        outputs, size = _predict_pair(self.model, image1, image2, scale)
        return resize(outputs["seg"], size), resize_flow(outputs["flow"], size)

    def predict_confidence(self, image1: Frame, image2: Frame, scale: float = 1.0) -> np.ndarray:
        """Predict the probability that the flow of `predict` is correct: (H, W) float32, 0..1.

        Flow is correct if its end-point error is at most 3 px, measured at the size that the
        network processes, or at most 5 % of the true motion. This method runs the network again;
        for many pairs, `network.model.confident_model` computes all three outputs in one pass.

        Raises:
            ValueError: see `predict`; the model was saved before the confidence head existed.
        """
        outputs, size = _predict_pair(self._confident_model, image1, image2, scale)
        return resize(outputs["confidence"][..., None], size)[..., 0]

    def stream(
        self, frames: Iterable[Frame] | str | os.PathLike, scale: float = 1.0
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Predict classes and flow of every frame of a video, encoding each frame once.

        Equivalent to `predict` on all consecutive pairs, in about 70 % of the time. A prediction
        is yielded once the next frame has been read; memory use is constant.

        Args:
            frames: iterable of frames of one size, or the path of a video or of a folder of
                at least two frames (see `media.frames.open_frames`). The last frame before a gap
                in a folder is treated like the last frame.
            scale: resize factor, see the class.

        Yields:
            (seg, flow) of each frame in order: (H, W) uint8 train ids, and (H, W, 2) float32 flow
            to the next frame. The last frame's seg comes from the pair (last, previous), and its
            flow is None; a single frame is paired with itself. Without frames, nothing is yielded.

        Raises:
            ValueError: the path cannot be read, or the scale is not positive. While iterating: a
                frame is invalid or differs in size from the first; the message gives its number,
                counted from 0.
        """
        _check_scale(scale)
        if isinstance(frames, (str, os.PathLike)):
            return self._stream_file(open_frames(frames)[0], scale)
        models = self._streaming_models

        def encode(image):
            memory.require_for_prediction(*_fitted_size(image, scale))
            fitted = _fit(image, scale)
            return models.encoder.predict_on_batch(fitted), fitted, image.shape[:2]

        def decode(earlier, later):
            features, fitted, size = earlier
            inputs = {"frame1": features, "frame2": later[0], "image1": fitted}
            outputs = _without_batch(models.decoder.predict_on_batch(inputs))
            return largest_class(outputs["seg"], size), resize_flow(outputs["flow"], size)

        return pairs.stream(pairs.frames_of_one_size(frames), encode, decode)

    def _stream_file(self, frames, scale):
        for sequence in sequences(frames):
            yield from self.stream((frame.image for frame in sequence), scale)

    # Cached, because Keras would compile a newly composed model again.
    @functools.cached_property
    def _confident_model(self):
        return confident_model(self.model)

    @functools.cached_property
    def _streaming_models(self):
        return streaming_models(self.model)


def _predict_pair(model, image1, image2, scale):
    """Return a model's outputs for a resized pair, without the batch axis, and the pair's size.

    Raises:
        ValueError: see `Run.predict`.
    """
    _check_scale(scale)
    image1, image2 = pairs.read_pair(image1, image2)
    memory.require_for_prediction(*_fitted_size(image1, scale))
    inputs = {"image1": _fit(image1, scale), "image2": _fit(image2, scale)}
    return _without_batch(model.predict_on_batch(inputs)), image1.shape[:2]


def _check_scale(scale):
    if not 0 < scale < math.inf:
        raise ValueError(f"scale: {scale} is not a positive number")


def _fit(image, scale):
    """Return a frame resized by `scale`, as a batch: (1, H, W, 3) float32."""
    return resize(image, _fitted_size(image, scale))[None].astype(np.float32)


def _fitted_size(image, scale):
    return tuple(max(1, round(n * scale)) for n in image.shape[:2])


def _without_batch(outputs):
    return {key: np.asarray(x)[0] for key, x in outputs.items()}


def load_run(run_dir: str | os.PathLike | None, weights: str = "best") -> Run:
    """Load a trained run.

    Args:
        run_dir: a run folder, or the folder of a packed run (see `packed_weights`), for which
            "best" and "last" are the same. Ignored for networks of the package.
        weights: "best", "last", or a network of the package: "pretrained".

    Raises:
        ValueError: the folder does not exist or has no readable weights.
    """
    run_dir = packaged.NETWORKS.get(weights) or Path(run_dir)
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
            f"{run_dir}: label_set.json has {len(label_set.names)} classes, but the network has "
            f"{classes}"
        )
    return Run(model, label_set, run_dir)


def load_model(path: str | os.PathLike) -> keras.Model:
    """Load a network from a `.keras` file, in Keras's safe mode.

    Raises:
        ValueError: the file is missing, unreadable, or not a FlowSeg network.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path}: missing; training writes it after the first epoch: train first "
            "(python -m flowseg.train)"
        )
    try:
        model = keras.saving.load_model(path, compile=False)
        valid = (set(model.input), set(model.output)) == ({"image1", "image2"}, {"seg", "flow"})
    except Exception as error:  # zipfile, h5py, json and Keras each raise their own types.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: damaged, or not a Keras file ({reason})") from error
    if not valid:
        raise ValueError(f"{path}: a Keras model, but not a FlowSeg network")
    return model


def load_run_labels(run_dir: str | os.PathLike) -> LabelSet:
    """Load the classes of a run.

    Raises:
        ValueError: label_set.json is missing or damaged.
    """
    path = Path(run_dir) / "label_set.json"
    try:
        return with_new_numberings(from_dict(json.loads(path.read_text())))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: the run's classes cannot be read: {error}") from error


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Write a `.keras` file atomically."""
    with files.atomic(path) as temporary:
        model.save(temporary)
