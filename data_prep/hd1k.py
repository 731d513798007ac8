"""Convert HD1K to FlowSeg records.

    python -m data_prep.hd1k --source HD1K --output RECORDS

HD1K is the folder into which the official `hd1k_input` and `hd1k_flow_gt` were unpacked
(Kondermann et al. 2016):

    hd1k_input/image_2/000000_0001.png    hd1k_flow_gt/flow_occ/000000_0001.png

A file is named by its sequence and its frame. Each sequence is a video; frames of different
sequences are never paired. A flow file belongs to the first frame of its pair, and has KITTI's
encoding. The flow file of a sequence's last frame is not read, because it has no second frame.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, videos, writer
from data_prep.conversion.frames import Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.errors import ArgumentError

IMAGES, FLOW = "hd1k_input/image_2", "hd1k_flow_gt/flow_occ"
_NAME = re.compile(r"(\d{6})_(\d{4})", re.ASCII)


def find_frames(sources: Iterable[str | Path]) -> list[Frame]:
    """List the frames of HD1K folders without opening any file, and print what is missing.

    Args:
        sources: folders, each as given to `--source`.

    Returns:
        list of :class:`frames.Frame`, sorted by frame id (000000/0001) within a source.

    Raises:
        ValueError: a folder is missing or contains no HD1K, or files of another data set too.
    """
    return [frame for source in sources for frame in _find_frames(videos.check_folder(source))]


def _find_frames(source):
    images, flow = (_by_sequence(source / name) for name in (IMAGES, FLOW))
    if not images or not flow:
        raise ArgumentError(
            f"no HD1K here ({IMAGES if not images else FLOW}/000000_0001.png): source is the "
            "folder that contains hd1k_input and hd1k_flow_gt",
            "source",
            path=source,
        )
    frames = []
    for sequence in sorted(images.keys() | flow.keys()):
        frames += videos.list_frames(
            sequence,
            4,
            lambda number, sequence=sequence: source / IMAGES / f"{sequence}_{number:04d}.png",
            {"image1": images.get(sequence, {}), "flow": flow.get(sequence, {})},
        )
    videos.report(source, frames, [path for paths in flow.values() for path in paths.values()])
    return frames


def _by_sequence(folder):
    """Map sequence -> frame number -> PNG file."""
    sequences = {}
    for path in system_files.glob(folder, "*.png"):
        match = _NAME.fullmatch(path.stem)
        if not match:
            raise ValueError(
                f"{path}: not a file of HD1K (000000_0001.png): is another data set unpacked into "
                "the same folder?"
            )
        sequences.setdefault(match[1], {})[int(match[2])] = path
    return sequences


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert HD1K folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "hd1k",
        options.split_by_hash(find_frames(sources), val_fraction, seed),
        output,
        sources=sources,
        settings={"val_fraction": val_fraction, "seed": seed},
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("Folder that contains hd1k_input and hd1k_flow_gt")
    entry.run(main)
