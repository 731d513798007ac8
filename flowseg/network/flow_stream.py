"""Builds the flow stream of the decoder: features of two frames to flow, coarse to fine.

The flow starts from zero at the coarsest stride. Strides 64 and 32 have no features of their own:
those of stride 16 are averaged over cells and matched by the layers of stride 16, so that motion of
hundreds of pixels is a few cells. A coarse match is wrong where a small object moves against its
surroundings; so the next stride chooses, at each pixel, among the flows of the strides above and
zero by how well they match there (`ChooseFlow`). The hidden state begins anew at each of these
strides.

Every layer is marked as part of the flow stream by `flow_layer`; see `decoder.stream_layers`.
"""

from typing import Any

import keras
from keras import layers

from flowseg.network.flow_layers import (
    ConvexUpsample,
    CostVolume,
    LucasKanade,
    MoveFlow,
    SoftArgmax,
    StartFlow,
    UnitFeatures,
    UpsampleFlow,
    Warp,
)
from flowseg.network.layers import HandOver, Upsample
from flowseg.network.start_layers import AverageCells, ChooseFlow, CropEnd

# Strides at which the flow may start from zero.
COARSEST = (16, 32, 64)
# Flow steps of strides 16 and 8 (shared) and of stride 4: the correlation's radius and the widths
# of the convolutions. The last width is also that of the hidden state and the matched features.
_COARSE, _FINE = (3, (96, 96, 64)), (2, (48, 48, 32))
# Refinement steps per stride. Two at stride 16 search +-96 px of the image, two at stride 64 +-384.
_STEPS = {64: 2, 32: 2, 16: 2, 8: 1, 4: 1}
# The last step, at stride 2: matched channels, matching window, and widths of the convolutions.
_MATCHED, _WINDOW, _FINEST = 12, 9, (24, 16)
# Window of the match that decides among the flows of coarser strides and zero, in pixels.
_CHOICE = 5

# Shared layers of a refinement step, by name, and the widths of its convolutions.
Refiner = dict[str, Any]
Symbol = keras.KerasTensor


def flow_layer(layer: layers.Layer) -> layers.Layer:
    """Mark a new layer as part of the flow stream."""
    layer.stream = "flow"
    return layer


def refiners() -> dict[int, Refiner]:
    """Create the layers of the refinement steps, by stride; strides 16 and 8 share theirs."""
    coarse = _refiner(*_COARSE, "flow")
    return {16: coarse, 8: coarse, 4: _refiner(*_FINE, "flow_fine")}


def _refiner(radius, widths, name):
    """Create the layers of a refinement step, shared by all its uses."""

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
    return {"widths": widths, **{key: flow_layer(layer) for key, layer in shared.items()}}


def flow_step(
    previous: tuple[Symbol, Symbol] | None,
    frames: tuple[Symbol, Symbol],
    refiner: Refiner,
    stride: int,
    seg: Symbol | None,
    coarsest: int,
) -> tuple[Symbol, Symbol, dict[int, Symbol]]:
    """Refine the flow of the coarser stride at this one, or start it.

    Args:
        previous: flow (B, H / 2, W / 2, 2) and hidden state of the coarser stride; None: start from
            zero at stride `coarsest`.
        frames: the encoder's features of both frames at this stride, (B, H, W, C).
        refiner: this stride's, from `refiners`.
        stride: one of `decoder.FLOW_STRIDES`.
        seg: features of the segmentation stream to receive; None: no exchange.
        coarsest: one of `COARSEST`.

    Returns:
        Flow (B, H, W, 2) in px of this stride; hidden state; and for each stride above 16 its flow,
        upsampled to stride 16.
    """
    widths, starts = refiner["widths"], {}
    side = flow_layer(layers.Conv2D(widths[2], 1, name=f"flow_{stride}_side"))
    context, other = (side(features) for features in frames)
    handed = None
    if seg is not None:
        handed = flow_layer(HandOver(widths[0], name=f"seg_to_flow_{stride}"))(seg)
    if previous is None:
        flow, hidden, starts = _start(context, other, refiner, handed, coarsest)
    else:
        flow, hidden = _up(*previous, widths[2], stride)
    return *_refine(flow, hidden, context, other, refiner, stride, handed), starts


def _refine(flow, hidden, context, other, refiner, stride, seg_features):
    """Match the features of both frames by the flow so far, and move the flow, a few times."""
    units = flow_layer(UnitFeatures(name=f"flow_{stride}_units"))
    target, source = units(context), units(other)
    for step in range(_STEPS[stride]):
        warped = flow_layer(Warp(name=f"flow_{stride}_warp_{step}"))(source, flow)
        cost = refiner["cost"](target, warped)
        match = refiner["match"](cost)
        join = flow_layer(layers.Concatenate(name=f"flow_{stride}_join_{step}"))
        x = refiner["conv1"](join([cost, match, flow, hidden, context]))
        if seg_features is not None:
            x = flow_layer(layers.Add(name=f"flow_{stride}_add_{step}"))([x, seg_features])
        x = flow_layer(layers.ReLU(name=f"flow_{stride}_relu_{step}"))(x)
        hidden = refiner["conv3"](refiner["conv2"](x))
        move = flow_layer(MoveFlow(name=f"flow_{stride}_move_{step}"))
        flow = move(flow, match, refiner["gate"](hidden), refiner["residual"](hidden))
    return flow, hidden


