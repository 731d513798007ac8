"""Tests of the doctor on synthetic records: clean, damaged and mixed; command, report and page."""

import json

import cv2
import numpy as np
import pytest

from data_prep.doctor import flow, pictures, warp
from data_prep.doctor.examine import examine
from flowseg.data.labels import CAMVID, CITYSCAPES
from tests.conftest import run_command
from tests.support import doctor_sets as sets
from tests.support.doctor_sets import assert_findings, diagnose


@pytest.fixture(scope="module")
def clean():
    return sets.make_set()


def wrong_flow(splits):
    """Return the splits with swapped flow axes."""
    return {
        split: [{**frame, "flow": frame["flow"][..., ::-1]} for frame in frames]
        for split, frames in splits.items()
    }


@pytest.mark.parametrize("sizes", [(4, 1), (2, 0), (1, 0)])
def test_clean_records_have_no_findings(tmp_path, sizes):
    splits = {name: frames for name, frames in sets.make_set(*sizes).items() if frames}
    diagnosis = diagnose(tmp_path, splits)
    assert_findings(diagnosis)
    assert diagnosis.numbers["made/warp/fits_pairs"] == sum(sizes)


def test_records_without_flow_labels_or_second_frame(clean, tmp_path):
    lacks = [("flow",), ("labels",), ("flow", "image2"), ("flow", "labels")]
    train = [
        {**frame, **dict.fromkeys(lack)} for frame, lack in zip(clean["train"], lacks, strict=True)
    ]
    diagnosis = diagnose(tmp_path, {"train": train})
    assert_findings(diagnosis)
    counts = [diagnosis.numbers[f"all/{name}"] for name in ("records", "pairs", "flow", "labels")]
    assert counts == [4, 3, 1, 2]
    # Test frames without ground truth are not reported either.
    without = [{**frame, "flow": None, "labels": None} for frame in clean["train"]]
    assert_findings(diagnose(tmp_path, {"test": without}))


def test_numbers(clean, tmp_path):
    flow = np.zeros((sets.HEIGHT, sets.WIDTH, 2), np.float32)
    flow[:48], flow[48:] = (3, 4), (0, -60)
    known = np.ones(flow.shape[:2], bool)
    known[:, 72:] = False
    labels = np.full(flow.shape[:2], sets.ROAD, np.uint8)
    labels[:24], labels[24:48] = sets.SKY, sets.UNLABELED
    train = [{**clean["train"][0], "flow": flow, "valid": known, "labels": labels}]
    numbers = diagnose(tmp_path, {"train": train, "val": clean["val"]}).numbers
    expected = {
        **{"flow/known": 50, "flow/mean": 32.5, "flow/p50": 5, "flow/p90": 60},
        **{"flow/over_40px": 50, "class/sky": 100 / 3, "class/road": 200 / 3, "class/bus": 0},
        **{"class/void": 25, "occurs/sky": 1, "records": 1, "noc": 1},
    }
    for name, value in expected.items():
        assert numbers[f"made/train/{name}"] == pytest.approx(value, rel=0.03), name
    assert numbers["all/records"] == 2 and numbers["val/occurs/sky"] == 1
    assert numbers["size/96x144"] == 2


def test_untrained_and_unscored_classes(clean, tmp_path):
    # Buildings become vegetation in train.
    def change(frame):
        return np.where(frame["labels"] == sets.BUILDING, sets.VEGETATION, frame["labels"])

    train = [{**frame, "labels": change(frame)} for frame in clean["train"]]
    diagnosis = diagnose(tmp_path, {**clean, "train": train})
    assert_findings(diagnosis, ("warning", "untrained-classes", None))
    assert "train lacks: building;" in diagnosis.findings[0].text
    diagnosis = diagnose(tmp_path, {"train": clean["val"], "val": train})
    assert_findings(diagnosis, ("note", "unscored-classes", None))


def test_unmapped_numbering(clean, tmp_path):
    train = [{**frame, "label_set": "camvid"} for frame in clean["train"]]
    for frame in train:
        frame["labels"] = np.uint8(frame["labels"] % 11)
    lone = CITYSCAPES._replace(name="lone", ids={"cityscapes": CITYSCAPES.ids["cityscapes"]})
    diagnosis = diagnose(tmp_path, {"train": train}, lone)
    assert_findings(diagnosis, ("error", "numbering", [f"{k:03d}" for k in range(4)]))
    assert "camvid" in diagnosis.findings[0].text
    assert_findings(diagnose(tmp_path, {"train": train}, CAMVID))


