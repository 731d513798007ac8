"""Writes the doctor's HTML page: numbers, findings with their frames, and sample frames."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from data_prep.doctor import survey, warp
from data_prep.doctor.examine import Diagnosis, evenly, fields_of
from data_prep.doctor.facts import SPEED_BINS, Facts
from data_prep.doctor.findings import count
from data_prep.doctor.read import decode
from flowseg import files
from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import LabelSet, train_id_table
from flowseg.media import drawing
from flowseg.scoring import html_page

# Number of frames shown per data set and split, and per finding.
PER_SET, PER_FINDING = 3, 3
# Maximum number of frames on the page.
MAX_FRAMES = 60
# Width of an image in a frame's panel, px; a panel has two columns.
_CELL = 460
_DARK, _LIGHT = "#181a1f", "#e2e4e8"
_COLOURS = ("#8ab4f8", "#ffb74d", "#81c784", "#e57373", "#ba68c8", "#4dd0e1")


def write_page(folder: str | Path, diagnosis: Diagnosis, label_set: LabelSet) -> Path:
    """Write index.html and its images, replacing the images of an earlier page.

    Args:
        folder: created if missing; its subfolder `pictures` is deleted and rewritten.
        diagnosis: the :class:`data_prep.doctor.examine.Diagnosis` to show.
        label_set: the classes.

    Returns:
        Path of the page.

    Raises:
        OSError: a file cannot be read or written.
    """
    folder = Path(folder)
    shutil.rmtree(folder / "pictures", ignore_errors=True)
    shown = _choose(diagnosis)
    names = {key: f"pictures/{i:03d}.jpg" for i, key in enumerate(shown)}
    charts = {
        "classes": draw_classes(diagnosis.numbers, label_set),
        "speeds": draw_speeds(diagnosis.facts),
    }
    charts = {name: chart for name, chart in charts.items() if chart is not None}
    for name, chart in charts.items():
        drawing.write_png(folder / "pictures" / f"{name}.png", chart)
    for shard, index, fields in fields_of(shown.values()):
        panel = draw_record(decode(fields)[0], fields["label_set"], label_set)
        _, data = cv2.imencode(".jpg", panel[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        files.write(folder / names[shard, index], data.tobytes())
    html_page.write_html(
        folder / "index.html",
        Path(__file__).with_suffix(".html.jinja"),
        title="Contents of these records",
        numbers=_format_numbers(diagnosis, label_set),
        findings=[
            (finding, _figures(finding.frames[:PER_FINDING], names))
            for finding in diagnosis.findings
        ],
        charts=list(charts),
        sets=[
            (
                f"{dataset}, {split}: {count(len(frames), 'record')}",
                _figures(_sample(frames), names),
            )
            for (dataset, split), frames in survey.groups(diagnosis.facts).items()
        ],
    )
    return folder / "index.html"


def _format_numbers(diagnosis, label_set):
    numbers = survey.text(diagnosis.facts, diagnosis.numbers, label_set)
    return "\n\n".join(
        [numbers, *(["\n".join(diagnosis.inspected)] if diagnosis.inspected else [])]
    )


def _choose(diagnosis):
    """Choose the frames to draw, {(shard, index): Facts}: those of findings, then of each set."""
    frames = [f for finding in diagnosis.findings for f in finding.frames[:PER_FINDING]]
    for frames_of_set in survey.groups(diagnosis.facts).values():
        frames += _sample(frames_of_set)
    chosen = {(frame.shard, frame.index): frame for frame in frames if frame.pixels1}
    return dict(list(chosen.items())[:MAX_FRAMES])


def _sample(frames):
    """Sample the frames shown of a set: those with the most ground truth first."""
    chosen = []
    for truth in sorted({len(frame.truth) for frame in frames}, reverse=True):
        candidates = [frame for frame in frames if len(frame.truth) == truth]
        chosen += evenly(candidates, PER_SET - len(chosen))
    return chosen


def _figures(frames, names):
    """Return (image path, frame name) of the frames that are drawn."""
    return [
        (names[frame.shard, frame.index], frame.name())
        for frame in frames
        if (frame.shard, frame.index) in names
    ]


def draw_record(frame: dict[str, np.ndarray], numbering: str, label_set: LabelSet) -> np.ndarray:
    """Draw a record: image1, labels, flow, and the difference to image2 before and after warping.

    Args:
        frame: decoded record, see `read.decode`.
        numbering: numbering of its labels.
        label_set: the classes; labels whose numbering it does not map are drawn as grey ids.

    Returns:
        (H, W, 3) uint8 RGB, about 940 px wide.
    """
    image = drawing.shrink(frame["image1"], _CELL)
    size = image.shape[1::-1]
    cells = [("First frame", image)]
    if "labels" in frame:
        cells.append(_draw_labels(frame["labels"], numbering, label_set, image, size))
    if "image2" in frame:
        cells.append(
            ("Second frame", cv2.resize(frame["image2"], size, interpolation=cv2.INTER_AREA))
        )
    if "flow" in frame:
        flow = drawing.shrink_flow(frame["flow"], size)
        known = flow[..., 2] > 0
        speed = np.hypot(flow[..., 0], flow[..., 1])[known]
        full = max(1.0, float(np.percentile(speed, 99))) if known.any() else 1.0
        colours = flow_to_color(flow[..., :2], full, known)
        cells.append((f"Flow, full colour at {full:.3g} px", colours))
    if {"flow", "image2"} <= frame.keys():
        back = warp.warp(frame["image2"], frame["flow"])
        for title, other in (("not warped", frame["image2"]), ("warped back by the flow", back)):
            cells.append((f"Difference, {title}", _draw_difference(frame, other, size)))
    return drawing.panel(cells, 2)


def _draw_labels(labels, numbering, label_set, image, size):
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    if numbering not in label_set.ids:
        return "Label ids", np.repeat(small[..., None], 3, -1)
    train_ids = train_id_table(label_set, numbering)[small]
    return "Labels", drawing.overlay_labels(image, train_ids, label_set, 0.6)


def _draw_difference(frame, other, size):
    """Draw twice the difference of `other` and image1 where flow is known; black is equal."""
    known = (frame["flow"][..., 2] > 0).astype(np.float32)
    difference = warp.luma(frame["image1"]) - warp.luma(other)
    both = cv2.resize(
        np.dstack([abs(difference) * known, known]), size, interpolation=cv2.INTER_AREA
    )
    if known.mean() < 0.5:
        both = cv2.blur(both, (3, 3))
    mean = both[..., 0] / np.maximum(both[..., 1], 1e-6)
    grey = np.uint8(np.clip(2 * mean, 0, 255))
    return np.repeat(grey[..., None], 3, -1)


def draw_classes(numbers: dict[str, float], label_set: LabelSet) -> np.ndarray | None:
    """Draw the classes' shares as bars, one colour per split; None without labels. RGB."""
    splits = [s for s in ("train", "val", "test", "other") if f"{s}/class/void" in numbers]
    if not splits:
        return None
    names = label_set.names
    shares = [[max(numbers[f"{s}/class/{name}"], 1e-4) for name in names] for s in splits]
    figure, axes = _figure(10, 1.2 + 0.28 * len(names))
    for i, (split, share) in enumerate(zip(splits, shares, strict=True)):
        height = 0.8 / len(splits)
        positions = np.arange(len(names)) + (i - (len(splits) - 1) / 2) * height
        axes.barh(positions, share, height, label=split, color=_COLOURS[i], left=0)
    axes.set(yticks=range(len(names)), yticklabels=names, xscale="log", xlim=(1e-3, 100))
    axes.set_xlabel("% of the labelled pixels (log scale)")
    axes.invert_yaxis()
    return _render(figure, axes)


