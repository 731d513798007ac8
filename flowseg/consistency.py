"""Measure the temporal consistency of predicted classes on a video, without ground truth.

python -m flowseg.consistency --run_dir DIR --input VIDEO|FOLDER [--metrics_json FILE]

Each frame's predicted classes are moved into the next frame by the network's flow and compared
with the classes predicted there: `video/consistency` is the mIoU between the two over all pixels
that stay inside the image, pooled over the video, in percent (Liu et al. 2020).
`video/consistency_at_rest` is the same with zero flow. Pixels that become occluded cannot agree,
so a video rarely reaches 100 %, but a network that predicts one class everywhere does: read this
score together with mIoU.
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
    """Compute the consistency scores of a run on a video.

    Args:
        run: a `runs.Run`, or an object with its `label_set`, `stream` and `predict`.
        frames: iterable of (name, (H, W, 3) uint8 RGB).
        scale: factor by which frames are resized for the network.

    Returns:
        Dict of `video/consistency` and `video/consistency_at_rest`, each omitted if no pixel stays
        inside the image; and the number of frame pairs.

    Raises:
        ValueError: fewer than two frames.
    """
    from flowseg.scoring import frame_scores

    names = run.label_set.names
    counts, pairs, last, previous = [{}, {}], 0, None, None
    images, streamed_images = itertools.tee(image for _, image in frames)

    def compare(seg):
        first, flow = previous
        for i, applied_flow in enumerate((flow, np.zeros_like(flow))):
            pair_counts = frame_scores.count_consistency(first, seg, applied_flow, len(names))
            counts[i] = frame_scores.add(counts[i], pair_counts)

    # pairwise() ends before the stream, whose last prediction, for (last, previous), is not used.
    predictions = run.stream(streamed_images, scale=scale)
    for (_, following), (seg, flow) in zip(itertools.pairwise(images), predictions, strict=False):
        if previous is not None:
            compare(seg)
        previous, last, pairs = (seg, flow), following, pairs + 1
    if previous is None:
        raise ValueError("a video with fewer than two frames has no consistency score")
    # The last frame has no next frame, so it is paired with itself.
    compare(run.predict(last, last, scale=scale)[0])
    kinds = "video/consistency", "video/consistency_at_rest"
    both = [frame_scores.scores(count, names) for count in counts]
    named = zip(kinds, both, strict=True)
    return {name: scores[kinds[0]] for name, scores in named if kinds[0] in scores}, pairs


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("input", None, "Video file, or folder of frames.", required=True)
    flags.DEFINE_string("metrics_json", None, "File for the scores; default: none.")
    shared_flags.define_bit_depth()


def main():
    """Score a run on a video and print the table."""
    args = flags.FLAGS
    frames, _, count = open_frames(args.input, args.bit_depth)
    # Imported late: TensorFlow takes seconds to start, and bad input is reported before that.
    from flowseg import runs

    run = runs.load_run(args.run_dir, args.weights)
    frames = tqdm(frames, unit="frame", total=count, disable=None)
    scores, pairs = consistency(run, frames, args.input_scale)
    print(set_scores.table(scores, {}))
    print(f"{pairs} frame pairs")
    if args.metrics_json:
        files.write_json(args.metrics_json, scores)
        print(f"wrote {args.metrics_json}")


def entry_point():
    """Entry point of `flowseg-consistency`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
