"""Segment a frame and find its motion to the next one.

python -m flowseg.predict --run_dir DIR --image1 A --image2 B --output DIR

writes into the output folder, all in the pixels of the first frame:

seg.png         class at every pixel, 8 bit: train ids, or the data set's own ids with
                --seg_ids label
flow.png        motion to the second frame, KITTI's 16-bit PNG: u = (R - 2^15) / 64 px to the
                right, v = (G - 2^15) / 64 px down, B = 1
seg_color.png   the same two as colours to look at; the flow's full colour is the 99th
flow_color.png  percentile of the speeds

and with --confidence

confidence.png  probability that the flow is right, within 3 px or 5 %: 8 bit, 255 = 1
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.media import drawing
from flowseg.media.pairs import read_pair
from flowseg.scoring.prediction_files import summary, write_answers


def predict(
    run: Any,
    image1: np.ndarray,
    image2: np.ndarray,
    output: str | Path,
    seg_ids: str = "train",
    scale: float = 1.0,
) -> str:
    """Ask a run about one pair and write its answers as PNG files into `output`.

    Args:
        run: loaded run with `predict(image1, image2, scale)`, which gives (H, W) uint8 train
            ids and (H, W, 2) float32 flow, and with `label_set`.
        image1: (H, W, 3) uint8 RGB, the earlier frame.
        image2: (H, W, 3) uint8 RGB, the later frame.
        output: folder; made where missing.
        seg_ids: "train" or "label": the ids that seg.png holds.
        scale: resizes what the network sees.

    Returns:
        One line that says what was found and written.

    Raises:
        OSError: a file cannot be written.
    """
    seg, flow = run.predict(image1, image2, scale=scale)
    write_answers(output, seg, flow, run.label_set, seg_ids)
    told = summary(seg, flow, run.label_set)
    return f"{output}: seg.png, flow.png, seg_color.png, flow_color.png; {told}"


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("image1", None, "Earlier frame.", required=True)
    flags.DEFINE_string("image2", None, "Later frame, of the same size.", required=True)
    flags.DEFINE_string("output", None, "Folder to write into.", required=True)
    flags.DEFINE_bool("confidence", False, "Also write how sure the flow is.")
    shared_flags.define_seg_ids()


def main():
    """Read the frames, load the run, write its answers."""
    args = flags.FLAGS
    pair = read_pair(args.image1, args.image2)
    # Imported late: TensorFlow takes seconds to start, and bad frames are told before that.
    from flowseg.runs import load_run

    loaded = load_run(args.run_dir, weights=args.weights)
    print(predict(loaded, *pair, args.output, args.seg_ids, args.input_scale))
    if args.confidence:
        sure = loaded.predict_confidence(*pair, args.input_scale)
        path = Path(args.output) / "confidence.png"
        drawing.write_png(path, np.uint8(np.round(255 * sure)))
        print(f"{path}: flow thought right at {np.mean(sure > 0.5):.0%} of the pixels")


def run():
    """Entry point of `flowseg-predict`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
