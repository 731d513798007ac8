"""Metadata stored in every export: classes, units and the flags of the training."""

from typing import TYPE_CHECKING

from flowseg import __version__, files

if TYPE_CHECKING:
    # Not imported at run time: it imports Keras, which the server's main process does not need.
    from flowseg.runs import Run

NAME = "flowseg"
IMAGES = "RGB, 0..255"
LOGITS = "logits, one channel per class of label_set"
LABELS = "train ids: positions in label_set's names and palette"
FLOW = "(right, down) in pixels of image1, from image1 to image2"


def export_metadata(run: "Run", units: dict[str, str], **extra: object) -> dict:
    """Return the metadata of an exported run, as JSON values.

    Args:
        run: a `runs.Run`.
        units: {input or output: meaning of its values}.
        **extra: further entries of the export format: size, number format or version.
    """
    flags = run.folder / "flags.txt"
    return {
        "name": NAME,
        "flowseg": __version__,
        **extra,
        "label_set": run.label_set._asdict(),
        "units": units,
        # A packed network has no flags.txt: it was trained elsewhere.
        "training_flags": files.read_text(flags).splitlines() if flags.is_file() else [],
    }
