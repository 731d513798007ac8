"""Middlebury's flow benchmark -> FlowSeg records.

    python -m data_prep.middlebury --source MIDDLEBURY --val_fraction 1 --output RECORDS

MIDDLEBURY is the folder that holds the official, unpacked `other-data` (of the colour archives, two
frames or all: frames 10 and 11 are read) and `other-gt-flow` (vision.middlebury.edu/flow):

    other-data/RubberWhale/frame10.png, frame11.png    other-gt-flow/RubberWhale/flow10.flo

Values over 1e9 in a flow file mean unknown. The owners give truth for 8 of their 12 sequences: one
without truth is left out, and told. One that has truth but lacks a frame is an error.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, writer
from data_prep.conversion.frames import Frame
from flowseg.cli import entry
from flowseg.errors import ArgumentError

IMAGES, TRUTH = "other-data", "other-gt-flow"


def find_frames(sources: Iterable[str | Path]) -> tuple[list[Frame], list[Path]]:
    """The pairs with truth of Middlebury folders; nothing is opened yet.

    Args:
        sources: folders, each as `--source` takes it.

    Returns:
        (frames, without_truth): list of :class:`frames.Frame`, the sequence is the frame
        id; list of folders of sequences that have none.

    Raises:
        ValueError: a folder that is missing or holds no truth.
    """
    frames, without_truth = [], []
    for source in map(Path, sources):
        if not source.is_dir():
            raise ArgumentError("no such folder (source)", "source", path=source)
        truth = {path.parent.name: path for path in sorted(source.glob(f"{TRUTH}/*/flow10.flo"))}
        if not truth:
            raise ArgumentError(
                f"no Middlebury truth here ({TRUTH}/SEQUENCE/flow10.flo): source is the folder "
                f"that holds {IMAGES} and {TRUTH}",
                "source",
                path=source,
            )
        for name, flow in truth.items():
            folder = source / IMAGES / name
            files = {"image1": folder / "frame10.png", "image2": folder / "frame11.png"}
            frames.append(Frame(frame_id=name, files={**files, "flow": flow}))
        sequences = (path for path in sorted((source / IMAGES).glob("*")) if path.is_dir())
        without_truth += [path for path in sequences if path.name not in truth]
    return frames, without_truth


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    **how: Any,
) -> dict[str, Any]:
    """Convert Middlebury folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    frames, without_truth = find_frames(sources)
    for folder in without_truth:
        print(f"{folder}: left out, it has no {TRUTH}/{folder.name}/flow10.flo")
    return writer.write(
        "middlebury",
        options.split_by_hash(frames, val_fraction, seed),
        output,
        sources=sources,
        settings={"val_fraction": val_fraction, "seed": seed},
        **how,
    )


def main() -> None:
    """The command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("Folder that holds other-data and other-gt-flow")
    entry.run(main)
