"""evaluate's report, and answers of other methods: what stands there, and what is refused."""

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
    """Tables as lists of rows of text, headings, pictures, captions.

    Unclosed tags are told, and whatever would be fetched from elsewhere.
    """

    def __init__(self, text):
        super().__init__()
        self.tables, self.headings, self.pictures, self.text, self._open = [], [], [], "", []
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
            self.pictures.append((dict(attributes)["alt"], image))
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


def scored(files, run, path, label_set=CITYSCAPES, **how):
    """(scores, the page) of a run."""
    collected = report.Collector(label_set, each=how.pop("each", 3))
    ask = evaluation.run_answers(run, label_set)
    counts, _ = evaluation.count(files, label_set, ask, collected.add)
    scores = frame_scores.scores(counts, label_set.names)
    report.write(path, "a run <on> sets", scores, counts, collected, **how)
    return scores, Page(path.read_text())


def test_what_stands_in_the_report(kitti_records, tmp_path):
    files = records.match_files(f"{kitti_records}/*.tfrecord")
    theirs = {"seg/miou": 0.0, "flow/aepe": 0.5, "seg/iou/road": 7.0, "seg/boundary_f/road": 1.0}
    theirs |= {"flow/fl_hidden": 100.0, "flow/aepe_fg": 0.25, "flow/aepe_noc": 0.0}
    theirs |= {"flow/aepe_0_10": 50.0, "seg/category_iou/vehicle": 3.0, "seg/iiou/car": 2.0}
    other = ("old/metrics.json", theirs)
    how = {"other": other, "flags_text": "--steps=5\n--x=<y>\n"}
    scores, page = scored(files, fake_run(), tmp_path / "r.html", **how)
    main, flow, classes, categories, confusion, frames = page.tables
    told = {row[0]: row[1:] for row in main[1:]}
    assert told["mIoU, %"] == [f"{scores['seg/miou']:.2f}", "0.00", f"+{scores['seg/miou']:.2f}"]
    assert told["AEPE, px"][2] == f"{scores['flow/aepe'] - 0.5:+.2f}"
    assert told["Fl-all, %"] == [f"{scores['flow/fl_all']:.2f}", "", ""]
    # Better and worse are told by the score, not by the sign.
    text = (tmp_path / "r.html").read_text()
    assert f'"better">{told["mIoU, %"][2]}' in text and f'"worse">{told["AEPE, px"][2]}' in text
    regions = {row[0]: row[1:] for row in flow[1:]}
    assert regions["all"][0] == "100.0 %"

    def beside(key):
        """The three cells of a score."""
        if key not in theirs:
            return [f"{scores[key]:.2f}", "", ""]
        gap = f"{scores[key] - theirs[key]:+.2f}"
        return [f"{scores[key]:.2f}", f"{theirs[key]:.2f}", gap]

    for region, keys in (
        ("all", ("flow/aepe", "flow/fl_all")),
        ("seen in both frames", ("flow/aepe_noc", "flow/fl_all_noc")),
        ("hidden in the second", ("flow/aepe_hidden", "flow/fl_hidden")),
        ("foreground", ("flow/aepe_fg", "flow/fl_fg")),
        ("background, seen in both", ("flow/aepe_bg_noc", "flow/fl_bg_noc")),
        ("moves 0 to 10 px", ("flow/aepe_0_10", "flow/fl_0_10")),
    ):
        assert regions[region][1:] == [*beside(keys[0]), *beside(keys[1])]
    kinds = ["IoU, %", "boundary F, %", "iIoU, %"]
    assert classes[0] == ["", "", *sum(([kind, "other", "difference"] for kind in kinds), [])]
    each = {row[0].strip(): row[2:] for row in classes[1:]}
    road = [*beside("seg/iou/road"), *beside("seg/boundary_f/road"), "", "", ""]
    assert each["road"] == road and each["car"][6:] == beside("seg/iiou/car")
    drawn = [float(row[3]) for row in each.values() if row[3]]
    assert np.mean(drawn) == pytest.approx(scores["seg/boundary_f"], abs=0.01)
    told = {row[0]: row[1:] for row in categories[1:]}
    kinds = ("iou", "iiou")
    assert told["vehicle"] == sum((beside(f"seg/category_{kind}/vehicle") for kind in kinds), [])
    # Every pixel was said to be road.
    assert confusion[0][1] == "road" and {row[1] for row in confusion[1:]} <= {"100", ""}
    assert len(frames) == 1 + 5 and frames[1][1] == kitti_records.name
    assert "--x=<y>" in page.text and "a run <on> sets" in page.text
    assert "The other: old/metrics.json" in page.text
    # The colours of the classes, as the pictures have them.
    road = CITYSCAPES.palette[ROAD]
    assert f"background:rgb({road[0]}, {road[1]}, {road[2]})" in text


