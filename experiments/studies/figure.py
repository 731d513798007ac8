r"""Draw a run's predictions for one pair as a small image: frame, classes, motion and legends.

python -m experiments.studies.figure --run_dir DIR --image1 A --image2 B --output FILE.png \
    [--width 640] [--flow_truth FLOW]

The network takes the frames at their own size, or resized by --input_scale; its predictions are
downscaled to the image afterwards.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from absl import flags

from flowseg.cli import entry
from flowseg.data.flow_io import read_flow
from flowseg.media import drawing
from flowseg.media.frames import read_image
from flowseg.media.pairs import read_pair
from flowseg.media.video_panels import compose, first_max_flow

if TYPE_CHECKING:
    from flowseg.runs import Run

# The margin that `drawing.panel` leaves at each side.
MARGIN = 8


def draw_figure(
    run: "Run",
    name: str,
    image1: np.ndarray,
    image2: np.ndarray,
    width: int,
    truth: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """(H, W, 3) uint8 RGB image, `width` px wide, of a run's predictions for one pair.

    With ground-truth flow, (H, W, 3) (u, v, valid), it also shows the flow errors. `scale` resizes
    the frames for the network.

    Raises:
        ValueError: the ground-truth flow has another size.
    """
    if truth is not None and truth.shape[:2] != image1.shape[:2]:
        raise ValueError(
            f"the ground-truth flow is {truth.shape[:2]} px, the frames {image1.shape[:2]}"
        )
    seg, flow = run.predict(image1, image2, scale=scale)
    # The colour scale is in px of the frames, independent of the figure's size.
    max_flow = first_max_flow(flow)
    inner = width - 2 * MARGIN
    size = (inner, round(image1.shape[0] * inner / image1.shape[1]))
    image = cv2.resize(image1, size, interpolation=cv2.INTER_AREA)
    seg = cv2.resize(seg, size, interpolation=cv2.INTER_NEAREST)
    errors = None if truth is None else _error_map(flow, truth, size)
    flow = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    picture = compose(name, image, {"": (seg, flow, run.label_set)}, max_flow, 0.6, min_side=1)
    if errors is None:
        return picture
    title = "Flow errors (blue under 3 px, yellow to red over; black: unknown)"
    parts = picture, drawing.panel([(title, errors)], 1)
    wide = max(part.shape[1] for part in parts)
    fill = (drawing.blank(len(part), wide - part.shape[1]) for part in parts)
    return np.vstack([np.hstack(row) for row in zip(parts, fill, strict=True)])


def _error_map(flow, truth, size):
    colours = drawing.flow_error_map(flow, truth)
    # Sparse ground truth would fade to black when downscaled, so its points are dilated first.
    grown = cv2.dilate(colours, np.ones((3, 3), np.uint8))
    grown[truth[..., 2] > 0] = colours[truth[..., 2] > 0]
    return cv2.resize(grown, size, interpolation=cv2.INTER_NEAREST)


def define_flags():
    """Define the flags of this command."""
    from flowseg.cli import flags as shared_flags

    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("image1", None, "Earlier frame.", required=True)
    flags.DEFINE_string("image2", None, "Later frame.", required=True)
    flags.DEFINE_string(
        "flow_truth", None, "Ground-truth flow, KITTI's PNG or .flo: draws errors, too."
    )
    flags.DEFINE_string("name", "frame", "Title of the frame.")
    flags.DEFINE_string("output", None, "Picture to write, FILE.png.", required=True)
    flags.DEFINE_integer("width", 640, "Width of the picture in px.", 64)


def main():
    """Read, predict and draw."""
    args = flags.FLAGS
    pair = read_pair(args.image1, args.image2)
    from flowseg.runs import load_run

    run = load_run(args.run_dir, args.weights)
    truth = read_flow(args.flow_truth) if args.flow_truth else None
    figure = draw_figure(run, args.name, *pair, args.width, truth, args.input_scale)
    drawing.write_png(args.output, figure)
    height, width = read_image(args.output).shape[:2]
    print(f"wrote {args.output}, {width}x{height}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
