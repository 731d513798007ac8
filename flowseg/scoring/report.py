"""evaluate's report: one HTML file, pictures inside, that says how good answers are and where.

`Collector` sees every frame while it is scored and keeps its scores, and the pictures of the worst
and best; `write` makes the page. What there is no truth for has no section. With another run to
compare, its score and the difference stand beside each score that both have.
"""

import base64
import html

import cv2
import numpy as np

from flowseg.media import drawing, panels
from flowseg.scoring import html_page, set_scores

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
# The keys of the regions that have official names.
_WHOLE = {
    "all": ["flow/aepe", "flow/fl_all"],
    "noc": ["flow/aepe_noc", "flow/fl_all_noc"],
}
_STYLE = """
h1 { overflow-wrap: anywhere } td { white-space: nowrap }
td, th { text-align: right } :is(td, th):first-child, td:has(.bar) { text-align: left }
.bar { background: #5b8def; height: .7em; display: block; margin: .15em 0 }
.swatch { display: inline-block; width: 1em; height: 1em; vertical-align: -.1em;
border: 1px solid #6e727a }
.other { background: #6b7078 } i { color: #9aa0a8; font-style: normal } .better { color: #9ccc9c }
.worse { color: #ff8a80 }
figure.worst, figure.best { border-left: 6px solid #ff8a80; padding-left: 1em }
figure.best { border-color: #9ccc9c } figcaption b { color: #ff8a80 } .best b { color: #9ccc9c }
.matrix :is(td, th) { padding: .1em .3em; font-size: 12px; text-align: right }
.matrix th.top { writing-mode: vertical-rl; text-align: left }
.scroll { overflow-x: auto } summary { cursor: pointer }
"""


class Collector(set_scores.Tally):
    """A tally that also draws the worst and the best frames; see `add`.

    Attributes:
        extremes: score -> list of (worth, frame id, folder, value, JPEG), from worst to best.
    """

    def __init__(self, label_set, each=3):
        """`each`: how many of the worst, and how many of the best frames are drawn."""
        super().__init__(label_set)
        self._each = each
        self.extremes = {key: [] for key in _SHOWN_BY}

    def add(self, frame, seg, flow, counts):
        """One frame, its answers (either may be None) and their counts by `evaluation.count`."""
        scores = super().add(frame, seg, flow, counts)
        told, drawn = frame["frame_id"].decode(), None
        for key, more_is_better in _SHOWN_BY.items():
            if key not in scores:
                continue
            kept = self.extremes[key]
            worth = scores[key] if more_is_better else -scores[key]
            full = len(kept) == 2 * self._each
            if full and kept[self._each - 1][0] <= worth <= kept[self._each][0]:
                continue
            drawn = drawn or _jpeg(panels.draw_answers(frame, seg, flow, self.label_set))
            kept.append((worth, told, self.frames[-1][1], scores[key], drawn))
            kept.sort(key=lambda entry: entry[0])
            del kept[self._each : len(kept) - self._each]


def _jpeg(picture, width=1200):
    small = np.ascontiguousarray(drawing.shrink(picture, width)[..., ::-1])
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def write(path, title, scores, counts, collected, flags_text="", other=None, told=""):
    """Write the page.

    Args:
        path: its file.
        title: what was scored on what.
        scores: of all frames, as `frame_scores.scores` gives them.
        counts: that they are of.
        collected: a `Collector` that saw every frame.
        flags_text: the flags of the run; empty: not known.
        other: (name, scores) to compare with, or None.
        told: what else is to be said of the frames, a sentence.

    Raises:
        OSError: the file cannot be written.
    """
    parts = [
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p>{len(collected.frames)} frames. {html.escape(told)}</p>",
        f"<p>The other: <i>{html.escape(other[0])}</i></p>" if other else "",
        _main_table(scores, other) if scores else "<p>They have no truth: nothing was scored.</p>",
        _set_table(collected, scores),
        _flow_table(counts, scores, other),
        _class_table(collected.label_set, scores, other),
        _category_table(scores, other),
        _confusion(collected.label_set.names, counts),
        _extremes(collected),
        _frame_table(collected, scores),
    ]
    if flags_text:
        parts.append(f"<h2>The run's flags</h2><pre>{html.escape(flags_text)}</pre>")
    html_page.write_html(path, html.escape(title), "".join(parts))


def _table(headings, rows):
    """Cells are HTML already."""
    top = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _score_table(rows, first, names, scores, other):
    """A table of scores; beside each, where there is another run, its score and the difference.

    Args:
        rows: list of (cells that a row begins with, keys of its scores).
        first: headings of those cells.
        names: headings of the scores; a column that has none is left out.
        scores: key -> score.
        other: (name, scores), or None.
    """
    kept = [i for i in range(len(names)) if any(keys[i] in scores for _, keys in rows)]
    headings = [*first]
    for i in kept:
        headings += [names[i], "<i>other</i>", "difference"] if other else [names[i]]
    told = [
        [*cells] + sum((_cells(keys[i], scores, other) for i in kept), []) for cells, keys in rows
    ]
    return _table(headings, told)


