"""The report of `evaluate`, and the scoring of predictions by other methods."""

import base64
import html.parser
import json
import re
import shutil

import cv2
import jinja2
import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import records
from flowseg.data.flow_io import encode_flo, read_flow
from flowseg.data.labels import CITYSCAPES
from flowseg.scoring import evaluation, frame_scores, html_page, prediction_files, report
from tests.commands.test_evaluate import (
    CAR,  # noqa: F401
    ROAD,  # noqa: F401
    fake_run,  # noqa: F401
    make_record,  # noqa: F401
    run_dir,  # noqa: F401
    write,  # noqa: F401
)
from tests.conftest import run_command


class Page(html.parser.HTMLParser):
    """Parses tables (as lists of rows of text), headings, images and captions.

    Fails on unclosed tags and on anything that a browser would fetch from elsewhere.
    """

    def __init__(self, text):
        super().__init__()
        self.tables, self.headings, self.images, self.text, self._open = [], [], [], "", []
        self.captions = []
        assert not re.search(r"(?i)url\(|@import|<(script|link|iframe|object|embed|base)\b", text)
        self.feed(text)
        assert not [tag for tag in self._open if tag not in ("html", "meta")], self._open

    def handle_starttag(self, tag, attributes):
        named = [value for name, value in attributes if re.match("href|src|poster|data$", name)]
        assert all(value.startswith("data:") for value in named), (tag, attributes)
        if tag == "img":
            data = dict(attributes)["src"].removeprefix("data:image/jpeg;base64,")
            image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            self.images.append((dict(attributes)["alt"], image))
        elif tag not in ("meta", "br"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")
        elif tag == "figcaption":
            self.captions.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, text):
        self.text += text
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += text
        elif "h2" in self._open:
            self.headings[-1] += text
        elif "figcaption" in self._open:
            self.captions[-1] += text


def scored(files, run, path, label_set=CITYSCAPES, **options):
    """(scores, the page) of a run."""
    collected = report.Collector(label_set, each=options.pop("each", 3))
    predictor = evaluation.run_predictor(run, label_set)
    counts, _ = evaluation.count(files, label_set, predictor, collected.add)
    scores = frame_scores.scores(counts, label_set.names)
    report.write(path, "a run <on> sets", scores, counts, collected, **options)
    return scores, Page(path.read_text())


def test_report_content(kitti_records, tmp_path):
    files = records.match_files(f"{kitti_records}/*.tfrecord")
    others = {"seg/miou": 0.0, "flow/aepe": 0.5, "seg/iou/road": 7.0, "seg/boundary_f/road": 1.0}
    others |= {"flow/fl_occluded": 100.0, "flow/aepe_fg": 0.25, "flow/aepe_noc": 0.0}
    others |= {"flow/aepe_0_10": 50.0, "seg/category_iou/vehicle": 3.0, "seg/iiou/car": 2.0}
    other = ("old/metrics.json", others)
    options = {"other": other, "flags_text": "--steps=5\n--x=<y>\n"}
    scores, page = scored(files, fake_run(), tmp_path / "r.html", **options)
    main, flow, classes, categories, confusion, frames = page.tables
    cells_of = {row[0]: row[1:] for row in main[1:]}
    assert cells_of["mIoU, %"] == [
        f"{scores['seg/miou']:.2f}",
        "0.00",
        f"+{scores['seg/miou']:.2f}",
    ]
    assert cells_of["AEPE, px"][2] == f"{scores['flow/aepe'] - 0.5:+.2f}"
    assert cells_of["Fl-all, %"] == [f"{scores['flow/fl_all']:.2f}", "", ""]
    # "better" and "worse" depend on the score, not only on the sign.
    text = (tmp_path / "r.html").read_text()
    assert (
        f'"better">{cells_of["mIoU, %"][2]}' in text
        and f'"worse">{cells_of["AEPE, px"][2]}' in text
    )
    regions = {row[0]: row[1:] for row in flow[1:]}
    assert regions["all"][0] == "100.0 %"

    def cells(key):
        """The three cells of a score."""
        if key not in others:
            return [f"{scores[key]:.2f}", "", ""]
        gap = f"{scores[key] - others[key]:+.2f}"
        return [f"{scores[key]:.2f}", f"{others[key]:.2f}", gap]

    for region, keys in (
        ("all", ("flow/aepe", "flow/fl_all")),
        ("non-occluded", ("flow/aepe_noc", "flow/fl_all_noc")),
        ("occluded", ("flow/aepe_occluded", "flow/fl_occluded")),
        ("foreground", ("flow/aepe_fg", "flow/fl_fg")),
        ("background, non-occluded", ("flow/aepe_bg_noc", "flow/fl_bg_noc")),
        ("moves 0 to 10 px", ("flow/aepe_0_10", "flow/fl_0_10")),
    ):
        assert regions[region][1:] == [*cells(keys[0]), *cells(keys[1])]
    score_names = ["IoU, %", "boundary F, %", "iIoU, %"]
    assert classes[0] == ["", "", *sum(([kind, "other", "difference"] for kind in score_names), [])]
    row_of_class = {row[0].strip(): row[2:] for row in classes[1:]}
    road = [*cells("seg/iou/road"), *cells("seg/boundary_f/road"), "", "", ""]
    assert row_of_class["road"] == road and row_of_class["car"][6:] == cells("seg/iiou/car")
    boundary_scores = [float(row[3]) for row in row_of_class.values() if row[3]]
    assert np.mean(boundary_scores) == pytest.approx(scores["seg/boundary_f"], abs=0.01)
    category_cells = {row[0]: row[1:] for row in categories[1:]}
    score_names = ("iou", "iiou")
    assert category_cells["vehicle"] == sum(
        (cells(f"seg/category_{kind}/vehicle") for kind in score_names), []
    )
    # Every pixel is predicted as road.
    assert confusion[0][1] == "road" and {row[1] for row in confusion[1:]} <= {"100", ""}
    assert len(frames) == 1 + 5 and frames[1][1] == kitti_records.name
    assert "--x=<y>" in page.text and "a run <on> sets" in page.text
    assert "Compared with: old/metrics.json" in page.text
    # The colours of the classes are those of the images.
    road = CITYSCAPES.palette[ROAD]
    assert f"background:rgb({road[0]}, {road[1]}, {road[2]})" in text


