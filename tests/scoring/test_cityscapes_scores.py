"""Class scores against stored results of cityscapesscripts, from KITTI's and Cityscapes' files.

`reference/make_cityscapes_answers.py` creates and updates the stored results.
"""

import json

import pytest

from data_prep import cityscapes, kitti
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.scoring import evaluation, frame_scores, prediction_files
from tests.conftest import run_command
from tests.reference import make_cityscapes_answers as reference
from tests.support import city_frames

CAR = 26
STORED = json.loads(reference.SCORES_FILE.read_text())


@pytest.fixture(scope="module", params=["made", "kitti"])
def case(request):
    """Name and frames of a stored case."""
    if request.param == "made":
        return "made", city_frames.make_frames()
    return "kitti", reference.real_frames(request.getfixturevalue("samples"))


def scores_of(frames, layout, folder):
    """FlowSeg's scores of written predictions, with records converted from `layout`."""
    writer, reader = {
        "cityscapes": (city_frames.write_cityscapes, cityscapes),
        "kitti": (city_frames.write_kitti, kitti),
    }[layout]
    names = writer(folder / "truth", frames)
    if layout == "cityscapes":
        city_frames.write_cityscapes(folder / "truth", frames[:1], "train", "ulm")
    split = {"val_fraction": 1} if layout == "kitti" else {}
    reader.convert([folder / "truth"], folder / "records", processes=1, **split)
    city_frames.write_predictions(folder / "predictions", names, frames)
    predictions = prediction_files.open_predictions(folder / "predictions", CITYSCAPES, "label")
    shards = records.match_files(f"{folder}/records/val-*")
    counts, frame_totals = evaluation.count(shards, CITYSCAPES, predictions.read_frame)
    assert frame_totals["seg"] == len(frames)
    scores = frame_scores.scores(counts, CITYSCAPES.names)
    # Cityscapes has no boundary scores.
    return {name: score for name, score in scores.items() if not name.startswith("seg/boundary_f")}


def difference(scores, stored):
    """Largest difference between two sets of scores with the same names."""
    assert scores.keys() == stored.keys()
    return max(abs(scores[name] - stored[name]) for name in stored)


@pytest.mark.parametrize("layout", ["cityscapes", "kitti"])
def test_scores_equal_cityscapesscripts(case, layout, tmp_path):
    name, frames = case
    scores = scores_of(frames, layout, tmp_path)
    assert difference(scores, STORED[name]) <= 1e-4
    # No bus in either: no score. A train only in the predictions: 0.
    assert "seg/iou/bus" not in scores and scores["seg/iou/train"] == 0
    assert 10 < scores["seg/miou"] < 90 and ("seg/iiou" in scores) is (name == "made")


def test_official_command_on_cityscapes_folders(tmp_path):
    pytest.importorskip("cityscapesscripts", reason="pip install .[test]")
    scores = scores_of(city_frames.make_frames(), "cityscapes", tmp_path)
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps(scores))
    command = ("tests.support.official", "--truth", tmp_path / "truth", "--metrics_json", metrics)
    result = run_command(*command, "--predictions", tmp_path / "predictions")
    assert f"{len(STORED['made'])} scores agree" in result.stdout
    metrics.write_text(json.dumps(scores | {"seg/iiou": scores["seg/iiou"] + 0.02}))
    failed = run_command(*command, "--predictions", tmp_path / "predictions", ok=False)
    assert failed.stderr.endswith("not the official scores: seg/iiou\n")


def test_stored_scores_are_current(case):
    pytest.importorskip("cityscapesscripts", reason="pip install .[test]")
    name, frames = case
    assert difference(reference.judge(frames), STORED[name]) <= 1e-9


def test_predictions_of_unscored_classes(tmp_path):
    """The known difference, see docs/evaluation.md; FlowSeg networks never predict such ids."""
    pytest.importorskip("cityscapesscripts", reason="pip install .[test]")
    frames = city_frames.make_frames()
    # Predict half the cars as caravans: cityscapesscripts counts them only in category iIoU.
    for frame in frames:
        frame.prediction[::2][frame.truth[::2] == CAR] = city_frames.CARAVAN
    scores, official_scores = scores_of(frames, "cityscapes", tmp_path), reference.judge(frames)
    same = [name for name in official_scores if not name.startswith("seg/category_iiou")]
    assert max(abs(scores[name] - official_scores[name]) for name in same) <= 1e-4
    assert scores["seg/category_iiou/human"] == pytest.approx(
        official_scores["seg/category_iiou/human"]
    )
    assert scores["seg/category_iiou/vehicle"] < official_scores["seg/category_iiou/vehicle"] - 1