def test_without_another_run_there_is_nothing_beside(kitti_records, tmp_path):
    files = records.match_files(f"{kitti_records}/*.tfrecord")
    scores, page = scored(files, fake_run(), tmp_path / "r.html")
    main, flow, classes, categories, *_ = page.tables
    assert main[1] == ["mIoU, %", f"{scores['seg/miou']:.2f}"]
    assert flow[0] == ["", "of the pixels", "AEPE, px", "outliers, %"]
    assert classes[0] == ["", "", "IoU, %", "boundary F, %", "iIoU, %"]
    assert categories[0] == ["", "IoU, %", "iIoU, %"]
    assert "The other" not in page.text


def test_the_worst_and_the_best_frames(tmp_path, monkeypatch):
    # Frame k errs by k px; six frames, of which two and two are shown.
    numbers = [3, 0, 5, 1, 4, 2]
    made = [make_record((16, 24), n, np.full((16, 24), 7), np.ones((16, 24))) for n in numbers]
    run = fake_run(flow=lambda number: (2 + number, 2))
    _, page = scored([write(tmp_path / "a", *made)], run, tmp_path / "r.html", each=2)
    # Of each kind the most extreme first.
    kinds = (("worst", 5), ("worst", 4), ("best", 0), ("best", 1))
    assert page.captions[-4:] == [f"{kind} 00000{n}_10: {n:.2f}" for kind, n in kinds]
    assert [told for told, _ in page.pictures[-4:]] == [f"00000{n}_10" for _, n in kinds]
    text = (tmp_path / "r.html").read_text()
    assert text.count('<figure class="worst">') == text.count('<figure class="best">') == 4
    assert [len(image.shape) for _, image in page.pictures] == [3] * 8
    # Frames that are all alike are not drawn again and again.
    drawn = []
    draw = report.panels.draw_answers
    monkeypatch.setattr(report.panels, "draw_answers", lambda *a: drawn.append(1) or draw(*a))
    _, page = scored([write(tmp_path / "c", *made[:1] * 9)], run, tmp_path / "r.html", each=2)
    assert len(drawn) == 4 and len(page.pictures) == 8
    # Few frames are shown once each.
    _, page = scored([write(tmp_path / "b", *made[:3])], run, tmp_path / "r.html", each=2)
    assert len(page.pictures) == 2 * 3
    kinds = [caption.split()[0] for caption in page.captions]
    assert kinds == ["worst", "worst", "best"] * 2


def test_names_of_a_user_are_shown_as_text(tmp_path):
    """Of classes, frames, sets and another run, whatever they hold."""
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
        told=hostile,
        flags_text=hostile,
    )
    _, sets, every_score, _, classes, confusion, frames = page.tables
    assert sets[0] == every_score[0] == ["", "all", hostile, "b"]
    assert classes[1][0].strip() == confusion[1][0] == confusion[0][1] == hostile
    assert [row[:2] for row in frames[1:]] == [[hostile, hostile], [hostile, "b"]]
    assert {name for name, _ in page.pictures} == {f"{hostile}: {hostile}", f"b: {hostile}"}
    assert f"The other: {hostile}" in page.text and f"2 frames. {hostile}" in page.text
    assert page.text.rstrip().endswith(hostile)
    # One element each where the page itself has it, and none of a name's.
    text = (tmp_path / "r.html").read_text()
    assert len(re.findall("<b>", text)) == len(page.captions)


def test_a_page_that_fails_leaves_the_old_one(tmp_path):
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


def test_what_has_no_truth_has_no_section(tmp_path):
    alone = write(tmp_path / "a", make_record((16, 24), 1, flow=np.ones((16, 24))))
    _, page = scored([alone], fake_run(), tmp_path / "r.html")
    assert not {"Classes", "Confusion", "Sets of records"} & set(page.headings)
    assert "Flow, by place and speed" in page.headings
    labels = write(tmp_path / "b", make_record((16, 24), 1, np.full((16, 24), 7), pair=False))
    _, page = scored([labels], fake_run(), tmp_path / "r.html")
    assert "Classes" in page.headings and "Flow, by place and speed" not in page.headings


