"""Scores of each record set and each frame: on screen, in JSON, CSV and the report."""

import csv
import json

import numpy as np
import pytest

from data_prep import flyingchairs, kitti
from flowseg import files, runs
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.scoring import evaluation, set_scores
from tests.commands.test_evaluate import (
    fake_run,  # noqa: F401
    make_record,  # noqa: F401
    run_dir,  # noqa: F401
    write,  # noqa: F401
)
from tests.conftest import run_command
from tests.scoring.test_report import Page
from tests.support.kitti_writer import write_kitti


@pytest.fixture(params=["synthetic", "real"])
def two_sets(request, tmp_path):
    """Folders of records, `a/street` and `b/town`, and their data sets."""
    first, second = tmp_path / "a/street", tmp_path / "b/town"
    if request.param == "synthetic":
        kitti.convert([request.getfixturevalue("kitti_folder")], first)
        # Like synthetic scenes: KITTI according to their records, with the same frame ids.
        kitti.convert([write_kitti(tmp_path / "synthetic", count=2, seed=5)], second)
        return {first: "kitti", second: "kitti"}
    samples = request.getfixturevalue("samples")
    kitti.convert([samples / "kitti"], first)
    flyingchairs.convert([samples / "flyingchairs"], second)
    return {first: "kitti", second: "flyingchairs"}


def test_scores_of_sets_and_frames(two_sets, run_dir, tmp_path):  # noqa: F811
    run = runs.load_run(run_dir)
    scores_by_set = {
        folder.name: evaluation.evaluate(run, records.match_files(f"{folder}/*.tfrecord"))
        for folder in two_sets
    }
    done = run_command(
        "flowseg.evaluate",
        "--run_dir",
        run_dir,
        "--metrics_json",
        tmp_path / "m.json",
        "--records",
        ",".join(f"{folder}/*.tfrecord" for folder in two_sets),
        "--frames_csv",
        tmp_path / "out/frames.csv",
        "--report",
        tmp_path / "r.html",
    )
    metrics = json.loads((tmp_path / "m.json").read_text())
    for name, (scores, _) in scores_by_set.items():
        head = f"set/{name}/"
        set_metrics = {
            key.removeprefix(head): value for key, value in metrics.items() if head in key
        }
        assert set_metrics == pytest.approx(scores)
    overall = {key: value for key, value in metrics.items() if not key.startswith("set/")}
    assert {key.split("/")[1] for key in metrics.keys() - overall} == {"street", "town"}
    aepe_of_sets = sorted(scores["flow/aepe"] for scores, _ in scores_by_set.values())
    assert aepe_of_sets[0] < overall["flow/aepe"] < aepe_of_sets[1]

    lines = done.stdout.splitlines()
    assert lines[0].split() == ["all", "street", "town"]
    aepe = next(line.split() for line in lines if line.startswith("flow/aepe "))
    numbers = [overall["flow/aepe"], *(metrics[f"set/{name}/flow/aepe"] for name in scores_by_set)]
    assert aepe == ["flow/aepe", *(f"{number:.3f}" for number in numbers), "px"]

    with (tmp_path / "out/frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "set", "dataset", *overall]
    for (folder, dataset), (scores, frame_totals) in zip(
        two_sets.items(), scores_by_set.values(), strict=True
    ):
        rows_of_set = [row for row in rows if row["set"] == folder.name]
        assert len(rows_of_set) == frame_totals["frames"] and {
            row["dataset"] for row in rows_of_set
        } == {dataset}
        fl_of_frames = [float(row["flow/fl_all"]) for row in rows_of_set if row["flow/fl_all"]]
        assert np.mean(fl_of_frames) == pytest.approx(scores["flow/fl_all_per_image"], rel=1e-4)
    assert len(rows) == sum(frame_totals["frames"] for _, frame_totals in scores_by_set.values())

    page = Page((tmp_path / "r.html").read_text())
    assert page.headings[0] == "Record sets"
    assert page.tables[1][0] == ["", "all", "street", "town"]
    assert page.tables[1][1] == ["data set", "", *two_sets.values()]
    cells = {row[0]: row[1:] for row in page.tables[1]}
    assert cells["AEPE, px"] == [f"{number:.2f}" for number in numbers]
    assert {row[0]: row[1:] for row in page.tables[2]}["flow/aepe"] == cells["AEPE, px"]
    assert {row[1] for row in page.tables[-1][1:]} == {"street", "town"}
    assert all(name.split(": ")[0] in ("street", "town") for name, _ in page.images)


def test_set_names_are_unique(tmp_path):
    tally = set_scores.Tally(CITYSCAPES)
    for folder in ("x/kitti/val", "x/street/val", "y/street/val"):
        shard = str(tmp_path / folder / "a.tfrecord").encode()
        tally.add({"frame_id": b"1", "dataset": b"kitti", "shard": shard}, None, None, {})
    assert list(tally.set_names().values()) == ["x/kitti/val", "x/street/val", "y/street/val"]
    del tally.by_folder[str(tmp_path / "y/street/val")]
    assert list(tally.set_scores()) == ["kitti/val", "street/val"]
    del tally.by_folder[str(tmp_path / "x/street/val")]
    # A single set has the scores of all frames.
    assert list(tally.set_names().values()) == ["val"] and tally.set_scores() == {}


def test_relative_record_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.tfrecord", make_record((3, 4), 7, flow=np.ones((3, 4))))
    write("b.tfrecord", make_record((3, 4), 8, flow=np.ones((3, 4))))
    tally = set_scores.Tally(CITYSCAPES)
    predictor = evaluation.run_predictor(fake_run(), CITYSCAPES)
    evaluation.count(["a.tfrecord", f"{tmp_path}/b.tfrecord"], CITYSCAPES, predictor, tally.add)
    assert tally.set_names() == {str(tmp_path): tmp_path.name} and len(tally.frames) == 2


def test_table():
    scores = {"seg/miou": 12.34567, "flow/aepe": 1.5, "flow/aepe_noc": 10.0}
    lines = set_scores.table(scores, {}).splitlines()
    assert [line.split() for line in lines] == [
        ["seg/miou", "12.346", "%"],
        ["flow/aepe", "1.500", "px"],
        ["flow/aepe_noc", "10.000", "px"],
    ]
    assert len({line.index(".") for line in lines}) == 1
    assert set_scores.table({}, {}) == set_scores.table({}, {"a": {}, "b": {}}) == ""
    lines = set_scores.table(scores, {"a long name": {"flow/aepe": 2.0}, "all": {"seg/miou": 3.0}})
    assert [line.split() for line in lines.splitlines()] == [
        ["all", "a", "long", "name", "all"],
        ["seg/miou", "12.346", "3.000", "%"],
        ["flow/aepe", "1.500", "2.000", "px"],
        ["flow/aepe_noc", "10.000", "px"],
    ]


@pytest.mark.parametrize("content", ["{", "[1]", '{"flow/aepe": "fast"}', None])
def test_invalid_metrics_file(tmp_path, content):
    path = tmp_path / "m.json"
    files.write_json(path, {"flow/aepe": 1.5, "seg/miou": float("nan")})
    assert set_scores.read_scores(path) == (str(path), {"flow/aepe": 1.5})
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=f"^{path}: not a metrics file of flowseg.evaluate"):
        set_scores.read_scores(path)
