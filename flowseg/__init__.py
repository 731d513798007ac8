"""FlowSeg: one Keras network that segments a video frame and tells its motion, in one pass."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowseg.runs import Run

__version__ = "0.1.0"


def load(source: str | os.PathLike, weights: str = "best") -> "Run":
    """A trained network, to predict with; see `flowseg.runs.Run`.

    >>> import flowseg
    >>> run = flowseg.load("pretrained")
    >>> len(run.classes), run.classes[:3], run.palette.shape
    (19, ('road', 'sidewalk', 'building'), (19, 3))

    Classes of a frame, and its motion to the next one in pixels to the right and down:

    >>> frames = [f"experiments/pictures/kitti_pair_{n}.png" for n in (1, 2)]
    >>> seg, flow = run.predict(frames[0], frames[1])  # Paths, or (H, W, 3) RGB arrays 0..255.
    >>> seg.shape, seg.dtype, flow.shape, flow.dtype
    ((193, 640), dtype('uint8'), (193, 640, 2), dtype('float32'))
    >>> run.classes[seg[10, 320]]
    'building'

    The probability, pixel by pixel, that this flow is right:

    >>> confidence = run.predict_confidence(frames[0], frames[1])
    >>> confidence.shape, confidence.dtype
    ((193, 640), dtype('float32'))

    Every frame of a video, each encoded once; the last one has no flow:

    >>> for seg, flow in run.stream(frames):
    ...     print(seg.shape, None if flow is None else flow.shape)
    (193, 640) (193, 640, 2)
    (193, 640) None

    Args:
        source: "pretrained", the network that comes with the package; or a run's folder.
        weights: of a run's folder, "best" or "last".

    Raises:
        ValueError: no such folder, or one without (readable) weights; an unknown value of
            `weights`.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f'source: {source!r} is neither "pretrained" nor the path of a run folder')
    if weights not in ("best", "last"):
        raise ValueError(f'weights: {weights!r} is neither "best" nor "last"')
    # Imported late: TensorFlow takes seconds to start.
    from flowseg import runs

    if source == "pretrained":
        return runs.load_run(None, "pretrained")
    return runs.load_run(source, weights)
