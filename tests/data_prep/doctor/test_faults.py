"""Tests that the doctor finds every single fault planted in clean records, and no other."""

import re

import cv2
import numpy as np
import pytest

from flowseg.data.labels import from_dict
from tests.support import doctor_sets as sets
from tests.support.doctor_sets import assert_findings, diagnose


@pytest.fixture(scope="module")
def clean():
    return sets.make_set()


def everywhere(change):
    def plant(splits):
        return {
            split: [change(k, frame) for k, frame in enumerate(frames)]
            for split, frames in splits.items()
        }

    return plant


def in_train(*indexes, **changes):
    """Change values of the train frames with the given indexes by functions of the frame."""

    def plant(splits):
        train = [
            {**frame, **{key: change(frame) for key, change in changes.items()}}
            if k in indexes
            else frame
            for k, frame in enumerate(splits["train"])
        ]
        return {**splits, "train": train}

    return plant


def set_axes(swapped, *signs):
    def change(k, frame):
        flow = frame["flow"][..., ::-1] if swapped else frame["flow"]
        return {**frame, "flow": flow * np.float32(signs)}

    return everywhere(change)


def normalised(parts):
    """Normalise flow by the frame size or half of it, as .flo: KITTI's steps are too coarse."""

    def change(k, frame):
        flow = frame["flow"] * np.float32([parts / sets.WIDTH, parts / sets.HEIGHT])
        return {**frame, "flow": flow, "flow_format": "flo"}

    return everywhere(change)


def read_by_formula(factor):
    """Multiply flow by what Virtual KITTI 2's and KITTI's formula differ by, or its inverse."""
    ratio = np.float32([512 / (sets.WIDTH - 1), 512 / (sets.HEIGHT - 1)]) ** factor

    def change(k, frame):
        return {**frame, "flow": frame["flow"] * ratio, "flow_format": "flo"}

    return everywhere(change)


def next_of(*fields):
    """Replace some fields of each train frame by those of the next."""

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
    """Add a changed copy of train frame k to a split under another name."""

    def plant(splits):
        frame = splits["train"][k]
        copy = {**frame, "frame_id": "again", **{n: c(frame) for n, c in changes.items()}}
        return {**splits, split: [*splits[split], copy]}

    return plant


