"""KITTI 2015 scene flow and semantics -> FlowSeg records.

    python -m data_prep.kitti --source KITTI --output RECORDS

KITTI is the folder that holds the official, unpacked `data_scene_flow` and `data_semantics`, or
one such set itself (a folder with `training/`). Either set alone will do; a frame that is in both
becomes one record. Repeat --source to join folders.

With --testing the frames are those of `testing/` instead, whose truth KITTI keeps: OUTPUT gets
`test-*` records without truth, of which `flowseg.evaluate --submission` writes what its servers
take. They have the ids of training frames, so they need an --output of their own.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame
from flowseg.cli import entry
from flowseg.errors import ArgumentError

SETS = ("data_scene_flow", "data_semantics")


def find_frames(sources: Iterable[str | Path], testing: bool = False) -> list[Frame]:
    """The frames of official KITTI folders, by frame id; nothing is opened yet.

    Args:
        sources: folders, each as `--source` takes it.
        testing: those of `testing/`, not of `training/`.

    Returns:
        list of :class:`data_prep.conversion.frames.Frame`, sorted by frame id.

    Raises:
        ValueError: a folder that is missing or holds no KITTI set; a frame without its truth.
    """
    found = {}
    for source in sources:
        for folder in _find_sets(Path(source), testing):
            for frame_id, field, path in _find_files(folder):
                found.setdefault(frame_id, {}).setdefault(field, []).append(path)
    return [
        Frame(
            frame_id=frame_id,
            files={field: paths[0] for field, paths in files.items()},
            copies={field: tuple(paths[1:]) for field, paths in files.items() if paths[1:]},
            label_set="cityscapes" if "labels" in files else "",
        )
        for frame_id, files in sorted(found.items())
    ]


def _find_sets(source, testing):
    """The `training` or `testing` folders below one --source."""
    if not source.is_dir():
        raise ArgumentError("no such folder (source)", "source", path=source)
    sets = [source / name for name in SETS if (source / name).is_dir()] or [source]
    if testing:
        found = [folder / "testing" for folder in sets]
        found = [folder for folder in found if any(folder.glob("image_2/*_10.png"))]
        if not found:
            raise ValueError(f"{source}: no test frames in it (testing/image_2/*_10.png)")
        return found
    for folder in sets:
        training = folder / "training"
        if not ((training / "flow_occ").is_dir() or (training / "semantic").is_dir()):
            raise ArgumentError(
                "no KITTI set here: training/flow_occ (data_scene_flow) or training/semantic "
                "(data_semantics) is missing (for the frames of testing/: testing)",
                "testing",
                path=folder,
            )
        if not any(training.glob("*/*_10.png")):
            raise ValueError(f"{folder}: no frames in it (training/image_2/*_10.png)")
    return [folder / "training" for folder in sets]


def _find_files(folder):
    """(frame id, record field, file) of one set, files that ought to be there included."""
    has_flow = (folder / "flow_occ").is_dir()
    has_labels = (folder / "semantic").is_dir()
    has_pairs = has_flow or any(folder.glob("image_2/*_11.png"))
    places = ("image_2", *(["flow_occ"] * has_flow), *(["semantic"] * has_labels))
    ids = {path.stem for place in places for path in (folder / place).glob("*_10.png")}
    for frame_id in sorted(ids):
        name = f"{frame_id}.png"
        yield frame_id, "image1", folder / "image_2" / name
        if has_pairs:
            later = frame_id.removesuffix("_10") + "_11.png"
            yield frame_id, "image2", folder / "image_2" / later
        if has_flow:
            yield frame_id, "flow", folder / "flow_occ" / name
            if (folder / "flow_noc").is_dir():
                yield frame_id, "flow_noc", folder / "flow_noc" / name
        if has_labels:
            yield frame_id, "labels", folder / "semantic" / name
        for field, place in (("objects", "obj_map"), ("instances", "instance")):
            if (folder / place / name).is_file():
                yield frame_id, field, folder / place / name


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    testing: bool = False,
    **how: Any,
) -> dict[str, Any]:
    """Convert KITTI folders to records below `output`; see `data_prep.conversion.writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `data_prep.conversion.writer.write`.
    """
    frames = find_frames(sources, testing)
    if testing:
        splits, settings = split.as_told({"test": frames}, seed), {"testing": True}
    else:
        splits = options.split_by_hash(frames, val_fraction, seed)
        settings = {"val_fraction": val_fraction}
    settings["seed"] = seed
    return writer.write("kitti", splits, output, sources=sources, settings=settings, **how)


def main() -> None:
    """The command."""
    options.convert_from_flags(convert, "testing")


if __name__ == "__main__":
    options.define_flags("Folder that holds data_scene_flow and data_semantics, or one such set")
    flags.DEFINE_bool(
        "testing", False, "The frames of testing/, which have no truth, as split test."
    )
    entry.run(main)
