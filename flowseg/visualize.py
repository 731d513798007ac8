"""Make a video that shows frames, their segmentation and their optical flow side by side.

python -m flowseg.visualize --run_dir DIR --input VIDEO|FOLDER --output FILE.mp4|FILE.webm|FOLDER

Frames of a folder are read in the natural order of their names. N frames make N-1 pairs, and the
video has one frame per pair: the pair's first frame, its classes, and its flow to the second frame.
The whole video uses one scale of flow colours (see --max_flow), so that colours do not flicker;
flow faster than the speed at the rim of the colour wheel is drawn darker. --arrows also draws the
flow as arrows, and --beside RUN adds the predictions of another run. FILE.mp4 is H.264 and
FILE.webm is VP8; media players and web browsers show both. Without --fps the video keeps the
source's frame rate, or the time of each frame where it varies. An --output without a suffix is a
folder of images instead.

Frames whose file names have a gap in their numbers are not a pair; --allow_gaps pairs them.

After Ctrl-C or an unreadable frame, the frames written so far are kept as a video: FILE.part.mp4.
"""

from pathlib import Path

from absl import flags

from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.media.frames import open_frames
from flowseg.media.video_output import check_video_name
from flowseg.media.video_panels import DEFAULT_FPS, write_video


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_input()
    flags.DEFINE_string(
        "output",
        None,
        "Video to write, FILE.mp4 or FILE.webm; or a folder for images.",
        required=True,
    )
    flags.DEFINE_string("beside", None, "Folder of another run to show next to this one.")
    flags.DEFINE_integer("arrows", 0, "Also draw the flow as arrows, this many px apart.", 0)
    flags.DEFINE_float(
        "fps", None, f"Frames per second; default: the source's, else {DEFAULT_FPS:g}.", 0.1, 1000
    )
    flags.DEFINE_float("overlay", 0.5, "Opacity of the class colours over the frame.", 0, 1)
    flags.DEFINE_float(
        "max_flow",
        None,
        "Speed drawn in full colour, in px; default: 1.5 times the 99th percentile of the first "
        "pair's speeds, at least 0.5 % of the width. Set it for a video that starts slowly.",
        0.01,
    )
    shared_flags.define_bit_depth()


def main():
    """Open the frames, load the run and write the video."""
    args = flags.FLAGS
    if Path(args.output).suffix:
        check_video_name(args.output)
    if Path(args.output).resolve() == Path(args.input).resolve():
        raise ValueError(f"--output {args.output}: is the input itself, which would be overwritten")
    if args.beside and args.run_dir and Path(args.beside) == Path(args.run_dir):
        raise ValueError(f"--beside {args.beside}: is --run_dir itself; name another run")
    frames, fps, count = open_frames(args.input, args.allow_gaps, args.bit_depth)
    # Imported late: TensorFlow takes seconds to start, and bad input is reported before that.
    from flowseg.runs import load_run

    runs = {args.run_dir or args.weights: load_run(args.run_dir, args.weights)}
    if args.beside:
        runs[args.beside] = load_run(args.beside, "last" if args.weights == "last" else "best")
    if args.fps:
        frames = (frame._replace(time=None) for frame in frames)
    fps = args.fps or fps or DEFAULT_FPS
    style = {"overlay": args.overlay, "arrows": args.arrows}
    options = (args.input_scale, args.max_flow)
    written = write_video(runs, frames, args.output, fps, count, *options, **style)
    rate = f", {float(fps):g} per second" if Path(args.output).suffix else ""
    print(f"{args.output}: {written} frames{rate}")


def entry_point():
    """Entry point of `flowseg-visualize`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
