"""Convert Virtual KITTI 2, or synthetic street videos, to FlowSeg records.

    python -m data_prep.vkitti2 --source VKITTI2 --output RECORDS

VKITTI2 is the folder into which the official archives (Cabon et al. 2020: rgb, forwardFlow,
backwardFlow, classSegmentation, instanceSegmentation) were unpacked, side by side or each into its
own `vkitti_2.0.3_rgb` etc. All but rgb are optional:

    Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg
    Scene01/clone/frames/forwardFlow/Camera_0/flow_00000.png
    Scene01/clone/frames/backwardFlow/Camera_0/backwardFlow_00001.png
    Scene01/clone/frames/classSegmentation/Camera_0/classgt_00000.png
    Scene01/clone/frames/instanceSegmentation/Camera_0/instancegt_00000.png

--scenes, --variations and --cameras choose the videos. All videos of a scene are assigned to the
same split, because they show the same street. Flow has Virtual KITTI 2's own encoding, which is not
KITTI's. Labels are those of the label set vkitti2; trainings and scores with `--label_set
cityscapes` map them to Cityscapes' classes. The last frame of a video has no flow.

Videos that `python -m data_prep.scenes --frames N` wrote have the same folders. Their `scenes.json`
states that their flow has KITTI's encoding, and their labels Cityscapes' ids.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from data_prep.conversion import options, videos, writer
from data_prep.conversion.frames import Encoder, Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.errors import ArgumentError

SETTINGS = "scenes.json"


class Kind(NamedTuple):
    """What differs between Virtual KITTI 2 and synthetic street videos.

    Attributes:
        dataset: name in the records.
        flow_format: encoding of the flow.
        label_set: numbering of the labels.
        suffix: of the images.
        instances: record field of the instance maps.
        instances_format: their encoding, see `flowseg.data.records`.
    """

    dataset: str
    flow_format: str
    label_set: str
    suffix: str
    instances: str
    instances_format: str


# Virtual KITTI 2's instance maps hold the id of the tracked car + 1 in 8 bits; 0 is no car.
VKITTI2 = Kind("vkitti2", "vkitti2", "vkitti2", ".jpg", "objects", "kitti")


def find_frames(
    sources: Iterable[str | Path],
    scenes: Sequence[str] = (),
    variations: Sequence[str] = ("clone",),
    cameras: Sequence[str] = ("0",),
) -> tuple[list[Frame], Kind]:
    """List the frames of the chosen videos without opening any, and print what is missing.

    Args:
        sources: folders, each as given to `--source`.
        scenes: numbers of the scenes; default: all.
        variations: names of the variations.
        cameras: numbers of the cameras.

    Returns:
        (frames, kind): list of :class:`frames.Frame`, by video and number within a source, with ids
        like Scene01/clone/Camera_0/00000; the :class:`Kind` of all sources.

    Raises:
        ValueError: a folder is missing, contains no such videos, or not one of those chosen; or
            sources or files of different data sets are mixed.
    """
    frames, kinds = [], {}
    for source in map(videos.check_folder, sources):
        kind = _read_kind(source)
        kinds.setdefault(kind, source)
        # The archives may be unpacked side by side.
        bases = [
            source,
            *(path for path in system_files.glob(source, "vkitti_2*") if path.is_dir()),
        ]
        of_source, flow_files = [], set()
        for video in _choose(source, bases, scenes, variations, cameras):
            if kind == VKITTI2:
                _check_colours(bases, video)
            of_video, paths = _list_video(bases, video, kind)
            of_source += of_video
            flow_files |= paths
        if not any({"flow", "backward_flow", "labels"} & frame.files.keys() for frame in of_source):
            raise ValueError(
                f"{source}: these videos have neither flow nor labels (folders forwardFlow, "
                "backwardFlow, classSegmentation)"
            )
        videos.report(source, of_source, flow_files)
        frames += of_source
    if len(kinds) > 1:
        raise ArgumentError(
            f"{' and '.join(map(str, kinds.values()))}: different encodings (Virtual KITTI 2 and "
            "synthetic videos?): convert each source into its own output",
            "source",
            "output",
        )
    return frames, next(iter(kinds))


def _read_kind(source):
    """Return the Kind of a source: that of its `scenes.json`, if it has one."""
    path = source / SETTINGS
    if not path.is_file():
        return VKITTI2
    try:
        settings = json.loads(path.read_bytes())
        flow_format, numbering = settings.get("flow_encoding"), settings.get("labels")
        instances = settings.get("instances", "kitti")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: damaged: write the videos again") from error
    if flow_format is None:
        raise ArgumentError(
            "synthetic frame pairs in KITTI's layout, not videos (flow_encoding is missing): "
            "convert this source with data_prep.kitti",
            "source",
            path=path,
        )
    for name, value, known in (
        ("flow_encoding", flow_format, ("kitti", "vkitti2")),
        ("labels", numbering, labels.KNOWN_IDS),
        ("instances", instances, ("kitti", "cityscapes")),
    ):
        if value not in known:
            raise ValueError(f"{path}: unknown {name} {value!r} (known: {', '.join(known)})")
    return Kind("street_video", flow_format, numbering, ".png", "instances", instances)


def _choose(source, bases, scenes, variations, cameras):
    """Return the chosen videos that exist, as (scene, variation, camera) folder names."""
    known = {}
    for base in bases:
        for path in system_files.glob(base, "Scene*/*/frames/rgb/Camera_*"):
            scene, variation, *_, camera = path.relative_to(base).parts
            known.setdefault(scene, {}).setdefault(variation, set()).add(camera)
    if not known:
        raise ArgumentError(
            "no Virtual KITTI 2 here (Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg): source is "
            "the folder that contains Scene01 (version 1 has other folders, and is not read)",
            "source",
            path=source,
        )
    names = {scene.removeprefix("Scene"): scene for scene in known}
    # Scenes may be given as 1, 01 or Scene01.
    full = {name.lstrip("0"): name for name in names}
    requested = [scene.removeprefix("Scene") for scene in scenes] or sorted(names)
    requested = [full.get(scene.lstrip("0"), scene) for scene in requested]
    chosen = []
    for number in videos.choose(requested, names, "scenes", source):
        of_scene, folder = known[names[number]], source / names[number]
        for variation in videos.choose(variations, of_scene, "variations", folder):
            numbers = {name.removeprefix("Camera_") for name in of_scene[variation]}
            for camera in videos.choose(cameras, numbers, "cameras", folder / variation):
                chosen.append((names[number], variation, f"Camera_{camera}"))
    return chosen


def _check_colours(bases, video):
    """Raise ValueError if a scene's `colors.txt` gives a class another colour than the label set.

    It has a line `NAME R G B` for each class. Other lines, such as those of single cars, are not
    compared.
    """
    expected = {
        name.replace(" ", ""): colour
        for name, colour in zip(labels.VKITTI2.names, labels.VKITTI2.palette, strict=True)
    }
    for path in (base / video[0] / video[1] / "colors.txt" for base in bases):
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else ()
        for name, *colour in (line.split() for line in lines if line.strip()):
            known = expected.get(name.lower())
            if known and colour != [str(value) for value in known]:
                raise ValueError(
                    f"{path}: {name} has the colour {' '.join(colour)}, but Virtual KITTI 2's is "
                    f"{' '.join(map(str, known))}: is it of another version?"
                )


def _list_video(bases, video, kind):
    """Return the frames of a video, and all its flow files."""
    scene, variation, camera = video

    def folder(name):
        folders = [base / scene / variation / "frames" / name / camera for base in bases]
        return next((path for path in folders if path.is_dir()), folders[0])

    rgb = folder("rgb")
    other = ".png" if kind.suffix == ".jpg" else ".jpg"
    if strange := system_files.glob(rgb, f"*{other}"):
        raise ValueError(
            f"{strange[0]}: Virtual KITTI 2's images are .jpg files, and those of synthetic videos "
            f".png files, which have {SETTINGS} in their top folder: are two sets unpacked into "
            "one folder, or is that file missing?"
        )
    files = {
        field: videos.numbered(folder(name), pattern)
        for field, name, pattern in (
            ("image1", "rgb", f"rgb_*{kind.suffix}"),
            ("flow", "forwardFlow", "flow_*.png"),
            ("backward_flow", "backwardFlow", "backwardFlow_*.png"),
            ("occlusion", "occlusion", "occlusion_*.png"),
            ("labels", "classSegmentation", "classgt_*.png"),
            (kind.instances, "instanceSegmentation", "instancegt_*.png"),
        )
    }
    frames = videos.list_frames(
        "/".join(video),
        5,
        lambda number: rgb / f"rgb_{number:05d}{kind.suffix}",
        files,
        group=scene,
        flow_format=kind.flow_format,
        label_set=kind.label_set,
        instances_format=kind.instances_format,
    )
    # The official maps of cars are palette images.
    encoders = {"objects": Encoder(videos.encode_ids)}
    frames = [f._replace(encoders=encoders) if "objects" in f.files else f for f in frames]
    return frames, {*files["flow"].values(), *files["backward_flow"].values()}


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    scenes: Sequence[str] = (),
    variations: Sequence[str] = ("clone",),
    cameras: Sequence[str] = ("0",),
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert Virtual KITTI 2 folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    frames, kind = find_frames(sources, scenes, variations, cameras)
    return writer.write(
        kind.dataset,
        options.split_by_hash(frames, val_fraction, seed, "scenes"),
        output,
        sources=sources,
        settings={
            "scenes": list(scenes),
            "variations": list(variations),
            "cameras": list(cameras),
            "val_fraction": val_fraction,
            "seed": seed,
        },
        label_set=labels.LABEL_SETS.get(kind.label_set),
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "scenes", "variations", "cameras")


if __name__ == "__main__":
    options.define_flags("Folder that contains Scene01, Scene02, ...")
    flags.DEFINE_list("scenes", [], "Scenes to convert, such as 01,20; default: all.")
    flags.DEFINE_list("variations", ["clone"], "Variations to convert, such as clone,fog.")
    flags.DEFINE_list("cameras", ["0"], "Cameras to convert: 0, 1, or both.")
    entry.run(main)