def resaved(frame):
    data = cv2.imencode(".jpg", frame["image1"], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.uint8(np.clip(cv2.imdecode(data, cv2.IMREAD_COLOR) * 1.03 - 3, 0, 255))


def with_id(value):
    def change(frame):
        labels = frame["labels"].copy()
        labels[40:44, 40:44] = value
        return labels

    return change


def fill_rows(value, rows=sets.HEIGHT):
    def change(frame):
        labels = frame["labels"].copy()
        labels[:rows] = value
        return labels

    return change


def shifted_labels(k, frame):
    labels = np.roll(frame["labels"], 6, 1)
    labels[:, :6] = sets.UNLABELED
    return {**frame, "labels": labels}


def mirrored_labels(k, frame):
    return {**frame, "labels": frame["labels"][:, ::-1]}


TRAIN = [f"{k:03d}" for k in range(4)]
ALL = [f"{k:03d}" for k in range(5)]
PNG = {"format": lambda frame: "png"}


@pytest.mark.parametrize(
    ("plant", "level", "name", "ids", "message"),
    [
        (set_axes(True, 1, 1), "error", "flow-axes", ALL, "swapped"),
        (set_axes(False, -1, -1), "error", "flow-signs", ALL, "both signs"),
        (set_axes(False, -1, 1), "error", "flow-sign-u", ALL, "sign of u"),
        (set_axes(False, 1, -1), "error", "flow-sign-v", ALL, "sign of v"),
        (set_axes(True, -1, 1), "error", "flow-axes-sign-v", ALL, r"\(v, -u\)"),
        (set_axes(False, 2, 2), "error", "flow-scale", ALL, r"too large: multiply it by 0\.(5|49)"),
        (set_axes(False, 1 / 64, 1 / 64), "error", "flow-scale", ALL, "by 6[345].* 1/64 px"),
        (set_axes(False, 64, 64), "error", "flow-scale", ALL, "too large: multiply it by 0.0156"),
        (normalised(1), "error", "flow-share", ALL, "multiply u by the width"),
        (normalised(2), "error", "flow-half-share", ALL, "half the width"),
        (read_by_formula(1), "error", "flow-vkitti2-as-kitti", ALL, "with data_prep.vkitti2"),
        (read_by_formula(-1), "error", "flow-kitti-as-vkitti2", ALL, "convert them as KITTI's"),
        (
            next_of("image2"),
            "error", "flow-shifted", TRAIN, "second frame belongs to another record",
        ),
        (
            next_of("flow", "valid"),
            "error", "flow-shifted", TRAIN, "flow belongs to another record",
        ),
        (
            everywhere(lambda k, frame: {**frame, "image2": frame["image1"]}),
            "error", "flow-zero", ALL, "images do not move",
        ),
        (in_train(2, flow=lambda f: -f["flow"]), "warning", "flow-signs", ["002"], "1 of 5"),
        (
            in_train(1, valid=lambda f: f["valid"] & False),
            "warning", "flow-unknown", ["001"], "no valid pixel",
        ),
        (add("train", 0, **PNG), "note", "same-within-split", ["000", "again"], "1 record"),
        (add("val", 0, **PNG), "warning", "same-across-splits", ["000", "again"], "train, val"),
        (
            add("train", 1, image1=resaved, image2=lambda f: None, flow=lambda f: None),
            "note", "near-within-split", ["001", "again"], "nearly",
        ),
        (
            add("val", 1, image1=resaved, image2=lambda f: None, flow=lambda f: None),
            "warning", "near-across-splits", ["001", "again"], "nearly",
        ),
        (in_train(3, labels=with_id(77)), "error", "unknown-ids", ["003"], r"\(77\)"),
        (in_train(3, labels=fill_rows(0)), "warning", "all-void", ["003"], "1 frame of 5"),
        (in_train(3, labels=fill_rows(0, 70)), "warning", "much-void", ["003"], "60%"),
        (in_train(3, labels=fill_rows(sets.ROAD)), "warning", "one-class", ["003"], "single class"),
        (
            in_train(3, labels=lambda f: f["labels"][:-4]),
            "error", "bad-size", ["003"], "labels is 92x144, the record says 96x144",
        ),
        (
            in_train(3, image2=lambda f: f["image2"][:, 4:]),
            "error", "bad-size", ["003"], "image2 is 96x140",
        ),
        (
            in_train(2, spoilt=lambda f: "flow"),
            "error", "bad-file", ["002"], "flow: truncated PNG",
        ),
        (everywhere(shifted_labels), "warning", "labels-shifted", ALL, r"\(6, 0\) px"),
        (everywhere(mirrored_labels), "warning", "labels-elsewhere", None, "mirrored"),
    ],
)  # fmt: skip
def test_planted_fault(clean, tmp_path, plant, level, name, ids, message):
    diagnosis = diagnose(tmp_path, plant(clean))
    assert_findings(diagnosis, (level, name, ids))
    assert re.search(message, diagnosis.findings[0].text), diagnosis.findings[0].text


def custom_labels(names, ids):
    palette = [[k, k, k] for k in range(len(names))]
    return from_dict({"name": "mine", "names": names, "palette": palette, "ids": {"mine": ids}})


def with_labels(frame, labels):
    return {**frame, "labels": labels, "label_set": "mine"}


def bands(frame):
    """Labels 0 to 3 in place of the four classes and 0 in place of void."""
    return np.uint8(np.searchsorted(sets.IDS, frame["labels"]))


def test_classes_of_the_users_label_set_that_occur_nowhere(clean, tmp_path):
    splits = everywhere(lambda k, frame: with_labels(frame, bands(frame)))(clean)
    names, ids = ["a", "b", "c", "d", "valve", "pump"], [0, 1, 2, 3, 4, 5]
    diagnosis = diagnose(tmp_path, splits, custom_labels(names, ids))
    assert_findings(diagnosis, ("warning", "absent-classes", []))
    assert "classes of label set mine without a pixel in any split: valve, pump;" in (
        diagnosis.findings[0].text
    )
    assert_findings(diagnose(tmp_path, splits, custom_labels(names[:4], ids[:4])))


def test_masks_of_0_and_255(clean, tmp_path):
    splits = everywhere(lambda k, f: with_labels(f, np.uint8(255 * (bands(f) > 2))))(clean)
    diagnosis = diagnose(tmp_path, splits, custom_labels(["back", "thing"], [0, 1]))
    assert [finding.name for finding in diagnosis.findings] == ["values-0-255"]
    assert "--mask_values 0,255" in diagnosis.findings[0].text


def test_sets_that_are_mostly_void(clean, tmp_path):
    # 54 of 96 rows are void: less than in a frame that is reported by itself.
    splits = everywhere(lambda k, frame: {**frame, "labels": fill_rows(0, 48)(frame)})(clean)
    diagnosis = diagnose(tmp_path, splits)
    assert_findings(diagnosis, ("warning", "void-set", []))
    assert "made: 56% of the pixels of 5 labelled frames are void" in diagnosis.findings[0].text
