"""The two-stream decoder: features of two frames in, class logits and flow out, coarse to fine.

Both streams walk down the same pyramid (strides 32, 16, 8, 4). At each of the strides 16, 8, 4 the
flow stream warps the second frame's features by the flow so far, correlates, and refines; the
segmentation stream upsamples and refines; and each hands the other its features. Flow goes on to
stride 2 for the last fractions of a pixel.

Flow learns fast by this matching, which trials chose: a soft-argmax over box-filtered correlation,
standardised over the displacements, of instance-normalised, unit-length features, added through a
gate, beside a convolutional residual that starts at zero. Strides 16 and 8 share one set of
weights; stride 4, which has more pixels, has its own, of half the width. What has no match (hidden,
or out of the frame) takes the flow around it. At stride 2 a Lucas-Kanade step takes the place of
correlation: it costs less and is exact to less than a pixel. (experiments/README.md, "The decoder
by ablation".)

A third answer stays inside: from the flow stream's last features, the logit of the flow's being
right.
"""

import keras
from keras import layers

from flowseg.network.flow_layers import (
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
from flowseg.network.layers import HandOver, Upsample

EXCHANGES = ("none", "seg_to_flow", "flow_to_seg", "both")
FLOW_STRIDES = (16, 8, 4)
# The one layer whose channels are classes.
SEG_HEAD = "seg_logits"
# Of a flow step, shared by strides 16 and 8, and stride 4's own: the correlation's radius, and the
# widths of its convolutions. The last of these is that of the hidden state and of what is matched.
_COARSE, _FINE = (3, (96, 96, 64)), (2, (48, 48, 32))
# Two steps where displacements are largest: +-3 px each at stride 16 are 96 px on the image.
_STEPS = {16: 2, 8: 1, 4: 1}
# How far flow that has no match is filled from, after strides 16 and 8, in their pixels.
_REACHES = (3, 7, 15)
# Of the last step, at stride 2: channels matched, their window, and its convolutions' widths.
_MATCHED, _WINDOW, _FINEST = 12, 9, (24, 16)
_SEG_WIDTH = {32: 128, 16: 128, 8: 96, 4: 64}


def build_decoder(feature_shapes, num_classes, exchange="both"):
    """The decoder as a Keras model.

    Args:
        feature_shapes: name -> shape of the encoder's features, as `backbones` names them.
        num_classes: channels of the logits.
        exchange: which stream is handed the other's features; one of `EXCHANGES`.

    Returns:
        keras.Model: {"frame1": {"stride2": ...}, "frame2": {...}} -> {"seg": (B, H, W, classes),
        "flow": (B, H, W, 2), "flow_4": ..., "flow_8": ..., "flow_16": ..., "sure_2": (B, H, W, 3),
        "sure_8": ..., "sure_16": ...}, all at the image's resolution and in its pixels. The coarser
        flows are for supervision. Each of the last three is the flow that its stride matched (of
        stride 2: `flow` itself) and the logit of its being right.

    Raises:
        ValueError: an unknown exchange.
    """
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
    outputs = {}
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
        )
        seg = _seg_out(seg, hidden if exchange in ("flow_to_seg", "both") else None, stride)
        if stride != FLOW_STRIDES[-1]:
            sure = refiners[stride]["sure"](hidden)
            outputs[f"sure_{stride}"] = _told(flow, sure, stride)
            flow = FillFlow(_REACHES, name=f"flow_{stride}_fill")(flow, sure)
        outputs[f"flow_{stride}"] = UpsampleFlow(stride, name=f"flow_{stride}")(flow)
    logits = layers.Conv2D(num_classes, 1, name=SEG_HEAD)(seg)
    outputs["seg"] = Upsample(stride, dtype="float32", name="seg")(logits)
    flow, hidden = _fine_step(flow, hidden, *(inputs[frame]["stride2"] for frame in inputs))
    width = hidden.shape[-1]
    mix = layers.Conv2D(width, 3, padding="same", activation="relu", name="mix_1")(hidden)
    mix = layers.Conv2D(2 * 2 * 9, 1, name="mix_2")(mix)
    outputs["flow"] = ConvexUpsample(2, name="flow")(flow, mix)
    sure = layers.Conv2D(1, 3, padding="same", name="flow_2_sure")(hidden)
    sure = Upsample(2, dtype="float32", name="sure_2_up")(sure)
    outputs["sure_2"] = layers.Concatenate(dtype="float32", name="sure_2")([outputs["flow"], sure])
    return keras.Model(inputs, outputs, name="decoder")


def of_stream(layer_name, stream):
    """Whether a layer or output of the decoder is one of "seg", or of "flow".

    What hands features over is of the stream that gets them.
    """
    of_seg = layer_name.startswith(("seg", "flow_to_seg")) and not layer_name.startswith("seg_to")
    return of_seg == (stream == "seg")


