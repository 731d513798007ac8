"""Convert a folder of your own frames, with masks or flow or both, to FlowSeg records.

    python -m data_prep.folder --source FOLDER --label_set classes.json --output RECORDS

    FOLDER/images/VIDEO/00001.jpg    any image format that `flowseg.predict` reads
    FOLDER/masks/VIDEO/00001.png     one class id per pixel, or the classes' colours
    FOLDER/flow/VIDEO/00001.flo      `.flo`, or KITTI's 16-bit PNG

A mask or flow file has the name of its image, except for the suffix. Masks and flow are optional
for each frame. VIDEO stands for any path of subfolders, also an empty one. All frames of a
subfolder are assigned to the same split, because neighbouring video frames are too similar for fair
validation; frames directly in `images` are assigned individually.

The second frame of a pair is in the same subfolder and has the same name, except that its last
number is higher by --next: 00001 and 00002, or 000003_10 and 000003_11. A frame without a second
frame is a still and must not have flow. An image with neither mask nor flow gets no record. Files
and folders whose names begin with a dot, and those that operating systems leave, are ignored; any
other unexpected file is an error.

A mask is a PNG: grey values of up to 8 bits, or the indices of a palette, are the ids; colours must
be those of --label_set. --mask_values 0,255 is for masks whose values are not the ids of the
classes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import label_maps, options, writer
from data_prep.conversion.frames import Frame, find_next
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.data.images import IMAGE_SUFFIXES
from flowseg.errors import ArgumentError

SUFFIXES = {
    "images": IMAGE_SUFFIXES,
    "masks": (".png",),
    "flow": (".flo", ".png"),
}


def find_frames(
    source: str | Path,
    step: int = 1,
    mask_ids: label_maps.MaskIds | None = None,
) -> list[Frame]:
    """List the frames with ground truth of a folder without opening them, and print a summary.

    Args:
        source: folder, as given to `--source`.
        step: number of the second frame minus that of the first; 0: stills only.
        mask_ids: how the masks give ids, see `label_maps.choose_ids`; None: masks are an error.

    Returns:
        list of :class:`frames.Frame`, sorted by frame id: the path of its image below
        `images` without suffix.

    Raises:
        ValueError: the folder is missing or has no ground truth; ground truth has no image, or flow
            no second frame; or there is an unexpected file.
        OSError: a folder cannot be read.
    """
    source = Path(source)
    if not (source / "images").is_dir():
        raise ArgumentError(
            "no such folder (source is its parent folder)", "source", path=source / "images"
        )
    scans = {kind: _scan(source / kind, suffixes) for kind, suffixes in SUFFIXES.items()}
    images, masks, flow = scans.values()
    for truth in (masks, flow):
        _refuse(truth, truth.keys() - images.keys(), f"its image is missing in {source / 'images'}")
    with_truth = masks.keys() | flow.keys()
    if not with_truth:
        raise ValueError(
            f"{source}: no ground truth here: neither masks/*.png nor flow/*.flo or *.png"
        )
    if masks and not mask_ids:
        raise ArgumentError(
            "these masks need label_set, which names their classes",
            "label_set",
            path=source / "masks",
        )
    following = find_next(images.values(), [step] if step else [])
    without_second = [name for name in flow if images[name] not in following]
    _refuse(flow, without_second, f"has no second frame in {source / 'images'} (next={step})")
    frames = []
    for name in sorted(with_truth):
        files = {"image1": images[name], "image2": following.get(images[name])}
        files |= {"flow": flow.get(name), "labels": masks.get(name)}
        frames.append(
            Frame(
                frame_id=name,
                files={field: path for field, path in files.items() if path},
                group=name.rpartition("/")[0],
                **(mask_ids._asdict() if name in masks else {}),
            )
        )
    print(f"{source}: {len(images)} images, {len(masks)} masks, {len(flow)} flow files")
    used = {path for frame in frames for path in frame.files.values()}
    if skipped := [path for path in images.values() if path not in used]:
        print(f"skipped: {len(skipped)} images with neither mask nor flow, first: {skipped[0]}")
    return frames


def _scan(folder, suffixes):
    """Map names below `folder`, without suffix, to files; sorted by folder and name.

    Raises:
        ValueError: a file with another suffix, or two files with the same name.
        OSError: a folder cannot be read.
    """
    files = {}
    # Links to folders are followed: data sets are large and often stored elsewhere.
    for parent, folders, names in os.walk(folder, onerror=_raise_unless_missing, followlinks=True):
        folders[:] = sorted(name for name in folders if not system_files.is_system_file(name))
        for path in (Path(parent, name) for name in sorted(names)):
            if system_files.is_system_file(path):
                continue
            if path.suffix.lower() not in suffixes:
                is_jpeg = folder.name == "masks" and path.suffix.lower() in (".jpg", ".jpeg")
                raise ValueError(
                    f"{path}: unexpected file type (expected {', '.join(suffixes)})"
                    + (": save masks as PNG, because JPEG changes their ids" if is_jpeg else "")
                )
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise ValueError(f"{path}: same name as {files[name].name}: keep one of the two")
            files[name] = path
    return files


def _raise_unless_missing(error):
    # Masks and flow are optional, so their folders may be missing.
    if not isinstance(error, FileNotFoundError):
        raise error


def _refuse(files, names, reason):
    """Raise ArgumentError with `reason` for the first of these files, if there are any."""
    names = sorted(names)
    if names:
        more = f" (and {len(names) - 1} more files)" if names[1:] else ""
        raise ArgumentError(
            f"{reason}{more}: add it, or remove this file", "next", path=files[names[0]]
        )


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    next: int = 1,  # named like the flag
    label_set: str | None = None,
    numbering: str | None = None,
    void_ids: Sequence[int | str] = (),
    mask_values: Sequence[int | str] = (),
    dataset: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert folders of custom data to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames`, `label_maps.choose_ids` and `writer.write`.
    """
    void_ids = sorted(_numbers("void_ids", void_ids))
    mask_values = _numbers("mask_values", mask_values)
    if mask_values and not label_set:
        raise ArgumentError("mask_values needs label_set", "mask_values", "label_set")
    classes = labels.load_label_set(label_set) if label_set else None
    mask_ids = None
    if classes:
        mask_ids = label_maps.choose_ids(classes, numbering, void_ids, mask_values)
    frames = []
    for source in sources:
        frames += find_frames(source, step=next, mask_ids=mask_ids)
    return writer.write(
        dataset or Path(sources[0]).resolve().name,
        options.split_by_hash(frames, val_fraction, seed),
        output,
        sources=sources,
        settings={
            "val_fraction": val_fraction,
            "seed": seed,
            "next": next,
            "numbering": mask_ids.label_set if mask_ids else numbering,
            "void_ids": void_ids,
            "mask_values": mask_values,
        },
        label_set=classes,
        **kwargs,
    )


