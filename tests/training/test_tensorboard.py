"""TensorBoard events of a training: scores, images, the layer graph, and the HPARAMS page."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

from flowseg import runs
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Phase, Progress
from flowseg.training.tensorboard import StepWindow, TensorBoard


def test_scores_and_images(trained_run):
    for split, tags in (
        (
            "train",
            {"loss", "seg_loss", "flow_loss", "seg/miou", "flow/aepe", "learning_rate"}
            | {"alpha", "beta", "speed/examples_per_second", "speed/input_wait"},
        ),
        ("val", {"loss", "seg/miou", "seg/pixel_accuracy", "flow/aepe", "flow/fl_all"}),
    ):
        events = EventAccumulator(str(trained_run / "tensorboard" / split), {"tensors": 0}).Reload()
        assert tags <= set(events.Tags()["tensors"])
        assert [event.step for event in events.Tensors("loss")] == [2]
    for tag in ("frames/000003_10", "seg/confusion"):
        image = events.Tensors(tag)[0].tensor_proto.string_val
        assert image[2].startswith(b"\x89PNG")
    events = EventAccumulator(str(trained_run / "tensorboard")).Reload()
    graph = events.Graph()
    nodes = {node.name: node for node in graph.node}
    assert len(nodes) > 100 and all(source in nodes for n in graph.node for source in n.input)
    assert any("encoder" in source for source in nodes["decoder/frame2_stride8"].input)


def test_window_gives_the_losses_of_each_step():
    # Keras logs running means of the epoch; every second step is an entry.
    losses = [4.0, 2.0, 1.0, 5.0, 3.0, 9.0]
    window, entries = StepWindow(), []
    for i in range(6):
        window.count(skipped=0)
        if i % 2:
            running = sum(losses[: i + 1]) / (i + 1)
            entries.append(window.close({"loss": running, "seg_loss": 2 * running, "seg/miou": 9}))
    assert [entry["loss"] for entry in entries] == pytest.approx([3, 3, 6])
    assert [entry["seg_loss"] for entry in entries] == pytest.approx([6, 6, 12])
    assert all(entry["steps_per_second"] > 0 and len(entry) == 3 for entry in entries)


def test_window_restarts_after_a_skipped_step():
    window = StepWindow()
    window.count(0)
    assert window.close({"loss": 5.0}) == {"loss": 5.0}
    window.count(1)
    assert window.close({"loss": float("nan")}) == {}
    for loss, mean in ((2.0, 2.0), (4.0, 3.0)):
        window.count(1)
        assert window.close({"loss": mean})["loss"] == loss


class _Board(TensorBoard):
    """Without the settings and the layer graph, which need a network."""

    def _describe(self):
        pass


def test_entries_within_an_epoch(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.1, 10)), "mse")
    progress = Progress(Phase("both"))
    config = TrainingConfig(log_every=2, steps_per_epoch=5, steps=5)
    run = runs.Run(None, None, tmp_path)
    board = _Board(run, config, progress, None, {})
    board.on_epoch_end = lambda epoch, logs=None: None
    losses = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            progress.step += 1
            losses.append(float(logs["loss"]) * (batch + 1) - sum(losses))

    x = np.linspace(0, 1, 5, dtype=np.float32)[:, None]
    model.fit(x, 3 * x, batch_size=1, callbacks=[Count(), board], verbose=0, shuffle=False)
    events = EventAccumulator(str(tmp_path / "tensorboard/train"), {"tensors": 0}).Reload()
    values = {
        tag: {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }
    expected = {2: np.mean(losses[:2]), 4: np.mean(losses[2:4])}
    assert values["steps/loss"] == pytest.approx(expected, rel=1e-4)
    assert values["steps/learning_rate"] == pytest.approx({2: 0.08, 4: 0.06}, rel=1e-2)
    assert values["steps/steps_per_second"].keys() == {2, 4}


def hparams_page(logdir):
    """Return the data of TensorBoard's HPARAMS page: the columns of scores, and the runs."""
    events = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    provider = MultiplexerDataProvider(events.Reload(), str(logdir))
    page = Context(TBContext(data_provider=provider, logdir=str(logdir)))
    context, statuses = RequestContext(), api_pb2.Status.values()
    hparams = page.hparams_from_data_provider(context, "", 0)
    experiment = page.experiment_from_metadata(
        context, "", True, page.hparams_metadata(context, ""), hparams
    )
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=99, allowed_statuses=statuses, include_metrics=True
    )
    groups = list_session_groups.Handler(context, page, "", request).run().session_groups
    return [(info.name.group, info.name.tag) for info in experiment.metric_infos], groups


def test_hparams_page(trained_run):
    """The page shows a line per run, with its flags and the scores of its best weights."""
    columns, [group] = hparams_page(trained_run)
    scores = json.loads((trained_run / "metrics.json").read_text())
    # Only the best scores, not also those of training: the page shows few columns.
    names = {name for name in scores if "/" in name} | {"loss"}
    assert {"seg/miou", "flow/aepe"} < names and set(columns) == {("", name) for name in names}
    assert group.name == str(trained_run)
    assert group.hparams["backbone"].string_value == "efficientnet_lite0"
    assert group.hparams["height"].number_value == 96
    shown = {value.name.tag: value.value for value in group.metric_values}
    assert shown == pytest.approx({name: scores[name] for name in names})
