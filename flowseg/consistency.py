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
from flowseg.media.frames import open_frames, sequences
from flowseg.media.video import SourceFrame
from flowseg.scoring import set_scores


def consistency(
    run: Any, frames: Iterable[SourceFrame], scale: float = 1.0
) -> tuple[dict[str, float], int]:
    """Compute the consistency scores of a run on a video.

    Args:
        run: a `runs.Run`, or an object with its `label_set`, `stream` and `predict`.
        frames: iterable of `SourceFrame`; frames of different sequences are not paired.
        scale: factor by which frames are resized for the network.

    Returns:
        Dict of `video/consistency` and `video/consistency_at_rest`, each omitted if no pixel stays
        inside the image; and the number of frame pairs.

    Raises:
        ValueError: no sequence has two frames.
    """
    from flowseg.scoring import frame_scores

    names = run.label_set.names
    counts, pairs = [{}, {}], 0

    def compare(previous, seg):
        first, flow = previous
        for i, applied_flow in enumerate((flow, np.zeros_like(flow))):
            pair_counts = frame_scores.count_consistency(first, seg, applied_flow, len(names))
            counts[i] = frame_scores.add(counts[i], pair_counts)

    for sequence in sequences(frames):
        last = previous = None
        images, streamed_images = itertools.tee(frame.image for frame in sequence)
        predictions = run.stream(streamed_images, scale=scale)
        # pairwise() ends before the stream: its last prediction, for (last, previous), is not used.
        for (_, following), prediction in zip(
            itertools.pairwise(images), predictions, strict=False
        ):
            if previous is not None:
                compare(previous, prediction[0])
            previous, last, pairs = prediction, following, pairs + 1
        if previous is not None:
            # The last frame has no next frame, so it is paired with itself.
            compare(previous, run.predict(last, last, scale=scale)[0])
    if not pairs:
        raise ValueError("a video with fewer than two frames has no consistency score")
    kinds = "video/consistency", "video/consistency_at_rest"
    both = [frame_scores.scores(count, names) for count in counts]
    named = zip(kinds, both, strict=True)
    return {name: scores[kinds[0]] for name, scores in named if kinds[0] in scores}, pairs


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_input()
    flags.DEFINE_string("metrics_json", None, "File for the scores; default: none.")
    shared_flags.define_bit_depth()


def main():
    """Score a run on a video and print the table."""
    args = flags.FLAGS
    frames, _, count = open_frames(args.input, args.allow_gaps, args.bit_depth)
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
