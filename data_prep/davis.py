"""Convert DAVIS 2016 or 2017, in its official layout, to FlowSeg records.

    python -m data_prep.davis --source DAVIS --year 2017 --output RECORDS

DAVIS is the folder that contains the official, unpacked `JPEGImages`, `Annotations` and
`ImageSets` (davischallenge.org):

    JPEGImages/480p/bear/00000.jpg    Annotations/480p/bear/00000.png    ImageSets/2017/train.txt

The annotations become the field `objects`. Those of 2016 are 0 and 255 and become 0 and 1; those of
2017 hold the number of the object at each pixel, as the index of a palette (255: void). A frame
without annotation is kept, and the number of such frames is printed.

The split is that of `ImageSets`: train.txt, val.txt, and for 2017 test-dev.txt and
test-challenge.txt as `test`. Lists of sequences and lists of files are read. Sequences that no list
names are skipped and counted. Without any list, all sequences are `val`.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from data_prep.conversion import options, split, videos, writer
from data_prep.conversion.frames import Encoder, Frame
from flowseg import system_files
from flowseg.cli import entry
from flowseg.data import masks
from flowseg.errors import ArgumentError

YEARS = ("2016", "2017")
# The folders of the frame sizes; the full one has different names in 2016 and 2017.
RESOLUTIONS = ("480p", "1080p", "Full-Resolution")
# Split -> its lists.
LISTS = {
    "train": ("train.txt",),
    "val": ("val.txt",),
    "test": ("test-dev.txt", "test-challenge.txt"),
}
_BLACK_AND_WHITE = {(0, 0, 0): (0,), (255, 255, 255): (255,)}
# Colour type of the PNG header.
_PALETTE = 3


def find_frames(
    sources: Iterable[str | Path], year: str = "2017", resolution: str = "480p"
) -> dict[str, list[Frame]]:
    """List the frames of DAVIS folders, and print what is unlabelled or skipped.

    Args:
        sources: folders, each as given to `--source`.
        year: one of `YEARS`: the form of the annotations, and the lists to read.
        resolution: one of `RESOLUTIONS`, a folder in `JPEGImages` and `Annotations`.

    Returns:
        dict, split name -> list of :class:`frames.Frame`, sorted by sequence and number.

    Raises:
        ValueError: a folder is missing or empty, a listed sequence is missing, or a file name is
            not a frame number.
        OSError: a list cannot be read.
    """
    splits = {"train": [], "val": []}
    for source in map(Path, sources):
        images = source / "JPEGImages" / resolution
        sequences = {path.name for path in system_files.glob(images, "*") if path.is_dir()}
        if not sequences:
            raise ArgumentError(
                f"no sequences here: source is the folder with JPEGImages/{resolution}/SEQUENCE",
                "source",
                "resolution",
                path=images,
            )
        listed = _read_lists(source, year, resolution)
        if not listed:
            print(f"{source}: no lists of the split (ImageSets/{year}): all sequences are val")
            listed = {"val": {name: set() for name in sorted(sequences)}}
        for name, sequence_numbers in listed.items():
            for sequence, numbers in sorted(sequence_numbers.items()):
                if sequence not in sequences:
                    raise ValueError(
                        f"{images / sequence}: missing, but ImageSets lists it for {name} (is the "
                        "data set unpacked completely?)"
                    )
                frames = _list_sequence(source, resolution, sequence, numbers, year)
                splits.setdefault(name, []).extend(frames)
        if rest := sorted(sequences - {sequence for part in listed.values() for sequence in part}):
            print(
                f"{source}: skipped {len(rest)} sequences that no list of {year} names: {rest[0]}"
                + (", ..." if rest[1:] else "")
            )
    frames = sum(splits.values(), [])
    if unlabelled := sum("objects" not in frame.files for frame in frames):
        print(f"{unlabelled} of {len(frames)} frames have no annotation")
    return splits


def _read_lists(source, year, resolution):
    """Return split -> sequence -> numbers of the frames that its list names, if it names any."""
    folders = [source / "ImageSets" / year]
    if year == "2016":
        # The archive of 2016 has its lists in a folder for each resolution.
        folders.append(source / "ImageSets" / resolution)
    listed = {}
    for name, lists in LISTS.items():
        paths = [folder / file for folder in folders for file in lists]
        for path in filter(Path.is_file, paths):
            for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
                if not line.strip():
                    continue
                # Either a sequence, or /JPEGImages/480p/bear/00000.jpg and its annotation.
                first = Path(line.split()[0])
                is_file = len(first.parts) > 1
                sequence = first.parent.name if is_file else first.name
                numbers = listed.setdefault(name, {}).setdefault(sequence, set())
                if is_file and first.stem.isdigit():
                    numbers.add(int(first.stem))
    return listed


def _list_sequence(source, resolution, sequence, listed_numbers, year):
    """List the frames of a sequence, including missing ones between or named by a list."""
    folder = source / "JPEGImages" / resolution / sequence
    images = videos.numbered(folder, "*.jpg")
    annotations = videos.numbered(source / "Annotations" / resolution / sequence, "*.png")
    return videos.list_frames(
        sequence,
        5,
        lambda number: folder / f"{number:05d}.jpg",
        {"image1": images, "objects": annotations},
        listed_numbers,
        encoders={"objects": Encoder(partial(encode_objects, year))},
    )


def encode_objects(year: str, path: Path) -> bytes:
    """Encode an annotation as an 8-bit grey PNG: 0 and 1 (2016), or the objects' numbers (2017).

    Raises:
        ValueError: not a readable PNG, or the values are those of the other year.
    """
    data = path.read_bytes()
    ids = masks.decode(data, path, _BLACK_AND_WHITE if year == "2016" else None)
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
    if year == "2016":
        if set(present) - {0, 255}:
            raise ArgumentError(
                f"holds the values {', '.join(map(str, present[:10]))}, but a mask of DAVIS 2016 "
                "holds only 0 and 255: if these are the objects of DAVIS 2017, give year 2017",
                "year",
                path=path,
            )
        ids = np.uint8(ids == 255)
    elif present[-1] == 255 and set(present) <= {0, 255} and data[25] != _PALETTE:
        raise ArgumentError(
            "holds only 0 and 255 without a palette: a mask of DAVIS 2016, in which 255 is the "
            "foreground, in place of the objects' numbers: give year 2016",
            "year",
            path=path,
        )
    return cv2.imencode(".png", ids)[1].tobytes()


def convert(
    sources: Sequence[str | Path],
    output: str | Path,
    year: str = "2017",
    resolution: str = "480p",
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, Any]:
    """Convert DAVIS folders to records below `output`; see `writer.write`.

    Raises:
        ValueError, OSError: see `find_frames` and `writer.write`.
    """
    return writer.write(
        f"davis{year}",
        split.shuffle(find_frames(sources, year, resolution), seed),
        output,
        sources=sources,
        settings={"year": year, "resolution": resolution, "seed": seed},
        **kwargs,
    )


def main() -> None:
    """Run the command."""
    options.convert_from_flags(convert, "year", "resolution")


if __name__ == "__main__":
    options.define_flags(
        "Folder that contains JPEGImages, Annotations and ImageSets", official_split=True
    )
    flags.DEFINE_enum("year", "2017", YEARS, "Form of the annotations, and which lists are read.")
    flags.DEFINE_enum("resolution", "480p", RESOLUTIONS, "Folder of the frames' size.")
    entry.run(main)