def test_report_without_comparison(kitti_records, tmp_path):
    files = records.match_files(f"{kitti_records}/*.tfrecord")
    scores, page = scored(files, fake_run(), tmp_path / "r.html")
    main, flow, classes, categories, *_ = page.tables
    assert main[1] == ["mIoU, %", f"{scores['seg/miou']:.2f}"]
    assert flow[0] == ["", "share of pixels", "AEPE, px", "outliers, %"]
    assert classes[0] == ["", "", "IoU, %", "boundary F, %", "iIoU, %"]
    assert categories[0] == ["", "IoU, %", "iIoU, %"]
    assert "Compared with" not in page.text


def test_worst_and_best_frames(tmp_path, monkeypatch):
    # Frame k has an error of k px; of six frames, the two worst and the two best are shown.
    errors = [3, 0, 5, 1, 4, 2]
    examples = [make_record((16, 24), n, np.full((16, 24), 7), np.ones((16, 24))) for n in errors]
    run = fake_run(flow=lambda number: (2 + number, 2))
    _, page = scored([write(tmp_path / "a", *examples)], run, tmp_path / "r.html", each=2)
    # The most extreme frame of each kind comes first.
    kinds = (("worst", 5), ("worst", 4), ("best", 0), ("best", 1))
    assert page.captions[-4:] == [f"{kind} 00000{n}_10: {n:.2f}" for kind, n in kinds]
    assert [alt for alt, _ in page.images[-4:]] == [f"00000{n}_10" for _, n in kinds]
    text = (tmp_path / "r.html").read_text()
    assert text.count('<figure class="worst">') == text.count('<figure class="best">') == 4
    assert [len(image.shape) for _, image in page.images] == [3] * 8
    # Frames with the same scores are not drawn repeatedly.
    drawn = []
    draw = report.panels.draw_predictions
    monkeypatch.setattr(report.panels, "draw_predictions", lambda *a: drawn.append(1) or draw(*a))
    _, page = scored([write(tmp_path / "c", *examples[:1] * 9)], run, tmp_path / "r.html", each=2)
    assert len(drawn) == 4 and len(page.images) == 8
    # If there are few frames, each is shown once.
    _, page = scored([write(tmp_path / "b", *examples[:3])], run, tmp_path / "r.html", each=2)
    assert len(page.images) == 2 * 3
    kinds = [caption.split()[0] for caption in page.captions]
    assert kinds == ["worst", "worst", "best"] * 2