def test_successor_in_another_split(clean, tmp_path):
    successor = {
        **clean["val"][0],
        "image1": clean["train"][2]["image2"],
        "image2": None,
        "flow": None,
    }
    successor |= {"labels": None, "format": "png"}
    train = [{**frame, "format": "png"} for frame in clean["train"]]
    diagnosis = diagnose(tmp_path, {"train": train, "val": [successor]})
    assert_findings(diagnosis, ("warning", "successor-across-splits", ["002", "004"]))


@pytest.mark.parametrize(("place", "lost"), [(0.5, 1), (None, 2)])
def test_damaged_records(clean, tmp_path, place, lost):
    files = sets.write_set(tmp_path, clean)
    sets.flip_bit(files[0], 2, place)
    diagnosis = examine(files, CITYSCAPES)
    assert_findings(diagnosis, ("error", "damaged-records", None))
    text = diagnosis.findings[0].text
    assert "train-00000-of-00001.tfrecord, record 2: damaged" in text
    assert ("cannot be read" in text) == (place is None)
    assert diagnosis.numbers["damaged"] == 1 and diagnosis.numbers["all/records"] == 5 - lost


def test_empty_shard(clean, tmp_path):
    diagnosis = diagnose(tmp_path, {"train": clean["train"][:2], "val": []})
    assert_findings(diagnosis, ("error", "empty-shards", None))
    assert "1 shard without records: " in diagnosis.findings[0].text
    empty = diagnose(tmp_path, {"train": []})
    assert empty.facts == [] and empty.numbers["all/records"] == 0


def test_shard_size_differs_from_index(clean, tmp_path):
    files = sets.write_set(tmp_path, clean)
    index = {"records": {}, "files": {"train-00000-of-00001.tfrecord": {"bytes": 7}}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    diagnosis = examine(files, CITYSCAPES)
    assert_findings(diagnosis, ("error", "index", None))
    assert "bytes, but index.json says 7" in diagnosis.findings[0].text


def test_worker_processes_give_equal_results(clean, tmp_path, monkeypatch):
    files = sets.write_set(tmp_path, wrong_flow(clean))
    single = examine(files, CITYSCAPES)
    monkeypatch.setattr("data_prep.doctor.examine._FEW_BYTES", 0)
    parallel = examine(files, CITYSCAPES, processes=2)
    assert parallel.numbers == single.numbers
    assert [f.line() for f in parallel.findings] == [f.line() for f in single.findings]


def test_same_data_set_name_in_two_folders(clean, tmp_path):
    files = []
    for name, splits in (("a", clean), ("b", wrong_flow(clean))):
        (tmp_path / name).mkdir()
        files += sets.write_set(tmp_path / name, {name: splits["train"]})
    diagnosis = examine(files, CITYSCAPES)
    faults = [f for f in diagnosis.findings if f.name.startswith("flow")]
    assert [f.text.split(":")[0] for f in faults] == [str(tmp_path / "b")]
    assert diagnosis.numbers[f"{tmp_path / 'a'}/warp/fits_pairs"] == 4


def moved(frame, u, v):
    """Return a frame whose image2 is its image1 moved by (u, v), in whole px."""
    image2 = np.roll(frame["image1"], (v, u), (0, 1))
    flow = np.full((sets.HEIGHT, sets.WIDTH, 2), (u, v), np.float32)
    valid = np.zeros(flow.shape[:2], bool)
    valid[10:-10, 10:-10] = True
    return {**frame, "image2": image2, "flow": flow, "valid": valid}


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        ((5, 5), "cannot decide from these pairs: swapped axes"),
        ((5, 0), "cannot decide from these pairs: the sign of v"),
        ((0, -5), "cannot decide from these pairs: the sign of u"),
        ((0, 0), "cannot decide whether the flow fits: hardly any motion"),
    ],
)
def test_ambiguous_flow_is_noted(clean, tmp_path, motion, message):
    diagnosis = diagnose(tmp_path, {"train": [moved(f, *motion) for f in clean["train"][:2]]})
    assert_findings(diagnosis, ("note", "flow-untold", []))
    assert message in diagnosis.findings[0].text


