"""Scores of each set of records and of each frame: on screen, in JSON, CSV and the report."""

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


@pytest.fixture(params=["made-up", "real"])
def two_sets(request, tmp_path):
    """Folders of records, `a/street` and `b/town`, and their data sets."""
    first, second = tmp_path / "a/street", tmp_path / "b/town"
    if request.param == "made-up":
        kitti.convert([request.getfixturevalue("kitti_folder")], first)
        # As made scenes are: KITTI by their records, with the same frame ids.
        kitti.convert([write_kitti(tmp_path / "made", count=2, seed=5)], second)
        return {first: "kitti", second: "kitti"}
    samples = request.getfixturevalue("samples")
    kitti.convert([samples / "kitti"], first)
    flyingchairs.convert([samples / "flyingchairs"], second)
    return {first: "kitti", second: "flyingchairs"}


def test_each_set_and_each_frame_of_the_command(two_sets, run_dir, tmp_path):  # noqa: F811
    run = runs.load_run(run_dir)
    alone = {
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
    told = json.loads((tmp_path / "m.json").read_text())
    for name, (scores, _) in alone.items():
        head = f"set/{name}/"
        own = {key.removeprefix(head): value for key, value in told.items() if head in key}
        assert own == pytest.approx(scores)
    whole = {key: value for key, value in told.items() if not key.startswith("set/")}
    assert {key.split("/")[1] for key in told.keys() - whole} == {"street", "town"}
    between = sorted(scores["flow/aepe"] for scores, _ in alone.values())
    assert between[0] < whole["flow/aepe"] < between[1]

    lines = done.stdout.splitlines()
    assert lines[0].split() == ["all", "street", "town"]
    aepe = next(line.split() for line in lines if line.startswith("flow/aepe "))
    numbers = [whole["flow/aepe"], *(told[f"set/{name}/flow/aepe"] for name in alone)]
    assert aepe == ["flow/aepe", *(f"{number:.3f}" for number in numbers), "px"]

    with (tmp_path / "out/frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "set", "dataset", *whole]
    for (folder, dataset), (scores, seen) in zip(two_sets.items(), alone.values(), strict=True):
        mine = [row for row in rows if row["set"] == folder.name]
        assert len(mine) == seen["frames"] and {row["dataset"] for row in mine} == {dataset}
        each = [float(row["flow/fl_all"]) for row in mine if row["flow/fl_all"]]
        assert np.mean(each) == pytest.approx(scores["flow/fl_all_per_image"], rel=1e-4)
    assert len(rows) == sum(seen["frames"] for _, seen in alone.values())

    page = Page((tmp_path / "r.html").read_text())
    assert page.headings[0] == "Sets of records"
    assert page.tables[1][0] == ["", "all", "street", "town"]
    assert page.tables[1][1] == ["data set", "", *two_sets.values()]
    cells = {row[0]: row[1:] for row in page.tables[1]}
    assert cells["AEPE, px"] == [f"{number:.2f}" for number in numbers]
    assert {row[0]: row[1:] for row in page.tables[2]}["flow/aepe"] == cells["AEPE, px"]
    assert {row[1] for row in page.tables[-1][1:]} == {"street", "town"}
    assert all(name.split(": ")[0] in ("street", "town") for name, _ in page.pictures)


def test_sets_have_the_names_that_tell_them_apart(tmp_path):
    kept = set_scores.Tally(CITYSCAPES)
    for folder in ("x/kitti/val", "x/street/val", "y/street/val"):
        shard = str(tmp_path / folder / "a.tfrecord").encode()
        kept.add({"frame_id": b"1", "dataset": b"kitti", "shard": shard}, None, None, {})
    assert list(kept.set_names().values()) == ["x/kitti/val", "x/street/val", "y/street/val"]
    del kept.by_folder[str(tmp_path / "y/street/val")]
    assert list(kept.set_scores()) == ["kitti/val", "street/val"]
    del kept.by_folder[str(tmp_path / "x/street/val")]
    # One alone has the scores of all.
    assert list(kept.set_names().values()) == ["val"] and kept.set_scores() == {}


def test_a_set_may_be_named_from_where_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.tfrecord", make_record((3, 4), 7, flow=np.ones((3, 4))))
    write("b.tfrecord", make_record((3, 4), 8, flow=np.ones((3, 4))))
    kept = set_scores.Tally(CITYSCAPES)
    ask = evaluation.run_answers(fake_run(), CITYSCAPES)
    evaluation.count(["a.tfrecord", f"{tmp_path}/b.tfrecord"], CITYSCAPES, ask, kept.add)
    assert kept.set_names() == {str(tmp_path): tmp_path.name} and len(kept.frames) == 2


def test_the_table():
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
def test_what_is_no_metrics_file_is_told(tmp_path, content):
    path = tmp_path / "m.json"
    files.write_json(path, {"flow/aepe": 1.5, "seg/miou": float("nan")})
    assert set_scores.read_scores(path) == (str(path), {"flow/aepe": 1.5})
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=f"^{path}: no metrics file of flowseg.evaluate"):
        set_scores.read_scores(path)
