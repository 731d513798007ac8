"""Write a trained run as a TFLite file, for edge devices.

python -m export.tflite --run_dir DIR --output FILE.tflite --height H --width W \
    [--quantize none|float16|dynamic|int8 --calibration GLOB] [--records GLOB]

The file's signatures, with TFLite's built-in operators alone and one copy of the weights:

predict  image1, image2 (1, H, W, 3) uint8 RGB -> seg (1, H, W) uint8 train ids, flow (1, H, W, 2)
         float32 in pixels
encode   image -> the features of one frame, by name
decode   frame1_<name>, frame2_<name> -> what predict answers; a video's frame is encoded once

Float32 is held to the Keras network on the run's sample pair. With --records the file is scored
beside Keras on held-out records, which FILE.parity.json and a table tell; one that loses more than
--max_miou_drop or --max_aepe_rise is not written. See `export.parity`, `export.lite_file`.
"""

import contextlib
import io
import tempfile
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from export import lite_file, parity
from export.check import compare_answers, ready, sample_pair
from export.metadata import FLOW, IMAGES, LABELS, about
from flowseg import console, files, runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.network.backbones import STRIDES
from flowseg.network.layers import CropLike, PadToMultiple
from flowseg.network.model import parts

# Bytes that a weight takes at least.
FORMATS = {"none": 4, "float16": 2, "dynamic": 1, "int8": 1}
# Its features at stride 2, 64 floats wide, are tensors of under 2 GB, which is TFLite's limit.
MAX_PIXELS = 2**25 - 1
# Convolutions that go into int8, by the names of their tensors: all but those that sum up flow.
_LEARNED = r"^(?!.*decoder_?\d*/flow(_\d+)?/)"
# Whose other operators do too.
_SCOPES = ("(.*/)?encoder", r"(.*/)?decoder_?\d*/(seg|flow_to_seg)")
_UNCALIBRATED = "int8 needs real frames to set its ranges: --calibration GLOB of records"
_UNITS = {"image1, image2": IMAGES, "seg": LABELS, "flow": FLOW}


def write_signatures(model, folder, height, width):
    """Write a network of fixed size as a SavedModel with the signatures of the module docstring."""
    encoder, decoder = parts(model)
    pad, crop = PadToMultiple(STRIDES[-1]), CropLike()
    frame = np.zeros((1, height, width, 1), np.float32)
    shapes = encoder.compute_output_shape(pad.compute_output_shape((1, height, width, 3)))
    frames = ("frame1", "frame2")

    def encode(image):
        return encoder(pad(tf.cast(image, tf.float32)), training=False)

    def answer(features):
        decoded = decoder(features, training=False)
        seg, flow = (crop(decoded[key], frame) for key in ("seg", "flow"))
        return {"seg": tf.cast(tf.argmax(seg, -1, tf.int32), tf.uint8), "flow": flow}

    def predict(image1, image2):
        both = encode(tf.concat([image1, image2], 0))
        halves = {name: tf.split(features, 2) for name, features in both.items()}
        return answer({f: {n: half[i] for n, half in halves.items()} for i, f in enumerate(frames)})

    def decode(features):
        return answer({f: {n: features[f"{f}_{n}"] for n in shapes} for f in frames})

    def image(name):
        return tf.TensorSpec((1, height, width, 3), tf.uint8, name=name)

    named = {f"{f}_{n}": shape for f in frames for n, shape in shapes.items()}
    features = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in named.items()}
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("predict", predict, [image("image1"), image("image2")])
    archive.add_endpoint("encode", encode, [image("image")])
    archive.add_endpoint("decode", decode, [features])
    archive.write_out(str(folder), verbose=False)


