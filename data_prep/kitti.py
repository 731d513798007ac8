"""KITTI 2015 scene flow and semantics -> FlowSeg records.

    python -m data_prep.kitti --source KITTI --output RECORDS

KITTI is the folder that holds the official, unpacked `data_scene_flow` and `data_semantics`, or
one such set itself (a folder with `training/`). Either set alone will do; a frame that is in both
becomes one record. Repeat --source to join folders.
"""

from pathlib import Path

from data_prep import options, split, writer
from data_prep.frames import Frame
from flowseg import commands

SETS = ("data_scene_flow", "data_semantics")


def find_frames(sources):
    """The frames of official KITTI folders, by frame id; nothing is opened yet.

    Args:
        sources: folders, each as `--source` takes it.

    Returns:
        list of :class:`data_prep.frames.Frame`, sorted by frame id.

    Raises:
        ValueError: a folder that is missing or holds no KITTI set; a frame without its truth.
    """
    found = {}
    for source in sources:
        for training in _find_sets(Path(source)):
            for frame_id, field, path in _find_files(training):
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


def _find_sets(source):
    """The `training` folders below one --source."""
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder (--source)")
    sets = [source / name for name in SETS if (source / name).is_dir()] or [source]
    for folder in sets:
        training = folder / "training"
        if not ((training / "flow_occ").is_dir() or (training / "semantic").is_dir()):
            raise ValueError(
                f"{folder}: no KITTI set here: training/flow_occ (data_scene_flow) or "
                "training/semantic (data_semantics) is missing"
            )
        if not any(training.glob("*/*_10.png")):
            raise ValueError(f"{folder}: no frames in it (training/image_2/*_10.png)")
    return [folder / "training" for folder in sets]


def _find_files(training):
    """(frame id, record field, file) of one set, files that ought to be there included."""
    has_flow = (training / "flow_occ").is_dir()
    has_labels = (training / "semantic").is_dir()
    folders = ("image_2", *(["flow_occ"] * has_flow), *(["semantic"] * has_labels))
    ids = {path.stem for folder in folders for path in (training / folder).glob("*_10.png")}
    for frame_id in sorted(ids):
        name = f"{frame_id}.png"
        yield frame_id, "image1", training / "image_2" / name
        if has_flow:
            later = frame_id.removesuffix("_10") + "_11.png"
            yield frame_id, "image2", training / "image_2" / later
            yield frame_id, "flow", training / "flow_occ" / name
            if (training / "flow_noc").is_dir():
                yield frame_id, "flow_noc", training / "flow_noc" / name
        if has_labels:
            yield frame_id, "labels", training / "semantic" / name
        for field, folder in (("objects", "obj_map"), ("instances", "instance")):
            if (training / folder / name).is_file():
                yield frame_id, field, training / folder / name


def convert(sources, output, val_fraction=0.1, seed=0, **how):
    """Convert KITTI folders to records below `output`; see `data_prep.writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `data_prep.writer.write`.
    """
    frames = find_frames(sources)
    return writer.write(
        "kitti",
        split.by_hash(frames, val_fraction, seed),
        output,
        sources=sources,
        settings={"val_fraction": val_fraction, "seed": seed},
        **how,
    )


def main():
    """The command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("Folder that holds data_scene_flow and data_semantics, or one such set")
    commands.run(main)
