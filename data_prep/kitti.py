"""Convert KITTI 2015 scene flow and semantics to FlowSeg records.

    python -m data_prep.kitti --source KITTI --output RECORDS

KITTI is the folder that contains the official, unpacked `data_scene_flow` and `data_semantics`, or
one of these sets itself (a folder with `training/`). Either set is sufficient; a frame that is in
both becomes one record. Repeat --source to join folders.

With --testing, the frames of `testing/` are converted instead. Their ground truth is not public:
the `test-*` records have none, and `flowseg.evaluate --submission` writes their predictions in the
format of KITTI's servers. They share ids with training frames, so they need a separate --output.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame
from data_prep.kitti2012 import refuse_both_kittis
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.errors import ArgumentError

SETS = ("data_scene_flow", "data_semantics")


def find_frames(sources: Iterable[str | Path], testing: bool = False) -> list[Frame]:
    """List the frames of official KITTI folders without opening any file.

    Args:
        sources: folders, each as given to `--source`.
        testing: list the frames of `testing/` instead of `training/`.

    Returns:
        list of :class:`data_prep.conversion.frames.Frame`, sorted by frame id.

    Raises:
        ValueError: a folder is missing or contains no KITTI set or no frames.
    """
    files_by_id = {}
    for source in sources:
        for folder in _find_sets(Path(source), testing):
            for frame_id, field, path in _find_files(folder):
                files_by_id.setdefault(frame_id, {}).setdefault(field, []).append(path)
    return [
        Frame(
            frame_id=frame_id,
            files={field: paths[0] for field, paths in files.items()},
            copies={field: tuple(paths[1:]) for field, paths in files.items() if paths[1:]},
            label_set="cityscapes" if "labels" in files else "",
        )
        for frame_id, files in sorted(files_by_id.items())
    ]


def _find_sets(source, testing):
    """Return the `training` or `testing` folders below one --source."""
    if not source.is_dir():
        raise ArgumentError("no such folder (source)", "source", path=source)
    sets = [source / name for name in SETS if (source / name).is_dir()] or [source]
    _refuse_kitti_2012(source, "testing" if testing else "training")
    if testing:
        test_folders = [folder / "testing" for folder in sets]
        test_folders = [f for f in test_folders if system_files.glob(f, "image_2/*_10.png")]
        if not test_folders:
            raise ValueError(f"{source}: no test frames here (testing/image_2/*_10.png)")
        return test_folders
    for folder in sets:
        training = folder / "training"
        if not ((training / "flow_occ").is_dir() or (training / "semantic").is_dir()):
            raise ArgumentError(
                "no KITTI set here: training/flow_occ (data_scene_flow) or training/semantic "
                "(data_semantics) is missing (give testing to convert the frames of testing/)",
                "testing",
                path=folder,
            )
        if not system_files.glob(training, "*/*_10.png"):
            raise ValueError(f"{folder}: no frames here (training/image_2/*_10.png)")
    return [folder / "training" for folder in sets]


def _refuse_kitti_2012(source, split):
    """Raise ValueError for the layout of KITTI 2012, also if KITTI 2015 is in the same folder."""
    for folder in (source, source / "data_stereo_flow", source / "data_scene_flow"):
        refuse_both_kittis(folder / split)
        images = [name for name in ("colored_0", "image_0") if (folder / split / name).is_dir()]
        if images:
            raise ArgumentError(
                f"this is KITTI 2012 ({split}/{images[0]}): convert it with data_prep.kitti2012; "
                "this command's source is KITTI 2015 (image_2)",
                "source",
                path=folder,
            )


def _find_files(folder):
    """Yield (frame id, record field, file) of one set, including missing files."""
    has_flow = (folder / "flow_occ").is_dir()
    has_labels = (folder / "semantic").is_dir()
    has_pairs = has_flow or bool(system_files.glob(folder, "image_2/*_11.png"))
    subfolders = ("image_2", *(["flow_occ"] * has_flow), *(["semantic"] * has_labels))
    paths = [path for name in subfolders for path in system_files.glob(folder / name, "*_10.png")]
    for frame_id in sorted({path.stem for path in paths}):
        name = f"{frame_id}.png"
        yield frame_id, "image1", folder / "image_2" / name
        if has_pairs:
            second = frame_id.removesuffix("_10") + "_11.png"
            yield frame_id, "image2", folder / "image_2" / second
        if has_flow:
            yield frame_id, "flow", folder / "flow_occ" / name
            if (folder / "flow_noc").is_dir():
                yield frame_id, "flow_noc", folder / "flow_noc" / name
        if has_labels:
            yield frame_id, "labels", folder / "semantic" / name
        for field, subfolder in (("objects", "obj_map"), ("instances", "instance")):
            if (folder / subfolder / name).is_file():
                yield frame_id, field, folder / subfolder / name


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    testing: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert KITTI folders to records below `output`; see `data_prep.conversion.writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `data_prep.conversion.writer.write`.
    """
    frames = find_frames(sources, testing)
    if testing:
        splits, settings = split.shuffle({"test": frames}, seed), {"testing": True}
    else:
        splits = options.split_by_hash(frames, val_fraction, seed)
        settings = {"val_fraction": val_fraction}
    settings["seed"] = seed
    return writer.write(
        "kitti",
        splits,
        output,
        sources=sources,
        settings=settings,
        label_set=labels.CITYSCAPES,
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "testing")


if __name__ == "__main__":
    options.define_flags(
        "Folder that contains data_scene_flow and data_semantics, or one of these sets"
    )
    flags.DEFINE_bool(
        "testing", False, "Convert the frames of testing/, without ground truth, as split test."
    )
    entry.run(main)
