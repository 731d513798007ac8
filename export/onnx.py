"""Export a trained run as an ONNX file, for ONNX Runtime, OpenVINO, TensorRT and similar runtimes.

python -m export.onnx --run_dir DIR --output FILE.onnx [--height H --width W]

uses Keras's exporter. The inputs image1 and image2, (B, H, W, 3) float32 RGB 0..255, give the
outputs seg, (B, H, W, classes) logits, and flow, (B, H, W, 2) in pixels. B is arbitrary, and so
are H and W unless they are fixed: some runtimes require fixed sizes, and all are faster with them.
The metadata of `export.metadata` is stored as JSON in the file's metadata under `flowseg`. The
written file is run with ONNX Runtime and compared with the Keras network on the run's sample pair
and, if its size is arbitrary, also on a batch of crops of that pair.
"""

import json
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from export.check import check_output, compare, sample_pair
from export.metadata import FLOW, IMAGES, LOGITS, export_metadata
from flowseg import console, files, memory, runs
from flowseg.cli import flags as shared_flags
from flowseg.errors import ArgumentError

# Supported by runtimes since 2022.
OPSET = 17
_UNITS = {"image1, image2": IMAGES, "seg": LOGITS, "flow": FLOW}


def export(
    run: runs.Run,
    output: Path | str,
    height: int | None = None,
    width: int | None = None,
    overwrite: bool = False,
) -> str:
    """Export a run and check the file before it gets its final name.

    Args:
        run: a `runs.Run`.
        output: file to write.
        height: height of the input frames; None allows any.
        width: width of the input frames; None if `height` is None.
        overwrite: whether an existing file is replaced.

    Returns:
        One-line summary of the file's size and its differences from the network.

    Raises:
        ValueError: the file exists, its outputs differ from the network's, or a package is
            missing.
    """
    output = Path(output)
    files.check_utf8(output, "output")
    check_output(output, overwrite)
    if (height is None) != (width is None):
        raise ArgumentError(
            "height and width must be given together, or neither", "height", "width"
        )
    if height:
        memory.require_for_prediction(height, width, "lower height or width")
    try:
        import onnx
        import tf2onnx  # noqa: F401  (Keras's exporter needs it)
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: pip install -e '.[onnx]'") from error
    pairs = [sample_pair(run.folder, height, width)]
    if height is None:
        pairs.append(_crops(pairs[0]))
    with files.atomic(output) as temporary:
        shape = (None, height, width, 3)
        inputs = {key: keras.InputSpec(shape=shape, dtype="float32", name=key) for key in pairs[0]}
        # The converter and TensorFlow log every step.
        with console.no_stderr():
            run.model.export(
                str(temporary),
                format="onnx",
                verbose=False,
                input_signature=[inputs],
                opset_version=OPSET,
            )
        model = onnx.load(temporary)
        metadata = export_metadata(run, _UNITS, height=height, width=width)
        onnx.helper.set_model_props(model, {"flowseg": json.dumps(metadata)})
        onnx.save(model, temporary)
        session = InferenceSession(temporary.read_bytes())
        lines = []
        for pair in pairs:
            names = [output.name for output in session.get_outputs()]
            outputs = dict(zip(names, session.run(names, pair), strict=True))
            lines.append(compare(run.model.predict_on_batch(pair), outputs, output))
        return f"{temporary.stat().st_size / 1e6:.1f} MB, {lines[0]}"


def _crops(pair):
    """Return two overlapping crops of a pair as a batch, which differ from the pair in size."""
    _, height, width, _ = next(iter(pair.values())).shape
    height, width = max(1, height * 2 // 3), max(1, width * 2 // 3)
    return {
        key: np.concatenate([image[:, :height, :width], image[:, -height:, -width:]])
        for key, image in pair.items()
    }


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "File to write, FILE.onnx.", required=True)
    flags.DEFINE_integer("height", None, "Height of the frames; default: any.", 1)
    flags.DEFINE_integer("width", None, "Width of the frames; default: any.", 1)
    flags.DEFINE_bool("overwrite", False, "Replace an existing file.")


def main():
    """Load the run, export it and print the summary."""
    args = flags.FLAGS
    # A GPU's float formats would make Keras differ from the file by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = runs.load_run(args.run_dir, args.weights)
    text = export(run, args.output, height=args.height, width=args.width, overwrite=args.overwrite)
    size = f"{args.height}x{args.width}" if args.height else "of any size"
    print(f"{args.output}: ONNX {size}, {text}")


def entry_point():
    """Run the command."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
