"""The decoder's streams: assignment of layers to streams."""

import pytest
from keras import layers

from flowseg.network.backbones import STRIDES
from flowseg.network.decoder import EXCHANGES, STREAMS, build_decoder, stream_layers
from flowseg.network.layers import HandOver


def decoder(exchange):
    shapes = {f"stride{stride}": (None, None, None, 8) for stride in STRIDES}
    return build_decoder(shapes, num_classes=3, exchange=exchange)


def stream_by_name(name):
    """Return the stream that a layer's name implies; exchange layers belong to the receiver."""
    is_seg = name.startswith(("seg", "flow_to_seg")) and not name.startswith("seg_to")
    return "seg" if is_seg else "flow"


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_stream_layers(exchange):
    model = decoder(exchange)
    by_stream = {stream: [x.name for x in stream_layers(model, stream)] for stream in STREAMS}
    names = [x.name for x in model.layers if not isinstance(x, layers.InputLayer)]
    assert len(names) == len(model.layers) - 2 * len(STRIDES)
    for stream in STREAMS:
        assert by_stream[stream] == [name for name in names if stream_by_name(name) == stream]
        assert len(by_stream[stream]) > 30


def test_exchange_layers_belong_to_receiver():
    model = decoder("both")
    exchange_layers = {
        stream: {x.name for x in stream_layers(model, stream) if isinstance(x, HandOver)}
        for stream in STREAMS
    }
    assert exchange_layers == {
        "seg": {"flow_to_seg_16", "flow_to_seg_8", "flow_to_seg_4"},
        "flow": {"seg_to_flow_16", "seg_to_flow_8", "seg_to_flow_4"},
    }


def test_layer_without_stream():
    model = decoder("none")
    del model.get_layer("mix_1").stream
    for stream in STREAMS:
        with pytest.raises(ValueError, match="of 1 of the decoder's layers is not recorded .mix_1"):
            stream_layers(model, stream)
