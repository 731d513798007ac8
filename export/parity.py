"""What an exported file loses: its scores beside the Keras network's, on the same frames.

Each way to answer is a function of two (H, W, 3) uint8 RGB frames of the file's size to (H, W)
train ids and (H, W, 2) flow. Frames of another size are shrunk or enlarged for all alike, and the
answers brought back; scores are at the frame's own size, by `flowseg.evaluate`'s rules.
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

# Frames that set int8's ranges, and runs that a latency is the median of.
CALIBRATION_FRAMES, RUNS = 16, 11
_SCORES = ("seg/miou", "seg/pixel_accuracy", "flow/aepe", "flow/fl_all")
# Two (H, W, 3) uint8 RGB frames -> (H, W) train ids, (H, W, 2) flow.
Answer = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def keras_answer(model: keras.Model) -> Answer:
    """The Keras network as a way to answer."""

    def ask(image1, image2):
        pair = {"image1": np.float32(image1)[None], "image2": np.float32(image2)[None]}
        answers = model.predict_on_batch(pair)
        seg, flow = (keras.ops.convert_to_numpy(answers[key])[0] for key in ("seg", "flow"))
        return seg.argmax(-1).astype(np.uint8), flow

    return ask


def saved_model_answer(folder: Path | str) -> Answer:
    """The signature `predict` of a SavedModel as a way to answer."""
    loaded = tf.saved_model.load(str(folder))

    def ask(image1, image2):
        answers = loaded.signatures["predict"](
            image1=tf.constant(image1[None]), image2=tf.constant(image2[None])
        )
        return answers["seg"].numpy()[0], answers["flow"].numpy()[0]

    return ask


def frames_of(
    shards: Sequence[Path | str], label_set: LabelSet, height: int, width: int
) -> list[list[np.ndarray]]:
    """Pairs of uint8 frames of that size, `CALIBRATION_FRAMES` or fewer, from all over the shards.

    Raises:
        ValueError: a shard that cannot be read, by name; no frames.
    """
    step = max(1, records.count(shards) // CALIBRATION_FRAMES)
    frames = decoding.evaluation_data(shards, label_set).shard(step, 0).take(CALIBRATION_FRAMES)
    with records.named_errors(shards):
        pairs = [_fitted(frame, height, width) for frame in frames.as_numpy_iterator()]
    if not pairs:
        raise ValueError(f"{shards[0]}: no records: nothing to calibrate by")
    return pairs


def _fitted(frame, height, width):
    return [_resize(frame[key], height, width, cv2.INTER_AREA) for key in ("image1", "image2")]


def _resize(image, height, width, how):
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=how)


def score(
    methods: dict[str, Answer],
    shards: Sequence[Path | str],
    label_set: LabelSet,
    height: int,
    width: int,
) -> dict[str, float]:
    """Scores of each way to answer, and how far each is from the first.

    Args:
        methods: name -> way to answer; the first is the one to be equal to.
        shards: record shards.
        label_set: the classes.
        height: rows that the ways to answer take.
        width: columns.

    Returns:
        dict: `frames`; `<name>/<score>` as `evaluate` calls it; but for the first
        `<name>/labels_equal`, % of all pixels, and `<name>/flow_difference` and
        `<name>/flow_difference_max`, px, at the file's size.

    Raises:
        ValueError: a shard that cannot be read, by name; no truth in any.
    """
    counts, apart, seen = {name: {} for name in methods}, {name: [] for name in methods}, 0
    frames = decoding.evaluation_data(shards, label_set).as_numpy_iterator()
    with records.named_errors(shards):
        for frame in tqdm(frames, unit="frame", total=records.count(shards), disable=None):
            pair, size, first = _fitted(frame, height, width), frame["seg"].shape, None
            for name, ask in methods.items():
                seg, flow = ask(*pair)
                first = first or (seg, flow)
                distance = np.hypot(*np.moveaxis(flow - first[1], -1, 0))
                apart[name].append((np.mean(seg == first[0]), distance.mean(), distance.max()))
                own = _resize(seg, *size, cv2.INTER_NEAREST)
                back = np.float32([size[1] / width, size[0] / height])
                flow = _resize(flow, *size, cv2.INTER_LINEAR) * back
                found, _ = count_frame(frame, own, flow, label_set)
                counts[name] = frame_scores.add(counts[name], found)
            seen += 1
    told = {"frames": seen}
    for i, (name, own) in enumerate(counts.items()):
        scores = frame_scores.scores(own, label_set.names)
        told |= {f"{name}/{key}": scores[key] for key in _SCORES if key in scores}
        if i:
            equal, mean, most = np.transpose(apart[name])
            told[f"{name}/labels_equal"] = 100 * float(equal.mean())
            told[f"{name}/flow_difference"] = float(mean.mean())
            told[f"{name}/flow_difference_max"] = float(most.max())
    if not any(f"keras/{key}" in told for key in _SCORES):
        raise ValueError(f"{shards[0]}: no frame has truth: nothing to score the file by")
    return told


def latencies(content: bytes, image1: np.ndarray, image2: np.ndarray) -> dict[str, float]:
    """`file/latency_<threads>`: milliseconds a pair of a file (bytes), the median."""
    told = {}
    for threads in (1, 2):
        ask = lite_file.open_file(content, "the file", threads).predict
        ask(image1, image2)
        seconds = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            ask(image1, image2)
            seconds.append(time.perf_counter() - begin)
        told[f"file/latency_{threads}"] = 1e3 * float(np.median(seconds))
    return told


def check(
    told: dict[str, float], name: Path | str, max_miou_drop: float, max_aepe_rise: float
) -> None:
    """Raise ValueError if the file, by pairs or as a stream, loses more than it may."""
    for key, limit, sign, unit in (
        ("seg/miou", max_miou_drop, -1, "points"),
        ("flow/aepe", max_aepe_rise, 1, "px"),
    ):
        for method in ("file", "stream"):
            if f"keras/{key}" not in told:
                continue
            loss = sign * (told[f"{method}/{key}"] - told[f"keras/{key}"])
            # Not >, so that NaN fails.
            if not loss <= limit:
                raise ArgumentError(
                    f"{name}: not written: its {method} loses {loss:.3f} {unit} of {key}, over the "
                    f"bound of {limit:g}; more or other calibration frames, or another quantize",
                    "calibration",
                    "quantize",
                )


def table(told: dict[str, float], methods: Iterable[str]) -> str:
    """The scores as lines of text, a way to answer a line."""
    keys = [*_SCORES, "labels_equal", "flow_difference", "flow_difference_max"]
    keys = [key for key in keys if any(f"{name}/{key}" in told for name in methods)]
    rows = [["", *keys]]
    for name in methods:
        cells = (told.get(f"{name}/{key}") for key in keys)
        rows.append([name, *("" if cell is None else f"{cell:.4g}" for cell in cells)])
    times = ", ".join(f"{told[f'file/latency_{n}']:.0f} ms by {n}" for n in (1, 2))
    return "\n".join([tables.plain(rows), f"{told['frames']} frames; a pair takes {times} threads"])
