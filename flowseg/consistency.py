"""How steady the classes of a video are; no truth is needed.

python -m flowseg.consistency --run_dir DIR --input VIDEO|FOLDER [--metrics_json FILE]

Each frame's classes are followed by the network's own flow into the next frame and compared with
the classes there: `video/consistency` is the mIoU between the two over all pixels that stay in the
picture, pooled over the video, in percent (Liu et al. 2020). `video/consistency_at_rest` is the
same with nothing followed. What becomes hidden cannot agree, so that 100 % is out of reach; yet a
network that says one class everywhere has it: read this beside mIoU.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from flowseg import files
from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.media.frames import open_frames
from flowseg.scoring import set_scores


def consistency(
    run: Any, frames: Iterable[tuple[str, np.ndarray]], scale: float = 1.0
) -> tuple[dict[str, float], int]:
    """Scores of a run on a video.

    Args:
        run: a `runs.Run`, or what has its `label_set`, `stream` and `predict`.
        frames: iterable of (name, (H, W, 3) uint8 RGB).
        scale: frames are resized by it for the network.

    Returns:
        dict of `video/consistency` and `video/consistency_at_rest`, the first left out if no pixel
        stays in the picture; and how many pairs there were.

    Raises:
        ValueError: fewer than two frames.
    """
    from flowseg.scoring import frame_scores

    names = run.label_set.names
    counts, pairs, last, before = [{}, {}], 0, None, None
    shown, copy = itertools.tee(image for _, image in frames)

    def compare(seg):
        first, flow = before
        for i, followed in enumerate((flow, np.zeros_like(flow))):
            found = frame_scores.count_consistency(first, seg, followed, len(names))
            counts[i] = frame_scores.add(counts[i], found)

    # Ends with the pairs: the stream's last prediction, of (last, previous), is not wanted here.
    streamed = run.stream(copy, scale=scale)
    for (_, following), (seg, flow) in zip(itertools.pairwise(shown), streamed, strict=False):
        if before is not None:
            compare(seg)
        before, last, pairs = (seg, flow), following, pairs + 1
    if before is None:
        raise ValueError("a video of fewer than two frames has no consistency")
    # The last frame has no next one: it is shown with itself.
    compare(run.predict(last, last, scale=scale)[0])
    kinds = "video/consistency", "video/consistency_at_rest"
    both = [frame_scores.scores(count, names) for count in counts]
    told = zip(kinds, both, strict=True)
    return {name: scores[kinds[0]] for name, scores in told if kinds[0] in scores}, pairs


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("input", None, "Video file, or folder of frames.", required=True)
    flags.DEFINE_string("metrics_json", None, "File for the scores; default: none.")


def main():
    """Open the frames, load the run, tell."""
    args = flags.FLAGS
    frames, _, count = open_frames(args.input)
    # Imported late: TensorFlow takes seconds to start, and bad input is told before that.
    from flowseg import runs

    run = runs.load_run(args.run_dir, args.weights)
    shown = tqdm(frames, unit="frame", total=count, disable=None)
    scores, pairs = consistency(run, shown, args.input_scale)
    print(set_scores.table(scores, {}))
    print(f"{pairs} pairs of frames")
    if args.metrics_json:
        files.write_json(args.metrics_json, scores)
        print(f"wrote {args.metrics_json}")


def run():
    """Entry point of `flowseg-consistency`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
