"""Convert the Middlebury flow benchmark to FlowSeg records.

    python -m data_prep.middlebury --source MIDDLEBURY --val_fraction 1 --output RECORDS

MIDDLEBURY is the folder that contains the official, unpacked `other-data` (colour, from the
two-frame or the all-frames archive: frames 10 and 11 are read) and `other-gt-flow`
(vision.middlebury.edu/flow):

    other-data/RubberWhale/frame10.png, frame11.png    other-gt-flow/RubberWhale/flow10.flo

Values over 1e9 in a flow file mean unknown. Only 8 of the 12 sequences have public ground truth: a
sequence without it is skipped and reported. One with ground truth but without a frame is an error.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, writer
from data_prep.conversion.frames import Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.errors import ArgumentError

IMAGES, TRUTH = "other-data", "other-gt-flow"


def find_frames(sources: Iterable[str | Path]) -> tuple[list[Frame], list[Path]]:
    """List the pairs of Middlebury folders with ground truth without opening any file.

    Args:
        sources: folders, each as given to `--source`.

    Returns:
        (frames, without_truth): list of :class:`frames.Frame` with the sequence's name as
        frame id; list of the folders of sequences without ground truth.

    Raises:
        ValueError: a folder is missing or contains no ground truth.
    """
    frames, without_truth = [], []
    for source in map(Path, sources):
        if not source.is_dir():
            raise ArgumentError("no such folder (source)", "source", path=source)
        truth = {
            path.parent.name: path for path in system_files.glob(source, f"{TRUTH}/*/flow10.flo")
        }
        if not truth:
            raise ArgumentError(
                f"no Middlebury ground truth here ({TRUTH}/SEQUENCE/flow10.flo): source is the "
                f"folder that contains {IMAGES} and {TRUTH}",
                "source",
                path=source,
            )
        for name, flow in truth.items():
            folder = source / IMAGES / name
            files = {"image1": folder / "frame10.png", "image2": folder / "frame11.png"}
            frames.append(Frame(frame_id=name, files={**files, "flow": flow}))
        sequences = (path for path in system_files.glob(source / IMAGES, "*") if path.is_dir())
        without_truth += [path for path in sequences if path.name not in truth]
    return frames, without_truth


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert Middlebury folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    frames, without_truth = find_frames(sources)
    for folder in without_truth:
        print(f"{folder}: skipped, it has no {TRUTH}/{folder.name}/flow10.flo")
    return writer.write(
        "middlebury",
        options.split_by_hash(frames, val_fraction, seed),
        output,
        sources=sources,
        settings={"val_fraction": val_fraction, "seed": seed},
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("Folder that contains other-data and other-gt-flow")
    entry.run(main)
