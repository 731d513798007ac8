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
--max_miou_drop or --max_aepe_rise is not written. See `export.lite_convert`, `export.parity`,
`export.lite_file`.
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
from export.check import compare_answers, ready, sample_pair
from export.lite_convert import FORMATS, UNCALIBRATED, convert, write_signatures
from export.metadata import FLOW, IMAGES, LABELS, about
from flowseg import files, runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.errors import ArgumentError

# Its features at stride 2, 64 floats wide, are tensors of under 2 GB, which is TFLite's limit.
MAX_PIXELS = 2**25 - 1
_UNITS = {"image1, image2": IMAGES, "seg": LABELS, "flow": FLOW}


def export(
    run: runs.Run,
    output: Path | str,
    height: int,
    width: int,
    quantize: str = "none",
    calibration: Sequence[Path | str] = (),
    scored: Sequence[Path | str] = (),
    bounds: tuple[float, float] = (0.5, 0.1),
    overwrite: bool = False,
) -> str:
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
    _check_arguments(height, width, quantize, calibration)
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
            methods, found = _score(run, folder, opened, scored)
            found |= {"file/bytes": len(content), **parity.latencies(content, *pair)}
            lines.append(parity.table(found, methods))
            parity.check(found, output, *bounds)
            files.write_json(output.with_suffix(".parity.json"), found)
    files.write(output, content)
    return "\n".join(lines)


def _score(run, folder, opened, shards):
    """The ways to answer that a file is compared by, and `parity.score` of them."""
    methods = {
        "keras": parity.keras_answer(run.model),
        "saved_model": parity.saved_model_answer(folder),
        "file": opened.predict,
        "stream": lambda *pair: opened.decode(*map(opened.encode, pair)),
    }
    size = opened.about["height"], opened.about["width"]
    return methods, parity.score(methods, shards, run.label_set, *size)


def _check_arguments(height, width, quantize, calibration):
    """Raise ValueError if no file can be made by these arguments of `export`."""
    if height * width > MAX_PIXELS:
        raise ValueError(f"{height}x{width}: TFLite holds no frames of over {MAX_PIXELS} pixels")
    if calibration and quantize != "int8":
        raise ArgumentError(
            f"calibration sets int8's ranges; quantize {quantize} has none",
            "calibration",
            "quantize",
        )
    if quantize == "int8" and not calibration:
        raise ArgumentError(UNCALIBRATED, "calibration")


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
    calibration, scored = (
        records.match_files(*globs) if globs else [] for globs in (args.calibration, args.records)
    )
    told = export(
        run,
        args.output,
        args.height,
        args.width,
        quantize=args.quantize,
        calibration=calibration,
        scored=scored,
        bounds=(args.max_miou_drop, args.max_aepe_rise),
        overwrite=args.overwrite,
    )
    print(f"{args.output}: TFLite {args.height}x{args.width} {args.quantize}, {told}")


def run():
    """Entry point."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