def test_names_are_escaped(tmp_path):
    """Names of classes, frames, sets and another run may contain any characters."""
    hostile = "<b>\"&'{{ 7 * 7 }}"
    label_set = CITYSCAPES._replace(names=(hostile, *CITYSCAPES.names[1:]))
    example = make_record((16, 24), 1, np.full((16, 24), 7), np.ones((16, 24)))
    example = tf.train.Example.FromString(example)
    example.features.feature["frame_id"].bytes_list.value[:] = [hostile.encode()]
    files = []
    for folder in (hostile, "b"):
        (tmp_path / folder).mkdir()
        files.append(write(tmp_path / folder / "a", example.SerializeToString()))
    _, page = scored(
        files,
        fake_run(),
        tmp_path / "r.html",
        label_set,
        other=(hostile, {f"seg/iou/{hostile}": 50.0}),
        note=hostile,
        flags_text=hostile,
    )
    _, sets, every_score, _, classes, confusion, frames = page.tables
    assert sets[0] == every_score[0] == ["", "all", hostile, "b"]
    assert classes[1][0].strip() == confusion[1][0] == confusion[0][1] == hostile
    assert [row[:2] for row in frames[1:]] == [[hostile, hostile], [hostile, "b"]]
    assert {name for name, _ in page.images} == {f"{hostile}: {hostile}", f"b: {hostile}"}
    assert f"Compared with: {hostile}" in page.text and f"2 frames. {hostile}" in page.text
    assert page.text.rstrip().endswith(hostile)
    # The only <b> elements are those of the page, none comes from a name.
    text = (tmp_path / "r.html").read_text()
    assert len(re.findall("<b>", text)) == len(page.captions)