def convert(folder, quantize="none", pairs=()):
    """What `write_signatures` wrote, as the bytes of a TFLite file.

    By way of a SavedModel: converting a bare concrete function can write a file without weights.

    Args:
        folder: the SavedModel.
        quantize: one of `FORMATS`.
        pairs: for int8, pairs of (H, W, 3) uint8 frames whose activations set the ranges.

    Raises:
        ValueError: no pairs for int8, or no quantizer.
    """
    signatures = list(lite_file.SIGNATURES)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=signatures)
    if quantize in ("float16", "dynamic"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    content = converter.convert()
    return to_int8(content, pairs) if quantize == "int8" else content


def to_int8(content, pairs):
    """A float32 file's convolutions, and what lies between those of images and classes, in int8.

    Flow itself, warping and matching stay float: in steps of 1/256 of its range a displacement
    loses what the network exists for.

    Args:
        content: bytes of a file with the signatures of this module.
        pairs: as `convert` takes them.

    Raises:
        ValueError: no pairs; ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer
        from ai_edge_quantizer.calibrator import CalibrationMode
        from ai_edge_quantizer.qtyping import TFLOperationName as Op
    except ImportError as error:
        raise ValueError("ai-edge-quantizer is missing: pip install -e '.[tflite]'") from error
    if not pairs:
        raise ValueError(_UNCALIBRATED)
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
        quantizing.add_static_config(_LEARNED, op, activation_num_bits=8, weight_num_bits=8)
    for op in (Op.ADD, Op.PAD, Op.AVERAGE_POOL_2D, Op.MEAN, Op.CONCATENATION, Op.RESIZE_BILINEAR):
        for scope in _SCOPES:
            quantizing.add_static_config(scope, op, activation_num_bits=8, weight_num_bits=8)
    # The quantizer draws bars of its own.
    with contextlib.redirect_stdout(io.StringIO()), console.no_stderr():
        # The other mode asks XNNPACK for tensors that it does not keep.
        ranges = quantizing.calibrate(samples, mode=CalibrationMode.CALIBRATION_PROFILER_BASED)
        quantized = bytearray(quantizing.quantize(ranges).quantized_model)
    _mend_outputs(quantized)
    return bytes(quantized)


def _mend_outputs(content):
    """Make each graph of a file give what its signature names, in place.

    Where a float tensor is an answer and goes on into an int8 operator, ai-edge-quantizer 0.10
    makes the int8 copy the graph's output, and XNNPACK does not keep the one that is asked for.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    for k in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(k)
        named = [signature.Outputs(j).TensorIndex() for j in range(signature.OutputsLength())]
        model.Subgraphs(signature.SubgraphIndex()).OutputsAsNumpy()[:] = named


def export(
    run,
    output,
    height,
    width,
    quantize="none",
    calibration=(),
    scored=(),
    bounds=(0.5, 0.1),
    overwrite=False,
):
    """Export a run, check it, and only then give the file its name.

    Args:
        run: a `runs.Run`.
        output: file to write.
        height: rows of the frames that it will take.
        width: columns.
        quantize: one of `FORMATS`.
        calibration: record shards, of which frames set int8's ranges.
        scored: record shards to be scored on, see `parity.score`; the scores are written beside
            the file, as FILE.parity.json.
        bounds: for `parity.check`.
        overwrite: whether an existing file is replaced.

    Returns:
        Lines that say how large the file is and how near to the network.

    Raises:
        ValueError: the file exists, loses too much, or has lost its weights; a size that no file
            can have; records that do not fit.
    """
    output = Path(output)
    ready(output, overwrite)
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height}x{width}: TFLite holds no frames of over {MAX_PIXELS} pixels")
    if calibration and quantize != "int8":
        raise ValueError(f"--calibration sets int8's ranges; --quantize {quantize} has none")
    if quantize == "int8" and not calibration:
        raise ValueError(_UNCALIBRATED)
    for shards in (calibration, scored):
        decoding.check_records(shards, run.label_set)
    pair = [np.uint8(image[0]) for image in sample_pair(run.folder, height, width).values()]
    pairs = parity.frames_of(calibration, run.label_set, height, width) if calibration else []
    with tempfile.TemporaryDirectory() as folder:
        write_signatures(run.model, folder, height, width)
        content = convert(folder, quantize, pairs)
        if len(content) < FORMATS[quantize] * run.model.count_params() * 0.95:
            raise ValueError(f"the converter wrote {len(content)} bytes: the weights are missing")
        told = about(run, _UNITS, height=height, width=width, quantize=quantize)
        content = lite_file.with_about(content, told)
        opened = lite_file.open_file(content, output)
        expected = parity.keras_answer(run.model)(*pair)
        told = compare_answers(expected, opened.predict(*pair), output, quantize == "none")
        lines = [f"{len(content) / 1e6:.1f} MB, {told}"]
        if scored:
            methods = {
                "keras": parity.keras_answer(run.model),
                "saved_model": parity.saved_model_answer(folder),
                "file": opened.predict,
                "stream": lambda *pair: opened.decode(*map(opened.encode, pair)),
            }
            found = parity.score(methods, scored, run.label_set, height, width)
            found |= {"file/bytes": len(content), **parity.latencies(content, *pair)}
            lines.append(parity.table(found, methods))
            parity.check(found, output, *bounds)
            files.write_json(output.with_suffix(".parity.json"), found)
    files.write(output, content)
    return "\n".join(lines)


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "File to write, FILE.tflite.", required=True)
    flags.DEFINE_enum(
        "quantize",
        "none",
        list(FORMATS),
        "Number format: none is float32; int8 wants --calibration.",
    )
    flags.DEFINE_integer("height", None, "Rows of the frames.", 1, required=True)
    flags.DEFINE_integer("width", None, "Columns of the frames.", 1, required=True)
    flags.DEFINE_list("calibration", [], "Records whose frames set int8's ranges: GLOB[,GLOB].")
    flags.DEFINE_list("records", [], "Held-out records to score the file on: GLOB[,GLOB].")
    flags.DEFINE_float("max_miou_drop", 0.5, "Points of mIoU that the file may lose on --records.")
    flags.DEFINE_float("max_aepe_rise", 0.1, "Pixels that the AEPE may rise by on --records.", 0)
    flags.DEFINE_bool("overwrite", False, "Replace a file that stands there.")


def main():
    """Load, export, tell."""
    args = flags.FLAGS
    # A GPU's own float formats would make Keras differ from the file by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = runs.load_run(args.run_dir, args.weights)
    shards = [
        records.match_files(*globs) if globs else [] for globs in (args.calibration, args.records)
    ]
    bounds = (args.max_miou_drop, args.max_aepe_rise)
    size = (args.height, args.width)
    told = export(run, args.output, *size, args.quantize, *shards, bounds, args.overwrite)
    print(f"{args.output}: TFLite {args.height}x{args.width} {args.quantize}, {told}")


def run():
    """Entry point."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
