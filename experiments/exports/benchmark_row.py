"""Measures one row of `experiments.exports.benchmark` in a separate process.

That command starts a process for each row, because TensorFlow fixes its threads once per process,
and because peak memory is that of a process. This module prints lines of JSON: the first when
everything is loaded and each kind of run has succeeded; then the times of one turn for each line on
standard input; at the end of the input, the peak memory. In this way the rows can take turns.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from flowseg.errors import ArgumentError

# Timed runs of each kind in a turn, after an untimed one, because turns of other rows evict caches.
RUNS = 3
# predict, encode and decode: functions with the signatures of `lite_file.LiteFile`'s methods.
Functions = tuple[Callable, Callable, Callable]


def open_keras(path: str, threads: int) -> Functions:
    """The Keras network in a `.keras` file, run with predict_on_batch.

    Returns:
        (predict, encode, decode), here and below.
    """
    limit_tensorflow(threads)
    import keras

    from export import parity
    from flowseg import runs
    from flowseg.network.model import parts

    model = runs.load_model(path)
    encoder, decoder = parts(model)
    predictor = keras.Model(decoder.input, {key: decoder.output[key] for key in ("seg", "flow")})

    def decode(features1, features2):
        outputs = predictor.predict_on_batch({"frame1": features1, "frame2": features2})
        return outputs["seg"][0].argmax(-1).astype(np.uint8), outputs["flow"][0]

    def encode(image):
        return encoder.predict_on_batch(np.float32(image)[None])

    return parity.keras_predictor(model), encode, decode


def open_saved_model(path: str, threads: int) -> Functions:
    """A SavedModel of `export.lite_convert.write_signatures`."""
    tf = limit_tensorflow(threads)
    loaded = tf.saved_model.load(path)

    def to_arrays(outputs):
        return outputs["seg"].numpy()[0], outputs["flow"].numpy()[0]

    def predict(image1, image2):
        frames = {"image1": tf.constant(image1[None]), "image2": tf.constant(image2[None])}
        return to_arrays(loaded.signatures["predict"](**frames))

    def encode(image):
        return loaded.signatures["encode"](image=tf.constant(image[None]))

    def decode(features1, features2):
        both = {"frame1": features1, "frame2": features2}
        named = {
            f"{frame}_{key}": x for frame, features in both.items() for key, x in features.items()
        }
        return to_arrays(loaded.signatures["decode"](**named))

    return predict, encode, decode


def open_tflite(path: str, threads: int) -> Functions:
    """A TFLite file of `export.lite_convert.convert`; neither TensorFlow nor Keras is loaded."""
    from export import lite_file

    opened = lite_file.LiteFile({}, lite_file.signatures(Path(path).read_bytes(), path, threads))
    return opened.predict, opened.encode, opened.decode


def limit_tensorflow(threads: int) -> ModuleType:
    """TensorFlow, limited to this number of threads and no GPU."""
    from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

    # isort: split
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


def network_turn(functions: Functions, image1: np.ndarray, image2: np.ndarray) -> list[Callable]:
    """Kinds of runs of a network in one of FlowSeg's formats, for `turn`.

    The stream alternates between the two frames; its time is that of encoding and
    decoding one frame.
    """
    predict, encode, decode = functions
    frames = [image1, image2]

    def pair():
        begin, used = time.perf_counter(), time.process_time()
        predictions = predict(image1, image2)
        times = {"pair": time.perf_counter() - begin, "cpu": time.process_time() - used}
        return times, predictions

    def frame():
        begin = time.perf_counter()
        features = encode(frames[1])
        middle = time.perf_counter()
        predictions = decode(previous[0], features)
        end = time.perf_counter()
        previous[0] = features
        frames.reverse()
        times = {"encode": middle - begin, "decode": end - middle, "stream": end - begin}
        return times, predictions

    previous = [encode(image1)]
    return [pair, frame]


def peer_turn(
    classes: Callable, flow: Callable, image1: np.ndarray, image2: np.ndarray
) -> list[Callable]:
    """Kinds of runs of two separate methods, for `turn`. They reuse nothing between frames."""

    def pair():
        begin, used = time.perf_counter(), time.process_time()
        seg = classes(image1)
        middle = time.perf_counter()
        predictions = seg, flow(image1, image2)
        end, used = time.perf_counter(), time.process_time() - used
        times = {"seg": middle - begin, "flow": end - middle, "pair": end - begin, "cpu": used}
        return times, predictions

    return [pair]


OPENERS = {"keras": open_keras, "saved_model": open_saved_model, "tflite": open_tflite}


def check(predictions: tuple[np.ndarray, np.ndarray], size: tuple[int, int]) -> None:
    """Raise ValueError unless the predictions are classes and flow of the frames' size.

    Args:
        predictions: (seg, flow).
        size: (H, W).
    """
    seg, flow = predictions
    if not (seg.shape == size and seg.dtype == np.uint8 and flow.shape == (*size, 2)):
        raise ValueError(
            f"predictions {seg.shape} {seg.dtype} and {flow.shape}, for frames of {size}"
        )
    if not np.isfinite(flow).all():
        raise ValueError("the flow has NaN or Inf")


def turn(kinds: Iterable[Callable], runs: int = RUNS) -> dict[str, list[float]]:
    """Times of one turn by name, in ms: each kind runs once untimed, then `runs` times."""
    times = {}
    for kind in kinds:
        kind()
        for _ in range(runs):
            for name, seconds in kind()[0].items():
                times.setdefault(name, []).append(1e3 * seconds)
    return times


def peak_memory() -> float:
    """Peak memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: its value starts at the memory of the process that started this one.
        [line] = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main(kind: str, path: str, threads: str, frames: str) -> None:
    """Run the protocol that the module's docstring describes.

    Args:
        kind: key of `OPENERS` or `peers.PEERS`.
        path: the file or folder; ignored for a peer.
        threads: number of threads, as text.
        frames: `.npy` file of the two frames, (2, H, W, 3) uint8.
    """
    # Output of libraries must not come between the lines of JSON.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    image1, image2 = np.load(frames)
    info = {}
    if kind in OPENERS:
        kinds = network_turn(OPENERS[kind](path, int(threads)), image1, image2)
    else:
        from experiments.exports.peers import PEERS

        classes, flow, info["bytes"] = PEERS[kind](int(threads))
        kinds = peer_turn(classes, flow, image1, image2)
    for run in kinds:
        check(run()[1], image1.shape[:2])
    print(json.dumps(info), file=lines)
    for _ in sys.stdin:
        print(json.dumps(turn(kinds)), file=lines)
    print(json.dumps({"peak_mb": peak_memory()}), file=lines)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ArgumentError as problem:
        sys.exit(problem.with_flags())
    except (ValueError, OSError) as problem:
        sys.exit(str(problem))
