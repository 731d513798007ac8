"""What every exported form tells of itself: whose answers these are, and in which words."""

from typing import TYPE_CHECKING

from flowseg import __version__

if TYPE_CHECKING:
    # Not imported at run time: it brings Keras, which the server's own process does without.
    from flowseg.runs import Run

NAME = "flowseg"
IMAGES = "RGB, 0..255"
LOGITS = "logits, a channel a class of label_set"
LABELS = "train ids: positions in label_set's names and palette"
FLOW = "(right, down) in pixels of image1, from image1 to image2"


def about(run: "Run", units: dict[str, str], **own: object) -> dict:
    """Metadata of an exported run, as plain JSON values.

    Args:
        run: a `runs.Run`.
        units: {input or output: what its numbers mean}.
        **own: what the form tells beside it: its size, its number format, its version.
    """
    flags = run.folder / "flags.txt"
    return {
        "name": NAME,
        "flowseg": __version__,
        **own,
        "label_set": run.label_set._asdict(),
        "units": units,
        # A packed network has none: it was trained elsewhere.
        "training_flags": flags.read_text().splitlines() if flags.is_file() else [],
    }
