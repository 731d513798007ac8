"""evaluate's report: one HTML file, pictures inside, that says how good answers are and where.

`Collector` sees every frame while it is scored and keeps its scores, and the pictures of the worst
and best; `write` makes the page. What there is no truth for has no section.
"""

import base64
import html

import cv2
import numpy as np

from flowseg import page, panels, pictures, scoring

# Of these scores the worst and best frames are shown, and whether more is better.
_SHOWN_BY = {"seg/miou": True, "flow/aepe": False}
_MAIN = {
    "seg/miou": "mIoU, %",
    "seg/pixel_accuracy": "pixel accuracy, %",
    "seg/category_miou": "category mIoU, %",
    "seg/iiou": "iIoU, %",
    "seg/boundary_f": "boundary F, %",
    "flow/aepe": "AEPE, px",
    "flow/fl_all": "Fl-all, %",
    "flow/aepe_noc": "AEPE, seen twice, px",
    "flow/fl_all_noc": "Fl-all, seen twice, %",
}
_REGIONS = {
    "all": "all",
    "noc": "seen in both frames",
    "hidden": "hidden in the second",
    "bg": "background",
    "fg": "foreground",
    "bg_noc": "background, seen in both",
    "fg_noc": "foreground, seen in both",
    "0_10": "moves 0 to 10 px",
    "10_40": "10 to 40 px",
    "40_up": "over 40 px",
}
_STYLE = """
.bar { background: #5b8def; height: .8em; display: inline-block; vertical-align: middle }
.other { background: #6b7078 } .wide td:nth-child(3) { min-width: 21em } .better { color: #9ccc9c }
.worse { color: #ff8a80 } .matrix td, .matrix th { padding: .1em .3em; font-size: 12px;
text-align: right } .matrix th.top { writing-mode: vertical-rl; text-align: left }
.scroll { overflow-x: auto } summary { cursor: pointer }
"""


class Collector:
    """Keeps, frame by frame, what the report shows; see `add`.

    Attributes:
        frames: list of (frame id, data set, scores).
        by_set: data set -> counts of its frames.
        extremes: score -> list of (value, frame id, JPEG), from worst to best.
    """

    def __init__(self, label_set, each=3):
        """`each`: how many of the worst, and how many of the best frames are drawn."""
        self.label_set, self._each = label_set, each
        self.frames, self.by_set = [], {}
        self.extremes = {key: [] for key in _SHOWN_BY}

    def add(self, frame, seg, flow, counts):
        """One frame, its answers (either may be None) and their counts, as `evaluate.count` has."""
        told, name = (frame[key].decode() for key in ("frame_id", "dataset"))
        scores = scoring.scores(counts, self.label_set.names)
        self.frames.append((told, name, scores))
        self.by_set[name] = scoring.add(self.by_set.get(name, {}), counts)
        drawn = None
        for key, more_is_better in _SHOWN_BY.items():
            if key not in scores:
                continue
            kept = self.extremes[key]
            worth = scores[key] if more_is_better else -scores[key]
            full = len(kept) == 2 * self._each
            if full and kept[self._each - 1][0] <= worth <= kept[self._each][0]:
                continue
            drawn = drawn or _jpeg(panels.draw_answers(frame, seg, flow, self.label_set))
            kept.append((worth, told, scores[key], drawn))
            kept.sort(key=lambda entry: entry[0])
            del kept[self._each : len(kept) - self._each]


def _jpeg(picture, width=1200):
    small = np.ascontiguousarray(pictures.shrink(picture, width)[..., ::-1])
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def write(path, title, scores, counts, collected, flags_text="", other=None, told=""):
    """Write the page.

    Args:
        path: its file.
        title: what was scored on what.
        scores: of all frames, as `scoring.scores` gives them.
        counts: that they are of.
        collected: a `Collector` that saw every frame.
        flags_text: the flags of the run; empty: not known.
        other: (name, scores) to compare with, or None.
        told: what else is to be said of the frames, a sentence.

    Raises:
        OSError: the file cannot be written.
    """
    names = collected.label_set.names
    parts = [
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p>{len(collected.frames)} frames. {html.escape(told)}</p>",
        _main_table(scores, other) if scores else "<p>They have no truth: nothing was scored.</p>",
        _flow_table(counts, scores),
        _class_table(names, counts, scores, other),
        _category_table(scores),
        _confusion(names, counts),
        _set_table(collected),
        _extremes(collected),
        _frame_table(collected),
    ]
    if flags_text:
        parts.append(f"<h2>The run's flags</h2><pre>{html.escape(flags_text)}</pre>")
    page.write_html(path, html.escape(title), "".join(parts))


def _table(headings, rows, kind=""):
    """Cells are HTML already."""
    top = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><tr>{top}</tr>{body}</table></div>'


def _main_table(scores, other):
    rows = []
    for key, name in _MAIN.items():
        if key in scores:
            row = [name, f"{scores[key]:.2f}"]
            if other:
                row += _beside(key, scores[key], other[1].get(key))
            rows.append(row)
    headings = ["", "here", html.escape(other[0]), "difference"] if other else ["", ""]
    return _table(headings, rows)


