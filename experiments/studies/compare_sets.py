r"""Compare data sets: statistics of their frames, flow and classes side by side.

    python -m experiments.studies.compare_sets --set street=DIR --set kitti=DIR[,DIR2] \
        [--picture FILE.png]

Each DIR is a folder as `data_prep.kitti` takes it. Prints one Markdown table; --json writes the
same numbers, --picture draws frames of the sets side by side. Speeds are converted to frames
--width px wide; flow/all covers the known pixels of flow_occ, flow/not_sky those of frames with
labels that are not sky; top, middle and bottom are thirds of the rows. `own/` describes textures of
frames at their original size, `common/` after resizing to one width; edge and inside are steps of
luma at class borders and elsewhere. pair/ratio is the factor by which warping with the ground-truth
flow reduces the difference between two frames. KITTI is CC BY-NC-SA: a picture of its frames needs
credit.
"""

import itertools
import json
from collections.abc import Sequence

import cv2
import numpy as np
from absl import flags
from tqdm import tqdm

from data_prep.conversion.frames import Frame, read_frame
from data_prep.doctor.read import decode
from data_prep.kitti import find_frames
from experiments.studies.set_measures import UNITS, measure, summarise
from flowseg import files, tables
from flowseg.cli import entry
from flowseg.data import flow_io
from flowseg.data.labels import CITYSCAPES, IGNORE_LABEL, train_id_table
from flowseg.errors import ArgumentError
from flowseg.media import drawing

PICTURE_WIDTH = 640
# Frames of each set in the picture.
SHOWN = 2
# Height of the legend's letters, and the margin that `drawing.panel` leaves; in px.
TEXT_SIZE = 12
MARGIN = 7


def parse_sets(texts: Sequence[str]) -> dict[str, list[str]]:
    """["NAME=DIR[,DIR]", ...] -> {name: [folders]}.

    Raises:
        ValueError: a text of another form, or a duplicate name.
    """
    sets = {}
    for text in texts:
        name, _, folders = text.partition("=")
        folders = folders.split(",")
        if not name.strip() or not all(folders):
            raise ArgumentError(f"set {text}: must be NAME=DIR or NAME=DIR,DIR2", "set")
        if name in sets:
            raise ArgumentError(f"set {text}: there are two sets named {name!r}", "set")
        sets[name] = folders
    return sets


def load(frame: Frame) -> dict[str, np.ndarray]:
    """Check and decode a frame for `set_measures.measure`.

    Raises:
        ValueError, OSError: a file is missing, damaged, or does not fit the others.
    """
    fields, _ = read_frame(frame)
    decoded, _ = decode(fields)
    return decoded


def compare(
    sets: dict[str, list[str]], width: int = 1242, image_width: int = 416, limit: int | None = None
) -> tuple[dict[str, dict[str, float]], int]:
    """Statistics of several sets.

    Args:
        sets: {name: folders}.
        width: frame width in px to which speeds are converted.
        image_width: common width in px for textures; smaller if some frame is narrower.
        limit: number of frames per set, the first by id; default: all.

    Returns:
        {set: {name of `set_measures.UNITS`: float, NaN where the set lacks it}}, the common width
        in px.

    Raises:
        ValueError, OSError: see `find_frames` and `load`.
    """
    frames_by_set = {name: find_frames(folders)[:limit] for name, folders in sets.items()}
    narrowest = min(_width(frame) for frames in frames_by_set.values() for frame in frames)
    common = min(image_width, narrowest)
    numbers = {}
    for name, frames in frames_by_set.items():
        progress = tqdm(frames, unit="frame", desc=name, disable=None)
        numbers[name] = summarise(measure(load(frame), width, common) for frame in progress)
    return numbers, common


def _width(frame):
    """Width of the first frame in px; only the header of the PNG is read."""
    path = frame.files["image1"]
    if not path.is_file():
        raise ValueError(f"{path}: missing (is the data set unpacked completely?)")
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or not head.startswith(flow_io.PNG_MAGIC):
        raise ValueError(f"{path}: not a PNG file")
    return int.from_bytes(head[16:20])


def table(numbers: dict[str, dict[str, float]]) -> str:
    """Markdown of `compare`'s numbers, without rows that are NaN for every set."""
    rows = []
    for name, unit in UNITS.items():
        row = [column[name] for column in numbers.values()]
        if np.isfinite(row).any():
            digits = 0 if name.startswith("frames") else 2
            cells = (f"{n:.{digits}f}" if np.isfinite(n) else "-" for n in row)
            rows.append([name, unit, *cells])
    return tables.markdown(["", "unit", *numbers], rows, left=2)


