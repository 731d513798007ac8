"""TensorBoard events of a training: scores, images, the layer graph, and the HPARAMS page."""

import json

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context


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
