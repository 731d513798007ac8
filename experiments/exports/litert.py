"""Networks as TFLite files in LiteRT: what is in them, how fast they are, how near int8 comes.

An encoder goes through a SavedModel (a bare concrete function can lose the weights) into a TFLite
file of one frame of fixed size: float32, or int8 calibrated on real frames, with float32 at the
edges alone. What a file holds is read from its operators, by LiteRT.
"""

import tempfile
import time
import warnings
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from flowseg.errors import ArgumentError
from flowseg.network.backbones import STRIDES

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

# What batch norm would be if it were not folded into a convolution.
_ARITHMETIC = {"MUL", "ADD", "SUB", "DIV", "RSQRT"}


class Operator(NamedTuple):
    """One operator of a TFLite file."""

    name: str
    inputs: tuple  # shapes
    outputs: tuple  # shapes
    formats: tuple  # of its outputs: "int8", "float32" ...
    has_constant: bool  # among its inputs


def check_size(height: int, width: int) -> None:
    """Raise ValueError unless height and width, in px, are what an encoder alone takes."""
    if height % STRIDES[-1] or width % STRIDES[-1]:
        raise ArgumentError(
            f"height and width: {(height, width)} are not multiples of {STRIDES[-1]}",
            "height",
            "width",
        )


def convert(
    encoder: keras.Model, height: int, width: int, calibration: np.ndarray | None = None
) -> bytes:
    """An encoder as the bytes of a TFLite file for one frame.

    Args:
        encoder: of `backbones.build_encoder`, or any Keras model of an image.
        height: rows of the frame, as `encoder` wants them.
        width: columns.
        calibration: (N, height, width, 3) float32 RGB 0..255, real frames whose activations set
            the int8 ranges; None writes float32.

    Returns:
        Bytes. Signature `serving_default`: image (1, height, width, 3) float32 -> the encoder's
        outputs, float32, by their names.

    Raises:
        ValueError: the converter left the weights out.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write(
            encoder, lambda image: encoder(image, training=False), ["image"], height, width, folder
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ({"image": x[None]} for x in calibration)
            # With floats allowed what cannot be int8 stays float and is told, instead of a failure.
            sets = tf.lite.OpsSet
            converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8, sets.TFLITE_BUILTINS]
        # The converter's calibration warns of its own interpreter's age.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            data = converter.convert()
    # Batch norms go into the kernels, so kernels alone must be there.
    kernels = sum(int(np.prod(w.shape)) for w in encoder.weights if len(w.shape) > 1)
    if len(data) < kernels * (4 if calibration is None else 1):
        raise ValueError(f"the converter wrote {len(data)} bytes: the weights are missing")
    return data


def convert_pair(network: keras.Model, height: int, width: int) -> bytes:
    """A network of two frames, or a part of one, as the bytes of a float32 TFLite file.

    Unlike the file of `export.tflite` it gives what the Keras model gives, logits and all.

    Raises:
        ValueError: the converter left the weights out.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = ["image1", "image2"]
        _write(
            network,
            lambda *pair: network(dict(zip(names, pair, strict=True)), training=False),
            names,
            height,
            width,
            folder,
        )
        data = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    if len(data) < 4 * network.count_params() * 0.95:
        raise ValueError(f"the converter wrote {len(data)} bytes: the weights are missing")
    return data


def _write(model, ask, names, height, width, folder):
    """A SavedModel of `ask`, a function of frames of these names, which computes by `model`."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    specs = [tf.TensorSpec((1, height, width, 3), tf.float32, name=name) for name in names]
    archive.add_endpoint("serve", ask, input_signature=specs)
    archive.write_out(folder, verbose=False)


def interpreter(data: bytes, threads: int = 1, delegates: bool = True) -> "Interpreter":
    """LiteRT's interpreter of a TFLite file (bytes), ready to run.

    Args:
        data: the file.
        threads: how many cores it may use.
        delegates: whether XNNPACK takes over what it can; without, the file's own operators show.

    Raises:
        ValueError: LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise ValueError("ai-edge-litert is missing: pip install -e '.[tflite]'") from error
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    made = Interpreter(
        model_content=data,
        num_threads=threads,
        experimental_op_resolver_type=OpResolverType.AUTO if delegates else resolver,
    )
    made.allocate_tensors()
    return made


