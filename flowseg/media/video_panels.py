"""Writes videos that show frames, segmentation and flow side by side."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import LabelSet
from flowseg.media import drawing
from flowseg.media.frames import sequences
from flowseg.media.video import SourceFrame
from flowseg.media.video_output import video_writer

DEFAULT_FPS = 10.0
# Maximum size of the three panels together, in px: they fit on a full-HD screen in width, and three
# stacked KITTI frames keep their size. Frames smaller than MIN_SIDE are enlarged.
MAX_WIDTH, MAX_HEIGHT, MIN_SIDE = 1840, 1200, 320
STRIP_HEIGHT = 140


def write_video(
    runs: Mapping[str, Any],
    frames: Iterable[SourceFrame],
    output: str | Path,
    fps: float | Fraction,
    count: int | None = None,
    scale: float = 1.0,
    max_flow: float | None = None,
    **drawing_options: float,
) -> int:
    """Write a video of the predictions of one or two runs on all consecutive frames.

    Args:
        runs: dict of name -> loaded run with `stream(images, scale)`, as in `runs.Run`, and
            `label_set`. The colour key shows the classes of the first run.
        frames: iterator of frames of the same size; two or more. A pair is written at the time of
            its first frame; frames of different sequences are not a pair.
        output: FILE.mp4, FILE.webm, or a folder for one PNG per frame.
        fps: frames per second of the video, for frames without a time.
        count: number of frames, for the progress bar; None if unknown.
        scale: factor by which frames are resized for the network.
        max_flow: speed of full colour in px; default: `first_max_flow` of the first pair.
        **drawing_options: `overlay` and `arrows` of `compose`.

    Returns:
        The number of frames written.

    Raises:
        ValueError: frames cannot be read or differ in size, there are fewer than two, or the output
            is neither a supported video nor a folder.
        OSError: the output cannot be written.
    """
    written = 0
    pairs = _predicted_pairs(runs, frames, scale)
    with writer(output, fps) as write:
        for frame, predictions in tqdm(pairs, total=count and count - 1, unit="pair", disable=None):
            max_flow = max_flow or max(first_max_flow(flow) for _, flow, _ in predictions.values())
            panels = compose(frame.name, frame.image, predictions, max_flow, **drawing_options)
            write(panels, frame.time)
            written += 1
    return written


def _predicted_pairs(runs, frames, scale):
    """Yield the first frame of every pair, and its predictions as `compose` takes them."""
    for sequence in sequences(frames):
        shown, *copies = itertools.tee(sequence, 1 + len(runs))
        streams = [
            run.stream((frame.image for frame in copy), scale=scale)
            for run, copy in zip(runs.values(), copies, strict=True)
        ]
        # zip ends with the pairs: the last prediction of a stream has no flow and is not drawn.
        for (frame, _), *outputs in zip(itertools.pairwise(shown), *streams, strict=False):
            yield (
                frame,
                {
                    run_name: (seg, flow, run.label_set)
                    for (run_name, run), (seg, flow) in zip(runs.items(), outputs, strict=True)
                },
            )


@contextlib.contextmanager
def writer(output: str | Path, fps: float | Fraction) -> Iterator[Callable[..., None]]:
    """Yield a function of a frame and optionally its time (see `video_output.video_writer`).

    It writes one frame, to a video or as a numbered PNG (000000.png), which has no time.

    Raises:
        ValueError: the output is neither a supported video nor a folder.
    """
    if Path(output).suffix:
        with video_writer(output, fps) as write:
            yield write
        return
    if Path(output).is_file():
        raise ValueError(f"{output}: is a file: specify FILE.mp4, or a folder for images")
    numbers = itertools.count()

    def write_numbered(image, time=None):
        drawing.write_png(Path(output) / f"{next(numbers):06d}.png", image)

    yield write_numbered


def first_max_flow(flow: np.ndarray) -> int:
    """Return the speed drawn in full colour in a video, in px, from the flow of its first pair.

    It is 1.5 times the 99th percentile of the speeds, rounded up. The minimum of 0.5 % of the width
    prevents a video that starts at rest from showing noise first and saturated colours later.
    """
    speed = np.hypot(flow[..., 0], flow[..., 1])
    speed = speed[np.isfinite(speed)]
    fast = float(np.percentile(speed, 99)) if speed.size else 0
    return math.ceil(max(1.5 * fast, 0.005 * flow.shape[1], 1))


def compose(
    name: str,
    image: np.ndarray,
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray, LabelSet]],
    max_flow: float,
    overlay: float = 0.5,
    arrows: int = 0,
    min_side: int = MIN_SIDE,
) -> np.ndarray:
    """Draw one frame of the video.

    For one run, wide images are stacked and upright ones are side by side, both above a strip with
    the colour keys; images of other shapes fill three cells of a 2 x 2 grid, and the keys the
    fourth. For two runs, the frame and the keys are above two columns, one per run.

    Args:
        name: name of the frame, for its title.
        image: (H, W, 3) uint8 RGB.
        predictions: name of the run -> ((H, W) train ids, (H, W, 2) flow in px, label set), for one
            or two runs.
        max_flow: speed of full colour in px.
        overlay: weight of the class colours over the frame, 0..1.
        arrows: distance in px of the frame between arrows on the flow colours, each as long as the
            motion to the next frame; 0: no arrows.
        min_side: frames with a shorter side are enlarged to it.

    Returns:
        (H', W', 3) uint8 RGB; H' and W' depend only on H, W and the number of runs.
    """
    height, width = image.shape[:2]
    two_runs = len(predictions) > 1
    columns = 1 if width > 2 * height else 2 if width >= height else 3
    columns, rows = (2, 3) if two_runs else (columns, {1: 3, 2: 2, 3: 1}[columns])
    limit = min(MAX_WIDTH / (columns * width), MAX_HEIGHT / (rows * height))
    factor = min(limit, max(1, min_side / min(height, width)))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR

    def fit(source):
        return cv2.resize(source, size, interpolation=kind)

    text_size = drawing.panel_text_size(columns * size[0])
    titled, flow_panels = [(f"Input: {name}", fit(image))], []
    for run, (seg, flow, label_set) in predictions.items():
        suffix = f", {run}" * two_runs
        overlaid = drawing.overlay_labels(image, seg, label_set, overlay)
        titled.append((f"Segmentation{suffix}", fit(overlaid)))
        colours = fit(flow_to_color(flow, max_flow))
        if arrows:
            _draw_arrows(colours, flow, arrows)
        flow_panels.append((f"Optical flow to the next frame{suffix}", colours))
    seg, _, label_set = next(iter(predictions.values()))
    if columns == 2:
        key = ("Colours", _key(seg, label_set, max_flow, size, text_size))
        first, *rest = titled + flow_panels
        return drawing.panel([first, key, *rest] if two_runs else [first, *rest, key], columns)
    body = drawing.panel(titled + flow_panels, columns)
    strip = _key(seg, label_set, max_flow, (body.shape[1], STRIP_HEIGHT), text_size)
    return np.vstack([body, strip])


def _draw_arrows(image, flow, spacing):
    """Draw arrows on `image` in place; `flow` may have another size."""
    height, width = flow.shape[:2]
    factors = np.array([image.shape[1] / width, image.shape[0] / height])
    grid = np.mgrid[spacing // 2 : height : spacing, spacing // 2 : width : spacing]
    for y, x in grid.reshape(2, -1).T:
        if not np.isfinite(flow[y, x]).all():
            continue
        ends = np.array([[x, y], [x, y] + flow[y, x]]) * factors
        tip = 4 / max(4.0, float(np.hypot(*(ends[1] - ends[0]))))
        # OpenCV uses 32-bit integers.
        start, end = np.clip(np.rint(ends), -(2**15), 2**15).astype(int).tolist()
        cv2.arrowedLine(image, start, end, (20, 20, 20), 1, cv2.LINE_AA, 0, tip)


def _key(seg, label_set, max_flow, size, text_size):
    """Draw the keys to flow and class colours, centred, in an image of `size` = (width, height)."""
    width, height = size
    margin = round(0.6 * text_size)
    wheel = drawing.color_wheel(round(min(0.25 * width, 0.68 * height)), max_flow)
    canvas = drawing.blank(height, width)
    top = (height - wheel.shape[0]) // 2
    canvas[top : top + wheel.shape[0], margin : margin + wheel.shape[1]] = wheel
    left = wheel.shape[1] + 4 * margin
    names = drawing.legend(label_set, width - left - margin, None, text_size)
    if names.shape[0] > height:
        # Too many classes to show: use those of this frame, largest first.
        counts = np.bincount(seg.ravel(), minlength=256)[: len(label_set.names)]
        present = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
        names = drawing.legend(label_set, width - left - margin, present, text_size, height)
    top = (height - names.shape[0]) // 2
    canvas[top : top + names.shape[0], left : left + names.shape[1]] = names
    return canvas
