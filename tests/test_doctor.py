"""The doctor on made records: clean ones, and each fault planted alone and found alone."""

import json

import cv2
import numpy as np
import pytest

from data_prep.doctor.examine import examine
from flowseg.labels import CAMVID, CITYSCAPES
from tests import doctor_sets as sets
from tests.conftest import run_command


@pytest.fixture(scope="module")
def clean():
    return sets.make_set()


def diagnose(folder, splits, label_set=CITYSCAPES, **how):
    return examine(sets.write_set(folder, splits), label_set, **how)


def assert_found(diagnosis, *expected):
    """Exactly these (level, name, frame ids); ids may be None."""
    found = [(f.level, f.name, {frame.frame_id for frame in f.frames}) for f in diagnosis.findings]
    assert [(level, name) for level, name, _ in found] == [(e[0], e[1]) for e in expected], [
        f.line() for f in diagnosis.findings
    ]
    for (_, name, ids), (*_, wanted) in zip(found, expected, strict=True):
        assert wanted is None or ids == set(wanted), name


def everywhere(change):
    def plant(splits):
        return {
            split: [change(k, frame) for k, frame in enumerate(frames)]
            for split, frames in splits.items()
        }

    return plant


def in_train(*places, **changes):
    """Change values of some train frames: numbers of frames; functions of the frame."""

    def plant(splits):
        train = [
            {**frame, **{key: change(frame) for key, change in changes.items()}}
            if k in places
            else frame
            for k, frame in enumerate(splits["train"])
        ]
        return {**splits, "train": train}

    return plant


def turn(swapped, *signs):
    def change(k, frame):
        flow = frame["flow"][..., ::-1] if swapped else frame["flow"]
        return {**frame, "flow": flow * np.float32(signs)}

    return everywhere(change)


def next_of(*fields):
    """Some fields of each train frame are those of the next."""

    def plant(splits):
        train = splits["train"]
        after = train[1:] + train[:1]
        pairs = zip(train, after, strict=True)
        return {
            **splits,
            "train": [{**frame, **{f: other[f] for f in fields}} for frame, other in pairs],
        }

    return plant


def add(split, k, **changes):
    """Put train frame k, changed, into a split once more under another name."""

    def plant(splits):
        frame = splits["train"][k]
        again = {**frame, "frame_id": "again", **{n: c(frame) for n, c in changes.items()}}
        return {**splits, split: [*splits[split], again]}

    return plant


def saved_again(frame):
    small = cv2.resize(frame["image1"], None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)
    back = cv2.resize(small, (sets.WIDTH, sets.HEIGHT))
    return np.uint8(np.clip(back.astype(float) * 1.05 - 4, 0, 255))


def with_id(value):
    def change(frame):
        labels = frame["labels"].copy()
        labels[40:44, 40:44] = value
        return labels

    return change


def filled(value, rows=sets.HEIGHT):
    def change(frame):
        labels = frame["labels"].copy()
        labels[:rows] = value
        return labels

    return change


def shifted_labels(k, frame):
    labels = np.roll(frame["labels"], 6, 1)
    labels[:, :6] = sets.UNLABELED
    return {**frame, "labels": labels}


TRAIN = [f"{k:03d}" for k in range(6)]
ALL = [f"{k:03d}" for k in range(8)]
PNG = {"format": lambda frame: "png"}


