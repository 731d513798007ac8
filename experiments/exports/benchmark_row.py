"""One row of `experiments.exports.benchmark`, measured in a process of its own.

That command starts it: TensorFlow's threads are fixed once a process, and only so is peak memory a
row's own. It answers in lines of JSON: the first once everything is loaded and has answered; then
the times of one turn for each line that it is sent; at the end of its input the peak memory. So
rows can take turns, each in its own process.
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

# Timed runs of each kind in a turn; one more goes before, as the turns of others cool the caches.
RUNS = 3
# predict, encode and decode, functions as those of `lite_file.LiteFile`.
Ways = tuple[Callable, Callable, Callable]


def open_keras(path: str, threads: int) -> Ways:
    """The Keras network in a `.keras` file, by predict_on_batch.

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
    answers = keras.Model(decoder.input, {key: decoder.output[key] for key in ("seg", "flow")})

    def decode(features1, features2):
        told = answers.predict_on_batch({"frame1": features1, "frame2": features2})
        return told["seg"][0].argmax(-1).astype(np.uint8), told["flow"][0]

    def encode(image):
        return encoder.predict_on_batch(np.float32(image)[None])

    return parity.keras_answer(model), encode, decode


def open_saved_model(path: str, threads: int) -> Ways:
    """A SavedModel of `export.lite_convert.write_signatures`."""
    tf = limit_tensorflow(threads)
    loaded = tf.saved_model.load(path)

    def answer(told):
        return told["seg"].numpy()[0], told["flow"].numpy()[0]

    def predict(image1, image2):
        frames = {"image1": tf.constant(image1[None]), "image2": tf.constant(image2[None])}
        return answer(loaded.signatures["predict"](**frames))

    def encode(image):
        return loaded.signatures["encode"](image=tf.constant(image[None]))

    def decode(features1, features2):
        both = {"frame1": features1, "frame2": features2}
        named = {f"{frame}_{key}": x for frame, own in both.items() for key, x in own.items()}
        return answer(loaded.signatures["decode"](**named))

    return predict, encode, decode


def open_tflite(path: str, threads: int) -> Ways:
    """A TFLite file of `export.lite_convert.convert`; neither TensorFlow nor Keras is loaded."""
    from export import lite_file

    opened = lite_file.LiteFile({}, lite_file.signatures(Path(path).read_bytes(), path, threads))
    return opened.predict, opened.encode, opened.decode


def limit_tensorflow(threads: int) -> ModuleType:
    """TensorFlow, which will use so many threads and no GPU."""
    from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

    # isort: split
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


def network_turn(ways: Ways, image1: np.ndarray, image2: np.ndarray) -> list[Callable]:
    """A turn of one of our files; see `turn`.

    The stream is of two frames in turn; what it takes is a frame's encoding and decoding.
    """
    predict, encode, decode = ways
    frames = [image1, image2]

    def pair():
        begin, used = time.perf_counter(), time.process_time()
        answers = predict(image1, image2)
        told = {"pair": time.perf_counter() - begin, "cpu": time.process_time() - used}
        return told, answers

    def frame():
        begin = time.perf_counter()
        features = encode(frames[1])
        middle = time.perf_counter()
        answers = decode(kept[0], features)
        end = time.perf_counter()
        kept[0] = features
        frames.reverse()
        told = {"encode": middle - begin, "decode": end - middle, "stream": end - begin}
        return told, answers

    kept = [encode(image1)]
    return [pair, frame]


def peer_turn(
    classes: Callable, flow: Callable, image1: np.ndarray, image2: np.ndarray
) -> list[Callable]:
    """A turn of two methods side by side; see `turn`. They have nothing to keep of a frame."""

    def pair():
        begin, used = time.perf_counter(), time.process_time()
        seg = classes(image1)
        middle = time.perf_counter()
        answers = seg, flow(image1, image2)
        end, used = time.perf_counter(), time.process_time() - used
        told = {"seg": middle - begin, "flow": end - middle, "pair": end - begin, "cpu": used}
        return told, answers

    return [pair]


OURS = {"keras": open_keras, "saved_model": open_saved_model, "tflite": open_tflite}


def check(answers: tuple[np.ndarray, np.ndarray], size: tuple[int, int]) -> None:
    """Raise ValueError unless these are classes and flow of that size: else the time means naught.

    Args:
        answers: (seg, flow).
        size: (H, W).
    """
    seg, flow = answers
    if not (seg.shape == size and seg.dtype == np.uint8 and flow.shape == (*size, 2)):
        raise ValueError(f"answers {seg.shape} {seg.dtype} and {flow.shape}, for frames of {size}")
    if not np.isfinite(flow).all():
        raise ValueError("flow that is no number")


def turn(kinds: Iterable[Callable], runs: int = RUNS) -> dict[str, list[float]]:
    """Times of a turn by name, in ms: each kind of run once untimed, then `runs` times."""
    told = {}
    for kind in kinds:
        kind()
        for _ in range(runs):
            for name, seconds in kind()[0].items():
                told.setdefault(name, []).append(1e3 * seconds)
    return told


def peak_memory() -> float:
    """MB that this process has held at most so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage there: it begins with what the process that started this one held.
        [line] = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main(kind: str, path: str, threads: str, frames: str) -> None:
    """See the module's docstring.

    Args:
        kind: of `OURS` or `peers.PEERS`.
        path: the file or folder; of a peer not looked at.
        threads: how many, as text.
        frames: `.npy` file of the two frames, (2, H, W, 3) uint8.
    """
    # Libraries that print must not come between the lines.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    image1, image2 = np.load(frames)
    told = {}
    if kind in OURS:
        kinds = network_turn(OURS[kind](path, int(threads)), image1, image2)
    else:
        from experiments.exports.peers import PEERS

        classes, flow, told["bytes"] = PEERS[kind](int(threads))
        kinds = peer_turn(classes, flow, image1, image2)
    for each in kinds:
        check(each()[1], image1.shape[:2])
    print(json.dumps(told), file=lines)
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
