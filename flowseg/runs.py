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

import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np

from flowseg import files
from flowseg.data.labels import LabelSet, from_dict
from flowseg.media import pairs
from flowseg.media.frames import open_frames
from flowseg.media.pairs import Frame
from flowseg.media.resize import largest_class, resize, resize_flow
from flowseg.network import packed_weights

# Also registers the network's own layers, so that a saved model loads in safe mode.
from flowseg.network.model import confident_model, streaming_models

SAMPLE = {"image1": "sample_image1.png", "image2": "sample_image2.png"}
WEIGHTS = {"best": "best.keras", "last": "model.keras"}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained network, its classes, and the folder that both are from.

    Frames are (H, W, 3) RGB arrays, uint8 or floating-point 0..255, or paths of image files. What
    is predicted lies in the pixels of the (earlier) frame. `scale` resizes the frames for the
    network, and its predictions back.
    """

    model: keras.Model
    label_set: LabelSet
    folder: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: train id `i` is `classes[i]`."""
        return tuple(self.label_set.names)

    @property
    def palette(self) -> np.ndarray:
        """(C, 3) uint8 RGB colours of the classes: `palette[seg]` is a picture of `seg`."""
        return np.array(self.label_set.palette, np.uint8)

    def predict(
        self, image1: Frame, image2: Frame, scale: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Classes of a frame and its motion to the next one.

        Args:
            image1: the earlier frame.
            image2: the later frame, of the same size.
            scale: see above.

        Returns:
            (H, W) uint8 train ids and (H, W, 2) float32 flow, in pixels to the right and down.

        Raises:
            ValueError: frames that are not as above or differ in size; a scale that is not
                positive.
        """
        outputs, size = _ask(self.model, image1, image2, scale)
        return largest_class(outputs["seg"], size), resize_flow(outputs["flow"], size)

    def predict_logits(
        self, image1: Frame, image2: Frame, scale: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) float32 logits and (H, W, 2) float32 flow of a pair; see `predict`."""
        outputs, size = _ask(self.model, image1, image2, scale)
        return resize(outputs["seg"], size), resize_flow(outputs["flow"], size)

    def predict_confidence(self, image1: Frame, image2: Frame, scale: float = 1.0) -> np.ndarray:
        """(H, W) float32, 0..1: the probability that `predict`'s flow is right.

        That is within 3 px, of the resized frames, or 5 %. The network is run again: for many
        pairs, `model.confident_model` gives all three outputs in one pass.

        Raises:
            ValueError: see `predict`; a model saved before the confidence head existed.
        """
        outputs, size = _ask(self._confident_model, image1, image2, scale)
        return resize(outputs["confidence"][..., None], size)[..., 0]

    def stream(
        self, frames: Iterable[Frame] | str | os.PathLike, scale: float = 1.0
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Classes and motion of every frame of a video; each frame is encoded once.

        The same as `predict` of all consecutive pairs, in about 0.7 of the time. A
        prediction comes when the frame after it has been read; memory stays flat.

        Args:
            frames: any iterable of frames, of one size; or the path of a video file or of a folder
                of frames (see `media.frames.open_frames`), which must have at least two.
            scale: see above.

        Yields:
            (seg, flow) of each frame in order: (H, W) uint8 train ids, and (H, W, 2) float32 flow
            to the next frame. The last frame's seg comes from the pair (last, previous), and its
            flow is None; a single frame is paired with itself. No frames yield nothing.

        Raises:
            ValueError: a path that cannot be read; a scale that is not positive. While iterating:
                a frame that is not as above or of another size than the first, by its number,
                which counts from 0.
        """
        _check_scale(scale)
        if isinstance(frames, (str, os.PathLike)):
            frames = (image for _, image in open_frames(frames)[0])
        models = self._streaming_models

        def encode(image):
            fitted = _fit(image, scale)
            return models.encoder.predict_on_batch(fitted), fitted, image.shape[:2]

        def decode(earlier, later):
            features, fitted, size = earlier
            inputs = {"frame1": features, "frame2": later[0], "image1": fitted}
            outputs = _without_batch(models.decoder.predict_on_batch(inputs))
            return largest_class(outputs["seg"], size), resize_flow(outputs["flow"], size)

        return pairs.stream(pairs.frames_of_one_size(frames), encode, decode)

    # Composed once: a model composed anew would be compiled anew.
    @functools.cached_property
    def _confident_model(self):
        return confident_model(self.model)

    @functools.cached_property
    def _streaming_models(self):
        return streaming_models(self.model)


def _ask(model, image1, image2, scale):
    """A model's outputs for a pair resized by `scale`, without the batch's axis; the pair's size.

    Raises:
        ValueError: see `Run.predict`.
    """
    _check_scale(scale)
    image1, image2 = pairs.read_pair(image1, image2)
    inputs = {"image1": _fit(image1, scale), "image2": _fit(image2, scale)}
    return _without_batch(model.predict_on_batch(inputs)), image1.shape[:2]


def _check_scale(scale):
    if not 0 < scale < math.inf:
        raise ValueError(f"scale: {scale} is not a positive number")


def _fit(image, scale):
    """(1, H, W, 3) float32: a frame resized by `scale`, as a batch."""
    size = tuple(max(1, round(n * scale)) for n in image.shape[:2])
    return resize(image, size)[None].astype(np.float32)


def _without_batch(outputs):
    return {key: np.asarray(x)[0] for key, x in outputs.items()}


def load_run(run_dir: str | os.PathLike | None, weights: str = "best") -> Run:
    """A trained run.

    Args:
        run_dir: folder of a training, or one that a run was packed into (see `packed_weights`),
            where "best" and "last" are one. Not looked at for "pretrained".
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


def load_model(path: str | os.PathLike) -> keras.Model:
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


def load_run_labels(run_dir: str | os.PathLike) -> LabelSet:
    """The classes of a run.

    Raises:
        ValueError: its label_set.json is missing or damaged.
    """
    path = Path(run_dir) / "label_set.json"
    try:
        return from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: the run's classes cannot be read: {error}") from error


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Write a `.keras` file whole or not at all."""
    with files.whole(path) as temporary:
        model.save(temporary)