def draw(sets: dict[str, list[str]], width: int = 1242) -> np.ndarray:
    """Two frames of every set, one column per set: first image, classes and flow; and the legends.

    Frames with flow and labels are preferred. Flow has one scale everywhere, written below the
    colour wheel in px at `width`; sparse flow is spread to its neighbours, black is unknown.

    Args:
        sets: {name: folders}.
        width: frame width in px to which speeds are converted.

    Returns:
        (H, W, 3) uint8 RGB, at most 640 px wide.

    Raises:
        ValueError, OSError: see `find_frames` and `load`; more sets than fit.
    """
    cell = (PICTURE_WIDTH - MARGIN) // len(sets) - MARGIN
    if cell < 64:
        raise ArgumentError(f"picture: {len(sets)} sets do not fit side by side", "picture")
    columns = []
    for name, folders in sets.items():
        frames = sorted(find_frames(folders), key=lambda f: -len({"flow", "labels"} & set(f.files)))
        shown = frames[:SHOWN]
        columns.append([(f"{name}, {f.frame_id}", _shrink(load(f), cell, width)) for f in shown])
    parts = [small for column in columns for _, small in column]
    flows = [small["flow"] for small in parts if "flow" in small]
    speeds = np.concatenate([[0], *(np.hypot(*f[f[..., 2] > 0, :2].T) for f in flows)])
    full = max(1.0, float(np.percentile(speeds, 98)))
    empty = ("", drawing.blank(1, cell))
    panel = drawing.panel(
        [
            empty if item is None else (item[0], _stack(item[1], full))
            for row in itertools.zip_longest(*columns)
            for item in row
        ],
        len(columns),
    )
    present = np.unique([i for small in parts for i in np.unique(small.get("train_ids", 255))])
    legends = _legends(panel.shape[1], present[present != IGNORE_LABEL], full if flows else None)
    return np.vstack([panel, legends])


def _shrink(frame, cell, width):
    """A frame's `image`, `train_ids` and `flow` (u, v, valid) at most `cell` px wide."""
    image = drawing.shrink(frame["image1"], cell)
    size, small = image.shape[1::-1], {"image": image}
    if "labels" in frame:
        ids = train_id_table(CITYSCAPES, "cityscapes")[frame["labels"]]
        small["train_ids"] = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
    if "flow" in frame:
        flow = drawing.shrink_flow(frame["flow"], size)
        flow[..., :2] *= width / frame["image1"].shape[1]
        small["flow"] = flow
    return small


def _stack(small, full):
    """The images of one `_shrink`, from top to bottom; missing ones stay dark."""
    image = small["image"]
    classes = flow = drawing.blank(*image.shape[:2])
    if "train_ids" in small:
        classes = drawing.overlay_labels(image, small["train_ids"], CITYSCAPES)
    if "flow" in small:
        flow = flow_io.flow_to_color(small["flow"][..., :2], full, small["flow"][..., 2])
    return np.vstack([image, classes, flow])


def _legends(width, present, full):
    """The legend of classes, and the colour wheel of flow if there is a `full` speed."""
    wheel = drawing.blank(0, 0) if full is None else drawing.color_wheel(72, full)
    legend = drawing.legend(CITYSCAPES, width - wheel.shape[1] - 3 * MARGIN, present, TEXT_SIZE)
    canvas = drawing.blank(max(len(legend), len(wheel)) + MARGIN, width)
    canvas[: len(legend), MARGIN : MARGIN + legend.shape[1]] = legend
    canvas[: len(wheel), width - MARGIN - wheel.shape[1] : width - MARGIN] = wheel
    return canvas


def _finite(numbers):
    """`compare`'s numbers for a JSON file, with None in place of NaN."""
    return {
        name: {key: value if np.isfinite(value) else None for key, value in column.items()}
        for name, column in numbers.items()
    }


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_multi_string(
        "set", None, "NAME=DIR[,DIR]: a set and its KITTI folders; repeatable.", required=True
    )
    flags.DEFINE_integer("width", 1242, "Frame width in px to which speeds are converted.", 1)
    flags.DEFINE_integer(
        "image_width", 416, "Common width in px at which textures are compared.", 16
    )
    flags.DEFINE_integer(
        "limit", None, "Number of frames per set, the first by id; default: all.", 1
    )
    flags.DEFINE_string("json", None, "JSON file for the numbers; default: none.")
    flags.DEFINE_string("picture", None, "Picture to write, FILE.png; default: none.")


def main():
    """Measure and print."""
    args = flags.FLAGS
    sets = parse_sets(args.set)
    numbers, common = compare(sets, args.width, args.image_width, args.limit)
    print(table(numbers))
    print(f"\nSpeeds are for a frame width of {args.width} px; common/ is at {common} px.")
    if args.json:
        files.write(args.json, json.dumps(_finite(numbers), indent=2) + "\n")
        print(f"wrote {args.json}")
    if args.picture:
        drawing.write_png(args.picture, draw(sets, args.width))
        print(f"wrote {args.picture}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