def test_chance_fits_are_not_systematic():
    costs = {"zero": 0.8, "axes": 0.8, "signs": 0.8}
    lost = warp.Probe("unexplained", 0.8, costs, dict.fromkeys(costs, 500))
    lucky = lost._replace(verdict="axes", others={**costs, "axes": 0.5})
    for probes, names in (
        ([lucky, lost, lost], ["flow-misfit"]),
        ([lucky, lucky, lost], ["flow-axes", "flow-misfit"]),
        # A pair that cannot distinguish the flows may have the same fault.
        ([lucky, lucky, lost._replace(distinct={"axes": 3})], ["flow-axes"]),
    ):
        pairs = [(object(), probe) for probe in probes]
        assert [finding.name for finding in flow.check("set", pairs, {})] == names
    # Different factors are not a common scale.
    others = {**costs, "scale": 0.4}
    scaled = [warp.Probe("scale", 0.8, others, {"scale": 500}, scale) for scale in (0.3, 2, 0.7)]
    pairs = [(object(), probe) for probe in scaled]
    assert [finding.name for finding in flow.check("set", pairs, {})] == ["flow-misfit"]


def test_occluded_pixels_are_ignored(clean):
    frame = clean["train"][0]
    image2 = frame["image2"].copy()
    image2[:, 72:] = image2[::-1, :71:-1]
    known = np.dstack([frame["flow"], frame["valid"]]).astype(np.float32)
    non_occluded = known.copy()
    non_occluded[:, 60:, 2] = 0
    decoded = {"image1": frame["image1"], "image2": image2, "flow": known}
    all_, visible = warp.probe(decoded), warp.probe({**decoded, "flow_noc": non_occluded})
    assert visible.verdict == "fits" and visible.mismatch < 0.1 < 0.35 < all_.mismatch


def test_limit(clean, tmp_path):
    diagnosis = diagnose(tmp_path, clean, limit=3)
    assert diagnosis.numbers["made/warp/fits_pairs"] == 3
    assert any("flow of 3 of 5 pairs" in line for line in diagnosis.inspected)


def test_command(clean, tmp_path):
    files = sets.write_set(tmp_path, wrong_flow(clean))
    done = run_command(
        "data_prep.doctor",
        "--records",
        f"{tmp_path}/*.tfrecord",
        "--json",
        tmp_path / "doctor.json",
        "--output",
        tmp_path / "page",
        ok=False,
    )
    assert done.stderr == "error: 1 fault in these records: flow-axes\n"
    assert "error: made: the flow's axes look swapped" in done.stdout
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert report["errors"] == 1 and report["warnings"] == report["notes"] == 0
    [finding] = report["findings"]
    assert finding["name"] == "flow-axes" and [files[0], 0, "000"] in finding["frames"]
    page = (tmp_path / "page" / "index.html").read_text()
    assert "http" not in page
    # The finding is followed by its first frames, before the images of the data sets.
    positions = [
        page.index(part) for part in ("axes look swapped", "000.jpg", "classes.png", "h2>made")
    ]
    assert positions == sorted(positions)
    pictures = sorted((tmp_path / "page" / "pictures").iterdir())
    for path in pictures:
        assert f'src="pictures/{path.name}"' in page
        assert cv2.imread(str(path)).shape[1] <= 1000
    assert {path.name for path in pictures} >= {"classes.png", "speeds.png", "000.jpg"}


def test_page_escapes_names(clean, tmp_path):
    hostile = '<b>"&'
    train = [{**clean["train"][0], "frame_id": hostile}]
    label_set = CITYSCAPES._replace(names=(hostile, *CITYSCAPES.names[1:]))
    files = sets.write_set(tmp_path, {"train": train})
    diagnosis = examine(files, label_set, 2, 1)
    page = pictures.write_page(tmp_path / "page", diagnosis, label_set).read_text()
    escaped = "&lt;b&gt;&#34;&amp;"
    assert "<b>" not in page and page.count(escaped) >= 3
    assert f'alt="{escaped} (' in page and f"<figcaption>{escaped} (" in page
    numbers = page[page.index("<pre>") : page.index("</pre>")]
    assert escaped in numbers


def test_command_on_clean_records(clean, tmp_path):
    sets.write_set(tmp_path, clean)
    done = run_command("data_prep.doctor", "--records", f"{tmp_path}/*.tfrecord")
    assert done.stdout.endswith("0 errors, 0 warnings, 0 notes\n") and done.stderr == ""


def test_command_requires_records():
    assert "--records is not given" in run_command("data_prep.doctor", ok=False).stderr
