"""Convert FlyingThings3D, in full or as the subset, to FlowSeg records.

    python -m data_prep.flyingthings3d --source THINGS --output RECORDS

THINGS is the folder into which the official archives were unpacked (Mayer et al. 2016), in full:

    frames_cleanpass/TRAIN/A/0000/left/0006.png
    optical_flow/TRAIN/A/0000/into_future/left/OpticalFlowIntoFuture_0006_L.pfm
    optical_flow/TRAIN/A/0000/into_past/left/OpticalFlowIntoPast_0007_L.pfm

or the `FlyingThings3D_subset`, which omits extremely difficult samples:

    train/image_clean/left/0000000.png
    train/flow/left/into_future/0000000.flo    train/flow/left/into_past/0000001.flo
    train/flow_occlusions/left/into_future/0000000.png

--passes chooses clean, final or both, and --sides left, right or both. TRAIN and `train` become
train, TEST and `val` become val. The flow of a pair is `into_future` of its first frame; its
backward flow is `into_past` of its second frame. PFM files are stored as `.flo`. The subset numbers
all frames consecutively: a video ends where neither flow leads from a frame to the next one.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import options, split, videos, writer
from data_prep.conversion.frames import Encoder, Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import flow_io
from flowseg.errors import ArgumentError

PASSES, SIDES = ("clean", "final"), ("left", "right")
# Folder of the full form, of the subset -> split.
_FULL, _SUBSET = {"TRAIN": "train", "TEST": "val"}, {"train": "train", "val": "val"}
# Is it the full form -> digits of the frame numbers.
_DIGITS = {True: 4, False: 7}


def find_frames(
    sources: Iterable[str | Path],
    passes: Sequence[str] = ("clean",),
    sides: Sequence[str] = ("left",),
) -> dict[str, list[Frame]]:
    """List the frames of FlyingThings3D folders without opening any, and print what is missing.

    Args:
        sources: folders, each as given to `--source`.
        passes: clean, final, or both.
        sides: left, right, or both cameras.

    Returns:
        dict, split name -> list of :class:`frames.Frame`.

    Raises:
        ValueError: a folder is missing, holds neither form or both, or lacks a pass or a side.
    """
    splits = {"train": [], "val": []}
    for source in map(videos.check_folder, sources):
        subset = source / "FlyingThings3D_subset"
        subset = subset if subset.is_dir() else source
        full = bool(system_files.glob(source, "frames_*pass/T*/*/*"))
        if full == bool(system_files.glob(subset, "*/image_*/*")):
            layouts = "both the full set and the subset" if full else "no FlyingThings3D"
            raise ArgumentError(
                f"{layouts} here: source is the folder that contains frames_cleanpass and "
                "optical_flow, or FlyingThings3D_subset",
                "source",
                path=source,
            )
        listed = _full_videos(source, passes, sides) if full else _subset(subset, passes, sides)
        of_source, flow_files = [], set()
        for split_name, video, folder, files, numbers in listed:
            frames = videos.list_frames(
                video,
                _DIGITS[full],
                functools.partial(_image, folder, _DIGITS[full]),
                files,
                numbers,
            )
            splits[split_name] += map(_with_encoders, frames)
            of_source += frames
            flow_files |= {*files["flow"].values(), *files["backward_flow"].values()}
        if not flow_files:
            folder = "optical_flow" if full else "flow"
            raise ValueError(f"{source}: no flow of these frames here (folder {folder})")
        videos.report(source, of_source, flow_files)
    return splits


def _image(folder, digits, number):
    return folder / f"{number:0{digits}d}.png"


def _full_videos(source, passes, sides):
    """Yield (split, video, folder of its images, files, further numbers) of the full form."""
    known = [name for name in PASSES if (source / f"frames_{name}pass").is_dir()]
    for name in videos.choose(passes, known, "passes", source):
        images, flow = source / f"frames_{name}pass", source / "optical_flow"
        _note_other_sets(images)
        scenes = {
            path.relative_to(parent)
            for parent in (images, flow)
            for path in system_files.glob(parent, "T*/*/*")
            if path.is_dir()
        }
        for scene in sorted(scenes):
            inside = [
                side
                for side in SIDES
                if (images / scene / side).is_dir()
                or (flow / scene / "into_future" / side).is_dir()
            ]
            for side in videos.choose(sides, inside, "sides", images / scene):
                files = {"image1": videos.numbered(images / scene / side, "*.png")}
                for field, word in (("flow", "Future"), ("backward_flow", "Past")):
                    files[field] = videos.numbered(
                        flow / scene / f"into_{word.lower()}" / side,
                        f"OpticalFlowInto{word}_*_{side[0].upper()}.pfm",
                    )
                video = f"{scene.as_posix()}/{name}/{side}"
                yield _FULL[scene.parts[0]], video, images / scene / side, files, ()


def _note_other_sets(images):
    """Print the folders of Driving and Monkaa, whose archives have the same top folders."""
    others = [path.name for path in system_files.glob(images, "*") if path.name not in _FULL]
    if others:
        print(f"{images}: skipped, not of FlyingThings3D: {', '.join(others)}")


def _subset(source, passes, sides):
    """Yield (split, video, folder of its images, files, frame numbers) of the subset."""
    for folder in (source / name for name in _SUBSET if (source / name).is_dir()):
        known = [name for name in PASSES if (folder / f"image_{name}").is_dir()]
        for name in videos.choose(passes, known, "passes", folder):
            parent = folder / f"image_{name}"
            inside = [side for side in SIDES if (parent / side).is_dir()]
            for side in videos.choose(sides, inside, "sides", parent):
                images = videos.numbered(parent / side, "*.png")
                flow, backward = (
                    videos.numbered(folder / "flow" / side / direction, "*.flo")
                    or videos.numbered(folder / "flow" / side / direction, "*.pfm")
                    for direction in ("into_future", "into_past")
                )
                occlusions = folder / "flow_occlusions" / side / "into_future"
                occlusion = {n: _image(occlusions, 7, n) for n in flow if occlusions.is_dir()}
                files = {
                    "image1": images,
                    "flow": flow,
                    "backward_flow": backward,
                    "occlusion": occlusion,
                }
                for run in _find_videos(images, flow, backward):
                    part = {
                        f: {n: paths[n] for n in run if n in paths} for f, paths in files.items()
                    }
                    video = f"{folder.name}/{name}/{side}/{run[0]:07d}"
                    yield _SUBSET[folder.name], video, parent / side, part, run


def _find_videos(images, flow, backward):
    """Yield the range of frame numbers of each video: those that flow links to one another."""
    # A frame may have flow, but no image: that is a missing file.
    numbers = {*images, *flow, *(n + 1 for n in flow), *backward, *(n - 1 for n in backward)}
    start = None
    for number in sorted(numbers):
        start = number if start is None else start
        if number not in flow and number + 1 not in backward:
            yield range(start, number + 1)
            start = None


def _with_encoders(frame):
    """Return the frame, with encoders of the files that records cannot store as they are."""
    encoders = {
        field: Encoder(encode_pfm)
        for field, path in frame.files.items()
        if field in ("flow", "backward_flow") and path.suffix == ".pfm"
    }
    if "occlusion" in frame.files:
        encoders["occlusion"] = Encoder(videos.encode_ids)
    return frame._replace(encoders=encoders)


def encode_pfm(path: Path) -> bytes:
    """Content of a `.flo` file with the flow of a PFM file.

    Raises:
        ValueError: not a complete PFM of three channels.
    """
    flow = flow_io.decode_pfm_flow(path.read_bytes(), path)
    return flow_io.encode_flo(flow[..., :2], flow[..., 2])


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    seed: int = 0,
    passes: Sequence[str] = ("clean",),
    sides: Sequence[str] = ("left",),
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert FlyingThings3D folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        "flyingthings3d",
        split.shuffle(find_frames(sources, passes, sides), seed),
        output,
        sources=sources,
        settings={"passes": list(passes), "sides": list(sides), "seed": seed},
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "passes", "sides")


if __name__ == "__main__":
    options.define_flags(
        "Folder with frames_cleanpass and optical_flow, or FlyingThings3D_subset",
        official_split=True,
    )
    flags.DEFINE_list("passes", ["clean"], "Passes to convert: clean, final, or both.")
    flags.DEFINE_list("sides", ["left"], "Cameras to convert: left, right, or both.")
    entry.run(main)
