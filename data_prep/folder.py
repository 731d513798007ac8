"""Convert a folder of your own frames, with masks or flow or both, to FlowSeg records.

    python -m data_prep.folder --source FOLDER --label_set classes.json --output RECORDS

    FOLDER/images/VIDEO/00001.jpg    any image format that `flowseg.predict` reads
    FOLDER/masks/VIDEO/00001.png     one class id per pixel, or the classes' colours
    FOLDER/flow/VIDEO/00001.flo      `.flo`, or KITTI's 16-bit PNG
    FOLDER/images/drive.mp4          a video, in place of the folder images/drive

A mask or flow file has the name of its image, except for the suffix. Masks and flow are optional
for each frame. VIDEO stands for any path of subfolders, also an empty one. All frames of a
subfolder are assigned to the same split, because neighbouring video frames are too similar for fair
validation; frames directly in `images` are assigned individually. A subfolder whose images differ
only in the last number of their names is a video, with these numbers in the records.

The masks and flow of a video file are in folders with its name: masks/drive/000012.png belongs to
frame 12 of images/drive.mp4. The first frame has number 0 (--first_frame); zeros before the number
and text around it do not matter. A damaged video is an error.

The second frame of a pair is in the same subfolder and has the same name, except that its last
number is higher by --next: 00001 and 00002, or 000003_10 and 000003_11. A frame without a second
frame is a still and must not have flow. An image with neither mask nor flow gets no record, except
with --unlabelled. Files
and folders whose names begin with a dot, and those that operating systems leave, are ignored; any
other unexpected file is an error.

A mask is a PNG: grey values of up to 8 bits, or the indices of a palette, are the ids; colours must
be those of --label_set. --mask_values 0,255 is for masks whose values are not the ids of the
classes. --instance_divisor 1000 is for masks of class * 1000 + instance, usually of 16 bits: class
and instance are stored.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import (
    instance_ids,
    label_maps,
    options,
    video_files,
    videos,
    writer,
)
from data_prep.conversion.frames import Frame, find_next
from data_prep.conversion.scan import scan
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.data.images import IMAGE_SUFFIXES
from flowseg.errors import ArgumentError
from flowseg.media.video import VIDEO_SUFFIXES

SUFFIXES = {
    "images": IMAGE_SUFFIXES + VIDEO_SUFFIXES,
    "masks": (".png",),
    "flow": (".flo", ".png"),
}


def find_frames(
    source: str | Path,
    step: int = 1,
    mask_ids: label_maps.MaskIds | None = None,
    divisor: int | None = None,
    unlabelled: bool = False,
    first_frame: int = 0,
    create_folder: Callable[[], Path] = video_files.no_folder,
) -> list[Frame]:
    """List the frames with ground truth of a folder without opening them, and print a summary.

    The frames of video files are extracted.

    Args:
        source: folder, as given to `--source`.
        step: number of the second frame minus that of the first; 0: stills only.
        mask_ids: how the masks give ids, see `label_maps.choose_ids`; None: masks are an error.
        divisor: the masks hold class * divisor + instance; None: they hold classes.
        unlabelled: list the images without ground truth, too.
        first_frame: number of the first frame of a video file.
        create_folder: called if there are video files; returns the folder for their frames.
            Default: an error.

    Returns:
        list of :class:`frames.Frame`, sorted by frame id: the path of its image below
        `images` without suffix.

    Raises:
        ValueError: the folder is missing or has no ground truth; ground truth has no image, or flow
            no second frame; or there is an unexpected file.
        OSError: a folder cannot be read, or a frame not written.
    """
    source = Path(source)
    if not (source / "images").is_dir():
        raise ArgumentError(
            "no such folder (source is its parent folder)", "source", path=source / "images"
        )
    images, masks, flow, errors = _find_files(source, step, unlabelled, first_frame, create_folder)
    for truth in (masks, flow):
        _refuse(truth, truth.keys() - images.keys(), f"its image is missing in {source / 'images'}")
    if not (masks or flow or (unlabelled and images)):
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
    numbers = videos.number_videos(images)
    frames = []
    for name in sorted(images if unlabelled else masks.keys() | flow.keys()):
        files = {"image1": images[name], "image2": following.get(images[name])}
        files |= {"flow": flow.get(name), "labels": masks.get(name)}
        files = {field: path for field, path in files.items() if path}
        frame = Frame(name, files, group=name.rpartition("/")[0])
        if name in masks:
            frame = frame._replace(**mask_ids._asdict())
            frame = instance_ids.with_instances(frame, divisor) if divisor else frame
        if name in numbers:
            second = numbers[name] + step if "image2" in files else None
            frame = frame._replace(video=frame.group, frame_index=numbers[name], next_index=second)
        if name in errors:
            frame = video_files.with_error(frame, errors[name])
        frames.append(frame)
    print(f"{source}: {len(images)} images, {len(masks)} masks, {len(flow)} flow files")
    used = {path for frame in frames for path in frame.files.values()}
    if skipped := [path for path in images.values() if path not in used]:
        print(f"skipped: {len(skipped)} images with neither mask nor flow, first: {skipped[0]}")
    return frames


def _find_files(source, step, unlabelled, first_frame, create_folder):
    """Map names to images (frames of video files are extracted), masks and flow, and to errors."""
    images, masks, flow = (scan(source / kind, suffixes) for kind, suffixes in SUFFIXES.items())
    clips = {name: path for name, path in images.items() if path.suffix.lower() in VIDEO_SUFFIXES}
    if not clips:
        return images, masks, flow, {}
    images = _without(clips, images)
    masks, flow = (video_files.by_number(truth, clips) for truth in (masks, flow))
    extracted, errors = video_files.extract_all(
        clips, flow | masks, create_folder(), step, first_frame, everything=unlabelled
    )
    return images | extracted, masks, flow, errors


def _without(clips, images):
    """Return the images that are no videos; a video and a folder of its name are an error."""
    images = {name: path for name, path in images.items() if name not in clips}
    for name, path in clips.items():
        if any(image.startswith(f"{name}/") for image in images):
            raise ValueError(
                f"{path}: the folder {path.with_suffix('').name} beside it holds images, too: keep "
                "the video or the folder"
            )
    return images


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
    instance_divisor: int | None = None,
    unlabelled: bool = False,
    first_frame: int = 0,
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
    settings = {
        "val_fraction": val_fraction,
        "seed": seed,
        "next": next,
        "numbering": mask_ids.label_set if mask_ids else numbering,
        "void_ids": void_ids,
        "mask_values": mask_values,
    }
    given = {"divisor": instance_divisor, "unlabelled": unlabelled, "first_frame": first_frame}
    settings |= {name: value for name, value in given.items() if value}
    frames, names = [], set()
    with video_files.temporary_folder(output) as create_folder:
        for i, source in enumerate(sources):
            of_source = find_frames(
                source, next, mask_ids, create_folder=lambda i=i: create_folder() / str(i), **given
            )
            # Subfolders of the same name are different videos, but stay in one split.
            frames += [
                frame._replace(video=f"{frame.video}#{i}") if frame.video in names else frame
                for frame in of_source
            ]
            names |= {frame.video for frame in of_source} - {""}
        return writer.write(
            dataset or Path(sources[0]).resolve().name,
            options.split_by_hash(frames, val_fraction, seed),
            output,
            sources=sources,
            settings=settings,
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
    flags.DEFINE_integer(
        "instance_divisor",
        None,
        "The masks hold class * this number + instance, such as 1000; instances are stored, too.",
        lower_bound=2,
    )
    flags.DEFINE_bool("unlabelled", False, "Also convert images with neither mask nor flow.")
    flags.DEFINE_integer(
        "first_frame", 0, "Number of the first frame of video files in --source.", lower_bound=0
    )
    flags.DEFINE_string("dataset", None, "Data set name in the records; default: the folder's.")


def main() -> None:
    """Run the command."""
    names = ("next", "label_set", "numbering", "void_ids", "mask_values", "instance_divisor")
    options.convert_from_flags(convert, *names, "unlabelled", "first_frame", "dataset")


if __name__ == "__main__":
    options.define_flags("Folder that contains images, and masks or flow or both")
    define_flags()
    entry.run(main)