def draw_speeds(facts: Iterable[Facts]) -> np.ndarray | None:
    """Draw speed histograms, one line per data set and split; None without flow. RGB."""
    moving = survey.groups(frame for frame in facts if frame.speeds is not None)
    if not moving:
        return None
    figure, axes = _figure(10, 3.2)
    for i, ((dataset, split), frames) in enumerate(moving.items()):
        speeds = np.sum([frame.speeds for frame in frames], 0).astype(float)
        # Merges four of the 32 bins per octave, so that the line is smooth.
        inner = speeds[1:-1][: len(speeds[1:-1]) // 4 * 4].reshape(-1, 4).sum(1)
        edges = SPEED_BINS[1:-1][::4][: len(inner)]
        share = 100 * inner / max(speeds.sum(), 1)
        axes.plot(edges, share, color=_COLOURS[i % len(_COLOURS)], label=f"{dataset}, {split}")
    axes.set(xscale="log", xlim=(1 / 16, 512), ylim=(0, None), ylabel="% of the vectors")
    axes.set_xlabel("speed in px (log scale, 8 bins per octave)")
    ticks = [0.1, 0.3, 1, 3, 10, 30, 100, 300]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    return _render(figure, axes)


def _figure(width, height):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), dpi=96, layout="constrained")
    figure.set_facecolor(_DARK)
    return figure, axes


def _render(figure, axes):
    import matplotlib.pyplot as plt

    axes.set_facecolor(_DARK)
    axes.tick_params(colors=_LIGHT, which="both")
    axes.xaxis.label.set_color(_LIGHT)
    axes.yaxis.label.set_color(_LIGHT)
    axes.grid(alpha=0.2)
    for spine in axes.spines.values():
        spine.set_color("#4a4d55")
    axes.legend(facecolor=_DARK, labelcolor=_LIGHT, edgecolor="#4a4d55")
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return image