def _numbers(name, values):
    try:
        return list(map(int, values))
    except ValueError as error:
        raise ArgumentError(f"{name}={','.join(values)}: not a list of numbers", name) from error


def define_flags() -> None:
    """Define the flags specific to this converter."""
    flags.DEFINE_integer(
        "next", 1, "Number of the second frame minus that of the first; 0: stills.", lower_bound=0
    )
    flags.DEFINE_string(
        "label_set", None, "Classes of the masks: a built-in label set or a JSON file."
    )
    flags.DEFINE_string("numbering", None, "Numbering of --label_set in the masks; default: first.")
    flags.DEFINE_list("void_ids", [], "Further mask ids to treat as void, such as 0,99.")
    flags.DEFINE_list(
        "mask_values",
        [],
        "Stored value of each class of --label_set, in its order, for masks that do not hold the "
        "ids, such as 0,255.",
    )
    flags.DEFINE_string("dataset", None, "Data set name in the records; default: the folder's.")


def main() -> None:
    """Run the command."""
    names = ("next", "label_set", "numbering", "void_ids", "mask_values", "dataset")
    options.convert_from_flags(convert, *names)


if __name__ == "__main__":
    options.define_flags("Folder that contains images, and masks or flow or both")
    define_flags()
    entry.run(main)