def _beside(key, value, theirs):
    if theirs is None:
        return ["", ""]
    gap = value - theirs
    better = gap > 0 if key.startswith("seg/") else gap < 0
    mood = "better" if better else "worse" if gap else ""
    return [f"{theirs:.2f}", f'<span class="{mood}">{gap:+.2f}</span>']


def _flow_table(counts, scores):
    total = counts["flow/all"][0] if "flow/all" in counts else 0
    rows = []
    for region, name in _REGIONS.items():
        if f"flow/{region}" in counts:
            pixels, error, outliers = counts[f"flow/{region}"][:3]
            share, wrong = 100 * pixels / total, 100 * outliers / pixels
            rows.append([name, f"{share:.1f} %", f"{error / pixels:.2f}", f"{wrong:.2f}"])
    headings = ["", "of the pixels", "AEPE, px", "outliers, %"]
    return "<h2>Flow, by place and speed</h2>" + _table(headings, rows) if rows else ""


def _class_table(names, counts, scores, other):
    """IoU with bars; then the boundary's F-measure and, where things are known, iIoU."""
    rows = []
    things = any(f"seg/iiou/{name}" in scores for name in names)
    for label, name in enumerate(names):
        iou = scores.get(f"seg/iou/{name}")
        if iou is None:
            continue
        bars = f'<span class="bar" style="width:{iou / 5:.2f}em"></span>'
        row = [html.escape(name), f"{iou:.1f}", bars]
        if other:
            theirs = other[1].get(f"seg/iou/{name}")
            if theirs is not None:
                row[2] += f'<br><span class="bar other" style="width:{theirs / 5:.2f}em"></span>'
            row += _beside("seg/iou", iou, theirs)
        f_measures, frames = counts["seg/boundary"][label]
        row.append(f"{100 * f_measures / frames:.1f}" if frames else "")
        if things:
            row.append(_percent(scores.get(f"seg/iiou/{name}")))
        rows.append(row)
    headings = ["class", "IoU, %", ""] + (["grey: " + html.escape(other[0]), ""] if other else [])
    headings += ["boundary F, %"] + ["iIoU, %"] * things
    return "<h2>Classes</h2>" + _table(headings, rows, "wide") if rows else ""


def _category_table(scores):
    """Cityscapes' categories; empty for other classes."""
    head = "seg/category_iou/"
    rows = [
        [html.escape(name), _percent(score), _percent(scores.get(f"seg/category_iiou/{name}"))]
        for key, score in scores.items()
        if key.startswith(head) and (name := key.removeprefix(head))
    ]
    headings = ["category", "IoU, %", "iIoU, %"]
    return "<h2>Categories</h2>" + _table(headings, rows) if rows else ""


def _percent(score):
    return "" if score is None else f"{score:.1f}"


def _confusion(names, counts):
    if "seg/confusion" not in counts:
        return ""
    matrix = counts["seg/confusion"]
    present = np.nonzero(matrix.sum(1) + matrix[:, :-1].sum(0))[0]
    columns = [*present, *([len(names)] if matrix[:, -1].any() else [])]
    labels = [*names, "nothing"]
    top = "".join(f'<th class="top">{html.escape(labels[c])}</th>' for c in columns)
    rows = []
    for row in present:
        shares = 100 * matrix[row] / max(1, matrix[row].sum())
        cells = "".join(
            f'<td style="background:rgba({"80,160,90" if c == row else "210,80,70"},'
            f'{shares[c] / 100:.3f})">{f"{shares[c]:.0f}" if shares[c] >= 0.5 else ""}</td>'
            for c in columns
        )
        rows.append(f"<tr><th>{html.escape(names[row])}</th>{cells}</tr>")
    return (
        "<h2>Confusion</h2><p>Of the pixels that truly are of a row's class, how many percent were "
        f'said to be of each column\'s.</p><div class="scroll"><table class="matrix"><tr><th></th>'
        f"{top}</tr>{''.join(rows)}</table></div>"
    )


def _set_table(collected):
    if len(collected.by_set) < 2:
        return ""
    scored = {
        name: scoring.scores(counts, collected.label_set.names)
        for name, counts in sorted(collected.by_set.items())
    }
    rows = [[html.escape(name), *_main_cells(own)] for name, own in scored.items()]
    return "<h2>Data sets</h2>" + _table(["", *_MAIN.values()], rows)


def _main_cells(scores):
    return [f"{scores[key]:.2f}" if key in scores else "" for key in _MAIN]


def _extremes(collected):
    parts = []
    for key, entries in collected.extremes.items():
        if not entries:
            continue
        name = _MAIN[key]
        parts.append(f"<h2>Frames by {name}, worst first</h2>")
        for _, told, value, jpeg in entries:
            data = base64.b64encode(jpeg).decode()
            caption = f"{html.escape(told)}: {value:.2f}"
            parts.append(
                f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    return "".join(parts)


def _frame_table(collected):
    rows = [
        [html.escape(told), html.escape(name), *_main_cells(scores)]
        for told, name, scores in collected.frames
    ]
    table = _table(["frame", "set", *_MAIN.values()], rows)
    return f"<h2>Every frame</h2><details><summary>{len(rows)} frames</summary>{table}</details>"
