"""Export a trained run as a TensorFlow SavedModel, for servers.

python -m export.saved_model --run_dir DIR --output DIR

writes DIR/1, a SavedModel in a version folder as TensorFlow Serving requires, and DIR/models.config
and DIR/batching.config, the server's configuration. Its signature `serving_default` takes image1
and image2, (B, H, W, 3) float32 RGB 0..255 with any B, H and W, and returns seg, (B, H, W, classes)
logits, and flow, (B, H, W, 2) in pixels. `serving_uint8`, `predict_labels`, `predict_png`,
`encode`, `decode` and `metadata` are described in export/signatures.py. The written folder is
loaded again, and each signature is compared with the Keras network on the run's sample pair.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from export import saved_model_extras
from export.check import check_output, compare_signatures, sample_pair
from export.signatures import signatures
from flowseg import console, files
from flowseg.cli import flags as shared_flags
from flowseg.runs import Run, load_run


def write_signatures(model: keras.Model, output: Path | str, metadata: dict) -> None:
    """Write a network as a SavedModel with all `signatures.signatures`."""
    module = tf.Module()
    # Not Keras's ExportArchive, which stores every weight twice, on disk and in the server.
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(output), signatures(model, metadata))


def export(run: Run, output: Path | str, overwrite: bool = False, version: int = 1) -> str:
    """Export a run and check the SavedModel before its folder gets its final name.

    Args:
        run: a `runs.Run`.
        output: folder to create, or an existing folder of earlier versions, which are kept.
        overwrite: whether an existing SavedModel of that version is replaced.
        version: name of the folder within `output`; servers load the highest version.

    Returns:
        One-line summary of the differences from the network.

    Raises:
        ValueError: the folder exists, or the export's outputs differ from the network's.
    """
    output = Path(output)
    files.check_utf8(output, "output")
    folder = output / str(version)
    if output.exists() and not (output / saved_model_extras.MODELS_CONFIG).is_file():
        raise ValueError(f"{output}: exists, and is not a folder of served models; choose another")
    check_output(folder, overwrite)
    new = not output.exists()
    with files.atomic(output if new else folder) as temporary:
        inner = temporary / str(version) if new else temporary
        metadata = saved_model_extras.metadata(run, version)
        write_signatures(run.model, inner, metadata)
        if new:
            saved_model_extras.write_configs(temporary)
        loaded = tf.saved_model.load(str(inner)).signatures
        pair = sample_pair(run.folder)
        saved_model_extras.write_extras(inner, metadata, loaded, pair)
        # Hide oneDNN's message about the first float16 operation that it does not support.
        with console.no_stderr():
            outputs = run_signatures(loaded, pair)
        return compare_signatures(run.model.predict_on_batch(pair), outputs, folder)


def run_signatures(
    loaded: Mapping[str, Callable], pair: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Run a frame pair through each signature of a loaded SavedModel that predicts.

    Args:
        loaded: `signatures` of the SavedModel.
        pair: {"image1", "image2"}: (1, H, W, 3) float32, integers in 0..255.

    Returns:
        {signature: {output: array}}; the inputs of `decode` are frames encoded separately.
    """
    uint8 = {key: image.astype("uint8") for key, image in pair.items()}
    inputs = {
        "serving_default": pair,
        "serving_uint8": uint8,
        "predict_labels": uint8,
        "predict_png": {
            f"{key}_bytes": [saved_model_extras.png(image[0])] for key, image in pair.items()
        },
        "decode": saved_model_extras.decode_inputs(loaded["encode"], uint8),
    }
    return {name: call_signature(loaded[name], values) for name, values in inputs.items()}


def call_signature(signature: Callable, inputs: dict) -> dict[str, np.ndarray]:
    """Call a signature and return its outputs as arrays."""
    outputs = signature(**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in outputs.items()}


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "Folder to write.", required=True)
    flags.DEFINE_integer(
        "version", 1, "Version of the model, a folder in --output; servers load the highest.", 1
    )
    flags.DEFINE_bool("overwrite", False, "Replace an existing version.")


def main():
    """Load the run, export it and print the summary."""
    args = flags.FLAGS
    # With a GPU's reduced float precision, Keras and the export would differ by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = load_run(args.run_dir, args.weights)
    text = export(run, args.output, overwrite=args.overwrite, version=args.version)
    print(f"{args.output}/{args.version}: SavedModel, {text}")


def entry_point():
    """Run the command."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
