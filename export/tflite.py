"""Export a trained run as a TFLite file, for edge devices.

python -m export.tflite --run_dir DIR --output FILE.tflite --height H --width W \
    [--quantize none|float16|dynamic|int8 --calibration GLOB] [--records GLOB]

The file uses only built-in operators of TFLite and stores the weights once. Its signatures::

    predict  image1, image2 (1, H, W, 3) uint8 RGB -> seg (1, H, W) uint8 train ids,
             flow (1, H, W, 2) float32 in pixels
    encode   image -> features of one frame, by name
    decode   frame1_<name>, frame2_<name> -> outputs of predict; for video: each frame is encoded
             once

A float32 file is compared with the Keras network on the run's sample pair. With --records the file
and Keras are scored on held-out records, and the scores are printed and written to
FILE.parity.json; a file that loses more than --max_miou_drop or --max_aepe_rise is not written. See
`export.lite_convert`, `export.parity`, `export.lite_file`.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np
import tensorflow as tf

from export import lite_file, parity
from export.check import check_output, compare_predictions, sample_pair
from export.lite_convert import FORMATS, UNCALIBRATED, convert, write_signatures
from export.metadata import FLOW, IMAGES, LABELS, export_metadata
from flowseg import files, memory, runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.errors import ArgumentError

# Keeps the features at stride 2, with 64 channels of float32, under TFLite's limit of 2 GB.
MAX_PIXELS = 2**25 - 1
_UNITS = {"image1, image2": IMAGES, "seg": LABELS, "flow": FLOW}


def export(
    run: runs.Run,
    output: Path | str,
    height: int,
    width: int,
    quantize: str = "none",
    calibration: Sequence[Path | str] = (),
    scoring: Sequence[Path | str] = (),
    bounds: tuple[float, float] = (0.5, 0.1),
    overwrite: bool = False,
) -> str:
    """Export a run and check the file before writing it.

    Args:
        run: a `runs.Run`.
        output: file to write.
        height: height of the input frames.
        width: width of the input frames.
        quantize: one of `FORMATS`.
        calibration: record shards whose frames determine the ranges of int8.
        scoring: record shards to score the file on, see `parity.score`; the scores are written
            beside the file, as FILE.parity.json.
        bounds: maximum drop of mIoU (points) and rise of AEPE (px), see `parity.check`.
        overwrite: whether an existing file is replaced.

    Returns:
        Summary of the file's size and its differences from the network.

    Raises:
        ValueError: the file exists, loses too much accuracy, or lacks its weights; the size is too
            large for TFLite; the records do not match the run.
    """
    output = Path(output)
    check_output(output, overwrite)
    _check_arguments(height, width, quantize, calibration)
    for shards in (calibration, scoring):
        decoding.check_records(shards, run.label_set)
    pair = [np.uint8(image[0]) for image in sample_pair(run.folder, height, width).values()]
    pairs = (
        parity.calibration_pairs(calibration, run.label_set, height, width) if calibration else []
    )
    with tempfile.TemporaryDirectory() as folder:
        write_signatures(run.model, folder, height, width)
        content = convert(folder, quantize, pairs)
        if len(content) < FORMATS[quantize] * run.model.count_params() * 0.95:
            raise ValueError(f"the converter wrote {len(content)} bytes: the weights are missing")
        metadata = export_metadata(run, _UNITS, height=height, width=width, quantize=quantize)
        content = lite_file.with_metadata(content, metadata)
        opened = lite_file.open_file(content, output)
        expected = parity.keras_predictor(run.model)(*pair)
        text = compare_predictions(expected, opened.predict(*pair), output, quantize == "none")
        lines = [f"{len(content) / 1e6:.1f} MB, {text}"]
        if scoring:
            methods, scores = _score(run, folder, opened, scoring)
            scores |= {"file/bytes": len(content), **parity.latencies(content, *pair)}
            lines.append(parity.table(scores, methods))
            parity.check(scores, output, *bounds)
            files.write_json(output.with_suffix(".parity.json"), scores)
    files.write(output, content)
    return "\n".join(lines)


def _score(run, folder, opened, shards):
    """Return the methods to compare, one of which is the file, and their `parity.score`."""
    methods = {
        "keras": parity.keras_predictor(run.model),
        "saved_model": parity.saved_model_predictor(folder),
        "file": opened.predict,
        "stream": lambda *pair: opened.decode(*map(opened.encode, pair)),
    }
    size = opened.metadata["height"], opened.metadata["width"]
    return methods, parity.score(methods, shards, run.label_set, *size)


def _check_arguments(height, width, quantize, calibration):
    """Raise ValueError if these arguments of `export` are invalid."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height}x{width}: TFLite supports frames of at most {MAX_PIXELS} pixels")
    memory.require_for_lite_file(height, width, "lower height or width")
    if calibration and quantize != "int8":
        raise ArgumentError(
            f"calibration is only for quantize int8, not for {quantize}",
            "calibration",
            "quantize",
        )
    if quantize == "int8" and not calibration:
        raise ArgumentError(UNCALIBRATED, "calibration")


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "File to write, FILE.tflite.", required=True)
    flags.DEFINE_enum(
        "quantize",
        "none",
        list(FORMATS),
        "Number format: none is float32; int8 needs --calibration.",
    )
    flags.DEFINE_integer("height", None, "Height of the frames.", 1, required=True)
    flags.DEFINE_integer("width", None, "Width of the frames.", 1, required=True)
    shared_flags.define_record_sets(
        "calibration", [], "Records whose frames determine the ranges of int8: GLOB[,GLOB]."
    )
    shared_flags.define_record_sets(
        "records", [], "Held-out records to score the file on: GLOB[,GLOB]."
    )
    flags.DEFINE_float("max_miou_drop", 0.5, "Maximum loss of mIoU on --records, in points.")
    flags.DEFINE_float("max_aepe_rise", 0.1, "Maximum increase of AEPE on --records, in px.", 0)
    flags.DEFINE_bool("overwrite", False, "Replace an existing file.")


def main():
    """Load the run, export it and print the summary."""
    args = flags.FLAGS
    # With a GPU's reduced float precision, Keras would differ from the file by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = runs.load_run(args.run_dir, args.weights)
    calibration, scoring = (
        records.match_files(*globs) if globs else [] for globs in (args.calibration, args.records)
    )
    text = export(
        run,
        args.output,
        args.height,
        args.width,
        quantize=args.quantize,
        calibration=calibration,
        scoring=scoring,
        bounds=(args.max_miou_drop, args.max_aepe_rise),
        overwrite=args.overwrite,
    )
    print(f"{args.output}: TFLite {args.height}x{args.width} {args.quantize}, {text}")


def entry_point():
    """Run the command."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
