"""FlyingChairs -> FlowSeg records.

    python -m data_prep.flyingchairs --source CHAIRS --output RECORDS

CHAIRS is the official, unpacked `FlyingChairs_release` (Dosovitskiy et al. 2015, FlowNet), the
folder that holds it, or its folder `data` with the pairs: `00001_img1.ppm`, `00001_img2.ppm`,
`00001_flow.flo`, or, as FlowNet2's examples are called, `0000000-img0.ppm`, `0000000-img1.ppm`,
`0000000-gt.flo`. Flow is known at every pixel; there are no labels.

`FlyingChairs_train_val.txt`, which the owners hand out beside the archive (a line for every pair,
in order: 1 is train, 2 is val), decides the split if it lies in CHAIRS, in the folder of the pairs
or in the parent of either. Without it the names and --seed decide.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame
from flowseg.cli import entry
from flowseg.errors import ArgumentError

# How the files of a pair end: the owners' way, and that of FlowNet2's examples.
ENDINGS = (
    {"image1": "_img1.ppm", "image2": "_img2.ppm", "flow": "_flow.flo"},
    {"image1": "-img0.ppm", "image2": "-img1.ppm", "flow": "-gt.flo"},
)
SPLIT_FILE = "FlyingChairs_train_val.txt"


def find_frames(source: str | Path) -> tuple[list[Frame], Path | None]:
    """The pairs of one FlyingChairs folder, and its official split; no pair is opened yet.

    Args:
        source: folder, as `--source` takes it.

    Returns:
        (frames, split_file): list of :class:`frames.Frame`, sorted by frame id; Path of
        the official split, or None.

    Raises:
        ValueError: a folder that is missing or holds no pairs.
    """
    source = Path(source)
    if not source.is_dir():
        raise ArgumentError("no such folder (source)", "source", path=source)
    for folder in (source, source / "data", source / "FlyingChairs_release" / "data"):
        if frames := _find_pairs(folder):
            above = (folder, folder.parent, source, source.resolve().parent)
            files = (place / SPLIT_FILE for place in above)
            return frames, next((file for file in files if file.is_file()), None)
    raise ValueError(
        f"{source}: no FlyingChairs pairs here or in its folder data (00001_img1.ppm, "
        "00001_img2.ppm, 00001_flow.flo)"
    )


def _find_pairs(folder):
    """A frame for every pair that has any file, files that ought to be there included."""
    frames = []
    for endings in ENDINGS:
        found = {
            path.name.removesuffix(ending)
            for ending in endings.values()
            for path in folder.glob(f"*{ending}")
        }
        frames += [
            Frame(pair, {field: folder / f"{pair}{ending}" for field, ending in endings.items()})
            for pair in found
        ]
    return sorted(frames)


def split_officially(frames: Sequence[Frame], file: Path) -> dict[str, list[Frame]]:
    """{"train": [...], "val": [...]} as the official split file says.

    Args:
        frames: all pairs, sorted.
        file: its Path.

    Raises:
        ValueError: not such a file, or one for another number of pairs.
    """
    codes = file.read_text(errors="replace").split()
    if set(codes) - {"1", "2"}:
        raise ValueError(f"{file}: not a split file: each line is 1 (train) or 2 (val)")
    if len(codes) != len(frames):
        raise ArgumentError(
            f"{len(codes)} lines for {len(frames)} pairs: complete the data set, or move this file "
            "away to let the names and seed decide the split",
            "seed",
            path=file,
        )
    return {
        name: [frame for frame, found in zip(frames, codes, strict=True) if found == code]
        for name, code in (("train", "1"), ("val", "2"))
    }


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    **how: Any,
) -> dict[str, Any]:
    """Convert FlyingChairs folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames`, `split_officially` and `writer.write`.
    """
    splits = {"train": [], "val": []}
    deciders = []
    for source in sources:
        frames, file = find_frames(source)
        if file:
            print(f"{source}: {file} decides the split, --val_fraction does not")
            found = split_officially(frames, file)
        else:
            print(f"{source}: without {SPLIT_FILE}, names and --seed decide the split")
            found = options.split_by_hash(frames, val_fraction, seed)
        deciders.append(SPLIT_FILE if file else val_fraction)
        for name, part in found.items():
            splits[name] += part
    return writer.write(
        "flyingchairs",
        split.as_told(splits, seed),
        output,
        sources=sources,
        settings={"val_fraction": deciders[0] if len(deciders) == 1 else deciders, "seed": seed},
        **how,
    )


def main() -> None:
    """The command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("FlyingChairs_release, or the folder of its pairs")
    entry.run(main)
