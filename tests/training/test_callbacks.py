"""The callbacks of a training: their order, and the progress that they keep."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from flowseg import runs
from flowseg.data.labels import CAMVID
from flowseg.network.model import build_flowseg
from flowseg.training import callbacks, progress
from flowseg.training.progress import Phase, Progress
from flowseg.training.tasks import JOINT
from tests.support.trainings import small


def built(tmp_path, first_host=True, network=None, **settings):
    return callbacks.build_callbacks(
        small(**settings),
        Progress(Phase("both")),
        run=runs.Run(network, CAMVID, tmp_path),
        training=None,
        trained=network,
        metrics=JOINT.metrics(CAMVID),
        look_up=None,
        frames=tf.data.Dataset.range(0),
        first_host=first_host,
    )


def test_they_come_in_the_order_that_they_need(tmp_path):
    network = build_flowseg(11, backbone="efficientnet_lite0")
    watching, keeper = built(tmp_path, network=network, alternate=2)
    names = [type(callback).__name__ for callback in watching]
    assert names == [
        "Guard",
        "CopyWeights",
        "History",
        "KeepBest",
        "TensorBoard",
        "Patience",
        "Alternate",
        "KeepState",
    ]
    assert watching[-1] is keeper
    assert len({id(c.progress) for c in watching if hasattr(c, "progress")}) == 1


def test_other_hosts_decide_alike_and_write_nothing_but_their_state(tmp_path):
    watching, _ = built(tmp_path, first_host=False)
    assert [type(c).__name__ for c in watching] == ["Guard", "Patience", "KeepState"]


def test_the_best_scores_are_kept_in_the_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "save_model", lambda model, path: None)
    found = Progress(Phase("both"))
    keeping = callbacks.KeepBest(tmp_path, None, "flow/aepe", found)
    for step, aepe in ((1, 3.0), (2, 2.0), (3, 2.5)):
        found.step = step
        keeping.on_epoch_end(0, {"loss": 9.0, "val_loss": 8.0, "val_flow/aepe": aepe})
    assert found.best == 2.0
    assert found.best_scores == {"step": 2, "validated": True, "loss": 8.0, "flow/aepe": 2.0}
    assert json.loads((tmp_path / "metrics.json").read_text()) == found.best_scores


def test_progress_comes_back_from_json():
    kept = Progress(
        Phase("flow", since=4, best=1.5, waits=2),
        step=7,
        seconds=2.5,
        best=3.0,
        best_metric="flow/aepe",
        best_scores={"step": 5, "flow/aepe": 3.0, "seg/miou": np.nan},
        patience={"seg/miou": [10.0, 1]},
        incidents={"spike": 2},
    )
    text = json.dumps({**kept.as_dict(), "sha256": {"a": "b"}})
    back = Progress.from_dict(json.loads(text))
    assert np.isnan(back.best_scores.pop("seg/miou")) and kept.best_scores.pop("seg/miou")
    assert back == kept
    with pytest.raises(ValueError, match="format None of a training's state, not"):
        Progress.from_dict({"step": 3, "phase": {}})
    assert json.loads(text)["format"] == progress.FORMAT


def test_weights_are_copied_before_others_look():
    given = SimpleNamespace(get_weights=lambda: [1], set_weights=None)
    taken = []
    public = SimpleNamespace(set_weights=taken.append)
    callbacks.CopyWeights(given, public).on_epoch_end(0)
    assert taken == [[1]]
