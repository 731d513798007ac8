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
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.media import drawing
from flowseg.media.pairs import read_pair
from flowseg.scoring.prediction_files import summary, write_predictions


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


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("image1", None, "Earlier frame.", required=True)
    flags.DEFINE_string("image2", None, "Later frame, of the same size.", required=True)
    flags.DEFINE_string("output", None, "Folder to write into.", required=True)
    flags.DEFINE_bool("confidence", False, "Also write the confidence of the flow.")
    shared_flags.define_seg_ids()
    shared_flags.define_bit_depth()


def main():
    """Read the frames, load the run and write its predictions."""
    args = flags.FLAGS
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


def entry_point():
    """Entry point of `flowseg-predict`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
