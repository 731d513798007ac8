"""Trials are trained once, scored by their last weights, and never taken for one another."""

import json
import shutil
from types import SimpleNamespace

import pytest

from experiments.studies import trials
from flowseg.errors import ArgumentError

TRAINED = ["--flagfile=r.flags", "--seed=0", "--x=2"]


def test_a_finished_training_is_not_repeated(tmp_path):
    done = {"trained": " ".join(TRAINED), "scored_on": "b,c", "seg/miou": 1.5}
    (tmp_path / "scores.json").write_text(json.dumps(done))
    assert trials.score(tmp_path, TRAINED, ["b", "c"]) == done
    for other in ((TRAINED[:2], ["b", "c"]), (TRAINED, ["b"])):
        with pytest.raises(ArgumentError, match="other flags or records: give another output") as e:
            trials.score(tmp_path, *other)
        assert e.value.with_flags().endswith("give another --output")


def test_a_failed_training_says_so(tmp_path):
    with pytest.raises(ValueError, match="new: the training failed"):
        trials.score(tmp_path / "new", TRAINED, ["b"])


def test_trains_as_asked_and_scores_what_is_asked(
    trained_run, kitti_records, tmp_path, monkeypatch
):
    commands = []

    def train(command):
        """Stands in for minutes of `flowseg.train`: a run folder is there after it."""
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
    # The second time nothing is trained.
    again = trials.score(tmp_path / "run", TRAINED, held_out, "seg/")
    assert len(commands) == 1 and again["flow/aepe"] == scores["flow/aepe"]