def _cells(key, scores, other):
    own, theirs = scores.get(key), other and other[1].get(key)
    cells = ["" if own is None else f"{own:.2f}"]
    if not other:
        return cells
    if own is None or theirs is None:
        return [*cells, "", ""]
    gap = own - theirs
    better = gap > 0 if key.startswith("seg/") else gap < 0
    mood = "better" if better else "worse" if gap else ""
    return [*cells, f"<i>{theirs:.2f}</i>", f'<span class="{mood}">{gap:+.2f}</span>']


def _main_table(scores, other):
    rows = [([name], [key]) for key, name in _MAIN.items() if key in scores]
    return _score_table(rows, [""], ["here" if other else ""], scores, other)


def _flow_table(counts, scores, other):
    rows = []
    for region, name in _REGIONS.items():
        if f"flow/{region}" in counts:
            share = f"{100 * counts[f'flow/{region}'][0] / counts['flow/all'][0]:.1f} %"
            keys = [f"flow/aepe_{region}", f"flow/fl_{region}"]
            rows.append(([name, share], _WHOLE.get(region, keys)))
    if not rows:
        return ""
    told = _score_table(rows, ["", "of the pixels"], ["AEPE, px", "outliers, %"], scores, other)
    return f"<h2>Flow, by place and speed</h2>{told}"


def _class_table(label_set, scores, other):
    """Colours, IoU with bars, the boundary's F-measure and, where things are known, iIoU."""
    rows = []
    for name, colour in zip(label_set.names, label_set.palette, strict=True):
        key = f"seg/iou/{name}"
        if key in scores:
            bars = f'<span class="bar" style="width:{scores[key] / 6:.2f}em"></span>'
            if other and key in other[1]:
                width = f"{other[1][key] / 6:.2f}em"
                bars += f'<span class="bar other" style="width:{width}"></span>'
            keys = [f"seg/{kind}/{name}" for kind in ("iou", "boundary_f", "iiou")]
            swatch = f'<span class="swatch" style="background:rgb{tuple(colour)}"></span>'
            rows.append(([f"{swatch} {html.escape(name)}", bars], keys))
    if not rows:
        return ""
    kinds = ["IoU, %", "boundary F, %", "iIoU, %"]
    return "<h2>Classes</h2>" + _score_table(rows, ["", ""], kinds, scores, other)


def _category_table(scores, other):
    """Cityscapes' categories; empty for other classes."""
    head = "seg/category_iou/"
    names = [key.removeprefix(head) for key in scores if key.startswith(head)]
    rows = [([n], [f"seg/category_{kind}/{n}" for kind in ("iou", "iiou")]) for n in names]
    if not rows:
        return ""
    return "<h2>Categories</h2>" + _score_table(rows, [""], ["IoU, %", "iIoU, %"], scores, other)


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


def _set_table(collected, scores):
    """The scores of each set of records, where there are several."""
    sets = collected.set_scores()
    if not sets:
        return ""
    frames = {name: [] for name in sets}
    names = collected.set_names()
    for _, folder, dataset, _ in collected.frames:
        frames[names[folder]].append(dataset)
    columns = [scores, *sets.values()]
    rows = [
        ["data set", "", *(html.escape(", ".join(sorted(set(each)))) for each in frames.values())],
        ["frames", len(collected.frames), *map(len, frames.values())],
    ]
    rows += [[told, *_column(columns, key)] for key, told in _MAIN.items() if key in scores]
    headings = ["", "all", *map(html.escape, sets)]
    every = _table(headings, [[html.escape(key), *_column(columns, key)] for key in scores])
    return (
        f"<h2>Sets of records</h2>{_table(headings, rows)}"
        f"<details><summary>every score</summary>{every}</details>"
    )


def _column(columns, key):
    return [f"{scores[key]:.2f}" if key in scores else "" for scores in columns]


def _extremes(collected):
    parts, names = [], collected.set_names()
    for key, entries in collected.extremes.items():
        if not entries:
            continue
        parts.append(f"<h2>Frames by {_MAIN[key]}</h2>")
        middle = -(-len(entries) // 2)
        for kind, shown in (("worst", entries[:middle]), ("best", entries[middle:][::-1])):
            for _, told, folder, value, jpeg in shown:
                data = base64.b64encode(jpeg).decode()
                named = f"{names[folder]}: {told}" if len(names) > 1 else told
                caption = f"<b>{kind}</b> {html.escape(named)}: {value:.2f}"
                parts.append(
                    f'<figure class="{kind}"><figcaption>{caption}</figcaption>'
                    f'<img alt="{html.escape(named)}" src="data:image/jpeg;base64,{data}"></figure>'
                )
    return "".join(parts)


def _frame_table(collected, scores):
    names, keys = collected.set_names(), [key for key in _MAIN if key in scores]
    rows = [
        [html.escape(told), html.escape(names[folder]), *(_column([own], key)[0] for key in keys)]
        for told, folder, _, own in collected.frames
    ]
    table = _table(["frame", "set", *(_MAIN[key] for key in keys)], rows)
    return f"<h2>Every frame</h2><details><summary>{len(rows)} frames</summary>{table}</details>"
