"""The callbacks of a training: their order, and the progress that they update."""

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


def build(tmp_path, first_host=True, network=None, **settings):
    return callbacks.build_callbacks(
        small(**settings),
        Progress(Phase("both")),
        run=runs.Run(network, CAMVID, tmp_path),
        training=None,
        trained=network,
        metrics=JOINT.metrics(CAMVID),
        fetch_batch=None,
        frames=tf.data.Dataset.range(0),
        first_host=first_host,
    )


def test_order_of_callbacks(tmp_path):
    network = build_flowseg(11, backbone="efficientnet_lite0")
    all_callbacks, keeper = build(tmp_path, network=network, alternate=2)
    names = [type(callback).__name__ for callback in all_callbacks]
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
    assert all_callbacks[-1] is keeper
    assert len({id(c.progress) for c in all_callbacks if hasattr(c, "progress")}) == 1


def test_callbacks_of_other_hosts(tmp_path):
    all_callbacks, _ = build(tmp_path, first_host=False)
    assert [type(c).__name__ for c in all_callbacks] == ["Guard", "Patience", "KeepState"]


def test_best_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "save_model", lambda model, path: None)
    state = Progress(Phase("both"))
    keep_best = callbacks.KeepBest(tmp_path, None, "flow/aepe", state)
    for step, aepe in ((1, 3.0), (2, 2.0), (3, 2.5)):
        state.step = step
        keep_best.on_epoch_end(0, {"loss": 9.0, "val_loss": 8.0, "val_flow/aepe": aepe})
    assert state.best == 2.0
    assert state.best_scores == {"step": 2, "validated": True, "loss": 8.0, "flow/aepe": 2.0}
    assert json.loads((tmp_path / "metrics.json").read_text()) == state.best_scores


def test_progress_json_round_trip():
    saved = Progress(
        Phase("flow", since=4, best=1.5, waits=2),
        step=7,
        seconds=2.5,
        best=3.0,
        best_metric="flow/aepe",
        best_scores={"step": 5, "flow/aepe": 3.0, "seg/miou": np.nan},
        patience={"seg/miou": [10.0, 1]},
        incidents={"spike": 2},
    )
    text = json.dumps({**saved.as_dict(), "sha256": {"a": "b"}})
    loaded = Progress.from_dict(json.loads(text))
    assert np.isnan(loaded.best_scores.pop("seg/miou")) and saved.best_scores.pop("seg/miou")
    assert loaded == saved
    with pytest.raises(ValueError, match="format None of a training's state, not"):
        Progress.from_dict({"step": 3, "phase": {}})
    assert json.loads(text)["format"] == progress.FORMAT


def test_copy_weights():
    trained = SimpleNamespace(get_weights=lambda: [1], set_weights=None)
    copied = []
    public = SimpleNamespace(set_weights=copied.append)
    callbacks.CopyWeights(trained, public).on_epoch_end(0)
    assert copied == [[1]]
