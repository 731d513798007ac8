"""Predict the segmentation of a frame and its optical flow to the next frame.

python -m flowseg.predict --run_dir DIR --image1 A --image2 B --output DIR

writes these files into the output folder, all at the first frame's resolution:

seg.png         class of every pixel, 8 bit: train ids, or the data set's label ids with
                --seg_ids label
flow.png        flow to the second frame as KITTI's 16-bit PNG: u = (R - 2^15) / 64 px right,
                v = (G - 2^15) / 64 px down, B = 1
seg_color.png   the classes in colour, for viewing
flow_color.png  the flow in colour, for viewing; the 99th percentile of the speed has full colour

and with --confidence

confidence.png  probability that the flow is correct to within 3 px or 5 %: 8 bit, 255 = 1

python -m flowseg.predict --run_dir DIR --input VIDEO|FOLDER --output DIR

predicts every frame of a video or folder and writes the same seg and flow files, numbered from 0:

seg/00000.png   one per frame; the last is predicted from the pair (last, previous)
flow/00000.png  flow to the next frame; for all frames but the last, and but those before a gap in
                the numbers of a folder's file names (see --allow_gaps)
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from flowseg import console
from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.media import drawing
from flowseg.media.frames import open_frames, sequences
from flowseg.media.pairs import read_pair
from flowseg.media.video import SourceFrame
from flowseg.scoring.prediction_files import (
    count_outside,
    summary,
    write_numbered,
    write_predictions,
)


def predict(
    run: Any,
    image1: np.ndarray,
    image2: np.ndarray,
    output: str | Path,
    seg_ids: str = "train",
    scale: float = 1.0,
) -> str:
    """Predict one frame pair and write the predictions as PNG files into `output`.

    Args:
        run: loaded run with `label_set` and `predict(image1, image2, scale)`, which returns
            (H, W) uint8 train ids and (H, W, 2) float32 flow.
        image1: (H, W, 3) uint8 RGB, the earlier frame.
        image2: (H, W, 3) uint8 RGB, the later frame.
        output: folder; created if missing.
        seg_ids: "train" or "label", the ids to write in seg.png.
        scale: factor by which frames are resized for the network.

    Returns:
        A one-line summary of the predictions and the files written.

    Raises:
        OSError: a file cannot be written.
    """
    seg, flow = run.predict(image1, image2, scale=scale)
    write_predictions(output, seg, flow, run.label_set, seg_ids)
    text = summary(seg, flow, run.label_set)
    return f"{output}: seg.png, flow.png, seg_color.png, flow_color.png; {text}"


def predict_frames(
    run: Any,
    frames: Iterable[SourceFrame],
    output: str | Path,
    seg_ids: str = "train",
    scale: float = 1.0,
) -> str:
    """Predict all frames of a video and write seg/NNNNN.png and flow/NNNNN.png into `output`.

    Each file is written atomically and replaces an earlier one; one warning on stderr names
    numbered files that are left from an earlier command.

    Args:
        run: loaded run with `label_set` and `stream(images, scale)`; see `runs.Run.stream`.
        frames: the frames; those of different sequences are not paired.
        output: folder; created if missing.
        seg_ids: "train" or "label", the ids to write.
        scale: factor by which frames are resized for the network.

    Returns:
        A one-line summary of the files written.

    Raises:
        ValueError: a frame cannot be read or differs in size from the first; the message states
            how many frames were written before.
        OSError: a file cannot be written.
    """
    number, outside, with_flow = 0, 0, set()
    try:
        for sequence in sequences(frames):
            for seg, flow in run.stream((frame.image for frame in sequence), scale=scale):
                write_numbered(output, number, seg, flow, run.label_set, seg_ids)
                if flow is not None:
                    with_flow.add(number)
                    outside += count_outside(flow)
                number += 1
    except (ValueError, KeyboardInterrupt) as error:
        message = f"{output} holds the {number} frames so far"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(message) from error
        raise ValueError(f"{error}; {message}") from error
    _warn_of_older_files(Path(output), {"seg": range(number), "flow": with_flow})
    text = f"{output}: {number} frames in seg/, {len(with_flow)} in flow/"
    return text + (
        f"; {outside} px move too far for KITTI's PNG: stored as unknown" if outside else ""
    )


def _warn_of_older_files(output, written):
    """Warn of numbered files that are not among the `written` numbers of "seg" and "flow"."""
    older = [
        path
        for kind, numbers in written.items()
        for path in sorted((output / kind).glob("*.png"))
        if path.stem.isdecimal() and int(path.stem) not in numbers
    ]
    if older:
        console.warn(f"{older[0]}: from an earlier command, as are {len(older)} files in all")


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("image1", None, "Earlier frame.")
    flags.DEFINE_string("image2", None, "Later frame, of the same size.")
    shared_flags.define_input(required=False)
    flags.DEFINE_string("output", None, "Folder to write into.", required=True)
    flags.DEFINE_bool("confidence", False, "Also write the confidence of the flow.")
    shared_flags.define_seg_ids()
    shared_flags.define_bit_depth()
    flags.register_multi_flags_validator(
        ["image1", "image2", "input"],
        lambda values: bool(values["image1"]) == bool(values["image2"]) != bool(values["input"]),
        "give either --image1 and --image2, or --input",
    )
    flags.register_multi_flags_validator(
        ["input", "confidence"],
        lambda values: not (values["input"] and values["confidence"]),
        "--confidence needs --image1 and --image2, not --input",
    )


def main():
    """Read the frames, load the run and write its predictions."""
    args = flags.FLAGS
    if args.input:
        _predict_input(args)
        return
    pair = read_pair(args.image1, args.image2, args.bit_depth)
    # Imported late: TensorFlow takes seconds to start, and bad frames are reported before that.
    from flowseg.runs import load_run

    loaded = load_run(args.run_dir, weights=args.weights)
    print(predict(loaded, *pair, args.output, args.seg_ids, args.input_scale))
    if args.confidence:
        confidence = loaded.predict_confidence(*pair, args.input_scale)
        path = Path(args.output) / "confidence.png"
        drawing.write_png(path, np.uint8(np.round(255 * confidence)))
        print(f"{path}: flow probably correct at {np.mean(confidence > 0.5):.0%} of the pixels")


def _predict_input(args):
    frames, _, count = open_frames(args.input, args.allow_gaps, args.bit_depth)
    if Path(args.output).is_file():
        raise ValueError(f"--output {args.output}: is a file; with --input it is a folder")
    if Path(args.input).resolve().parent == Path(args.output).resolve():
        raise ValueError(f"--output {args.output}: is the folder of the input; give another folder")
    from flowseg.runs import load_run

    loaded = load_run(args.run_dir, weights=args.weights)
    frames = tqdm(frames, unit="frame", total=count, disable=None)
    print(predict_frames(loaded, frames, args.output, args.seg_ids, args.input_scale))


def entry_point():
    """Entry point of `flowseg-predict`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
