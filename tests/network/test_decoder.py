"""The decoder's streams: which layers belong to which."""

import pytest
from keras import layers

from flowseg.network.backbones import STRIDES
from flowseg.network.decoder import EXCHANGES, STREAMS, build_decoder, stream_layers
from flowseg.network.layers import HandOver


def decoder(exchange):
    shapes = {f"stride{stride}": (None, None, None, 8) for stride in STRIDES}
    return build_decoder(shapes, num_classes=3, exchange=exchange)


def stream_by_name(name):
    """The stream that a layer's name tells: the rule before streams were noted at the layers."""
    of_seg = name.startswith(("seg", "flow_to_seg")) and not name.startswith("seg_to")
    return "seg" if of_seg else "flow"


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_every_layer_belongs_to_the_stream_that_its_name_tells(exchange):
    model = decoder(exchange)
    found = {stream: [x.name for x in stream_layers(model, stream)] for stream in STREAMS}
    every = [x.name for x in model.layers if not isinstance(x, layers.InputLayer)]
    assert len(every) == len(model.layers) - 2 * len(STRIDES)
    for stream in STREAMS:
        assert found[stream] == [name for name in every if stream_by_name(name) == stream]
        assert len(found[stream]) > 30


def test_what_hands_over_belongs_to_the_stream_that_gets_it():
    model = decoder("both")
    handing = {
        stream: {x.name for x in stream_layers(model, stream) if isinstance(x, HandOver)}
        for stream in STREAMS
    }
    assert handing == {
        "seg": {"flow_to_seg_16", "flow_to_seg_8", "flow_to_seg_4"},
        "flow": {"seg_to_flow_16", "seg_to_flow_8", "seg_to_flow_4"},
    }


def test_a_layer_without_a_stream_is_told():
    model = decoder("none")
    del model.get_layer("mix_1").stream
    for stream in STREAMS:
        with pytest.raises(ValueError, match="of 1 of the decoder's layers is not known .mix_1"):
            stream_layers(model, stream)
