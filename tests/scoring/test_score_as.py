"""Scoring with the wider classes of another label set: grouping, summed probabilities, errors."""

import json

import numpy as np
import pytest
from keras import ops

from flowseg.data.labels import CAMVID, CITYSCAPES, from_dict
from flowseg.scoring.class_groups import class_groups
from flowseg.scoring.evaluation import evaluate
from flowseg.scoring.streaming import grouped_logits
from tests.commands.test_evaluate import (
    ROAD,  # noqa: F401
    fake_run,  # noqa: F401
    make_record,  # noqa: F401
    run_dir,  # noqa: F401
    write,  # noqa: F401
)
from tests.conftest import run_command

GREY = (1, 2, 3)


def label_set(name, **ids):
    """A label set with one class per entry of each numbering."""
    count = len(next(iter(ids.values())))
    names = [f"{name}{i}" for i in range(count)]
    return from_dict({"name": name, "names": names, "ids": ids, "palette": [GREY] * count})


def test_cityscapes_classes_in_camvid():
    groups = class_groups(CITYSCAPES, CAMVID)
    wider = {}
    for name, group in zip(CITYSCAPES.names, groups, strict=True):
        wider.setdefault(CAMVID.names[group], []).append(name)
    assert wider == {
        "road": ["road"],
        "pavement": ["sidewalk"],
        "building": ["building", "wall"],
        "fence": ["fence"],
        "pole": ["pole"],
        "sign": ["traffic light", "traffic sign"],
        "tree": ["vegetation", "terrain"],
        "sky": ["sky"],
        "pedestrian": ["person"],
        "bicyclist": ["rider", "motorcycle", "bicycle"],
        "car": ["car", "truck", "bus", "train"],
    }


def test_camvid_round_trip():
    # A CamVid id must map to itself via one of the 19 classes and back to one of the 11.
    groups = class_groups(CITYSCAPES, CAMVID)
    for train_id, ids in enumerate(CITYSCAPES.ids["camvid"]):
        for i in ids:
            assert CAMVID.ids["camvid"][groups[train_id]] == (i,)
    assert sorted(i for ids in CITYSCAPES.ids["camvid"] for i in ids) == list(range(11))


def test_class_outside_scored_set():
    narrow = label_set("narrow", cityscapes=[[7], [26, 27]])
    groups = class_groups(CITYSCAPES, narrow)
    assert groups[ROAD] == 0 and (groups == 1).sum() == 2 and (groups == 255).sum() == 16


def test_classes_that_cannot_be_grouped():
    one = label_set("one", cityscapes=[[7, 8], [26]])
    with pytest.raises(ValueError, match="'one0' of 'one' maps to 2 classes of 'cityscapes'"):
        class_groups(one, CITYSCAPES)
    with pytest.raises(ValueError, match="'own' and 'camvid' have no numbering in common"):
        class_groups(label_set("own", mine=[[1]]), CAMVID)
    with pytest.raises(ValueError, match="no class of 'few' belongs to 'road', 'sidewalk'"):
        class_groups(label_set("few", cityscapes=[[26], [27]]), CITYSCAPES)


def test_grouped_probabilities_are_summed():
    share = np.float32([[0.4, 0.3, 0.2, 0.1], [0.1, 0.5, 0.15, 0.25]])
    # Classes 1 and 2 form one group; class 3 is in none.
    grouped = ops.convert_to_numpy(grouped_logits(np.log(share) + 3, [0, 1, 1, 255]))
    # First row: 0.4 is the largest of four, but the sum 0.3 + 0.2 is larger.
    np.testing.assert_allclose(np.exp(grouped), [[0.4, 0.5], [0.1, 0.65]], atol=1e-6)
    # Logits whose exponential overflows float32.
    large = ops.convert_to_numpy(grouped_logits(np.float32([[900, 899, 0, 0]]), [0, 1, 1, 1]))
    np.testing.assert_allclose(
        large, [[-np.log1p(np.exp(-1)), -1 - np.log1p(np.exp(-1))]], atol=1e-4
    )


def test_evaluate_groups_before_argmax(tmp_path):
    # Truth: all car. The sum of car, bus and truck exceeds road, the largest single class.
    run = fake_run()
    original_predict = run.predict_logits

    def predict(image1, image2, scale):
        logits, flow = original_predict(image1, image2, scale)
        logits = np.log(np.full_like(logits, 0.01))
        for name, share in {"road": 0.35, "car": 0.2, "bus": 0.15, "truck": 0.15}.items():
            logits[..., CITYSCAPES.names.index(name)] = np.log(share)
        return logits, flow

    run.predict_logits = predict
    path = write(tmp_path / "a", make_record((3, 4), 7, np.full((3, 4), 26), pair=False))
    scores, _ = evaluate(run, [path], score_as=CAMVID)
    assert scores == {"seg/miou": 100.0, "seg/pixel_accuracy": 100.0, "seg/iou/car": 100.0}
    scores, _ = evaluate(run, [path])
    assert scores["seg/pixel_accuracy"] == 0.0


def test_score_as_command(run_dir, tmp_path):  # noqa: F811
    # The network's logits: road 1, all else 0. Four classes of e^0 are cars: more than e^1.
    records = write(tmp_path / "val", make_record((4, 5), 9, np.full((4, 5), 26), pair=False))
    scores = tmp_path / "scores.json"
    command = ("flowseg.evaluate", "--run_dir", run_dir, "--records", records)
    run_command(*command, "--metrics_json", scores, "--score_as", "camvid")
    assert json.loads(scores.read_text())["seg/iou/car"] == 100.0
    done = run_command(*command, "--score_as", "nothing", ok=False)
    assert (
        "nothing: neither a built-in label set (camvid, cityscapes, clips, vkitti2)" in done.stderr
    )
