"""Convert KITTI 2012 flow to FlowSeg records.

    python -m data_prep.kitti2012 --source KITTI2012 --output RECORDS

KITTI2012 is the official, unpacked `data_stereo_flow` (Geiger et al. 2012), or the folder that
contains it:

    training/colored_0/000000_10.png and 000000_11.png
    training/flow_occ/000000_10.png    training/flow_noc/000000_10.png

Without `colored_0`, the grey images of `image_0` are read. Flow is KITTI's 16-bit PNG, as in KITTI
2015 (data_prep.kitti). With --testing, the frames of `testing/`, which have no ground truth, are
converted to `test-*` records.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import options, split, videos, writer
from data_prep.conversion.frames import Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.errors import ArgumentError


def find_frames(sources: Iterable[str | Path], testing: bool = False) -> list[Frame]:
    """List the pairs of KITTI 2012 folders without opening any file.

    Args:
        sources: folders, each as given to `--source`.
        testing: list the pairs of `testing/`, without ground truth, instead of `training/`.

    Returns:
        list of :class:`frames.Frame`, sorted by frame id (000000_10) within a source.

    Raises:
        ValueError: a folder is missing or contains no KITTI 2012, or KITTI 2015 too.
    """
    return [frame for source in sources for frame in _find_frames(source, testing)]


def _find_frames(source, testing):
    """Yield the pairs of one source, including expected files that are missing."""
    source = videos.check_folder(source)
    name = "testing" if testing else "training"
    folder = next((f for f in (source, source / "data_stereo_flow") if (f / name).is_dir()), source)
    folder /= name
    images = next((folder / n for n in ("colored_0", "image_0") if (folder / n).is_dir()), None)
    if not images or not (testing or (folder / "flow_occ").is_dir()):
        raise ArgumentError(
            f"no KITTI 2012 here ({name}/colored_0 or image_0"
            + ("" if testing else f", and {name}/flow_occ")
            + "): source is data_stereo_flow, or the folder that contains it",
            "source",
            path=source,
        )
    refuse_both_kittis(folder)
    names = [images] if testing else [images, folder / "flow_occ"]
    paths = [path for parent in names for path in system_files.glob(parent, "*_10.png")]
    if not paths:
        raise ValueError(f"{images}: no frames here (000000_10.png)")
    for frame_id in sorted({path.stem for path in paths}):
        second = frame_id.removesuffix("_10") + "_11.png"
        files = {"image1": images / f"{frame_id}.png", "image2": images / second}
        if not testing:
            files["flow"] = folder / "flow_occ" / f"{frame_id}.png"
            if (folder / "flow_noc").is_dir():
                files["flow_noc"] = folder / "flow_noc" / f"{frame_id}.png"
        yield Frame(frame_id, files)


def refuse_both_kittis(folder: Path) -> None:
    """Raise ValueError if KITTI 2012 and KITTI 2015 were unpacked into one folder.

    Both have files such as `flow_occ/000000_10.png`, so that the second set has replaced files of
    the first.

    Args:
        folder: `training` or `testing`.
    """
    images = [n for n in ("colored_0", "image_0") if (folder / n).is_dir()]
    if images and (folder / "image_2").is_dir():
        raise ValueError(
            f"{folder}: KITTI 2012 ({images[0]}) and KITTI 2015 (image_2) are unpacked into one "
            "folder, where the flow files of one have replaced those of the other: unpack each "
            "again into a folder of its own"
        )


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    testing: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert KITTI 2012 folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    frames = find_frames(sources, testing)
    if testing:
        splits, settings = split.shuffle({"test": frames}, seed), {"testing": True}
    else:
        splits = options.split_by_hash(frames, val_fraction, seed)
        settings = {"val_fraction": val_fraction}
    settings["seed"] = seed
    return writer.write("kitti2012", splits, output, sources=sources, settings=settings, **kwargs)


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "testing")


if __name__ == "__main__":
    options.define_flags("Folder data_stereo_flow, or the folder that contains it")
    flags.DEFINE_bool(
        "testing", False, "Convert the frames of testing/, without ground truth, as split test."
    )
    entry.run(main)
