"""A folder of your own frames, with masks or flow or both -> FlowSeg records.

    python -m data_prep.folder --source FOLDER --label_set classes.json --output RECORDS

    FOLDER/images/VIDEO/00001.jpg    8-bit colour: PNG, JPEG or PPM
    FOLDER/masks/VIDEO/00001.png     8-bit grey, one class id a pixel
    FOLDER/flow/VIDEO/00001.flo      `.flo`, or KITTI's 16-bit PNG

A mask and a flow file have the name of their image but for its suffix; either may be missing, for a
frame or for all. VIDEO stands for any subfolders or none: the frames of one subfolder fall into
one split, as neighbours in a video are too alike to score on; those in `images` itself fall one by
one.

The second frame of a frame is the one in its subfolder with the same name but for its last number,
which is higher by --next: 00001 and 00002, or 000003_10 and 000003_11. A frame without one is a
still, and may have no flow. An image without mask and flow makes no record. Files and folders whose
names begin with a dot are the system's; any other file that does not belong here is an error.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import options, writer
from data_prep.conversion.frames import Frame, find_next
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.errors import ArgumentError

SUFFIXES = {
    "images": (".png", ".jpg", ".jpeg", ".ppm"),
    "masks": (".png",),
    "flow": (".flo", ".png"),
}


def find_frames(
    source: str | Path,
    step: int = 1,
    numbering: str | None = "",
    known_ids: tuple[int, ...] = (),
) -> list[Frame]:
    """The frames with truth of one folder, told on the screen; nothing is opened yet.

    Args:
        source: folder, as `--source` takes it.
        step: how much higher the number of a second frame is; 0: there are stills alone.
        numbering: of the masks' ids; empty: none is chosen, so that masks are an error.
        known_ids: every id that a mask may hold.

    Returns:
        list of :class:`frames.Frame`, sorted by frame id: the path of its image below
        `images` without suffix.

    Raises:
        ValueError: no such folder; no truth in it; truth without its image, flow without its
            second frame; a file that does not belong there.
        OSError: a folder that cannot be read.
    """
    source = Path(source)
    if not (source / "images").is_dir():
        raise ArgumentError(
            "no such folder (source is the folder above it)", "source", path=source / "images"
        )
    found = {kind: _scan(source / kind, suffixes) for kind, suffixes in SUFFIXES.items()}
    images, masks, flow = found.values()
    for truth in (masks, flow):
        _refuse(truth, truth.keys() - images.keys(), f"its image is missing in {source / 'images'}")
    with_truth = masks.keys() | flow.keys()
    if not with_truth:
        raise ValueError(f"{source}: no truth here, neither masks/*.png nor flow/*.flo or *.png")
    if masks and not numbering:
        raise ArgumentError(
            "name the classes of these masks by label_set", "label_set", path=source / "masks"
        )
    following = find_next(images.values(), [step] if step else [])
    alone = [name for name in flow if images[name] not in following]
    _refuse(flow, alone, f"has no second frame in {source / 'images'} (next={step})")
    frames = []
    for name in sorted(with_truth):
        files = {"image1": images[name], "image2": following.get(images[name])}
        files |= {"flow": flow.get(name), "labels": masks.get(name)}
        frames.append(
            Frame(
                frame_id=name,
                files={field: path for field, path in files.items() if path},
                label_set=numbering if name in masks else "",
                known_ids=known_ids if name in masks else (),
                group=name.rpartition("/")[0],
            )
        )
    print(f"{source}: {len(images)} images, {len(masks)} masks, {len(flow)} flow files")
    used = {path for frame in frames for path in frame.files.values()}
    if left_out := [path for path in images.values() if path not in used]:
        print(f"left out: {len(left_out)} images without mask and flow, the first: {left_out[0]}")
    return frames


def _scan(folder, suffixes):
    """Name below `folder`, without suffix -> file; sorted by folder and name.

    Raises:
        ValueError: a file with another suffix, or two files of one name.
        OSError: a folder that cannot be read.
    """
    found = {}
    # Links to folders are followed: data sets are large and often lie elsewhere.
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix.lower() not in suffixes:
                raise ValueError(f"{path}: does not belong here ({', '.join(suffixes)} do)")
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise ValueError(f"{path}: beside {found[name].name}: keep one of the two")
            found[name] = path
    return found


def _raise(error):
    # A folder that is not there at all is one that the user does without.
    if not isinstance(error, FileNotFoundError):
        raise error


def _refuse(files, names, reason):
    """Raise ArgumentError with `reason`, naming the first of these files, if there is any."""
    names = sorted(names)
    if names:
        more = f" (and so for {len(names) - 1} more)" if names[1:] else ""
        raise ArgumentError(
            f"{reason}{more}: add it, or take this file away", "next", path=files[names[0]]
        )


def choose_ids(
    label_set: str, numbering: str | None = None, void_ids: Sequence[int] = ()
) -> tuple[str, tuple[int, ...]]:
    """What the ids of a folder's masks mean.

    Args:
        label_set: as `--label_set` takes it.
        numbering: one of its numberings; default: its first.
        void_ids: ids that mean nothing, beside those that the numbering itself knows.

    Returns:
        (numbering, known_ids): its name for the records; tuple of every id that is no error.

    Raises:
        ValueError: no such label set or numbering; a void id that is none, or is a class.
    """
    label_set = labels.load_label_set(label_set)
    numbering = numbering or next(iter(label_set.ids))
    if numbering not in label_set.ids:
        known = ", ".join(label_set.ids)
        raise ArgumentError(
            f"numbering={numbering}: label set {label_set.name} has {known}", "numbering"
        )
    names = {
        i: name
        for ids, name in zip(label_set.ids[numbering], label_set.names, strict=True)
        for i in ids
    }
    for i in void_ids:
        if not 0 <= i <= 255:
            raise ArgumentError(f"void_ids={i}: ids are in 0..255", "void_ids")
        if i in names:
            raise ArgumentError(
                f"void_ids={i}: is {names[i]} in label set {label_set.name}", "void_ids"
            )
    owners = labels.KNOWN_IDS.get(numbering, (labels.IGNORE_LABEL,))
    return numbering, tuple(sorted({*owners, *names, *void_ids}))


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    next: int = 1,  # as the flag is called
    label_set: str | None = None,
    numbering: str | None = None,
    void_ids: Sequence[int | str] = (),
    dataset: str | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Convert folders of a user's own to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames`, `choose_ids` and `writer.write`.
    """
    try:
        void_ids = sorted(map(int, void_ids))
    except ValueError as error:
        given = ",".join(void_ids)
        raise ArgumentError(f"void_ids={given}: not a list of numbers", "void_ids") from error
    known_ids = ()
    if label_set:
        numbering, known_ids = choose_ids(label_set, numbering, void_ids)
    numbering_of_masks = numbering if label_set else None
    frames = []
    for source in sources:
        frames += find_frames(source, step=next, numbering=numbering_of_masks, known_ids=known_ids)
    return writer.write(
        dataset or Path(sources[0]).resolve().name,
        options.split_by_hash(frames, val_fraction, seed),
        output,
        sources=sources,
        settings={
            "val_fraction": val_fraction,
            "seed": seed,
            "next": next,
            "numbering": numbering,
            "void_ids": void_ids,
        },
        **how,
    )


def define_flags() -> None:
    """Define the flags that only this reader has."""
    flags.DEFINE_integer(
        "next", 1, "How much higher a second frame's number is; 0: stills.", lower_bound=0
    )
    flags.DEFINE_string("label_set", None, "Classes of the masks: a built-in name or a JSON file.")
    flags.DEFINE_string("numbering", None, "Of --label_set, which the masks hold; default: first.")
    flags.DEFINE_list("void_ids", [], "Further ids of the masks that mean nothing, as 0,99.")
    flags.DEFINE_string("dataset", None, "Name in the records; default: the folder's.")


def main() -> None:
    """The command."""
    options.convert_from_flags(convert, "next", "label_set", "numbering", "void_ids", "dataset")


if __name__ == "__main__":
    options.define_flags("Folder that holds images, and masks or flow or both")
    define_flags()
    entry.run(main)