def _conv_bn(x, width, kernel, name):
    x = layers.Conv2D(width, kernel, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.95, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _seg_top(features):
    """Stride 32, with what the whole image holds added everywhere (ParseNet; DeepLabV3)."""
    width = _SEG_WIDTH[32]
    top = _conv_bn(features, width, 1, "seg_32")
    whole = layers.GlobalAveragePooling2D(keepdims=True, name="seg_whole")(top)
    whole = layers.Conv2D(width, 1, activation="relu", name="seg_whole_conv")(whole)
    return layers.Add(name="seg_32_whole")([top, whole])


def _seg_in(seg, features, stride):
    side = _conv_bn(features, _SEG_WIDTH[stride], 1, f"seg_{stride}_side")
    up = Upsample(2, name=f"seg_{stride}_up")(seg)
    both = layers.Concatenate(name=f"seg_{stride}_join")([up, side])
    return _conv_bn(both, _SEG_WIDTH[stride], 3, f"seg_{stride}_in")


def _seg_out(seg, motion, stride):
    if motion is not None:
        seg = layers.Add(name=f"seg_{stride}_add")(
            [seg, HandOver(_SEG_WIDTH[stride], name=f"flow_to_seg_{stride}")(motion)]
        )
    return _conv_bn(seg, _SEG_WIDTH[stride], 3, f"seg_{stride}_out")


def _flow_refiner(radius, widths, name):
    """The layers of one refinement step, made once and shared by all its uses; and its widths."""

    def conv(width, what, **kwargs):
        return layers.Conv2D(width, 3, padding="same", name=f"{name}_{what}", **kwargs)

    return {
        "widths": widths,
        "cost": CostVolume(radius, name=f"{name}_cost"),
        "match": SoftArgmax(radius, dtype="float32", name=f"{name}_match"),
        "conv1": conv(widths[0], "conv1"),
        "conv2": conv(widths[1], "conv2", activation="relu"),
        "conv3": conv(widths[2], "conv3", activation="relu"),
        "gate": conv(1, "gate", activation="sigmoid", bias_initializer="ones"),
        "residual": conv(2, "residual", kernel_initializer="zeros"),
        "sure": conv(1, "sure"),
    }


def _flow_step(flow, hidden, features1, features2, refine, stride, seg):
    """Flow and hidden state of the coarser stride (None at the top) -> those of this stride."""
    widths = refine["widths"]
    side = layers.Conv2D(widths[2], 1, name=f"flow_{stride}_side")
    context, other = side(features1), side(features2)
    units = UnitFeatures(name=f"flow_{stride}_units")
    target, source = units(context), units(other)
    if flow is None:
        flow = StartFlow(name="flow_start")(context)
        hidden = layers.Conv2D(widths[2], 1, activation="relu", name="flow_hidden_start")(context)
    else:
        flow = UpsampleFlow(2, name=f"flow_{stride}_up")(flow)
        if hidden.shape[-1] != widths[2]:
            narrow = layers.Conv2D(widths[2], 1, activation="relu", name=f"flow_{stride}_hidden")
            hidden = narrow(hidden)
        hidden = Upsample(2, name=f"flow_{stride}_hidden_up")(hidden)
    handed = None if seg is None else HandOver(widths[0], name=f"seg_to_flow_{stride}")(seg)
    for step in range(_STEPS[stride]):
        warped = Warp(name=f"flow_{stride}_warp_{step}")(source, flow)
        cost = refine["cost"](target, warped)
        match = refine["match"](cost)
        joined = layers.Concatenate(name=f"flow_{stride}_join_{step}")(
            [cost, match, flow, hidden, context]
        )
        x = refine["conv1"](joined)
        if handed is not None:
            x = layers.Add(name=f"flow_{stride}_add_{step}")([x, handed])
        x = layers.ReLU(name=f"flow_{stride}_relu_{step}")(x)
        hidden = refine["conv3"](refine["conv2"](x))
        flow = MoveFlow(name=f"flow_{stride}_move_{step}")(
            flow, match, refine["gate"](hidden), refine["residual"](hidden)
        )
    return flow, hidden


def _fine_step(flow, hidden, features1, features2):
    """Flow and hidden state of stride 4 -> those of stride 2, for the last fractions of a pixel."""

    def conv(x, width, what, **kwargs):
        return layers.Conv2D(width, 3, padding="same", name=f"flow_2_{what}", **kwargs)(x)

    flow = UpsampleFlow(2, name="flow_2_up")(flow)
    hidden = layers.Conv2D(_FINEST[-1], 1, activation="relu", name="flow_2_hidden")(hidden)
    hidden = Upsample(2, name="flow_2_hidden_up")(hidden)
    side, units = layers.Conv2D(_MATCHED, 1, name="flow_2_side"), UnitFeatures(name="flow_2_units")
    target, source = (units(side(features)) for features in (features1, features2))
    warped = Warp(name="flow_2_warp")(source, flow)
    change = layers.Subtract(name="flow_2_change")([warped, target])
    match = LucasKanade(_WINDOW, name="flow_2_match")(target, warped)
    joined = layers.Concatenate(name="flow_2_join")([match, flow, hidden, target, change])
    hidden = conv(joined, _FINEST[0], "conv1", activation="relu")
    hidden = conv(hidden, _FINEST[1], "conv2", activation="relu")
    gate = conv(hidden, 1, "gate", activation="sigmoid", bias_initializer="ones")
    residual = conv(hidden, 2, "residual", kernel_initializer="zeros")
    return MoveFlow(name="flow_2_move")(flow, match, gate, residual), hidden


def _told(flow, sure, stride):
    """Coarse flow and the logit of its being right, side by side at full resolution."""
    flow = UpsampleFlow(stride, name=f"sure_{stride}_flow")(flow)
    sure = Upsample(stride, dtype="float32", name=f"sure_{stride}_up")(sure)
    return layers.Concatenate(dtype="float32", name=f"sure_{stride}")([flow, sure])
