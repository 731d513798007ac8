"""Videos that show frames, classes and motion side by side."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import LabelSet
from flowseg.media import drawing
from flowseg.media.frames import video_writer

DEFAULT_FPS = 10.0
# What the three pictures may take together, in px: a full-HD screen's width, and a height that
# leaves three KITTI frames above each other as they are. Tiny frames are enlarged to be readable.
MAX_WIDTH, MAX_HEIGHT, MIN_SIDE = 1840, 1200, 320
STRIP_HEIGHT = 140


def write_video(
    runs: Mapping[str, Any],
    frames: Iterable[tuple[str, np.ndarray]],
    output: str | Path,
    fps: float,
    count: int | None = None,
    scale: float = 1.0,
    max_flow: float | None = None,
    **look: float,
) -> int:
    """Write the video of one or two runs' answers on all consecutive frames.

    Args:
        runs: dict of name -> loaded run with `stream(images, scale)`, as `runs.Run` has it, and
            with `label_set`. The colours' key shows the first one's classes.
        frames: iterator of (name, (H, W, 3) uint8 RGB), of one size; two or more.
        output: FILE.mp4, FILE.webm, or a folder for one PNG a frame.
        fps: frames a second of the video.
        count: how many frames there are, for the progress bar; None where unknown.
        scale: resizes what the network sees.
        max_flow: speed of full colour in px; default: by `first_max_flow` from the first pair.
        **look: `overlay` and `arrows` of `compose`.

    Returns:
        How many frames were written.

    Raises:
        ValueError: frames that cannot be read or differ in size, fewer than two frames, or an
            output that is neither a video to write nor a folder.
        OSError: the output cannot be written.
    """
    written = 0
    shown, *copies = itertools.tee(frames, 1 + len(runs))
    streams = [
        run.stream((image for _, image in copy), scale=scale)
        for run, copy in zip(runs.values(), copies, strict=True)
    ]
    with writer(output, fps) as write:
        pairs = itertools.pairwise(shown)
        pairs = tqdm(pairs, total=count and count - 1, unit="pair", disable=None)
        # Ends with the pairs, one frame before the streams, whose last prediction has no flow.
        for ((name, image), _), *predictions in zip(pairs, *streams, strict=False):
            answers = {
                told: (seg, flow, run.label_set)
                for (told, run), (seg, flow) in zip(runs.items(), predictions, strict=True)
            }
            max_flow = max_flow or max(first_max_flow(flow) for _, flow, _ in answers.values())
            write(compose(name, image, answers, max_flow, **look))
            written += 1
    return written


@contextlib.contextmanager
def writer(output: str | Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """`frames.video_writer` of a video; of a folder, the same for one PNG a frame: 000000.png.

    Raises:
        ValueError: neither.
    """
    if Path(output).suffix:
        with video_writer(output, fps) as write:
            yield write
        return
    if Path(output).is_file():
        raise ValueError(f"{output}: is a file: name FILE.mp4, or a folder for pictures")
    numbers = itertools.count()
    yield lambda picture: drawing.write_png(Path(output) / f"{next(numbers):06d}.png", picture)


def first_max_flow(flow: np.ndarray) -> int:
    """The speed of full colour for a whole video, in px, from the flow of its first pair.

    The 99th percentile of the speeds and half as much again, as a whole number. At least 0.5 % of
    the width, so that a video that begins at rest does not show noise, and later only glare.
    """
    speed = np.hypot(flow[..., 0], flow[..., 1])
    speed = speed[np.isfinite(speed)]
    fast = float(np.percentile(speed, 99)) if speed.size else 0
    return math.ceil(max(1.5 * fast, 0.005 * flow.shape[1], 1))


def compose(
    name: str,
    image: np.ndarray,
    answers: Mapping[str, tuple[np.ndarray, np.ndarray, LabelSet]],
    max_flow: float,
    overlay: float = 0.5,
    arrows: int = 0,
    min_side: int = MIN_SIDE,
) -> np.ndarray:
    """One frame of the video.

    Of one run: wide frames stand above each other, upright ones beside each other, both over a
    strip with the keys to the colours; the usual shapes between fill three quarters, and the keys
    the fourth. Of two runs: the frame and the keys over two columns, one a run.

    Args:
        name: of the frame, for its title.
        image: (H, W, 3) uint8 RGB.
        answers: name of the run -> ((H, W) train ids, (H, W, 2) flow in px, label set); one or two.
        max_flow: speed of full colour in px.
        overlay: strength of the class colours over the frame, 0..1.
        arrows: px of the frame between arrows on the flow's colours, each as long as the motion
            to the next frame; 0: none.
        min_side: frames with a shorter side are enlarged to it.

    Returns:
        (H', W', 3) uint8 RGB; H' and W' depend on H, W and the number of runs alone.
    """
    height, width = image.shape[:2]
    two = len(answers) > 1
    columns = 1 if width > 2 * height else 2 if width >= height else 3
    columns, rows = (2, 3) if two else (columns, {1: 3, 2: 2, 3: 1}[columns])
    limit = min(MAX_WIDTH / (columns * width), MAX_HEIGHT / (rows * height))
    factor = min(limit, max(1, min_side / min(height, width)))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR

    def fit(picture):
        return cv2.resize(picture, size, interpolation=kind)

    text_size = drawing.panel_text_size(columns * size[0])
    titled, moving = [(f"Input: {name}", fit(image))], []
    for run, (seg, flow, label_set) in answers.items():
        told = f", {run}" * two
        shown = drawing.overlay_labels(image, seg, label_set, overlay)
        titled.append((f"Segmentation{told}", fit(shown)))
        colours = fit(flow_to_color(flow, max_flow))
        if arrows:
            _draw_arrows(colours, flow, arrows)
        moving.append((f"Optical flow to the next frame{told}", colours))
    seg, _, label_set = next(iter(answers.values()))
    if columns == 2:
        key = ("Colours", _key(seg, label_set, max_flow, size, text_size))
        first, *rest = titled + moving
        return drawing.panel([first, key, *rest] if two else [first, *rest, key], columns)
    body = drawing.panel(titled + moving, columns)
    strip = _key(seg, label_set, max_flow, (body.shape[1], STRIP_HEIGHT), text_size)
    return np.vstack([body, strip])


def _draw_arrows(picture, flow, spacing):
    """Arrows over `picture`, in place; `flow` may be of another size."""
    height, width = flow.shape[:2]
    factors = np.array([picture.shape[1] / width, picture.shape[0] / height])
    grid = np.mgrid[spacing // 2 : height : spacing, spacing // 2 : width : spacing]
    for y, x in grid.reshape(2, -1).T:
        if not np.isfinite(flow[y, x]).all():
            continue
        ends = np.array([[x, y], [x, y] + flow[y, x]]) * factors
        tip = 4 / max(4.0, float(np.hypot(*(ends[1] - ends[0]))))
        # OpenCV's integers are of 32 bits.
        start, end = np.clip(np.rint(ends), -(2**15), 2**15).astype(int).tolist()
        cv2.arrowedLine(picture, start, end, (20, 20, 20), 1, cv2.LINE_AA, 0, tip)


def _key(seg, label_set, max_flow, size, text_size):
    """The keys to flow and class colours, centred in a picture of `size` = (width, height)."""
    width, height = size
    margin = round(0.6 * text_size)
    wheel = drawing.color_wheel(round(min(0.25 * width, 0.68 * height)), max_flow)
    canvas = drawing.blank(height, width)
    top = (height - wheel.shape[0]) // 2
    canvas[top : top + wheel.shape[0], margin : margin + wheel.shape[1]] = wheel
    left = wheel.shape[1] + 4 * margin
    names = drawing.legend(label_set, width - left - margin, None, text_size)
    if names.shape[0] > height:
        # Too many classes to show all: those of this frame, largest first.
        counts = np.bincount(seg.ravel(), minlength=256)[: len(label_set.names)]
        present = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
        names = drawing.legend(label_set, width - left - margin, present, text_size, height)
    top = (height - names.shape[0]) // 2
    canvas[top : top + names.shape[0], left : left + names.shape[1]] = names
    return canvas
