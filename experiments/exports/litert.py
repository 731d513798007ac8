"""Networks as TFLite files in LiteRT: operators, FLOPs, latency and accuracy of int8.

An encoder is converted through a SavedModel (a bare concrete function can lose the weights) to a
TFLite file for one frame of fixed size: float32, or int8 calibrated on real frames, with float32
inputs and outputs. LiteRT reads the operators of a file.
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

# Operators of a batch norm that is not folded into a convolution.
_ARITHMETIC = {"MUL", "ADD", "SUB", "DIV", "RSQRT"}


class Operator(NamedTuple):
    """One operator of a TFLite file."""

    name: str
    inputs: tuple  # shapes
    outputs: tuple  # shapes
    formats: tuple  # number formats of the outputs: "int8", "float32" ...
    has_constant: bool  # whether an input is a constant


def check_size(height: int, width: int) -> None:
    """Raise ValueError unless height and width, in px, fit a bare encoder."""
    if height % STRIDES[-1] or width % STRIDES[-1]:
        raise ArgumentError(
            f"height and width: {(height, width)} are not multiples of {STRIDES[-1]}",
            "height",
            "width",
        )


def convert(
    encoder: keras.Model, height: int, width: int, calibration: np.ndarray | None = None
) -> bytes:
    """Convert an encoder to the bytes of a TFLite file for one frame.

    Args:
        encoder: from `backbones.build_encoder`, or any Keras model that takes an image.
        height: rows of the frame, as `encoder` requires.
        width: columns.
        calibration: (N, height, width, 3) float32 RGB 0..255, real frames whose activations set
            the int8 ranges; None writes float32.

    Returns:
        Bytes. Signature `serving_default`: image (1, height, width, 3) float32 -> the encoder's
        outputs, float32, by their names.

    Raises:
        ValueError: the converter omitted the weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write(
            encoder, lambda image: encoder(image, training=False), ["image"], height, width, folder
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ({"image": x[None]} for x in calibration)
            # With float operators allowed, what cannot be int8 stays float instead of failing.
            sets = tf.lite.OpsSet
            converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8, sets.TFLITE_BUILTINS]
        # The converter's calibration warns that its own interpreter is deprecated.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            data = converter.convert()
    # Batch norms are folded into the kernels, so the file must hold at least the kernels.
    kernels = sum(int(np.prod(w.shape)) for w in encoder.weights if len(w.shape) > 1)
    if len(data) < kernels * (4 if calibration is None else 1):
        raise ValueError(f"the converter wrote {len(data)} bytes: the weights are missing")
    return data


def convert_pair(network: keras.Model, height: int, width: int) -> bytes:
    """Convert a network of two frames, or a part of one, to the bytes of a float32 TFLite file.

    Unlike a file of `export.tflite`, it returns what the Keras model returns, including logits.

    Raises:
        ValueError: the converter omitted the weights.
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


def _write(model, function, names, height, width, folder):
    """Write a SavedModel of `function`, which takes frames of these names and calls `model`."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    specs = [tf.TensorSpec((1, height, width, 3), tf.float32, name=name) for name in names]
    archive.add_endpoint("serve", function, input_signature=specs)
    archive.write_out(folder, verbose=False)


