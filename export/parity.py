"""Compares the scores of an exported file with those of the Keras network, on the same frames.

Each method is a function from two (H, W, 3) uint8 RGB frames of the file's size to (H, W) train ids
and (H, W, 2) flow. Frames of another size are resized in the same way for all methods, and the
predictions are resized back; scores are at the original size, computed as in `flowseg.evaluate`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from export import lite_file
from flowseg import tables
from flowseg.data import decoding, records
from flowseg.data.labels import LabelSet
from flowseg.errors import ArgumentError
from flowseg.scoring import frame_scores
from flowseg.scoring.evaluation import count_frame

# Number of frames that determine the ranges of int8, and of runs for the median latency.
CALIBRATION_FRAMES, RUNS = 16, 11
_SCORES = ("seg/miou", "seg/pixel_accuracy", "flow/aepe", "flow/fl_all")
# Two (H, W, 3) uint8 RGB frames -> (H, W) train ids, (H, W, 2) flow.
Predictor = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def keras_predictor(model: keras.Model) -> Predictor:
    """Return a predictor that runs the Keras network."""

    def predict(image1, image2):
        pair = {"image1": np.float32(image1)[None], "image2": np.float32(image2)[None]}
        outputs = model.predict_on_batch(pair)
        seg, flow = (keras.ops.convert_to_numpy(outputs[key])[0] for key in ("seg", "flow"))
        return seg.argmax(-1).astype(np.uint8), flow

    return predict


def saved_model_predictor(folder: Path | str) -> Predictor:
    """Return a predictor that runs the signature `predict` of a SavedModel."""
    loaded = tf.saved_model.load(str(folder))

    def predict(image1, image2):
        outputs = loaded.signatures["predict"](
            image1=tf.constant(image1[None]), image2=tf.constant(image2[None])
        )
        return outputs["seg"].numpy()[0], outputs["flow"].numpy()[0]

    return predict


def calibration_pairs(
    shards: Sequence[Path | str], label_set: LabelSet, height: int, width: int
) -> list[list[np.ndarray]]:
    """Return up to `CALIBRATION_FRAMES` uint8 pairs of the given size, spread over the shards.

    Raises:
        ValueError: a shard, named in the message, cannot be read; or there are no frames.
    """
    step = max(1, records.count(shards) // CALIBRATION_FRAMES)
    frames = decoding.evaluation_data(shards, label_set).shard(step, 0).take(CALIBRATION_FRAMES)
    with records.named_errors(shards):
        pairs = [_resized_pair(frame, height, width) for frame in frames.as_numpy_iterator()]
    if not pairs:
        raise ValueError(f"{shards[0]}: no records to calibrate with")
    return pairs


def _resized_pair(frame, height, width):
    return [_resize(frame[key], height, width, cv2.INTER_AREA) for key in ("image1", "image2")]


def _resize(image, height, width, interpolation):
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=interpolation)


def score(
    methods: dict[str, Predictor],
    shards: Sequence[Path | str],
    label_set: LabelSet,
    height: int,
    width: int,
) -> dict[str, float]:
    """Score each method, and measure the differences of its predictions from the first one's.

    Args:
        methods: maps names to predictors; the first is the reference.
        shards: record shards.
        label_set: the classes.
        height: height of the predictors' input.
        width: width of the predictors' input.

    Returns:
        Dict with `frames`, and `<name>/<score>` named as in `evaluate`; for all but the reference
        also `<name>/labels_equal`, in % of all pixels, and `<name>/flow_difference` and
        `<name>/flow_difference_max`, in px at the file's size.

    Raises:
        ValueError: a shard, named in the message, cannot be read; or no frame has ground truth.
    """
    counts, differences, frame_count = {n: {} for n in methods}, {n: [] for n in methods}, 0
    frames = decoding.evaluation_data(shards, label_set).as_numpy_iterator()
    with records.named_errors(shards):
        for frame in tqdm(frames, unit="frame", total=records.count(shards), disable=None):
            pair, size, first = _resized_pair(frame, height, width), frame["seg"].shape, None
            for name, predict in methods.items():
                seg, flow = predict(*pair)
                first = first or (seg, flow)
                distance = np.hypot(*np.moveaxis(flow - first[1], -1, 0))
                differences[name].append(
                    (np.mean(seg == first[0]), distance.mean(), distance.max())
                )
                seg = _resize(seg, *size, cv2.INTER_NEAREST)
                factors = np.float32([size[1] / width, size[0] / height])
                flow = _resize(flow, *size, cv2.INTER_LINEAR) * factors
                frame_counts, _ = count_frame(frame, seg, flow, label_set)
                counts[name] = frame_scores.add(counts[name], frame_counts)
            frame_count += 1
    results = {"frames": frame_count}
    for i, (name, method_counts) in enumerate(counts.items()):
        scores = frame_scores.scores(method_counts, label_set.names)
        results |= {f"{name}/{key}": scores[key] for key in _SCORES if key in scores}
        if i:
            equal, mean, largest = np.transpose(differences[name])
            results[f"{name}/labels_equal"] = 100 * float(equal.mean())
            results[f"{name}/flow_difference"] = float(mean.mean())
            results[f"{name}/flow_difference_max"] = float(largest.max())
    if not any(f"keras/{key}" in results for key in _SCORES):
        raise ValueError(f"{shards[0]}: no frame has ground truth to score the file on")
    return results


def latencies(content: bytes, image1: np.ndarray, image2: np.ndarray) -> dict[str, float]:
    """Return `file/latency_<threads>`: median milliseconds per pair of a file, given as bytes."""
    results = {}
    for threads in (1, 2):
        predict = lite_file.open_file(content, "the file", threads).predict
        predict(image1, image2)
        seconds = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            predict(image1, image2)
            seconds.append(time.perf_counter() - begin)
        results[f"file/latency_{threads}"] = 1e3 * float(np.median(seconds))
    return results


def check(
    scores: dict[str, float], name: Path | str, max_miou_drop: float, max_aepe_rise: float
) -> None:
    """Raise ValueError if the file, run on pairs or as a stream, loses more than the limits."""
    for key, limit, sign, unit in (
        ("seg/miou", max_miou_drop, -1, "points"),
        ("flow/aepe", max_aepe_rise, 1, "px"),
    ):
        for method in ("file", "stream"):
            if f"keras/{key}" not in scores:
                continue
            loss = sign * (scores[f"{method}/{key}"] - scores[f"keras/{key}"])
            # Not >, so that NaN also fails.
            if not loss <= limit:
                raise ArgumentError(
                    f"{name}: not written: its {method} loses {loss:.3f} {unit} of {key}, over the "
                    f"bound of {limit:g}; try more or other calibration frames or another quantize",
                    "calibration",
                    "quantize",
                )


def table(scores: dict[str, float], methods: Iterable[str]) -> str:
    """Format the scores as text, one line per method."""
    keys = [*_SCORES, "labels_equal", "flow_difference", "flow_difference_max"]
    keys = [key for key in keys if any(f"{name}/{key}" in scores for name in methods)]
    rows = [["", *keys]]
    for name in methods:
        cells = (scores.get(f"{name}/{key}") for key in keys)
        rows.append([name, *("" if cell is None else f"{cell:.4g}" for cell in cells)])
    times = ", ".join(f"{scores[f'file/latency_{n}']:.0f} ms with {n}" for n in (1, 2))
    return "\n".join(
        [tables.plain(rows), f"{scores['frames']} frames; a pair takes {times} threads"]
    )
