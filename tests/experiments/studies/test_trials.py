"""Trials are trained once, scored with their last weights, and not confused with each other."""

import json
import shutil
from types import SimpleNamespace

import pytest

from experiments.studies import trials
from flowseg.errors import ArgumentError

TRAINED = ["--flagfile=r.flags", "--seed=0", "--x=2"]


def test_finished_training_is_not_repeated(tmp_path):
    stored = {"trained": " ".join(TRAINED), "scored_on": "b,c", "seg/miou": 1.5}
    (tmp_path / "scores.json").write_text(json.dumps(stored))
    assert trials.score(tmp_path, TRAINED, ["b", "c"]) == stored
    for other in ((TRAINED[:2], ["b", "c"]), (TRAINED, ["b"])):
        with pytest.raises(
            ArgumentError, match="other flags or records: choose another output"
        ) as e:
            trials.score(tmp_path, *other)
        assert e.value.with_flags().endswith("choose another --output")


def test_failing_training(tmp_path):
    with pytest.raises(ValueError, match="new: the training failed"):
        trials.score(tmp_path / "new", TRAINED, ["b"])


def test_training_flags_and_excluded_scores(trained_run, kitti_records, tmp_path, monkeypatch):
    commands = []

    def train(command):
        """Replaces `flowseg.train`, which takes minutes: copies a run folder."""
        commands.append(command)
        folder = next(flag for flag in command if flag.startswith("--run_dir="))
        shutil.copytree(trained_run, folder.partition("=")[2])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(trials.subprocess, "run", train)
    held_out = [str(kitti_records / "val-*")]
    scores = trials.score(tmp_path / "run", TRAINED, held_out, "seg/")
    assert commands[0][1:3] == ["-m", "flowseg.train"] and commands[0][4:] == TRAINED
    assert scores["flow/aepe"] > 0 and not any(key.startswith("seg/") for key in scores)
    assert scores["seconds"] >= 0
    # The second call does not train.
    repeated = trials.score(tmp_path / "run", TRAINED, held_out, "seg/")
    assert len(commands) == 1 and repeated["flow/aepe"] == scores["flow/aepe"]
