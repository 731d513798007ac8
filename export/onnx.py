"""Write a trained run as an ONNX file, for ONNX Runtime, OpenVINO, TensorRT and their like.

python -m export.onnx --run_dir DIR --output FILE.onnx [--height H --width W]

By Keras's own exporter. image1 and image2, (B, H, W, 3) float32 RGB 0..255, give seg, (B, H, W,
classes) logits, and flow, (B, H, W, 2) in pixels: any B, and any H and W unless they are fixed,
which some runtimes want and all are faster with. What `export.metadata` tells lies in the file's
metadata under `flowseg`, as JSON. The written file is run by ONNX Runtime and held to the Keras
network on the run's sample pair, and, if it takes any size, on a batch of parts of it.
"""

import json
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from export.check import compare, ready, sample_pair
from export.metadata import FLOW, IMAGES, LOGITS, about
from flowseg import console, files, runs
from flowseg.cli import flags as shared_flags
from flowseg.errors import ArgumentError

# Known to runtimes since 2022.
OPSET = 17
_UNITS = {"image1, image2": IMAGES, "seg": LOGITS, "flow": FLOW}


def export(
    run: runs.Run,
    output: Path | str,
    height: int | None = None,
    width: int | None = None,
    overwrite: bool = False,
) -> str:
    """Export a run, check it, and only then give the file its name.

    Args:
        run: a `runs.Run`.
        output: file to write.
        height: rows of the frames that it will take; None: any.
        width: columns; None with `height`.
        overwrite: whether an existing file is replaced.

    Returns:
        One line that says how large the file is and how near to the network.

    Raises:
        ValueError: the file exists, does not answer as the network does, or a package is missing.
    """
    output = Path(output)
    ready(output, overwrite)
    if (height is None) != (width is None):
        raise ArgumentError(
            "height and width fix the size together, or neither does", "height", "width"
        )
    try:
        import onnx
        import tf2onnx  # noqa: F401  (Keras's exporter wants it)
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: pip install -e '.[onnx]'") from error
    pairs = [sample_pair(run.folder, height, width)]
    if height is None:
        pairs.append(_parts(pairs[0]))
    with files.whole(output) as temporary:
        shape = (None, height, width, 3)
        inputs = {key: keras.InputSpec(shape=shape, dtype="float32", name=key) for key in pairs[0]}
        # The converter and TensorFlow tell of each of their steps.
        with console.no_stderr():
            run.model.export(
                str(temporary),
                format="onnx",
                verbose=False,
                input_signature=[inputs],
                opset_version=OPSET,
            )
        model = onnx.load(temporary)
        told = about(run, _UNITS, height=height, width=width)
        onnx.helper.set_model_props(model, {"flowseg": json.dumps(told)})
        onnx.save(model, temporary)
        session = InferenceSession(temporary.read_bytes())
        lines = []
        for pair in pairs:
            names = [output.name for output in session.get_outputs()]
            answers = dict(zip(names, session.run(names, pair), strict=True))
            lines.append(compare(run.model.predict_on_batch(pair), answers, output))
        return f"{temporary.stat().st_size / 1e6:.1f} MB, {lines[0]}"


def _parts(pair):
    """Two overlapping parts of a pair as a batch, of another size than it."""
    _, height, width, _ = next(iter(pair.values())).shape
    height, width = max(1, height * 2 // 3), max(1, width * 2 // 3)
    return {
        key: np.concatenate([image[:, :height, :width], image[:, -height:, -width:]])
        for key, image in pair.items()
    }


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "File to write, FILE.onnx.", required=True)
    flags.DEFINE_integer("height", None, "Rows of the frames; default: any.", 1)
    flags.DEFINE_integer("width", None, "Columns of the frames; default: any.", 1)
    flags.DEFINE_bool("overwrite", False, "Replace a file that stands there.")


def main():
    """Load, export, tell."""
    args = flags.FLAGS
    # A GPU's own float formats would make Keras differ from the file by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = runs.load_run(args.run_dir, args.weights)
    told = export(run, args.output, height=args.height, width=args.width, overwrite=args.overwrite)
    size = f"{args.height}x{args.width}" if args.height else "of any size"
    print(f"{args.output}: ONNX {size}, {told}")


def run():
    """Entry point."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