@pytest.mark.parametrize(
    ("plant", "level", "name", "ids", "told"),
    [
        (turn(True, 1, 1), "error", "flow-axes", ALL, "swapped"),
        (turn(False, -1, -1), "error", "flow-signs", ALL, "both signs"),
        (turn(False, -1, 1), "error", "flow-sign-u", ALL, "sign of u"),
        (turn(False, 1, -1), "error", "flow-sign-v", ALL, "sign of v"),
        (turn(True, -1, 1), "error", "flow-axes-sign-v", ALL, r"\(v, -u\)"),
        (turn(False, 2, 2), "error", "flow-scale", ALL, r"too large: multiply it by 0\.(5|49)"),
        (turn(False, 1 / 64, 1 / 64), "error", "flow-scale", ALL, "by 6[345].* 1/64 px"),
        (turn(False, 64, 64), "error", "flow-scale", ALL, "too large: multiply it by 0.0156"),
        (next_of("image2"), "error", "flow-shifted", TRAIN, "second frame is another record's"),
        (next_of("flow", "valid"), "error", "flow-shifted", TRAIN, "flow is another record's"),
        (
            everywhere(lambda k, frame: {**frame, "image2": frame["image1"]}),
            *("error", "flow-zero", ALL, "stand still"),
        ),
        (in_train(2, flow=lambda f: -f["flow"]), "warning", "flow-signs", ["002"], "1 of 8"),
        (add("train", 0, **PNG), "note", "same-within-split", ["000", "again"], "1 record"),
        (add("val", 0), "warning", "same-across-splits", ["000", "again"], "train, val"),
        (
            add("train", 1, image1=saved_again, image2=lambda f: None, flow=lambda f: None),
            *("note", "near-within-split", ["001", "again"], "nearly"),
        ),
        (
            add("val", 1, image1=saved_again, image2=lambda f: None, flow=lambda f: None),
            *("warning", "near-across-splits", ["001", "again"], "nearly"),
        ),
        (in_train(3, labels=with_id(77)), "error", "unknown-ids", ["003"], r"\(77\)"),
        (in_train(3, labels=filled(0)), "warning", "all-void", ["003"], "1 frame of 8"),
        (in_train(3, labels=filled(0, 70)), "warning", "much-void", ["003"], "60%"),
        (in_train(3, labels=filled(sets.ROAD)), "warning", "one-class", ["003"], "single class"),
        (
            in_train(3, labels=lambda f: f["labels"][:-4]),
            *("error", "bad-size", ["003"], "labels is 92x144, the record says 96x144"),
        ),
        (
            in_train(3, image2=lambda f: f["image2"][:, 4:]),
            *("error", "bad-size", ["003"], "image2 is 96x140"),
        ),
        (
            in_train(4, spoilt=lambda f: "flow"),
            *("error", "bad-file", ["004"], "flow: truncated PNG"),
        ),
        (everywhere(shifted_labels), "warning", "labels-shifted", ALL, r"\(6, 0\) px"),
        (next_of("labels"), "warning", "labels-elsewhere", ALL, "of other frames"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found_and_no_other(clean, tmp_path, plant, level, name, ids, told):
    import re

    diagnosis = diagnose(tmp_path, plant(clean))
    assert_found(diagnosis, (level, name, ids))
    assert re.search(told, diagnosis.findings[0].text), diagnosis.findings[0].text


@pytest.mark.parametrize("of", [(6, 2), (2, 0), (1, 0)])
def test_nothing_is_found_in_clean_records(tmp_path, of):
    splits = {name: frames for name, frames in sets.make_set(*of).items() if frames}
    diagnosis = diagnose(tmp_path, splits)
    assert_found(diagnosis)
    assert diagnosis.numbers["made/warp/fits_pairs"] == sum(of)


def test_sets_without_flow_or_labels_and_stills(clean, tmp_path):
    lacks = [("flow",), ("labels",), ("flow", "image2"), ("flow", "labels"), (), ()]
    train = [
        {**frame, **dict.fromkeys(lack)} for frame, lack in zip(clean["train"], lacks, strict=True)
    ]
    diagnosis = diagnose(tmp_path, {"train": train})
    assert_found(diagnosis)
    counts = [diagnosis.numbers[f"all/{name}"] for name in ("records", "pairs", "flow", "labels")]
    assert counts == [6, 5, 3, 4]


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
    assert numbers["all/records"] == 3 and numbers["val/occurs/sky"] == 2
    assert numbers["size/96x144"] == 3


def test_a_class_that_is_never_trained(clean, tmp_path):
    # Buildings become vegetation in train.
    def change(frame):
        return np.where(frame["labels"] == sets.BUILDING, sets.VEGETATION, frame["labels"])

    train = [{**frame, "labels": change(frame)} for frame in clean["train"]]
    diagnosis = diagnose(tmp_path, {**clean, "train": train})
    assert_found(diagnosis, ("warning", "untrained-classes", None))
    assert "train lacks: building;" in diagnosis.findings[0].text
    diagnosis = diagnose(tmp_path, {"train": clean["val"], "val": train})
    assert_found(diagnosis, ("note", "unscored-classes", None))


def test_labels_that_the_label_set_cannot_read(clean, tmp_path):
    train = [{**frame, "label_set": "camvid"} for frame in clean["train"]]
    for frame in train:
        frame["labels"] = np.uint8(frame["labels"] % 11)
    lone = CITYSCAPES._replace(name="lone", ids={"cityscapes": CITYSCAPES.ids["cityscapes"]})
    diagnosis = diagnose(tmp_path, {"train": train}, lone)
    assert_found(diagnosis, ("error", "numbering", TRAIN))
    assert "camvid" in diagnosis.findings[0].text
    assert_found(diagnose(tmp_path, {"train": train}, CAMVID))


def test_a_successor_in_another_split(clean, tmp_path):
    later = {**clean["val"][0], "image1": clean["train"][2]["image2"], "image2": None, "flow": None}
    later |= {"labels": None, "format": "png"}
    train = [{**frame, "format": "png"} for frame in clean["train"]]
    diagnosis = diagnose(tmp_path, {"train": train, "val": [later]})
    assert_found(diagnosis, ("warning", "successor-across-splits", ["002", "006"]))


@pytest.mark.parametrize(("place", "lost"), [(0.5, 1), (None, 4)])
def test_damaged_records_are_named_and_the_rest_is_read(clean, tmp_path, place, lost):
    files = sets.write_set(tmp_path, clean)
    sets.flip_bit(files[0], 2, place)
    diagnosis = examine(files, CITYSCAPES)
    assert_found(diagnosis, ("error", "damaged-records", None))
    text = diagnosis.findings[0].text
    assert "train-00000-of-00001.tfrecord, record 2: damaged" in text
    assert ("cannot be read" in text) == (place is None)
    assert diagnosis.numbers["damaged"] == 1 and diagnosis.numbers["all/records"] == 8 - lost


def test_a_shard_that_its_index_does_not_know(clean, tmp_path):
    files = sets.write_set(tmp_path, clean)
    index = {"records": {}, "files": {"train-00000-of-00001.tfrecord": {"bytes": 7}}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    diagnosis = examine(files, CITYSCAPES)
    assert_found(diagnosis, ("error", "index", None))
    assert "bytes, but index.json says 7" in diagnosis.findings[0].text


def test_processes_give_the_same(clean, tmp_path, monkeypatch):
    files = sets.write_set(tmp_path, next_of("image2")(clean))
    alone = examine(files, CITYSCAPES)
    monkeypatch.setattr("data_prep.doctor.examine._FEW_BYTES", 0)
    beside = examine(files, CITYSCAPES, processes=2)
    assert beside.numbers == alone.numbers
    assert [f.line() for f in beside.findings] == [f.line() for f in alone.findings]


def test_only_a_sample_is_looked_at_closely(clean, tmp_path):
    diagnosis = diagnose(tmp_path, clean, limit=3)
    assert diagnosis.numbers["made/warp/fits_pairs"] == 3
    assert any("flow of 3 of 8 pairs" in line for line in diagnosis.looked)


def test_the_command(clean, tmp_path):
    files = sets.write_set(tmp_path, turn(True, 1, 1)(clean))
    line = run_command(
        *("data_prep.doctor", "--records", f"{tmp_path}/*.tfrecord"),
        *("--json", tmp_path / "doctor.json", "--output", tmp_path / "page"),
        ok=False,
    )
    assert line.stderr == "error: 1 fault in these records: flow-axes\n"
    assert "error: made: the flow's axes look swapped" in line.stdout
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert report["errors"] == 1 and report["warnings"] == report["notes"] == 0
    [finding] = report["findings"]
    assert finding["name"] == "flow-axes" and [files[0], 0, "000"] in finding["frames"]
    page = (tmp_path / "page" / "index.html").read_text()
    assert "axes look swapped" in page and "http" not in page
    pictures = sorted((tmp_path / "page" / "pictures").iterdir())
    for path in pictures:
        assert f'src="pictures/{path.name}"' in page
        assert cv2.imread(str(path)).shape[1] <= 1000
    assert {path.name for path in pictures} >= {"classes.png", "speeds.png", "000.jpg"}


def test_the_command_ends_well_on_clean_records(clean, tmp_path):
    sets.write_set(tmp_path, clean)
    done = run_command("data_prep.doctor", "--records", f"{tmp_path}/*.tfrecord")
    assert done.stdout.endswith("0 errors, 0 warnings, 0 notes\n") and done.stderr == ""


def test_bad_commands_end_with_one_line(tmp_path):
    assert "--records is not given" in run_command("data_prep.doctor", ok=False).stderr
    line = run_command("data_prep.doctor", "--records", tmp_path / "no-*", ok=False).stderr
    assert "no record files match" in line
