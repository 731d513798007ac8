"""Convert FlyingChairs to FlowSeg records.

    python -m data_prep.flyingchairs --source CHAIRS --output RECORDS

CHAIRS is the official, unpacked `FlyingChairs_release` (Dosovitskiy et al. 2015, FlowNet), the
folder that contains it, or its folder `data` with the pairs: `00001_img1.ppm`, `00001_img2.ppm`,
`00001_flow.flo`, or, named like FlowNet2's examples, `0000000-img0.ppm`, `0000000-img1.ppm`,
`0000000-gt.flo`. Flow is known at every pixel; there are no labels.

`FlyingChairs_train_val.txt`, which is distributed with the archive (one line per pair, in order:
1 is train, 2 is val), decides the split if it is in CHAIRS, in the folder of the pairs or in the
parent of either. Without it, the frames are split by a hash of their names and --seed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion import options, split, writer
from data_prep.conversion.frames import Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.errors import ArgumentError

# File name endings of a pair: the official ones, and those of FlowNet2's examples.
ENDINGS = (
    {"image1": "_img1.ppm", "image2": "_img2.ppm", "flow": "_flow.flo"},
    {"image1": "-img0.ppm", "image2": "-img1.ppm", "flow": "-gt.flo"},
)
SPLIT_FILE = "FlyingChairs_train_val.txt"


def find_frames(source: str | Path) -> tuple[list[Frame], Path | None]:
    """Find the pairs of a FlyingChairs folder and its split file without opening any pair.

    Args:
        source: folder, as given to `--source`.

    Returns:
        (frames, split_file): list of :class:`frames.Frame`, sorted by frame id; Path of
        the official split file, or None.

    Raises:
        ValueError: the folder is missing or contains no pairs.
    """
    source = Path(source)
    if not source.is_dir():
        raise ArgumentError("no such folder (source)", "source", path=source)
    for folder in (source, source / "data", source / "FlyingChairs_release" / "data"):
        if frames := _find_pairs(folder):
            folders = (folder, folder.parent, source, source.resolve().parent)
            files = (parent / SPLIT_FILE for parent in folders)
            return frames, next((file for file in files if file.is_file()), None)
    raise ValueError(
        f"{source}: no FlyingChairs pairs here or in its folder data (00001_img1.ppm, "
        "00001_img2.ppm, 00001_flow.flo)"
    )


def _find_pairs(folder):
    """Return a frame for every pair with at least one file, including missing expected files."""
    frames = []
    for endings in ENDINGS:
        pair_ids = {
            path.name.removesuffix(ending)
            for ending in endings.values()
            for path in system_files.glob(folder, f"*{ending}")
        }
        frames += [
            Frame(pair, {field: folder / f"{pair}{ending}" for field, ending in endings.items()})
            for pair in pair_ids
        ]
    return sorted(frames)


def split_by_file(frames: Sequence[Frame], file: Path) -> dict[str, list[Frame]]:
    """Split the pairs into {"train": [...], "val": [...]} by the official split file.

    Args:
        frames: all pairs, sorted.
        file: Path of the split file.

    Raises:
        ValueError: not a split file, or one for a different number of pairs.
    """
    codes = file.read_text(encoding="utf-8-sig", errors="replace").split()
    if set(codes) - {"1", "2"}:
        raise ValueError(f"{file}: not a split file: each line is 1 (train) or 2 (val)")
    if len(codes) != len(frames):
        raise ArgumentError(
            f"{len(codes)} lines for {len(frames)} pairs: complete the data set, or move this file "
            "away to split by names and seed",
            "seed",
            path=file,
        )
    return {
        name: [frame for frame, frame_code in zip(frames, codes, strict=True) if frame_code == code]
        for name, code in (("train", "1"), ("val", "2"))
    }


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    val_fraction: float = 0.1,
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert FlyingChairs folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames`, `split_by_file` and `writer.write`.
    """
    splits = {"train": [], "val": []}
    split_settings = []
    for source in sources:
        frames, file = find_frames(source)
        if file:
            print(f"{source}: split taken from {file}; --val_fraction is ignored")
            source_splits = split_by_file(frames, file)
        else:
            print(f"{source}: no {SPLIT_FILE}; split by names and --seed")
            source_splits = options.split_by_hash(frames, val_fraction, seed)
        split_settings.append(SPLIT_FILE if file else val_fraction)
        for name, part in source_splits.items():
            splits[name] += part
    return writer.write(
        "flyingchairs",
        split.shuffle(splits, seed),
        output,
        sources=sources,
        settings={
            "val_fraction": split_settings[0] if len(split_settings) == 1 else split_settings,
            "seed": seed,
        },
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert)


if __name__ == "__main__":
    options.define_flags("Folder FlyingChairs_release, or the folder of its pairs")
    entry.run(main)
