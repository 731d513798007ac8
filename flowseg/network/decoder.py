"""Builds the two-stream decoder: features of two frames to class logits and flow, coarse to fine.

Both streams process the same pyramid (strides 32, 16, 8, 4). At strides 16, 8 and 4 the flow stream
warps the second frame's features by the current flow, correlates them with the first frame's, and
refines; the segmentation stream upsamples and refines; and each stream passes its features to the
other. The flow stream continues to stride 2 for subpixel accuracy.

The matching was chosen by ablation, because flow converges fast with it
(docs/results/decoder-ablation.md): a soft-argmax over the box-filtered correlation of
instance-normalised, unit-length features, standardised over the displacements. It is added through
a gate, together with a convolutional residual that starts at zero. Strides 16 and 8 share one set
of weights; stride 4, which has more pixels, has separate weights of half the width. Pixels without
a match (occluded, or out of the frame) take the surrounding flow. At stride 2 a Lucas-Kanade step
replaces correlation: it costs less and is accurate to less than a pixel.

A third, internal kind of output is computed from the flow stream's features: the logit of the
probability that the flow is correct.

Every layer is wrapped by `_seg_layer` or `flow_layer`, which record its stream; see
`stream_layers`.
"""

import keras
from keras import layers

from flowseg.network import flow_stream
from flowseg.network.flow_layers import FillFlow, UpsampleFlow
from flowseg.network.flow_stream import COARSEST, flow_layer
from flowseg.network.layers import HandOver, Shape, Upsample

STREAMS = ("seg", "flow")
EXCHANGES = ("none", "seg_to_flow", "flow_to_seg", "both")
FLOW_STRIDES = (16, 8, 4)
# Name of the only layer whose channels are classes.
SEG_HEAD = "seg_logits"
# Window sizes for filling flow without a match after strides 16 and 8, in pixels of the stride.
_REACHES = (3, 7, 15)
_SEG_WIDTH = {32: 128, 16: 128, 8: 96, 4: 64}


def build_decoder(
    feature_shapes: dict[str, Shape], num_classes: int, exchange: str = "both", coarsest: int = 16
) -> keras.Model:
    """Build the decoder as a Keras model.

    Args:
        feature_shapes: name -> shape of the encoder's features, as `backbones` names them.
        num_classes: channels of the logits.
        exchange: which stream receives the other's features; one of `EXCHANGES`.
        coarsest: stride at which the flow starts from zero; one of `COARSEST`.

    Returns:
        keras.Model: {"frame1": {"stride2": ...}, "frame2": {...}} -> {"seg": (B, H, W, classes),
        "flow": (B, H, W, 2), "flow_4": ..., ..., "flow_<coarsest>": ..., "sure_2": (B, H, W, 3),
        "sure_8": ..., "sure_16": ...}, all at the image's resolution and in its pixels. The coarser
        flows are for supervision. Each of the last three outputs contains the flow matched at its
        stride (stride 2: `flow` itself) and the logit that this flow is correct.

    Raises:
        ValueError: the exchange or the coarsest stride is unknown.
    """
    if coarsest not in COARSEST:
        raise ValueError(f"coarsest {coarsest}: not one of {', '.join(map(str, COARSEST))}")
    if exchange not in EXCHANGES:
        raise ValueError(f"exchange {exchange!r}: not one of {', '.join(EXCHANGES)}")
    inputs = {
        frame: {
            name: keras.Input(shape[1:], name=f"{frame}_{name}")
            for name, shape in feature_shapes.items()
        }
        for frame in ("frame1", "frame2")
    }
    refiners = flow_stream.refiners()
    seg = _seg_top(inputs["frame1"]["stride32"])
    previous, outputs = None, {}
    for stride in FLOW_STRIDES:
        frames = tuple(inputs[frame][f"stride{stride}"] for frame in inputs)
        seg = _seg_in(seg, frames[0], stride)
        handed = seg if exchange in ("seg_to_flow", "both") else None
        refiner = refiners[stride]
        flow, hidden, starts = flow_stream.flow_step(
            previous, frames, refiner, stride, handed, coarsest
        )
        seg = _seg_out(seg, hidden if exchange in ("flow_to_seg", "both") else None, stride)
        if stride != FLOW_STRIDES[-1]:
            logit = refiner["sure"](hidden)
            outputs[f"sure_{stride}"] = flow_stream.flow_with_logit(flow, logit, stride)
            fill = flow_layer(FillFlow(_REACHES, name=f"flow_{stride}_fill"))
            flow = fill(flow, logit)
        for start, coarse in {**starts, stride: flow}.items():
            up = flow_layer(UpsampleFlow(stride, name=f"flow_{start}"))
            outputs[f"flow_{start}"] = up(coarse)
        previous = flow, hidden
    outputs["seg"] = _seg_logits(seg, num_classes, stride)
    fine = flow_stream.fine_step(*previous, *(inputs[frame]["stride2"] for frame in inputs))
    outputs["flow"], outputs["sure_2"] = flow_stream.flow_outputs(*fine)
    return keras.Model(inputs, outputs, name="decoder")


