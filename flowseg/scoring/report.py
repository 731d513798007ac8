"""Writes the report of `evaluate`: one HTML file with scores and embedded images.

`Collector` receives every frame during scoring and stores its scores, and images of the worst and
best frames; `write` creates the page. Without ground truth for classes or flow, their section is
omitted. If the run is compared with another one, each score that both have is shown with the other
run's score and the difference.
"""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from flowseg.data.labels import LabelSet
from flowseg.media import drawing, panels
from flowseg.scoring import html_page, set_scores

# Scores by which the worst and best frames are shown, and whether higher is better.
_SHOWN_BY = {"seg/miou": True, "flow/aepe": False}
_MAIN = {
    "seg/miou": "mIoU, %",
    "seg/pixel_accuracy": "pixel accuracy, %",
    "seg/category_miou": "category mIoU, %",
    "seg/iiou": "iIoU, %",
    "seg/boundary_f": "boundary F, %",
    "flow/aepe": "AEPE, px",
    "flow/fl_all": "Fl-all, %",
    "flow/aepe_noc": "AEPE, non-occluded, px",
    "flow/fl_all_noc": "Fl-all, non-occluded, %",
}
_REGIONS = {
    "all": "all",
    "noc": "non-occluded",
    "occluded": "occluded",
    "bg": "background",
    "fg": "foreground",
    "bg_noc": "background, non-occluded",
    "fg_noc": "foreground, non-occluded",
    "0_10": "moves 0 to 10 px",
    "10_40": "10 to 40 px",
    "40_up": "over 40 px",
    "40_100": "40 to 100 px",
    "100_up": "over 100 px",
}
# Score keys of the regions with official names.
_OFFICIAL_KEYS = {
    "all": ["flow/aepe", "flow/fl_all"],
    "noc": ["flow/aepe_noc", "flow/fl_all_noc"],
}


class ScoreCells(NamedTuple):
    """A score, that of the other run, and the difference, as text; empty if unknown.

    `mood` is "better" or "worse", or empty for no difference.
    """

    score: str
    other: str = ""
    gap: str = ""
    mood: str = ""


class ScoreTable(NamedTuple):
    """Scores by row.

    Attributes:
        names: headings of the scores.
        rows: list of (content of the first cells, a `ScoreCells` for each name).
    """

    names: list[str]
    rows: list[tuple[Any, list[ScoreCells]]]


class Collector(set_scores.Tally):
    """Tally that also draws the worst and best frames; see `add`.

    Attributes:
        extremes: score -> list of (quality, frame id, folder, value, JPEG), from worst to best.
    """

    def __init__(self, label_set: LabelSet, each: int = 3):
        """`each`: number of worst frames, and of best frames, to draw."""
        super().__init__(label_set)
        self._each = each
        self.extremes = {key: [] for key in _SHOWN_BY}

    def add(
        self,
        frame: dict[str, Any],
        seg: np.ndarray | None,
        flow: np.ndarray | None,
        counts: dict[str, np.ndarray],
    ) -> None:
        """Add a frame, its predictions (either may be None) and counts from `evaluation.count`."""
        scores = super().add(frame, seg, flow, counts)
        frame_id, image = frame["frame_id"].decode(), None
        for key, more_is_better in _SHOWN_BY.items():
            if key not in scores:
                continue
            entries = self.extremes[key]
            quality = scores[key] if more_is_better else -scores[key]
            full = len(entries) == 2 * self._each
            if full and entries[self._each - 1][0] <= quality <= entries[self._each][0]:
                continue
            image = image or _jpeg(panels.draw_predictions(frame, seg, flow, self.label_set))
            entries.append((quality, frame_id, self.frames[-1][1], scores[key], image))
            entries.sort(key=lambda entry: entry[0])
            del entries[self._each : len(entries) - self._each]


def _jpeg(image, width=1200):
    small = np.ascontiguousarray(drawing.shrink(image, width)[..., ::-1])
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def write(
    path: str | Path,
    title: str,
    scores: dict[str, float],
    counts: dict[str, np.ndarray],
    collected: Collector,
    flags_text: str = "",
    other: tuple[str, dict[str, float]] | None = None,
    note: str = "",
) -> None:
    """Write the page.

    Args:
        path: file to write.
        title: names of the predictions and the record sets.
        scores: of all frames, from `frame_scores.scores`.
        counts: from which the scores were computed.
        collected: a `Collector` to which every frame was added.
        flags_text: flags of the run; empty if unknown.
        other: (name, scores) to compare with, or None.
        note: an additional sentence about the frames.

    Raises:
        OSError: the file cannot be written.
    """
    other_name, others = other or ("", None)
    html_page.write_html(
        path,
        html_page.TEMPLATES / "report.html.jinja",
        title=title,
        note=note,
        other_name=other_name,
        main=_main_table(scores, others),
        sets=_set_table(collected, scores),
        flow=_flow_table(counts, scores, others),
        classes=_class_table(collected.label_set, scores, others),
        categories=_category_table(scores, others),
        confusion=_confusion(collected.label_set.names, counts),
        extremes=_extremes(collected),
        frames=_frame_table(collected, scores),
        flags_text=flags_text,
    )


