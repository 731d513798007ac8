"""Convert Cityscapes, in its official layout, to FlowSeg records.

    python -m data_prep.cityscapes --source CITYSCAPES --output RECORDS

CITYSCAPES is the folder into which `leftImg8bit_trainvaltest.zip` and
`gtFine_trainvaltest.zip` were unpacked:

    leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png and _gtFine_instanceIds.png

The official split is kept. `test` is optional, and so are its labels, which are void. All frames
are stills: Cityscapes has no flow, and its videos are not read. The instance maps are optional and
only used for scoring (iIoU).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.errors import ArgumentError

SPLITS = ("train", "val", "test")
_IMAGE, _LABELS, _INSTANCES = "_leftImg8bit", "_gtFine_labelIds", "_gtFine_instanceIds"


def find_frames(sources: Iterable[str | Path]) -> dict[str, list[Frame]]:
    """List the frames of Cityscapes folders without opening any file.

    Args:
        sources: folders, each as given to `--source`.

    Returns:
        dict, split name -> list of :class:`frames.Frame`, sorted by frame id
        (aachen_000000_000019) within a source; `test` only if the folder has one.

    Raises:
        ValueError: a folder is missing or empty.
    """
    splits = {"train": [], "val": []}
    for source in map(Path, sources):
        if not source.is_dir():
            raise ArgumentError("no such folder (source)", "source", path=source)
        for name in SPLITS:
            images, truth = source / "leftImg8bit" / name, source / "gtFine" / name
            if name != "test" or images.is_dir():
                splits.setdefault(name, []).extend(_find_frames(images, truth))
    return splits


def _find_frames(images, truth):
    """Yield the frames of one split, including expected files that are missing."""
    needed = {images: _IMAGE, truth: _LABELS}
    if images.name == "test" and not truth.is_dir():
        del needed[truth]
    frame_ids = set()
    for folder, ending in needed.items():
        paths = system_files.glob(folder, f"*/*{ending}.png")
        if not paths:
            raise ArgumentError(
                f"no */*{ending}.png here: source is the folder with leftImg8bit and gtFine",
                "source",
                path=folder,
            )
        frame_ids |= {(path.parent.name, path.stem.removesuffix(ending)) for path in paths}
    for city, frame_id in sorted(frame_ids):
        files = {"image1": images / city / f"{frame_id}{_IMAGE}.png"}
        if truth in needed:
            files["labels"] = truth / city / f"{frame_id}{_LABELS}.png"
        instances = truth / city / f"{frame_id}{_INSTANCES}.png"
        if instances.is_file():
            files["instances"] = instances
        yield Frame(
            frame_id=frame_id,
            files=files,
            label_set="cityscapes" if "labels" in files else "",
            instances_format="cityscapes",
        )


def convert(
    sources: Sequence[str | Path], output: str | Path, seed: int = 0, **kwargs: Any
) -> dict[str, Any]:
    """Convert Cityscapes folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "cityscapes",
        split.shuffle(find_frames(sources), seed),
        output,
        sources=sources,
        settings={"seed": seed},
        label_set=labels.CITYSCAPES,
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("Folder that contains leftImg8bit and gtFine", official_split=True)
    entry.run(main)