def interpreter(data: bytes, threads: int = 1, delegates: bool = True) -> "Interpreter":
    """LiteRT interpreter of a TFLite file (bytes), ready to run.

    Args:
        data: contents of the file.
        threads: number of threads.
        delegates: whether XNNPACK replaces the operators it supports; if not, the operators are
            those of the file.

    Raises:
        ValueError: LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise ValueError("ai-edge-litert is missing: pip install -e '.[tflite]'") from error
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    instance = Interpreter(
        model_content=data,
        num_threads=threads,
        experimental_op_resolver_type=OpResolverType.AUTO if delegates else resolver,
    )
    instance.allocate_tensors()
    return instance


def operators(data: bytes) -> list[Operator]:
    """Operators of a TFLite file (bytes), a list of :class:`Operator` in file order."""
    file = interpreter(data, delegates=False)
    tensors = {tensor["index"]: tensor for tensor in file.get_tensor_details()}
    variable = {tensor["index"] for tensor in file.get_input_details()}
    ops = []
    for operator in file._get_ops_details():
        # An index of -1 is an omitted optional input.
        inputs = [i for i in operator["inputs"] if i in tensors]
        outputs = [int(i) for i in operator["outputs"]]
        ops.append(
            Operator(
                operator["op_name"],
                tuple(tuple(tensors[i]["shape"].tolist()) for i in inputs),
                tuple(tuple(tensors[i]["shape"].tolist()) for i in outputs),
                tuple(np.dtype(tensors[i]["dtype"]).name for i in outputs),
                any(i not in variable for i in inputs),
            )
        )
        variable.update(outputs)
    return ops


def flops(ops: Iterable[Operator]) -> int:
    """FLOPs of the convolutions and matrix products among operators; a multiply-add counts as two.

    Elementwise arithmetic, pooling, resizing and gathers are not counted.
    """
    total = 0
    for operator in ops:
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


def floats_left(ops: Iterable[Operator]) -> list[str]:
    """Names of the operators whose outputs are not int8.

    DEQUANTIZE is skipped: it returns the outputs, or feeds an operator that is itself listed.
    """
    return [
        operator.name
        for operator in ops
        if set(operator.formats) != {"int8"} and operator.name != "DEQUANTIZE"
    ]


def norms_left(ops: Iterable[Operator]) -> list[str]:
    """Names of the operators that look like a batch norm: arithmetic of features with a constant.

    (The normalisation of the image has three channels and is not counted.)
    """
    return [
        operator.name
        for operator in ops
        if operator.name in _ARITHMETIC
        and operator.has_constant
        and operator.outputs[0][-1:] != (3,)
    ]


def sqnr(expected: np.ndarray, actual: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio in dB: 10 log10(power of signal / power of difference).

    Args:
        expected: array of any shape, not all zero.
        actual: the same shape, from the quantised network; equal arrays give infinity.
    """
    expected = np.asarray(expected, np.float64)
    noise = np.sum((np.asarray(actual, np.float64) - expected) ** 2)
    return float(10 * np.log10(np.sum(expected**2) / noise)) if noise else float("inf")


def cosine(expected: np.ndarray, actual: np.ndarray) -> float:
    """Mean over pixels of the cosine between two feature vectors.

    Args:
        expected: (..., C); all-zero pixels have no direction and are ignored.
        actual: the same shape; a vector of zeros counts as 0.
    """
    norms = np.linalg.norm(expected, axis=-1), np.linalg.norm(actual, axis=-1)
    dots = np.sum(np.asarray(expected, np.float64) * actual, axis=-1)
    cosines = dots / np.maximum(norms[0] * norms[1], 1e-12)
    return float(cosines[norms[0] > 0].mean())


def features(data: bytes, frames: np.ndarray, threads: int = 1) -> dict[str, np.ndarray]:
    """Outputs of a file (bytes) of `convert` for (N, H, W, 3) frames: name -> (N, H', W', C)."""
    run = interpreter(data, threads).get_signature_runner("serving_default")
    outputs = [run(image=frame[None]) for frame in frames]
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def latencies(
    files: dict[Hashable, bytes], frame: np.ndarray, threads: int, rounds: int
) -> dict[Hashable, list[float]]:
    """Milliseconds of TFLite files (key -> bytes), timed in turn: key -> one value per round."""
    ready = {key: interpreter(data, threads) for key, data in files.items()}
    for instance in ready.values():
        for details in instance.get_input_details():
            instance.set_tensor(details["index"], frame[None])
    times = {key: [] for key in files}
    for _ in range(1 + rounds):  # The first round is not counted.
        for key, instance in ready.items():
            begin = time.perf_counter()
            instance.invoke()
            times[key].append(1e3 * (time.perf_counter() - begin))
    return {key: values[1:] for key, values in times.items()}