def _score_table(rows, names, scores, others):
    """Build a `ScoreTable`.

    Args:
        rows: list of (content of the first cells, keys of its scores).
        names: headings of the scores; columns without any score are omitted.
        scores: key -> score.
        others: scores of another run, or None.
    """
    columns = [i for i in range(len(names)) if any(keys[i] in scores for _, keys in rows)]
    return ScoreTable(
        names=[names[i] for i in columns],
        rows=[(first, [_cells(keys[i], scores, others) for i in columns]) for first, keys in rows],
    )


def _cells(key, scores, others):
    score, other = scores.get(key), (others or {}).get(key)
    if score is None or other is None:
        return ScoreCells("" if score is None else f"{score:.2f}")
    gap = score - other
    better = gap > 0 if key.startswith("seg/") else gap < 0
    mood = "better" if better else "worse" if gap else ""
    return ScoreCells(f"{score:.2f}", f"{other:.2f}", f"{gap:+.2f}", mood)


def _main_table(scores, others):
    rows = [(name, [key]) for key, name in _MAIN.items() if key in scores]
    return _score_table(rows, ["" if others is None else "this"], scores, others)


def _flow_table(counts, scores, others):
    rows = []
    for region, name in _REGIONS.items():
        if f"flow/{region}" in counts:
            share = 100 * counts[f"flow/{region}"][0] / counts["flow/all"][0]
            keys = [f"flow/aepe_{region}", f"flow/fl_{region}"]
            rows.append(({"name": name, "share": share}, _OFFICIAL_KEYS.get(region, keys)))
    return _score_table(rows, ["AEPE, px", "outliers, %"], scores, others)


def _class_table(label_set, scores, others):
    """Table of classes: colour, IoU with bars, boundary F and, if instances are known, iIoU."""
    rows = []
    for name, colour in zip(label_set.names, label_set.palette, strict=True):
        iou = f"seg/iou/{name}"
        if iou in scores:
            first = {"name": name, "colour": colour, "iou": scores[iou]}
            first["other_iou"] = (others or {}).get(iou)
            rows.append((first, [iou, f"seg/boundary_f/{name}", f"seg/iiou/{name}"]))
    return _score_table(rows, ["IoU, %", "boundary F, %", "iIoU, %"], scores, others)


def _category_table(scores, others):
    """Table of Cityscapes' categories; empty for other label sets."""
    head = "seg/category_iou/"
    names = [key.removeprefix(head) for key in scores if key.startswith(head)]
    rows = [(n, [f"seg/category_{kind}/{n}" for kind in ("iou", "iiou")]) for n in names]
    return _score_table(rows, ["IoU, %", "iIoU, %"], scores, others)


def _confusion(names, counts):
    """Predicted share of the pixels of each true class, in percent; None without labels."""
    if "seg/confusion" not in counts:
        return None
    matrix = counts["seg/confusion"]
    present = np.nonzero(matrix.sum(1) + matrix[:, :-1].sum(0))[0]
    columns = [*present, *([len(names)] if matrix[:, -1].any() else [])]
    labels = [*names, "none"]
    rows = []
    for row in present:
        shares = 100 * matrix[row] / max(1, matrix[row].sum())
        cells = [{"share": shares[column], "right": column == row} for column in columns]
        rows.append((names[row], cells))
    return {"names": [labels[column] for column in columns], "rows": rows}


def _set_table(collected, scores):
    """Scores of each record set; None if there is only one."""
    sets = collected.set_scores()
    if not sets:
        return None
    datasets = {name: [] for name in sets}
    names = collected.set_names()
    for _, folder, dataset, _ in collected.frames:
        datasets[names[folder]].append(dataset)
    columns = [scores, *sets.values()]
    rows = [
        ["data set", "", *(", ".join(sorted(set(each))) for each in datasets.values())],
        ["frames", len(collected.frames), *map(len, datasets.values())],
    ]
    rows += [[name, *_column(columns, key)] for key, name in _MAIN.items() if key in scores]
    return {
        "headings": ["", "all", *sets],
        "rows": rows,
        "every_score": [[key, *_column(columns, key)] for key in scores],
    }


def _column(columns, key):
    return [f"{scores[key]:.2f}" if key in scores else "" for scores in columns]


def _extremes(collected):
    """[(name of the score, images of the worst and of the best frames, most extreme first)]."""
    names, groups = collected.set_names(), []
    for key, entries in collected.extremes.items():
        middle = -(-len(entries) // 2)
        kinds = ["worst"] * middle + ["best"] * (len(entries) - middle)
        images = [
            {
                "kind": kind,
                "name": f"{names[folder]}: {frame_id}" if len(names) > 1 else frame_id,
                "score": score,
                "jpeg": base64.b64encode(jpeg).decode(),
            }
            for kind, (_, frame_id, folder, score, jpeg) in zip(
                kinds, entries[:middle] + entries[middle:][::-1], strict=True
            )
        ]
        if images:
            groups.append((_MAIN[key], images))
    return groups


def _frame_table(collected, scores):
    names, keys = collected.set_names(), [key for key in _MAIN if key in scores]
    return {
        "headings": ["frame", "set", *(_MAIN[key] for key in keys)],
        "rows": [
            [frame_id, names[folder], *(_column([frame_scores], key)[0] for key in keys)]
            for frame_id, folder, _, frame_scores in collected.frames
        ],
    }
