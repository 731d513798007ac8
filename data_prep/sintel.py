"""Convert MPI Sintel to FlowSeg records.

    python -m data_prep.sintel --source SINTEL --output RECORDS

SINTEL is the official, unpacked `MPI-Sintel-complete` (Butler et al. 2012):

    training/clean/alley_1/frame_0001.png       training/final/alley_1/frame_0001.png
    training/flow/alley_1/frame_0001.flo
    training/occlusions/alley_1/frame_0001.png  training/invalid/alley_1/frame_0001.png

--passes chooses clean, final or both. A scene is one video in each pass; both are assigned to the
same split. Pixels above 0 in `invalid` have no known flow, and those above 0 in `occlusions` are
not visible in the second frame. Both folders are optional. The last frame of a scene has no flow.

With --testing, the frames of `test/`, which have no ground truth, are converted to `test-*`
records.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.conversion import options, split, videos, writer
from data_prep.conversion.frames import Encoder, Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import flow_io, masks
from flowseg.errors import ArgumentError

PASSES = ("clean", "final")
# Folders of Sintel's stereo set, whose maps `occlusions` have the same names as those of the flow.
_STEREO = ("clean_left", "final_left", "disparities", "outofframe")


def find_frames(
    sources: Iterable[str | Path], passes: Sequence[str] = PASSES, testing: bool = False
) -> list[Frame]:
    """List the frames of Sintel folders without opening any file, and print what is missing.

    Args:
        sources: folders, each as given to `--source`.
        passes: clean, final, or both.
        testing: list the frames of `test/`, without ground truth, instead of `training/`.

    Returns:
        list of :class:`frames.Frame`, by pass, scene and number within a source; frame ids are
        like clean/alley_1/0001.

    Raises:
        ValueError: a folder is missing, contains no Sintel, or not one of the passes.
    """
    frames = []
    for source in map(videos.check_folder, sources):
        folder = source / ("test" if testing else "training")
        known = [name for name in PASSES if system_files.glob(folder / name, "*/frame_*.png")]
        if not known or not (testing or (folder / "flow").is_dir()):
            raise ArgumentError(
                f"no MPI Sintel here ({folder.name}/clean/SCENE/frame_0001.png"
                + ("" if testing else " and training/flow")
                + "): source is the unpacked MPI-Sintel-complete",
                "source",
                path=source,
            )
        if stereo := [name for name in _STEREO if (folder / name).is_dir()]:
            raise ValueError(
                f"{folder}: Sintel's stereo set ({stereo[0]}) is unpacked into the same folder, "
                "and its occlusion maps have the same names: unpack each set again into a folder "
                "of its own"
            )
        of_source, flow_files = [], set()
        for name in videos.choose(passes, known, "passes", folder):
            for scene in _scenes(folder, name):
                of_source += _list_video(folder, name, scene, flow_files)
        if not testing:
            videos.report(source, of_source, flow_files)
        frames += of_source
    return frames


def _scenes(folder, name):
    """Return the names of the scenes of a pass, including those with flow but without a folder."""
    paths = [*system_files.glob(folder / name, "*"), *system_files.glob(folder / "flow", "*")]
    return sorted({path.name for path in paths if path.is_dir()})


def _list_video(folder, name, scene, flow_files):
    """List the frames of a scene in one pass, and add its flow files to `flow_files`."""

    def file(kind, number, ending="png"):
        return folder / kind / scene / f"frame_{number:04d}.{ending}"

    flow = videos.numbered(folder / "flow" / scene, "frame_*.flo")
    flow_files |= set(flow.values())
    files = {"image1": videos.numbered(folder / name / scene, "frame_*.png"), "flow": flow}
    if (folder / "occlusions").is_dir():
        files["occlusion"] = {number: file("occlusions", number) for number in flow}
    frames = videos.list_frames(
        f"{name}/{scene}", 4, lambda number: file(name, number), files, group=scene
    )
    if not (folder / "invalid").is_dir():
        return frames
    return [
        frame._replace(
            encoders={"flow": Encoder(encode_flow, (file("invalid", frame.frame_index),))}
        )
        if "flow" in frame.files
        else frame
        for frame in frames
    ]


def encode_flow(path: Path, invalid: Path) -> bytes:
    """Content of a `.flo` file in which the flow is unknown where the map `invalid` is above 0.

    Raises:
        ValueError: one of the files is damaged, or they differ in size.
    """
    data = path.read_bytes()
    flow, marked = flow_io.decode_flo(data, path), masks.decode(invalid.read_bytes(), invalid) > 0
    if marked.shape != flow.shape[:2]:
        sizes = ("x".join(map(str, array.shape[:2])) for array in (marked, flow))
        raise ValueError("{}: is {}, but {} is {}".format(invalid, next(sizes), path.name, *sizes))
    return flow_io.encode_flo(flow[..., :2], flow[..., 2] * ~marked) if marked.any() else data


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    passes: Sequence[str] = PASSES,
    testing: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert Sintel folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    frames = find_frames(sources, passes, testing)
    settings = {"passes": list(passes), "seed": seed}
    if testing:
        splits, settings = split.shuffle({"test": frames}, seed), settings | {"testing": True}
    else:
        splits = options.split_by_hash(frames, val_fraction, seed, "scenes")
        settings["val_fraction"] = val_fraction
    return writer.write("sintel", splits, output, sources=sources, settings=settings, **kwargs)


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "passes", "testing")


if __name__ == "__main__":
    options.define_flags("Folder MPI-Sintel-complete, which contains training and test")
    flags.DEFINE_list("passes", list(PASSES), "Passes to convert: clean, final, or both.")
    flags.DEFINE_bool(
        "testing", False, "Convert the frames of test/, without ground truth, as split test."
    )
    entry.run(main)