def test_failed_page_keeps_old_file(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")
    (tmp_path / "short.html.jinja").write_text('{% extends "base.html.jinja" %}')
    (tmp_path / "bad.html.jinja").write_text("{{ missing }}")
    with pytest.raises(jinja2.UndefinedError, match="'missing' is undefined"):
        html_page.write_html(path, tmp_path / "bad.html.jinja", title="t")
    assert path.read_text() == "before"
    html_page.write_html(path, tmp_path / "short.html.jinja", title="a <t>")
    assert "<title>a &lt;t&gt;</title>" in path.read_text()
    assert path.read_text().startswith("<!doctype html>") and path.read_text().endswith("</html>\n")
    assert {each.name for each in tmp_path.iterdir()} == {
        "page.html",
        "short.html.jinja",
        "bad.html.jinja",
    }


def test_no_section_without_truth(tmp_path):
    flow_only = write(tmp_path / "a", make_record((16, 24), 1, flow=np.ones((16, 24))))
    _, page = scored([flow_only], fake_run(), tmp_path / "r.html")
    assert not {"Classes", "Confusion", "Record sets"} & set(page.headings)
    assert "Flow by region and speed" in page.headings
    labels = write(tmp_path / "b", make_record((16, 24), 1, np.full((16, 24), 7), pair=False))
    _, page = scored([labels], fake_run(), tmp_path / "r.html")
    assert "Classes" in page.headings and "Flow by region and speed" not in page.headings


def test_drawn_panels_of_frame(monkeypatch):
    size, titles = (16, 24), []
    draw = report.panels.panel
    monkeypatch.setattr(
        report.panels,
        "panel",
        lambda titled, columns: titles.extend(titled) or draw(titled, columns),
    )
    frame = {f"image{n}": np.zeros((*size, 3), np.uint8) for n in (1, 2)}
    frame |= {"seg": np.full(size, ROAD, np.uint8), "flow": np.zeros((*size, 3), np.float32)}
    predictions = np.full(size, CAR, np.uint8), np.ones((*size, 2), np.float32)
    report.panels.draw_predictions(frame | {"has_image2": False}, *predictions, CITYSCAPES)
    panel_titles = [title for title, _ in titles]
    assert panel_titles == [
        "Image",
        *(f"Segmentation{s}" for s in (", true", ", predicted", " errors")),
    ]
    titles.clear()
    report.panels.draw_predictions(frame | {"has_image2": True}, *predictions, CITYSCAPES)
    new_panels = dict(entry for entry in titles if entry[0] not in panel_titles)
    assert list(new_panels) == ["Next image", "Flow, predicted (full colour 1 px)"]
    # Without truth the scale depends on the frame only: half the speed has paler colours.
    slower_predictions = predictions[0], 0.5 * predictions[1]
    report.panels.draw_predictions(frame | {"has_image2": True}, *slower_predictions, CITYSCAPES)
    assert titles[-2][0] == "Flow, predicted (full colour 1 px)"
    assert (titles[-2][1] != new_panels["Flow, predicted (full colour 1 px)"]).any()
    # With ground truth, the scale is that of the ground truth, and errors are drawn.
    titles.clear()
    frame["flow"] = np.full((*size, 3), (8, 0, 1), np.float32)
    report.panels.draw_predictions(frame | {"has_image2": True}, *predictions, CITYSCAPES)
    assert [title for title, _ in titles if title.startswith("Flow")] == [
        "Flow, true (full colour 8 px)",
        "Flow, predicted",
        "Flow errors (blue under 3 px, yellow to red over)",
    ]
    # Without labels the classes come later, so that true and predicted flow are side by side.
    titles.clear()
    frame["seg"][:] = 255
    report.panels.draw_predictions(frame | {"has_image2": True}, *predictions, CITYSCAPES)
    panel_titles = [title.split(" (")[0] for title, _ in titles]
    assert panel_titles == [
        "Image",
        "Next image",
        "Flow, true",
        "Flow, predicted",
        "Segmentation, predicted",
        "Flow errors",
    ]


def test_written_predictions_have_same_scores(kitti_records, tmp_path):
    files = records.match_files(f"{kitti_records}/*.tfrecord")
    run = fake_run(flow=(3.25, -1.5), classes=lambda number: CAR if number % 2 else ROAD)

    def write_files(frame, logits, flow):
        name, seg = frame["frame_id"].decode(), np.uint8(logits.argmax(-1))
        prediction_files.write_predictions(tmp_path / "predict" / name, seg, flow, CITYSCAPES)
        prediction_files.write_submission(tmp_path / "kitti", name, seg, flow, CITYSCAPES)

    expected, _ = evaluation.evaluate(run, files, each=write_files)
    for folder, ids in (("predict", "train"), ("kitti", "label")):
        predictions = prediction_files.open_predictions(tmp_path / folder, CITYSCAPES, ids)
        counts, _ = evaluation.count(files, CITYSCAPES, predictions.read_frame)
        assert frame_scores.scores(counts, CITYSCAPES.names) == pytest.approx(expected, abs=1e-6)


def test_report_command(run_dir, kitti_records, tmp_path):  # noqa: F811
    """Predictions of a run are written, scored again as those of another method, and compared."""
    shared = ("flowseg.evaluate", "--records", f"{kitti_records}/*.tfrecord")
    run_command(
        *shared,
        "--run_dir",
        run_dir,
        "--metrics_json",
        tmp_path / "a.json",
        "--submission",
        tmp_path / "sent",
        "--report",
        tmp_path / "a.html",
    )
    page_text = Page((tmp_path / "a.html").read_text()).text
    assert "scored with\n--weights=best\n--input_scale=1\n--score_as=cityscapes\n" in page_text
    # No flow is written for the frame without a second one.
    assert len(list((tmp_path / "sent/flow").iterdir())) == 4
    assert len(list((tmp_path / "sent/semantic").iterdir())) == 5
    done = run_command(
        *shared,
        "--predictions",
        tmp_path / "sent",
        "--seg_ids",
        "label",
        "--metrics_json",
        tmp_path / "b.json",
        "--report",
        tmp_path / "b.html",
        "--compare",
        tmp_path / "a.json",
    )
    assert "foreground (fg, bg) of the flow scores from object map (4 frames)" in done.stdout
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert second == pytest.approx(first, abs=1e-6)
    page = Page((tmp_path / "b.html").read_text())
    assert (
        "5 frames. Foreground (fg, bg) of the flow scores from object map (4 frames)" in page.text
    )
    # Two sets with common ids would have common files.
    twin = shutil.copy(next(kitti_records.glob("val-*")), tmp_path / "twin.tfrecord")
    sent = ("--predictions", tmp_path / "sent", "--seg_ids", "label")
    for options in (("--run_dir", run_dir, "--output", tmp_path / "o"), sent):
        twice = ("--records", f"{kitti_records}/val-*,{twin}", *options)
        failed = run_command("flowseg.evaluate", *twice, ok=False)
        assert "predictions are stored by frame id" in failed.stderr
    assert f"Compared with: {tmp_path / 'a.json'}" in page.text
    assert page.tables[0][0][1:] == ["this", "other", "difference"]
    assert {row[3] for row in page.tables[0][1:]} == {"+0.00"}
    # A single NaN pixel is an error; it is neither filled nor ignored.
    png = next((tmp_path / "sent/flow").glob("000000*"))
    vectors = read_flow(png)[..., :2]
    vectors[4, 5, 1] = np.nan
    png.unlink()
    png.with_suffix(".flo").write_bytes(encode_flo(vectors))
    failed = run_command(*shared, *sent, "--metrics_json", tmp_path / "c.json", ok=False)
    assert "000000_10.flo: is NaN or Inf at 1 of " in failed.stderr
    assert not (tmp_path / "c.json").exists()
    # Missing predictions are reported before any frame is scored.
    png.with_suffix(".flo").unlink()
    failed = run_command(*shared, "--predictions", tmp_path / "sent", ok=False)
    assert "no flow for 1 of 4 frames that have ground truth for it: 000000_10" in failed.stderr
    for neither in ((), ("--run_dir", run_dir, "--predictions", tmp_path)):
        message = run_command(*shared, *neither, ok=False).stderr
        assert "exactly one of --run_dir, --predictions" in message
