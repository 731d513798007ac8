"""Converts a network to TFLite: to a SavedModel of fixed size, then to a file in a number format.

The signatures are described in `export.tflite`, which writes and checks the file.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from export import lite_file
from flowseg import console
from flowseg.errors import ArgumentError
from flowseg.network.backbones import STRIDES
from flowseg.network.layers import CropLike, PadToMultiple
from flowseg.network.model import parts

Pairs = Sequence[Sequence[np.ndarray]]
# Minimum number of bytes per weight.
FORMATS = {"none": 4, "float16": 2, "dynamic": 1, "int8": 1}
# Tensor names of the convolutions quantized to int8: all but those that upsample the flow.
_CONVOLUTIONS = r"^(?!.*decoder_?\d*/flow(_\d+)?/)"
# Scopes whose other operators are quantized too.
_SCOPES = ("(.*/)?encoder", r"(.*/)?decoder_?\d*/(seg|flow_to_seg)")
UNCALIBRATED = "int8 needs real frames to set its ranges: give records with calibration GLOB"


def write_signatures(model: keras.Model, folder: Path | str, height: int, width: int) -> None:
    """Write a network as a SavedModel of fixed size with the signatures of `export.tflite`."""
    encoder, decoder = parts(model)
    pad, crop = PadToMultiple(STRIDES[-1]), CropLike()
    frame = np.zeros((1, height, width, 1), np.float32)
    shapes = encoder.compute_output_shape(pad.compute_output_shape((1, height, width, 3)))
    frames = ("frame1", "frame2")

    def encode(image):
        return encoder(pad(tf.cast(image, tf.float32)), training=False)

    def outputs(features):
        decoded = decoder(features, training=False)
        seg, flow = (crop(decoded[key], frame) for key in ("seg", "flow"))
        return {"seg": tf.cast(tf.argmax(seg, -1, tf.int32), tf.uint8), "flow": flow}

    def predict(image1, image2):
        both = encode(tf.concat([image1, image2], 0))
        halves = {name: tf.split(features, 2) for name, features in both.items()}
        return outputs(
            {f: {n: half[i] for n, half in halves.items()} for i, f in enumerate(frames)}
        )

    def decode(features):
        return outputs({f: {n: features[f"{f}_{n}"] for n in shapes} for f in frames})

    def image(name):
        return tf.TensorSpec((1, height, width, 3), tf.uint8, name=name)

    named = {f"{f}_{n}": shape for f in frames for n, shape in shapes.items()}
    features = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in named.items()}
    specs = {
        "predict": (predict, [image("image1"), image("image2")]),
        "encode": (encode, [image("image")]),
        "decode": (decode, [features]),
    }
    module = tf.Module()
    # Not Keras's ExportArchive, which traces the network four more times, in search of tables.
    module.weights = [variable.value for variable in model.variables]
    functions = {
        name: tf.function(function, input_signature=inputs, autograph=False)
        for name, (function, inputs) in specs.items()
    }
    tf.saved_model.save(module, str(folder), functions)


def convert(folder: str, quantize: str = "none", pairs: Pairs = ()) -> bytes:
    """Convert the SavedModel of `write_signatures` to the bytes of a TFLite file.

    It starts from a SavedModel because converting a concrete function directly can lose the
    weights.

    Args:
        folder: folder of the SavedModel.
        quantize: one of `FORMATS`.
        pairs: for int8, pairs of (H, W, 3) uint8 frames whose activations set the ranges.

    Raises:
        ValueError: for int8, there are no pairs or the quantizer is not installed.
    """
    signatures = list(lite_file.SIGNATURES)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=signatures)
    if quantize in ("float16", "dynamic"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    content = converter.convert()
    return to_int8(content, pairs) if quantize == "int8" else content


def to_int8(content: bytes, pairs: Pairs) -> bytes:
    """Quantize the convolutions of a float32 file to int8, and the operators between them.

    The other operators are those of the encoder and the segmentation stream. Flow, warping and
    matching stay float: displacements in steps of 1/256 of their range would be too coarse.

    Args:
        content: bytes of a TFLite file with the signatures of `lite_file`.
        pairs: see `convert`.

    Raises:
        ValueError: there are no pairs, or ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer
        from ai_edge_quantizer.calibrator import CalibrationMode
        from ai_edge_quantizer.qtyping import TFLOperationName as Op
    except ImportError as error:
        raise ValueError("ai-edge-quantizer is missing: pip install -e '.[tflite]'") from error
    if not pairs:
        raise ArgumentError(UNCALIBRATED, "calibration")
    plain = lite_file.signatures(content, "the float32 file")
    samples = {"predict": [], "encode": [], "decode": []}
    for image1, image2 in pairs:
        images = [image[None] for image in (image1, image2)]
        samples["predict"].append(dict(zip(("image1", "image2"), images, strict=True)))
        samples["encode"] += [{"image": image} for image in images]
        both = zip(("frame1", "frame2"), (plain["encode"](image=x) for x in images), strict=True)
        samples["decode"].append({f"{f}_{n}": x for f, each in both for n, x in each.items()})
    quantizing = quantizer.Quantizer(content)
    for op in (Op.CONV_2D, Op.DEPTHWISE_CONV_2D):
        quantizing.add_static_config(_CONVOLUTIONS, op, activation_num_bits=8, weight_num_bits=8)
    for op in (Op.ADD, Op.PAD, Op.AVERAGE_POOL_2D, Op.MEAN, Op.CONCATENATION, Op.RESIZE_BILINEAR):
        for scope in _SCOPES:
            quantizing.add_static_config(scope, op, activation_num_bits=8, weight_num_bits=8)
    # The quantizer draws progress bars.
    with contextlib.redirect_stdout(io.StringIO()), console.no_stderr():
        # The other mode reads tensors that XNNPACK does not keep.
        ranges = quantizing.calibrate(samples, mode=CalibrationMode.CALIBRATION_PROFILER_BASED)
        quantized = bytearray(quantizing.quantize(ranges).quantized_model)
    _fix_outputs(quantized)
    return bytes(quantized)


def _fix_outputs(content):
    """Set the outputs of each graph in a file to those of its signature, in place.

    Where a float output is also the input of an int8 operator, ai-edge-quantizer 0.10 makes the
    int8 copy the graph's output, and XNNPACK does not keep the tensor that the signature names.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    for k in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(k)
        named = [signature.Outputs(j).TensorIndex() for j in range(signature.OutputsLength())]
        model.Subgraphs(signature.SubgraphIndex()).OutputsAsNumpy()[:] = named