def stream_layers(decoder: keras.Model, stream: str) -> list[layers.Layer]:
    """List the layers of one stream of a decoder, in the decoder's order.

    Exchange layers belong to the receiving stream. Input layers belong to neither.

    Args:
        decoder: from `build_decoder`, not loaded from a file: files do not store the streams.
        stream: one of `STREAMS`.

    Raises:
        ValueError: the stream is unknown, or a layer's stream is not recorded.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r}: not one of {', '.join(STREAMS)}")
    candidates = [layer for layer in decoder.layers if not isinstance(layer, layers.InputLayer)]
    unknown = [layer.name for layer in candidates if not hasattr(layer, "stream")]
    if unknown:
        raise ValueError(
            f"the stream of {len(unknown)} of the decoder's layers is not recorded ({unknown[0]}, "
            "...): it is lost in a network loaded from a .keras file; build a new network "
            "and copy the weights"
        )
    return [layer for layer in candidates if layer.stream == stream]


def _seg_layer(layer: layers.Layer) -> layers.Layer:
    """Mark a new layer as part of the segmentation stream."""
    layer.stream = "seg"
    return layer


def _seg_conv(x, width, kernel, name):
    """Apply convolution, batch norm and ReLU."""
    conv = layers.Conv2D(width, kernel, padding="same", use_bias=False, name=f"{name}_conv")
    x = _seg_layer(conv)(x)
    x = _seg_layer(layers.BatchNormalization(momentum=0.95, name=f"{name}_bn"))(x)
    return _seg_layer(layers.ReLU(name=f"{name}_relu"))(x)


def _seg_top(features):
    """Project the features of stride 32 and add global image context (ParseNet; DeepLabV3)."""
    width = _SEG_WIDTH[32]
    top = _seg_conv(features, width, 1, "seg_32")
    pool = _seg_layer(layers.GlobalAveragePooling2D(keepdims=True, name="seg_whole"))
    conv = _seg_layer(layers.Conv2D(width, 1, activation="relu", name="seg_whole_conv"))
    return _seg_layer(layers.Add(name="seg_32_whole"))([top, conv(pool(top))])


def _seg_in(seg, features, stride):
    """Upsample features of the coarser stride and combine them with the encoder's at this one."""
    side = _seg_conv(features, _SEG_WIDTH[stride], 1, f"seg_{stride}_side")
    up = _seg_layer(Upsample(2, name=f"seg_{stride}_up"))(seg)
    both = _seg_layer(layers.Concatenate(name=f"seg_{stride}_join"))([up, side])
    return _seg_conv(both, _SEG_WIDTH[stride], 3, f"seg_{stride}_in")


def _seg_out(seg, flow_hidden, stride):
    """Add the hidden state of the flow stream, unless it is None, and refine."""
    if flow_hidden is not None:
        project = _seg_layer(HandOver(_SEG_WIDTH[stride], name=f"flow_to_seg_{stride}"))
        seg = _seg_layer(layers.Add(name=f"seg_{stride}_add"))([seg, project(flow_hidden)])
    return _seg_conv(seg, _SEG_WIDTH[stride], 3, f"seg_{stride}_out")


def _seg_logits(seg, num_classes, stride):
    """Map segmentation features of the last stride to logits at full resolution."""
    logits = _seg_layer(layers.Conv2D(num_classes, 1, name=SEG_HEAD))(seg)
    return _seg_layer(Upsample(stride, dtype="float32", name="seg"))(logits)
