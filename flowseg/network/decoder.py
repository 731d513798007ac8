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

Every layer is wrapped by `_seg_layer` or `_flow_layer`, which record its stream; see
`stream_layers`.
"""

import keras
from keras import layers

from flowseg.network.flow_layers import (
    ChooseFlow,
    ConvexUpsample,
    CostVolume,
    FillFlow,
    LucasKanade,
    MoveFlow,
    SoftArgmax,
    StartFlow,
    UnitFeatures,
    UpsampleFlow,
    Warp,
)
from flowseg.network.layers import AverageCells, CropEnd, HandOver, Shape, Upsample

STREAMS = ("seg", "flow")
EXCHANGES = ("none", "seg_to_flow", "flow_to_seg", "both")
FLOW_STRIDES = (16, 8, 4)
# Strides at which the flow may start: 16, or on features of stride 16 averaged over cells.
COARSEST = (16, 32, 64)
# Window of the match that decides between the flows of coarser strides and zero.
_CHOICE = 5
# Name of the only layer whose channels are classes.
SEG_HEAD = "seg_logits"
# Flow steps of strides 16 and 8 (shared) and of stride 4: the correlation's radius and the widths
# of the convolutions. The last width is also that of the hidden state and the matched features.
_COARSE, _FINE = (3, (96, 96, 64)), (2, (48, 48, 32))
# Refinement steps per stride: two at stride 16, where displacements are largest. Each searches
# +-3 px of that stride, together +-96 px of the image.
_STEPS = {64: 2, 32: 2, 16: 2, 8: 1, 4: 1}
# Window sizes for filling flow without a match after strides 16 and 8, in pixels of the stride.
_REACHES = (3, 7, 15)
# The last step, at stride 2: matched channels, matching window, and widths of the convolutions.
_MATCHED, _WINDOW, _FINEST = 12, 9, (24, 16)
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
        "flow": (B, H, W, 2), "flow_4": ..., "flow_8": ..., "flow_16": ..., "sure_2": (B, H, W, 3),
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
    coarse = _flow_refiner(*_COARSE, "flow")
    refiners = {16: coarse, 8: coarse, 4: _flow_refiner(*_FINE, "flow_fine")}
    seg = _seg_top(inputs["frame1"]["stride32"])
    flow = hidden = None
    outputs, starts = {}, {}
    for stride in FLOW_STRIDES:
        features1, features2 = (inputs[frame][f"stride{stride}"] for frame in inputs)
        seg = _seg_in(seg, features1, stride)
        flow, hidden = _flow_step(
            flow,
            hidden,
            features1,
            features2,
            refiners[stride],
            stride,
            seg if exchange in ("seg_to_flow", "both") else None,
            coarsest,
            starts,
        )
        seg = _seg_out(seg, hidden if exchange in ("flow_to_seg", "both") else None, stride)
        if stride != FLOW_STRIDES[-1]:
            logit = refiners[stride]["sure"](hidden)
            outputs[f"sure_{stride}"] = _flow_with_logit(flow, logit, stride)
            fill = _flow_layer(FillFlow(_REACHES, name=f"flow_{stride}_fill"))
            flow = fill(flow, logit)
        up = _flow_layer(UpsampleFlow(stride, name=f"flow_{stride}"))
        outputs[f"flow_{stride}"] = up(flow)
    for start, flow_16 in starts.items():
        up = _flow_layer(UpsampleFlow(16, name=f"flow_{start}"))
        outputs[f"flow_{start}"] = up(flow_16)
    outputs["seg"] = _seg_logits(seg, num_classes, stride)
    flow, hidden = _fine_step(flow, hidden, *(inputs[frame]["stride2"] for frame in inputs))
    outputs["flow"], outputs["sure_2"] = _flow_outputs(flow, hidden)
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


def _flow_layer(layer: layers.Layer) -> layers.Layer:
    """Mark a new layer as part of the flow stream."""
    layer.stream = "flow"
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


def _flow_refiner(radius, widths, name):
    """Create the layers of a refinement step, shared by all uses; return them and their widths."""

    def conv(width, suffix, **kwargs):
        return layers.Conv2D(width, 3, padding="same", name=f"{name}_{suffix}", **kwargs)

    shared = {
        "cost": CostVolume(radius, name=f"{name}_cost"),
        "match": SoftArgmax(radius, dtype="float32", name=f"{name}_match"),
        "conv1": conv(widths[0], "conv1"),
        "conv2": conv(widths[1], "conv2", activation="relu"),
        "conv3": conv(widths[2], "conv3", activation="relu"),
        "gate": conv(1, "gate", activation="sigmoid", bias_initializer="ones"),
        "residual": conv(2, "residual", kernel_initializer="zeros"),
        "sure": conv(1, "sure"),
    }
    return {"widths": widths, **{key: _flow_layer(layer) for key, layer in shared.items()}}


def _flow_step(flow, hidden, features1, features2, refine, stride, seg, coarsest, starts):
    """Refine flow and hidden state of the coarser stride (None at the top) at this stride.

    At the top, the flow of the strides above is added to `starts`.
    """
    widths = refine["widths"]
    side = _flow_layer(layers.Conv2D(widths[2], 1, name=f"flow_{stride}_side"))
    context, other = side(features1), side(features2)
    seg_features = None
    if seg is not None:
        seg_features = _flow_layer(HandOver(widths[0], name=f"seg_to_flow_{stride}"))(seg)
    if flow is None:
        flow, hidden, above = _flow_start(context, other, refine, seg_features, coarsest)
        starts |= above
    else:
        flow, hidden = _flow_up(flow, hidden, widths[2], stride)
    return _refine(flow, hidden, context, other, refine, stride, seg_features)


def _refine(flow, hidden, context, other, refine, stride, seg_features):
    """Match the features of both frames by the flow so far, and move the flow, a few times."""
    units = _flow_layer(UnitFeatures(name=f"flow_{stride}_units"))
    target, source = units(context), units(other)
    for step in range(_STEPS[stride]):
        warped = _flow_layer(Warp(name=f"flow_{stride}_warp_{step}"))(source, flow)
        cost = refine["cost"](target, warped)
        match = refine["match"](cost)
        join = _flow_layer(layers.Concatenate(name=f"flow_{stride}_join_{step}"))
        x = refine["conv1"](join([cost, match, flow, hidden, context]))
        if seg_features is not None:
            x = _flow_layer(layers.Add(name=f"flow_{stride}_add_{step}"))([x, seg_features])
        x = _flow_layer(layers.ReLU(name=f"flow_{stride}_relu_{step}"))(x)
        hidden = refine["conv3"](refine["conv2"](x))
        move = _flow_layer(MoveFlow(name=f"flow_{stride}_move_{step}"))
        flow = move(flow, match, refine["gate"](hidden), refine["residual"](hidden))
    return flow, hidden


def _flow_start(context, other, refine, seg_features, coarsest):
    """Return the flow that stride 16 starts from, the hidden state, and the flow of each start.

    At each coarser stride, the features of stride 16 are averaged over cells and matched by the
    same layers, from the flow of the stride before; the hidden state begins anew.
    """
    conv = layers.Conv2D(context.shape[-1], 1, activation="relu", name="flow_hidden_start")
    conv, flows = _flow_layer(conv), []
    strides = [stride for stride in reversed(COARSEST[1:]) if stride <= coarsest]
    for stride in strides:
        cells = _flow_layer(AverageCells(stride // 16, name=f"flow_{stride}_cells"))
        near, far = cells(context), cells(other)
        flow, flows = _choose_start(flows, near, far, conv(near), stride)
        seg_cells = None if seg_features is None else cells(seg_features)
        flow, _ = _refine(flow, conv(near), near, far, refine, stride, seg_cells)
        flows.append(flow)
    hidden = conv(context)
    flow, flows = _choose_start(flows, context, other, hidden, 16)
    return flow, hidden, dict(zip(strides, flows, strict=True))


def _choose_start(flows, near, far, hidden, stride):
    """Choose, at each pixel, zero or the flow of a coarser stride; return it and all of them."""
    handed = []
    for i, flow in enumerate(flows):
        flow = _flow_layer(UpsampleFlow(2, name=f"flow_{stride}_start_{i}"))(flow)
        handed.append(_flow_layer(CropEnd(name=f"flow_{stride}_start_crop_{i}"))(flow, near))
    zero = _flow_layer(StartFlow(name=f"flow_{stride}_zero"))(near)
    if not handed:
        return zero, handed
    units = _flow_layer(UnitFeatures(name=f"flow_{stride}_start_units"))
    prefer = layers.Conv2D(
        len(flows) + 1, 3, padding="same", kernel_initializer="zeros", name=f"flow_{stride}_prefer"
    )
    choose = _flow_layer(ChooseFlow(_CHOICE, name=f"flow_{stride}_choose"))
    preference = _flow_layer(prefer)(hidden)
    return choose(units(near), units(far), [*handed, zero], preference), handed


def _flow_up(flow, hidden, width, stride):
    """Upsample flow and hidden state of the coarser stride to this one."""
    flow = _flow_layer(UpsampleFlow(2, name=f"flow_{stride}_up"))(flow)
    if hidden.shape[-1] != width:
        narrow = layers.Conv2D(width, 1, activation="relu", name=f"flow_{stride}_hidden")
        hidden = _flow_layer(narrow)(hidden)
    return flow, _flow_layer(Upsample(2, name=f"flow_{stride}_hidden_up"))(hidden)


def _fine_step(flow, hidden, features1, features2):
    """Refine flow and hidden state of stride 4 at stride 2, for subpixel accuracy."""

    def conv(x, width, suffix, **kwargs):
        layer = layers.Conv2D(width, 3, padding="same", name=f"flow_2_{suffix}", **kwargs)
        return _flow_layer(layer)(x)

    flow, hidden = _flow_up(flow, hidden, _FINEST[-1], 2)
    side = _flow_layer(layers.Conv2D(_MATCHED, 1, name="flow_2_side"))
    units = _flow_layer(UnitFeatures(name="flow_2_units"))
    target, source = (units(side(features)) for features in (features1, features2))
    warped = _flow_layer(Warp(name="flow_2_warp"))(source, flow)
    change = _flow_layer(layers.Subtract(name="flow_2_change"))([warped, target])
    match = _flow_layer(LucasKanade(_WINDOW, name="flow_2_match"))(target, warped)
    join = _flow_layer(layers.Concatenate(name="flow_2_join"))
    joined = join([match, flow, hidden, target, change])
    hidden = conv(joined, _FINEST[0], "conv1", activation="relu")
    hidden = conv(hidden, _FINEST[1], "conv2", activation="relu")
    gate = conv(hidden, 1, "gate", activation="sigmoid", bias_initializer="ones")
    residual = conv(hidden, 2, "residual", kernel_initializer="zeros")
    return _flow_layer(MoveFlow(name="flow_2_move"))(flow, match, gate, residual), hidden


def _flow_outputs(flow, hidden):
    """Upsample flow of stride 2 to full resolution; return it, and flow and logit concatenated."""
    mix = layers.Conv2D(hidden.shape[-1], 3, padding="same", activation="relu", name="mix_1")
    mixed = _flow_layer(mix)(hidden)
    mixed = _flow_layer(layers.Conv2D(2 * 2 * 9, 1, name="mix_2"))(mixed)
    flow = _flow_layer(ConvexUpsample(2, name="flow"))(flow, mixed)
    logit = _flow_layer(layers.Conv2D(1, 3, padding="same", name="flow_2_sure"))(hidden)
    logit = _flow_layer(Upsample(2, dtype="float32", name="sure_2_up"))(logit)
    return flow, _flow_layer(layers.Concatenate(dtype="float32", name="sure_2"))([flow, logit])


def _flow_with_logit(flow, logit, stride):
    """Concatenate coarse flow and the logit that it is correct, at full resolution."""
    flow = _flow_layer(UpsampleFlow(stride, name=f"sure_{stride}_flow"))(flow)
    logit = _flow_layer(Upsample(stride, dtype="float32", name=f"sure_{stride}_up"))(logit)
    join = layers.Concatenate(dtype="float32", name=f"sure_{stride}")
    return _flow_layer(join)([flow, logit])
