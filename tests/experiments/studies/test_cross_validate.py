"""Cross-validation: folds, pooled scores and errors."""

import json

import numpy as np
import pytest

from experiments.studies import cross_validate
from experiments.studies.cross_validate import cut
from flowseg import files, runs
from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES
from tests.commands.test_evaluate import tiny_model
from tests.support.kitti_writer import write_kitti


def test_folds_are_runs_of_neighbours():
    assert cut(list("abcdefg"), 3) == [list("ab"), list("cde"), list("fg")]
    for folds in (2, 3, 7):
        parts = cut(list(range(7)), folds)
        assert sum(parts, []) == list(range(7)) and len(parts) == folds
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for folds in (1, 8):
        with pytest.raises(
            ValueError, match=f"^folds={folds}: must be at least 2, and at most the number"
        ):
            cut(list(range(7)), folds)


def frame_ids(pattern):
    return {fields["frame_id"].decode() for path in records.match_files(pattern)
            for _, fields in records.read_shard(path)}  # fmt: skip


@pytest.fixture
def fold_trainings(monkeypatch):
    """Replaces the trainings: fold k's network predicts class k everywhere. Lists its calls."""
    calls = []

    def train(recipe, folder, more_flags):
        calls.append((recipe, folder, more_flags))
        runs.save_model(tiny_model(len(calls) - 1), folder / "run/model.keras")
        runs.save_model(tiny_model(18), folder / "run/best.keras")
        files.write_json(folder / "run/label_set.json", CITYSCAPES._asdict())

    monkeypatch.setattr(cross_validate, "_train", train)
    return calls


def test_each_frame_is_scored_once_by_another_folds_network(fold_trainings, tmp_path):
    folder = write_kitti(tmp_path / "kitti", count=3, semantics_only=1, sizes=[(40, 64)])
    output = tmp_path / "out"
    scores = cross_validate.cross_validate([folder], "recipe", output, 2, ["--steps=1"])
    assert fold_trainings == [("recipe", output / f"fold{k}", ["--steps=1"]) for k in (0, 1)]
    held_out = [frame_ids(output / f"fold{k}/records/val-*") for k in (0, 1)]
    trained_on = [frame_ids(output / f"fold{k}/records/train-*") for k in (0, 1)]
    assert held_out[0] == trained_on[1] == {"000000_10", "000001_10"}
    assert held_out[1] == trained_on[0] == {"000002_10", "000003_10"}
    # By hand: the prediction is road for all frames of fold 0, and sidewalk for all of fold 1.
    matrix = np.zeros((19, 19))
    for fold in (0, 1):
        files = records.match_files(output / f"fold{fold}/records/val-*")
        for frame in decoding.evaluation_data(files, CITYSCAPES).as_numpy_iterator():
            known = frame["seg"][frame["seg"] != 255]
            matrix[:, fold] += np.bincount(known, minlength=19)
    hits, union = matrix.diagonal(), matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    assert hits[0] and hits[1] and (union > 0).sum() > 3
    expected = 100 * np.mean(hits[union > 0] / union[union > 0])
    assert scores["seg/miou"] == pytest.approx(expected, abs=1e-4)
    assert {"fold0/seg/miou", "fold1/seg/miou"} < scores.keys()
    assert json.loads((output / "scores.json").read_text()) == scores


def test_frames_without_labels_are_skipped(fold_trainings, kitti_folder, tmp_path):
    source = kitti_folder / "data_scene_flow"
    with pytest.raises(ValueError, match=r"^folds=2: .* \(0\)"):
        cross_validate.cross_validate([source], "recipe", tmp_path, 2)
    assert not fold_trainings


def test_failing_training(kitti_folder, tmp_path, capfd):
    recipe = tmp_path / "bad.flags"
    recipe.write_text("--steps=0\n")
    with pytest.raises(ValueError, match="fold0: the training failed"):
        cross_validate.cross_validate([kitti_folder], recipe, tmp_path / "out", 2)
    assert "steps" in capfd.readouterr().err