def operators(data: bytes) -> list[Operator]:
    """The operators of a TFLite file (bytes), a list of :class:`Operator` in their order."""
    file = interpreter(data, delegates=False)
    tensors = {tensor["index"]: tensor for tensor in file.get_tensor_details()}
    variable = {tensor["index"] for tensor in file.get_input_details()}
    found = []
    for operator in file._get_ops_details():
        # An index of -1 is an optional input that is left out.
        inputs = [i for i in operator["inputs"] if i in tensors]
        outputs = [int(i) for i in operator["outputs"]]
        found.append(
            Operator(
                operator["op_name"],
                tuple(tuple(tensors[i]["shape"].tolist()) for i in inputs),
                tuple(tuple(tensors[i]["shape"].tolist()) for i in outputs),
                tuple(np.dtype(tensors[i]["dtype"]).name for i in outputs),
                any(i not in variable for i in inputs),
            )
        )
        variable.update(outputs)
    return found


def flops(found: Iterable[Operator]) -> int:
    """Arithmetic of the convolutions and matrix products among `operators`; a multiply-add is two.

    Elementwise arithmetic, pooling, resizing and gathers are left out.
    """
    total = 0
    for operator in found:
        size = np.prod(operator.outputs[0], dtype=np.int64)
        if operator.name == "CONV_2D":  # kernel: (out, y, x, in)
            total += 2 * size * np.prod(operator.inputs[1][1:])
        elif operator.name == "DEPTHWISE_CONV_2D":  # kernel: (1, y, x, out)
            total += 2 * size * np.prod(operator.inputs[1][1:3])
        elif operator.name in ("FULLY_CONNECTED", "BATCH_MATMUL"):
            # (..., n, k) times weights (m, k), or times (..., k, m).
            weights = operator.name == "FULLY_CONNECTED"
            total += 2 * size * operator.inputs[1 if weights else 0][-1]
    return int(total)


def floats_left(found: Iterable[Operator]) -> list[str]:
    """Names of the operators that do not give int8.

    DEQUANTIZE is passed over: it gives the answers, or feeds an operator that is named itself.
    """
    return [
        operator.name
        for operator in found
        if set(operator.formats) != {"int8"} and operator.name != "DEQUANTIZE"
    ]


def norms_left(found: Iterable[Operator]) -> list[str]:
    """Names of the operators that look like a batch norm: arithmetic of features with a constant.

    (The image's own normalisation has three channels and does not count.)
    """
    return [
        operator.name
        for operator in found
        if operator.name in _ARITHMETIC
        and operator.has_constant
        and operator.outputs[0][-1:] != (3,)
    ]


def sqnr(expected: np.ndarray, actual: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio in dB: 10 log10(power of signal / power of difference).

    Args:
        expected: array of any shape, not all zero.
        actual: the same, as it came out of the quantised network; equal arrays give infinity.
    """
    expected = np.asarray(expected, np.float64)
    noise = np.sum((np.asarray(actual, np.float64) - expected) ** 2)
    return float(10 * np.log10(np.sum(expected**2) / noise)) if noise else float("inf")


def cosine(expected: np.ndarray, actual: np.ndarray) -> float:
    """Mean over pixels of the cosine between two feature vectors.

    Args:
        expected: (..., C); pixels where it is all zero have no direction and are left out.
        actual: the same shape; a vector of zeros counts as 0.
    """
    norms = np.linalg.norm(expected, axis=-1), np.linalg.norm(actual, axis=-1)
    dots = np.sum(np.asarray(expected, np.float64) * actual, axis=-1)
    cosines = dots / np.maximum(norms[0] * norms[1], 1e-12)
    return float(cosines[norms[0] > 0].mean())


def features(data: bytes, frames: np.ndarray, threads: int = 1) -> dict[str, np.ndarray]:
    """What a file (bytes) of `convert` answers to (N, H, W, 3) frames: name -> (N, H', W', C)."""
    run = interpreter(data, threads).get_signature_runner("serving_default")
    answers = [run(image=frame[None]) for frame in frames]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def latencies(
    files: dict[Hashable, bytes], frame: np.ndarray, threads: int, rounds: int
) -> dict[Hashable, list[float]]:
    """Milliseconds of TFLite files, in turn within a round: key -> bytes to key -> one a round."""
    ready = {key: interpreter(data, threads) for key, data in files.items()}
    for each in ready.values():
        for given in each.get_input_details():
            each.set_tensor(given["index"], frame[None])
    times = {key: [] for key in files}
    for _ in range(1 + rounds):  # The first is not counted.
        for key, each in ready.items():
            begin = time.perf_counter()
            each.invoke()
            times[key].append(1e3 * (time.perf_counter() - begin))
    return {key: values[1:] for key, values in times.items()}
