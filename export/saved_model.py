"""Write a trained run as a TensorFlow SavedModel, for servers.

python -m export.saved_model --run_dir DIR --output DIR

writes DIR/1, a SavedModel under a version as TensorFlow Serving wants it, with DIR/models.config
and DIR/batching.config to start that server with. Its signature `serving_default` takes image1 and
image2, (B, H, W, 3) float32 RGB 0..255 with any B, H and W, and gives seg, (B, H, W, classes)
logits, and flow, (B, H, W, 2) in pixels. `serving_uint8`, `predict_labels`, `predict_png`,
`encode`, `decode` and `metadata` are described in export/signatures.py. The written folder is
loaded again and each signature held to the Keras network on the run's sample pair.
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
from export.check import compare_signatures, ready, sample_pair
from export.signatures import signatures
from flowseg import console, files
from flowseg.cli import flags as shared_flags
from flowseg.runs import Run, load_run


def write_signatures(model: keras.Model, output: Path | str, metadata: dict) -> None:
    """Write a network as a SavedModel of all `signatures.signatures`."""
    module = tf.Module()
    # Not Keras's ExportArchive: it writes, and a server then holds, every weight twice.
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(output), signatures(model, metadata))


def export(run: Run, output: Path | str, overwrite: bool = False, version: int = 1) -> str:
    """Export a run, check it, and only then give the folder its name.

    Args:
        run: a `runs.Run`.
        output: folder to make, or one of earlier versions, which stay.
        overwrite: whether an existing SavedModel of that version is replaced.
        version: the folder's name within `output`; servers take the highest.

    Returns:
        One line that says how near the export is to the network.

    Raises:
        ValueError: the folder exists, or the export does not answer as the network does.
    """
    output = Path(output)
    folder = output / str(version)
    if output.exists() and not (output / saved_model_extras.MODELS_CONFIG).is_file():
        raise ValueError(f"{output}: exists, and is no folder of served models; name another")
    ready(folder, overwrite)
    new = not output.exists()
    with files.whole(output if new else folder) as temporary:
        inner = temporary / str(version) if new else temporary
        told = saved_model_extras.metadata(run, version)
        write_signatures(run.model, inner, told)
        if new:
            saved_model_extras.write_configs(temporary)
        loaded = tf.saved_model.load(str(inner)).signatures
        pair = sample_pair(run.folder)
        saved_model_extras.write_extras(inner, told, loaded, pair)
        # oneDNN says at the first float16 that it leaves it to others.
        with console.no_stderr():
            answers = ask_signatures(loaded, pair)
        return compare_signatures(run.model.predict_on_batch(pair), answers, folder)


def ask_signatures(
    loaded: Mapping[str, Callable], pair: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """What each signature of a loaded SavedModel that looks at two frames answers to a pair.

    Args:
        loaded: its `signatures`.
        pair: {"image1", "image2"}: (1, H, W, 3) float32, whole numbers in 0..255.

    Returns:
        {signature: {output: array}}; `decode`'s of frames that were encoded one by one.
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
    return {name: ask(loaded[name], given) for name, given in inputs.items()}


def ask(signature: Callable, inputs: dict) -> dict[str, np.ndarray]:
    """A signature's outputs as arrays."""
    answers = signature(**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in answers.items()}


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "Folder to write.", required=True)
    flags.DEFINE_integer(
        "version", 1, "Of the model, a folder in --output; servers take the highest.", 1
    )
    flags.DEFINE_bool("overwrite", False, "Replace the version that stands there.")


def main():
    """Load, export, tell."""
    args = flags.FLAGS
    # A GPU's own float formats would make Keras differ from the file by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = load_run(args.run_dir, args.weights)
    told = export(run, args.output, overwrite=args.overwrite, version=args.version)
    print(f"{args.output}/{args.version}: SavedModel, {told}")


def run():
    """Entry point."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
