"""One still of a run's answers, small enough for a page: frame, classes, motion, and the keys.

python -m experiments.figure --run_dir DIR --image1 A --image2 B --output FILE.png [--width 640]

The network sees the frames at their own size; its answers are shrunk, not the frames.
"""

import cv2
from absl import flags

from flowseg import commands, pictures
from flowseg.frames import read_image
from flowseg.predict import read_pair
from flowseg.visualize import compose, first_max_flow

# What `pictures.panel` leaves at each side.
MARGIN = 8


def draw_figure(run, name, image1, image2, width):
    """(H, W, 3) uint8 RGB, `width` px wide, of a run's answers to one pair."""
    seg, flow = run.predict_pair(image1, image2)
    # The scale of the colours in px of the frames, whatever the figure's size.
    max_flow = first_max_flow(flow)
    inner = width - 2 * MARGIN
    size = (inner, round(image1.shape[0] * inner / image1.shape[1]))
    image = cv2.resize(image1, size, interpolation=cv2.INTER_AREA)
    seg = cv2.resize(seg, size, interpolation=cv2.INTER_NEAREST)
    flow = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    return compose(name, image, seg, flow, run.label_set, 0.6, max_flow, 1)


def define_flags():
    """The flags of this command."""
    from flowseg import flags as shared_flags

    shared_flags.define_run_flags(scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("image1", None, "Earlier frame.", required=True)
    flags.DEFINE_string("image2", None, "Later frame.", required=True)
    flags.DEFINE_string("name", "frame", "Title of the frame.")
    flags.DEFINE_string("output", None, "Picture to write, FILE.png.", required=True)
    flags.DEFINE_integer("width", 640, "Pixels.", 64)


def main():
    """Read, ask, draw."""
    args = flags.FLAGS
    pair = read_pair(args.image1, args.image2)
    from flowseg.runs import load_run

    run = load_run(args.run_dir, args.weights)
    pictures.write_png(args.output, draw_figure(run, args.name, *pair, args.width))
    height, width = read_image(args.output).shape[:2]
    print(f"wrote {args.output}, {width}x{height}")


if __name__ == "__main__":
    define_flags()
    commands.run(main)
