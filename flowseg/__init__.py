"""FlowSeg: joint semantic segmentation and optical flow of video frames in one Keras network."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowseg.runs import Run

__version__ = "0.1.0"


def load(source: str | os.PathLike, weights: str = "best") -> "Run":
    """Load a trained network for prediction; see `flowseg.runs.Run`.

    >>> import flowseg
    >>> run = flowseg.load("pretrained")
    >>> len(run.classes), run.classes[:3], run.palette.shape
    (19, ('road', 'sidewalk', 'building'), (19, 3))

    Predict the class of every pixel of a frame, and its optical flow to the next frame in pixels
    (x to the right, y down):

    >>> frames = [f"experiments/pictures/kitti_pair_{n}.png" for n in (1, 2)]
    >>> seg, flow = run.predict(frames[0], frames[1])  # Paths, or (H, W, 3) RGB arrays 0..255.
    >>> seg.shape, seg.dtype, flow.shape, flow.dtype
    ((193, 640), dtype('uint8'), (193, 640, 2), dtype('float32'))
    >>> run.classes[seg[10, 320]]
    'building'

    Per-pixel probability that this flow is correct:

    >>> confidence = run.predict_confidence(frames[0], frames[1])
    >>> confidence.shape, confidence.dtype
    ((193, 640), dtype('float32'))

    Predict every frame of a video, encoding each frame once; the last frame has no flow:

    >>> for seg, flow in run.stream(frames):
    ...     print(seg.shape, None if flow is None else flow.shape)
    (193, 640) (193, 640, 2)
    (193, 640) None

    Args:
        source: "pretrained" for the network that comes with the package, or a run folder.
        weights: which weights of a run folder to load, "best" or "last".

    Raises:
        ValueError: the folder does not exist or has no readable weights, or `weights` is neither
            "best" nor "last".
    """
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f'source: {source!r} is neither "pretrained" nor the path of a run folder')
    if weights not in ("best", "last"):
        raise ValueError(f'weights: {weights!r} is neither "best" nor "last"')
    # Imported late: TensorFlow takes seconds to start.
    from flowseg import packaged, runs

    if source in packaged.NETWORKS:
        return runs.load_run(None, source)
    return runs.load_run(source, weights)
