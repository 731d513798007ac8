"""Write a trained run as a TensorFlow SavedModel, for servers.

python -m export.saved_model --run_dir DIR --output DIR

Its signature `serving_default` takes image1 and image2, (B, H, W, 3) float32 RGB 0..255 with any
B, H and W, and gives seg, (B, H, W, classes) logits, and flow, (B, H, W, 2) in pixels. The written
folder is loaded again and held to the Keras network on the run's sample pair.
"""

from pathlib import Path

from absl import flags

from flowseg import commands

# isort: split
import keras
import tensorflow as tf

from export.check import compare, sample_pair
from flowseg import files
from flowseg import flags as shared_flags
from flowseg.runs import load_run


def write_saved_model(model, output, batch=None, height=None, width=None):
    """Write a network as a SavedModel; None leaves a dimension open.

    Raises:
        ValueError: Keras runs on another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError("exports need KERAS_BACKEND=tensorflow; weights of any backend load there")
    archive = keras.export.ExportArchive()
    archive.track(model)
    specs = [
        tf.TensorSpec((batch, height, width, 3), tf.float32, name=key)
        for key in ("image1", "image2")
    ]
    archive.add_endpoint(
        "serve",
        lambda image1, image2: model({"image1": image1, "image2": image2}, training=False),
        input_signature=specs,
    )
    archive.write_out(str(output), verbose=False)


def export(run, output, overwrite=False):
    """Export a run, check it, and only then give the folder its name.

    Args:
        run: a `runs.Run`.
        output: folder to make.
        overwrite: whether an existing SavedModel there is replaced.

    Returns:
        One line that says how near the export is to the network.

    Raises:
        ValueError: the folder exists, or the export does not answer as the network does.
    """
    output = Path(output)
    if output.exists() and not (overwrite and (output / "saved_model.pb").is_file()):
        mend = "is no SavedModel" if overwrite else "exists already; --overwrite replaces it"
        raise ValueError(f"{output}: {mend}")
    pair = sample_pair(run.folder)
    with files.whole(output) as temporary:
        write_saved_model(run.model, temporary)
        serve = tf.saved_model.load(str(temporary)).signatures["serving_default"]
        answers = {key: value.numpy() for key, value in serve(**_tensors(pair)).items()}
        told = compare(run.model.predict_on_batch(pair), answers, output)
    return told


def _tensors(pair):
    return {key: tf.constant(value) for key, value in pair.items()}


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags(scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "Folder to write.", required=True)
    flags.DEFINE_bool("overwrite", False, "Replace a SavedModel that stands there.")


def main():
    """Load, export, tell."""
    args = flags.FLAGS
    # A GPU's own float formats would make Keras differ from the file by more than rounding.
    tf.config.set_visible_devices([], "GPU")
    run = load_run(args.run_dir, args.weights)
    told = export(run, args.output, args.overwrite)
    print(f"{args.output}: SavedModel, {told}")


def run():
    """Entry point."""
    define_flags()
    commands.run(main)


if __name__ == "__main__":
    run()