def test_a_frame_shown_twice_has_no_flow_to_draw(monkeypatch):
    size, titles = (16, 24), []
    draw = report.panels.panel
    monkeypatch.setattr(
        report.panels,
        "panel",
        lambda titled, columns: titles.extend(titled) or draw(titled, columns),
    )
    frame = {f"image{n}": np.zeros((*size, 3), np.uint8) for n in (1, 2)}
    frame |= {"seg": np.full(size, ROAD, np.uint8), "flow": np.zeros((*size, 3), np.float32)}
    answers_given = np.full(size, CAR, np.uint8), np.ones((*size, 2), np.float32)
    report.panels.draw_answers(frame | {"has_image2": False}, *answers_given, CITYSCAPES)
    told = [title for title, _ in titles]
    assert told == ["Image", *(f"Segmentation{s}" for s in (", true", ", predicted", " errors"))]
    titles.clear()
    report.panels.draw_answers(frame | {"has_image2": True}, *answers_given, CITYSCAPES)
    more = dict(entry for entry in titles if entry[0] not in told)
    assert list(more) == ["Next image", "Flow, predicted (full colour 1 px)"]
    # Without truth the colours' scale is the frame's, whatever the answer: half as fast is paler.
    slower = answers_given[0], 0.5 * answers_given[1]
    report.panels.draw_answers(frame | {"has_image2": True}, *slower, CITYSCAPES)
    assert titles[-2][0] == "Flow, predicted (full colour 1 px)"
    assert (titles[-2][1] != more["Flow, predicted (full colour 1 px)"]).any()
    # With truth it is the truth's, and its errors are drawn.
    titles.clear()
    frame["flow"] = np.full((*size, 3), (8, 0, 1), np.float32)
    report.panels.draw_answers(frame | {"has_image2": True}, *answers_given, CITYSCAPES)
    assert [title for title, _ in titles if title.startswith("Flow")] == [
        "Flow, true (full colour 8 px)",
        "Flow, predicted",
        "Flow errors (blue under 3 px, yellow to red over)",
    ]
    # Without labels the classes come later, so that true and predicted flow stand side by side.
    titles.clear()
    frame["seg"][:] = 255
    report.panels.draw_answers(frame | {"has_image2": True}, *answers_given, CITYSCAPES)
    told = [title.split(" (")[0] for title, _ in titles]
    assert told == [
        "Image",
        "Next image",
        "Flow, true",
        "Flow, predicted",
        "Segmentation, predicted",
        "Flow errors",
    ]


def test_answers_of_any_method_are_scored_alike(kitti_records, tmp_path):
    files = records.match_files(f"{kitti_records}/*.tfrecord")
    run = fake_run(flow=(3.25, -1.5), classes=lambda number: CAR if number % 2 else ROAD)

    def keep(frame, logits, flow):
        name, seg = frame["frame_id"].decode(), np.uint8(logits.argmax(-1))
        prediction_files.write_answers(tmp_path / "own" / name, seg, flow, CITYSCAPES)
        prediction_files.write_submission(tmp_path / "kitti", name, seg, flow, CITYSCAPES)

    expected, _ = evaluation.evaluate(run, files, each=keep)
    for folder, ids in (("own", "train"), ("kitti", "label")):
        written = prediction_files.find_answers(tmp_path / folder, CITYSCAPES, ids)
        counts, _ = evaluation.count(files, CITYSCAPES, written.answer)
        assert frame_scores.scores(counts, CITYSCAPES.names) == pytest.approx(expected, abs=1e-6)


def test_the_command(run_dir, kitti_records, tmp_path):  # noqa: F811
    """A run's answers, and the same as another method's: written, scored again, compared."""
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
    told = Page((tmp_path / "a.html").read_text()).text
    assert "scored with\n--weights=best\n--input_scale=1\n--score_as=cityscapes\n" in told
    # Of a frame without a second one no flow is sent.
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
    assert "foreground of flow (fg, bg) by object map (4 frames)" in done.stdout
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert second == pytest.approx(first, abs=1e-6)
    page = Page((tmp_path / "b.html").read_text())
    assert "5 frames. Foreground of flow (fg, bg) by object map (4 frames)" in page.text
    # Two sets that share ids would share files.
    twin = shutil.copy(next(kitti_records.glob("val-*")), tmp_path / "twin.tfrecord")
    sent = ("--predictions", tmp_path / "sent", "--seg_ids", "label")
    for how in (("--run_dir", run_dir, "--output", tmp_path / "o"), sent):
        twice = ("--records", f"{kitti_records}/val-*,{twin}", *how)
        failed = run_command("flowseg.evaluate", *twice, ok=False)
        assert "answers are files by frame id" in failed.stderr
    assert f"The other: {tmp_path / 'a.json'}" in page.text
    assert page.tables[0][0][1:] == ["here", "other", "difference"]
    assert {row[3] for row in page.tables[0][1:]} == {"+0.00"}
    # One pixel that is no number is no hole to be filled, nor a score to be left out.
    png = next((tmp_path / "sent/flow").glob("000000*"))
    vectors = read_flow(png)[..., :2]
    vectors[4, 5, 1] = np.nan
    png.unlink()
    png.with_suffix(".flo").write_bytes(encode_flo(vectors))
    failed = run_command(*shared, *sent, "--metrics_json", tmp_path / "c.json", ok=False)
    assert "000000_10.flo: is no number at 1 of " in failed.stderr
    assert not (tmp_path / "c.json").exists()
    # Missing answers are told before any frame is scored.
    png.with_suffix(".flo").unlink()
    failed = run_command(*shared, "--predictions", tmp_path / "sent", ok=False)
    assert "no flow for 1 of 4 frames that have such truth: 000000_10" in failed.stderr
    for neither in ((), ("--run_dir", run_dir, "--predictions", tmp_path)):
        told = run_command(*shared, *neither, ok=False).stderr
        assert "exactly one of --run_dir, --predictions" in told
