"""The doctor's page: numbers, findings beside the frames they name, and frames of every set."""

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

# Frames drawn of each data set's split, and of each finding.
SHOWN, SHOWN_OF_FINDING = 3, 3
# However many sets and findings there are.
MOST = 60
# Of one picture in a frame's panel, px; a panel has two columns.
_CELL = 460
_DARK, _LIGHT = "#181a1f", "#e2e4e8"
_COLOURS = ("#8ab4f8", "#ffb74d", "#81c784", "#e57373", "#ba68c8", "#4dd0e1")


def write_page(folder: str | Path, diagnosis: Diagnosis, label_set: LabelSet) -> Path:
    """Write index.html and its pictures; what an earlier page left in the folder goes.

    Args:
        folder: made if need be; `pictures` in it is the page's own.
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
        title="What is in these records",
        numbers=_told(diagnosis, label_set),
        findings=[
            (finding, _figures(finding.frames[:SHOWN_OF_FINDING], names))
            for finding in diagnosis.findings
        ],
        charts=list(charts),
        sets=[
            (
                f"{dataset}, {split}: {count(len(frames), 'record')}",
                _figures(_spread(frames), names),
            )
            for (dataset, split), frames in survey.groups(diagnosis.facts).items()
        ],
    )
    return folder / "index.html"


def _told(diagnosis, label_set):
    numbers = survey.text(diagnosis.facts, diagnosis.numbers, label_set)
    return "\n\n".join([numbers, *(["\n".join(diagnosis.looked)] if diagnosis.looked else [])])


def _choose(diagnosis):
    """{(shard, index): Facts} of the frames to draw: those of findings, then some of each set."""
    frames = [f for finding in diagnosis.findings for f in finding.frames[:SHOWN_OF_FINDING]]
    for found in survey.groups(diagnosis.facts).values():
        frames += _spread(found)
    chosen = {(frame.shard, frame.index): frame for frame in frames if frame.pixels1}
    return dict(list(chosen.items())[:MOST])


def _spread(frames):
    """The few that are shown of a set: those with the most truth first, evenly taken."""
    chosen = []
    for truth in sorted({len(frame.truth) for frame in frames}, reverse=True):
        alike = [frame for frame in frames if len(frame.truth) == truth]
        chosen += evenly(alike, SHOWN - len(chosen))
    return chosen


def _figures(frames, names):
    """(picture's path, frame's name) of the frames that are drawn."""
    return [
        (names[frame.shard, frame.index], frame.name())
        for frame in frames
        if (frame.shard, frame.index) in names
    ]


def draw_record(frame: dict[str, np.ndarray], numbering: str, label_set: LabelSet) -> np.ndarray:
    """One record as a picture: image1 with labels, flow, and how unlike image2 is before and after.

    Args:
        frame: decoded record, see `read.decode`.
        numbering: of its labels.
        label_set: the classes; labels whose numbering it does not map are drawn by their ids.

    Returns:
        (H, W, 3) uint8 RGB, about 940 px wide.
    """
    image = drawing.shrink(frame["image1"], _CELL)
    size = image.shape[1::-1]
    cells = [("Image", image)]
    if "labels" in frame:
        cells.append(_draw_labels(frame["labels"], numbering, label_set, image, size))
    if "image2" in frame:
        cells.append(
            ("Next image", cv2.resize(frame["image2"], size, interpolation=cv2.INTER_AREA))
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
        for title, other in (("as they are", frame["image2"]), ("warped back by the flow", back)):
            cells.append((f"Difference, {title}", _draw_difference(frame, other, size)))
    return drawing.panel(cells, 2)


def _draw_labels(labels, numbering, label_set, image, size):
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    if numbering not in label_set.ids:
        return "Label ids", np.repeat(small[..., None], 3, -1)
    train_ids = train_id_table(label_set, numbering)[small]
    return "Labels", drawing.overlay_labels(image, train_ids, label_set, 0.6)


def _draw_difference(frame, other, size):
    """Twice the difference of `other` and image1 where flow is known, shrunk; black is alike."""
    known = (frame["flow"][..., 2] > 0).astype(np.float32)
    unlike = warp.luma(frame["image1"]) - warp.luma(other)
    both = cv2.resize(np.dstack([abs(unlike) * known, known]), size, interpolation=cv2.INTER_AREA)
    if known.mean() < 0.5:
        both = cv2.blur(both, (3, 3))
    mean = both[..., 0] / np.maximum(both[..., 1], 1e-6)
    grey = np.uint8(np.clip(2 * mean, 0, 255))
    return np.repeat(grey[..., None], 3, -1)


def draw_classes(numbers: dict[str, float], label_set: LabelSet) -> np.ndarray | None:
    """Bars of the classes' shares, a colour a split; None without labels. RGB."""
    splits = [s for s in ("train", "val", "test", "other") if f"{s}/class/void" in numbers]
    if not splits:
        return None
    names = label_set.names
    shares = [[max(numbers[f"{s}/class/{name}"], 1e-4) for name in names] for s in splits]
    figure, axes = _figure(10, 1.2 + 0.28 * len(names))
    for i, (split, share) in enumerate(zip(splits, shares, strict=True)):
        height = 0.8 / len(splits)
        places = np.arange(len(names)) + (i - (len(splits) - 1) / 2) * height
        axes.barh(places, share, height, label=split, color=_COLOURS[i], left=0)
    axes.set(yticks=range(len(names)), yticklabels=names, xscale="log", xlim=(1e-3, 100))
    axes.set_xlabel("% of the labelled pixels (log scale)")
    axes.invert_yaxis()
    return _rendered(figure, axes)


def draw_speeds(facts: Iterable[Facts]) -> np.ndarray | None:
    """Histograms of speed, a line a data set and split; None without flow. RGB."""
    moving = survey.groups(frame for frame in facts if frame.speeds is not None)
    if not moving:
        return None
    figure, axes = _figure(10, 3.2)
    for i, ((dataset, split), frames) in enumerate(moving.items()):
        speeds = np.sum([frame.speeds for frame in frames], 0).astype(float)
        # Four bins of an octave's 32 into one, so that the line is smooth.
        inner = speeds[1:-1][: len(speeds[1:-1]) // 4 * 4].reshape(-1, 4).sum(1)
        edges = SPEED_BINS[1:-1][::4][: len(inner)]
        share = 100 * inner / max(speeds.sum(), 1)
        axes.plot(edges, share, color=_COLOURS[i % len(_COLOURS)], label=f"{dataset}, {split}")
    axes.set(xscale="log", xlim=(1 / 16, 512), ylim=(0, None), ylabel="% of the vectors")
    axes.set_xlabel("speed in px (log scale, 8 steps an octave)")
    ticks = [0.1, 0.3, 1, 3, 10, 30, 100, 300]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    return _rendered(figure, axes)


def _figure(width, height):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), dpi=96, layout="constrained")
    figure.set_facecolor(_DARK)
    return figure, axes


def _rendered(figure, axes):
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
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return picture
