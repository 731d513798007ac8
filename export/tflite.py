"""Write a trained run as a TFLite file, for edge devices.

python -m export.tflite --run_dir DIR --output FILE.tflite --height H --width W

The file's signature takes image1 and image2, (1, H, W, 3) float32 RGB 0..255, and gives seg,
(1, H, W, classes) logits, and flow, (1, H, W, 2) in pixels, with TFLite's built-in operators alone.
It is run by LiteRT and held to the Keras network on the run's sample pair before it gets its name.
"""

import os
import tempfile
from pathlib import Path

from absl import flags

from flowseg import commands

# isort: split
import tensorflow as tf

from export.check import compare, sample_pair
from export.saved_model import write_saved_model
from flowseg import files
from flowseg import flags as shared_flags
from flowseg.runs import load_run


def convert(model, height, width):
    """A network as the bytes of a float32 TFLite file of fixed size.

    Raises:
        ValueError: the converter left the weights out.
    """
    # By way of a SavedModel: converting a bare concrete function can write a file without weights.
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, folder, 1, height, width)
        data = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    if len(data) < 4 * model.count_params() * 0.95:
        raise ValueError(f"the converter wrote {len(data)} bytes: the weights are missing")
    return data


def answer(data, pair):
    """What a TFLite file (bytes) answers to a pair, run by LiteRT.

    Raises:
        ValueError: LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ValueError("ai-edge-litert is missing: pip install -e '.[tflite]'") from error
    interpreter = Interpreter(model_content=data, num_threads=os.cpu_count())
    return interpreter.get_signature_runner("serving_default")(**pair)


def export(run, output, height, width, overwrite=False):
    """Export a run, check it, and only then give the file its name.

    Args:
        run: a `runs.Run`.
        output: file to write.
        height: rows of the frames that it will take.
        width: columns.
        overwrite: whether an existing file is replaced.

    Returns:
        One line that says how large the file is and how near to the network.

    Raises:
        ValueError: the file exists, or does not answer as the network does.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise ValueError(f"{output}: exists already; --overwrite replaces it")
    pair = sample_pair(run.folder, height, width)
    data = convert(run.model, height, width)
    told = compare(run.model.predict_on_batch(pair), answer(data, pair), output)
    files.write(output, data)
    return f"{len(data) / 1e6:.1f} MB, {told}"


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags(scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "File to write, FILE.tflite.", required=True)
    flags.DEFINE_enum("quantize", "none", ["none"], "Number format: none is float32.")
    flags.DEFINE_integer("height", None, "Rows of the frames.", 1, required=True)
    flags.DEFINE_integer("width", None, "Columns of the frames.", 1, required=True)
    flags.DEFINE_bool("overwrite", False, "Replace a file that stands there.")


def main():
    """Load, export, tell."""
    args = flags.FLAGS
    # A GPU's own float formats would make Keras differ from the file by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = load_run(args.run_dir, args.weights)
    size = (args.height, args.width)
    told = export(run, args.output, *size, args.overwrite)
    print(f"{args.output}: TFLite {args.height}x{args.width}, {told}")


def run():
    """Entry point."""
    define_flags()
    commands.run(main)


if __name__ == "__main__":
    run()