def _start(context, other, refiner, seg_features, coarsest):
    """Return the flow that stride 16 starts from, the hidden state, and the flow of each start.

    At each coarser stride, the features of stride 16 are averaged over cells and matched by the
    same layers, from the flow of the stride before; the hidden state begins anew.
    """
    conv = layers.Conv2D(context.shape[-1], 1, activation="relu", name="flow_hidden_start")
    conv, flows = flow_layer(conv), []
    strides = [stride for stride in reversed(COARSEST[1:]) if stride <= coarsest]
    for stride in strides:
        cells = flow_layer(AverageCells(stride // 16, name=f"flow_{stride}_cells"))
        near, far = cells(context), cells(other)
        flow, flows = _choose_start(flows, near, far, conv(near), stride)
        seg_cells = None if seg_features is None else cells(seg_features)
        flow, _ = _refine(flow, conv(near), near, far, refiner, stride, seg_cells)
        flows.append(flow)
    hidden = conv(context)
    flow, flows = _choose_start(flows, context, other, hidden, 16)
    return flow, hidden, dict(zip(strides, flows, strict=True))


def _choose_start(flows, near, far, hidden, stride):
    """Choose, at each pixel, zero or the flow of a coarser stride; return it and all of them."""
    handed = []
    for i, flow in enumerate(flows):
        flow = flow_layer(UpsampleFlow(2, name=f"flow_{stride}_start_{i}"))(flow)
        handed.append(flow_layer(CropEnd(name=f"flow_{stride}_start_crop_{i}"))(flow, near))
    zero = flow_layer(StartFlow(name=f"flow_{stride}_zero"))(near)
    if not handed:
        return zero, handed
    units = flow_layer(UnitFeatures(name=f"flow_{stride}_start_units"))
    prefer = layers.Conv2D(
        len(flows) + 1, 3, padding="same", kernel_initializer="zeros", name=f"flow_{stride}_prefer"
    )
    choose = flow_layer(ChooseFlow(_CHOICE, name=f"flow_{stride}_choose"))
    preference = flow_layer(prefer)(hidden)
    return choose(units(near), units(far), [*handed, zero], preference), handed


def _up(flow, hidden, width, stride):
    """Upsample flow and hidden state of the coarser stride to this one."""
    flow = flow_layer(UpsampleFlow(2, name=f"flow_{stride}_up"))(flow)
    if hidden.shape[-1] != width:
        narrow = layers.Conv2D(width, 1, activation="relu", name=f"flow_{stride}_hidden")
        hidden = flow_layer(narrow)(hidden)
    return flow, flow_layer(Upsample(2, name=f"flow_{stride}_hidden_up"))(hidden)


def fine_step(
    flow: Symbol, hidden: Symbol, features1: Symbol, features2: Symbol
) -> tuple[Symbol, Symbol]:
    """Refine flow and hidden state of stride 4 at stride 2, for subpixel accuracy."""

    def conv(x, width, suffix, **kwargs):
        layer = layers.Conv2D(width, 3, padding="same", name=f"flow_2_{suffix}", **kwargs)
        return flow_layer(layer)(x)

    flow, hidden = _up(flow, hidden, _FINEST[-1], 2)
    side = flow_layer(layers.Conv2D(_MATCHED, 1, name="flow_2_side"))
    units = flow_layer(UnitFeatures(name="flow_2_units"))
    target, source = (units(side(features)) for features in (features1, features2))
    warped = flow_layer(Warp(name="flow_2_warp"))(source, flow)
    change = flow_layer(layers.Subtract(name="flow_2_change"))([warped, target])
    match = flow_layer(LucasKanade(_WINDOW, name="flow_2_match"))(target, warped)
    join = flow_layer(layers.Concatenate(name="flow_2_join"))
    joined = join([match, flow, hidden, target, change])
    hidden = conv(joined, _FINEST[0], "conv1", activation="relu")
    hidden = conv(hidden, _FINEST[1], "conv2", activation="relu")
    gate = conv(hidden, 1, "gate", activation="sigmoid", bias_initializer="ones")
    residual = conv(hidden, 2, "residual", kernel_initializer="zeros")
    return flow_layer(MoveFlow(name="flow_2_move"))(flow, match, gate, residual), hidden


def flow_outputs(flow: Symbol, hidden: Symbol) -> tuple[Symbol, Symbol]:
    """Upsample flow of stride 2 to full resolution; return it, and flow and logit concatenated."""
    mix = layers.Conv2D(hidden.shape[-1], 3, padding="same", activation="relu", name="mix_1")
    mixed = flow_layer(mix)(hidden)
    mixed = flow_layer(layers.Conv2D(2 * 2 * 9, 1, name="mix_2"))(mixed)
    flow = flow_layer(ConvexUpsample(2, name="flow"))(flow, mixed)
    logit = flow_layer(layers.Conv2D(1, 3, padding="same", name="flow_2_sure"))(hidden)
    logit = flow_layer(Upsample(2, dtype="float32", name="sure_2_up"))(logit)
    return flow, flow_layer(layers.Concatenate(dtype="float32", name="sure_2"))([flow, logit])


def flow_with_logit(flow: Symbol, logit: Symbol, stride: int) -> Symbol:
    """Concatenate coarse flow and the logit that it is correct, at full resolution."""
    flow = flow_layer(UpsampleFlow(stride, name=f"sure_{stride}_flow"))(flow)
    logit = flow_layer(Upsample(stride, dtype="float32", name=f"sure_{stride}_up"))(logit)
    join = layers.Concatenate(dtype="float32", name=f"sure_{stride}")
    return flow_layer(join)([flow, logit])
