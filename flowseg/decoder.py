"""The two-stream decoder: features of two frames in, class logits and flow out, coarse to fine.

Both streams walk down the same pyramid (strides 32, 16, 8, 4). At each of the strides 16, 8, 4 the
flow stream warps the second frame's features by the flow so far, correlates, and refines; the
segmentation stream upsamples and refines; and each hands the other its features.

Flow learns fast by this matching, which an early trial chose: a soft-argmax over box-filtered
correlation of instance-normalised, unit-length features, added through a gate, beside a
convolutional residual that starts at zero; one set of weights for all strides.
"""

import json
import os

import keras
from keras import layers, ops

from flowseg.layers import (
    ConvexUpsample,
    CostVolume,
    MoveFlow,
    SoftArgmax,
    StartFlow,
    UnitFeatures,
    Upsample,
    UpsampleFlow,
    Warp,
)

EXCHANGES = ("none", "seg_to_flow", "flow_to_seg", "both")
FLOW_STRIDES = (16, 8, 4)
# The one layer whose channels are classes.
SEG_HEAD = "seg_logits"
RADIUS = 3

# Candidates, for the ablation alone: FLOWSEG_DECODER='{"fine": "own"}'.
O = {
    "fine": "shared",  # stride 4: "shared" refiner, or its "own"
    "steps": [2, 1, 1],  # at strides 16, 8, 4
    "radius": 3,
    "widths": [96, 96, 64],
    "side": 64,
    "fine_widths": [48, 48, 32],
    "fine_side": 32,
    "fine_radius": 3,
    "sep": 0,  # separable convolutions in the refiner
    "up": "convex",
    "units": "instance",
    "start": "zero",  # or "global": all pairs at stride 16
    "attend": 0,
    "seg": [128, 128, 96, 64],
    "seg_out": 1,  # a second convolution a stride
    "seg_sep": 0,
    "seg_warp": 0,  # segmentation sees the second frame's features, warped
    "stop": "",  # gradients stopped at hand-over: "seg", "flow" (the giver), "both"
    "flow_grad": 1.0,  # share of flow's gradient that reaches the encoder
    "fill": [],  # strides after whose steps doubtful flow is filled from its surroundings
    "reaches": [3, 7, 15],
}
O.update(json.loads(os.environ.get("FLOWSEG_DECODER", "{}")))
_STEPS = dict(zip(FLOW_STRIDES, O["steps"]))
_SEG_WIDTH = dict(zip((32, 16, 8, 4), O["seg"]))


@keras.saving.register_keras_serializable("flowseg")
class GlobalMatch(layers.Layer):
    """All-pairs soft matching of unit features: expected displacement and the sharpest share."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)

    def build(self, a, b):
        self.log_sharpness = self.add_weight(
            name="log_sharpness", shape=(), initializer=keras.initializers.Constant(3.0)
        )

    def call(self, a, b):
        n, h, w, c = ops.shape(a)
        pool = lambda x: ops.average_pool(x, 3, 1, "same", data_format="channels_last")
        cost = ops.matmul(
            ops.reshape(a, (n, h * w, c)), ops.transpose(ops.reshape(b, (n, h * w, c)), (0, 2, 1))
        )
        share = ops.softmax(cost * ops.exp(self.log_sharpness), axis=-1)
        from flowseg.flow_ops import pixel_grid

        grid = ops.reshape(pixel_grid(h, w), (1, h * w, 2))
        flow = ops.matmul(share, ops.broadcast_to(grid, (n, h * w, 2))) - grid
        top = ops.max(share, axis=-1, keepdims=True)
        return ops.reshape(ops.concatenate([flow, top], -1), (n, h, w, 3))

    def compute_output_shape(self, a_shape, b_shape):
        return (*a_shape[:-1], 3)


@keras.saving.register_keras_serializable("flowseg")
class FillFlow(layers.Layer):
    """Where flow is not to be trusted, a mean of the trusted flow around, nearer ones first."""

    def __init__(self, reaches, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.reaches = reaches

    def call(self, flow, trust):
        trust = ops.cast(trust, "float32")
        both = ops.concatenate([flow * trust, trust], axis=-1)
        total, weight = 0.0, 1.0
        for reach in self.reaches:
            mean = ops.average_pool(both, reach, 1, "same", data_format="channels_last")
            total = total + weight * mean
            weight = weight / 8
        around = total[..., :2] / (total[..., 2:] + 1e-4)
        return trust * flow + (1 - trust) * around

    def compute_output_shape(self, flow_shape, trust_shape):
        return flow_shape

    def get_config(self):
        return {**super().get_config(), "reaches": self.reaches}


@keras.saving.register_keras_serializable("flowseg")
class Attend(layers.Layer):
    """Self-attention by context: (query, key, value) -> value of alike places."""

    def call(self, q, k, v):
        n, h, w, c = ops.shape(q)
        d = v.shape[-1]
        share = ops.softmax(
            ops.matmul(
                ops.reshape(q, (n, h * w, c)),
                ops.transpose(ops.reshape(k, (n, h * w, c)), (0, 2, 1)),
            )
            / float(q.shape[-1]) ** 0.5,
            axis=-1,
        )
        return ops.reshape(ops.matmul(share, ops.reshape(v, (n, h * w, d))), (n, h, w, d))

    def compute_output_shape(self, q_shape, k_shape, v_shape):
        return v_shape


@keras.saving.register_keras_serializable("flowseg")
class Unit(layers.Layer):
    """Unit length a pixel, no more."""

    def call(self, x):
        x = ops.cast(x, "float32")
        return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-5)


@keras.saving.register_keras_serializable("flowseg")
class ScaleGrad(layers.Layer):
    def __init__(self, share, **kwargs):
        super().__init__(**kwargs)
        self.share = share

    def call(self, x):
        return self.share * x + ops.stop_gradient((1 - self.share) * x)

    def get_config(self):
        return {**super().get_config(), "share": self.share}


@keras.saving.register_keras_serializable("flowseg")
class Stop(layers.Layer):
    def call(self, x):
        return ops.stop_gradient(x)


def build_decoder(feature_shapes, num_classes, exchange="both"):
    """See the module."""
    inputs = {
        frame: {
            name: keras.Input(shape[1:], name=f"{frame}_{name}")
            for name, shape in feature_shapes.items()
        }
        for frame in ("frame1", "frame2")
    }
    refine = _flow_refiner(O["widths"], O["radius"], "flow")
    fine = refine
    if O["fine"] == "own":
        fine = _flow_refiner(O["fine_widths"], O["fine_radius"], "flow_fine")
    seg = _seg_top(inputs["frame1"]["stride32"])
    flow = hidden = None
    outputs = {}
    for stride in FLOW_STRIDES:
        features1, features2 = (inputs[frame][f"stride{stride}"] for frame in inputs)
        seg, side_layers = _seg_in(seg, features1, stride)
        if O["flow_grad"] != 1:
            scale = ScaleGrad(O["flow_grad"], name=f"grad_{stride}")
            f1, f2 = scale(features1), scale(features2)
        else:
            f1, f2 = features1, features2
        own = stride == 4 and O["fine"] == "own"
        flow, hidden = _flow_step(
            *(flow, hidden, f1, f2, fine if own else refine, stride),
            O["fine_side"] if own else O["side"],
            seg if exchange in ("seg_to_flow", "both") else None,
        )
        second = None
        if O["seg_warp"] and exchange in ("flow_to_seg", "both"):
            second = features2
            for layer in side_layers:
                second = layer(second)
            second = Warp(name=f"seg_{stride}_second")(second, flow)
        seg = _seg_out(seg, hidden if exchange in ("flow_to_seg", "both") else None, second, stride)
        if stride != FLOW_STRIDES[-1]:
            outputs[f"flow_{stride}"] = UpsampleFlow(stride, name=f"flow_{stride}")(flow)
    logits = layers.Conv2D(num_classes, 1, name=SEG_HEAD)(seg)
    outputs["seg"] = Upsample(stride, dtype="float32", name="seg")(logits)
    if O["up"] == "convex":
        width = hidden.shape[-1]
        mix = layers.Conv2D(width, 3, padding="same", activation="relu", name="mix_1")(hidden)
        mix = layers.Conv2D(stride * stride * 9, 1, name="mix_2")(mix)
        outputs["flow"] = ConvexUpsample(stride, name="flow")(flow, mix)
    else:
        outputs["flow"] = UpsampleFlow(stride, name="flow")(flow)
    return keras.Model(inputs, outputs, name="decoder")


def _conv_layers(width, kernel, name):
    if O["seg_sep"] and kernel == 3:
        conv = layers.SeparableConv2D(
            width, kernel, padding="same", use_bias=False, name=f"{name}_conv"
        )
    else:
        conv = layers.Conv2D(width, kernel, padding="same", use_bias=False, name=f"{name}_conv")
    return [
        conv,
        layers.BatchNormalization(momentum=0.95, name=f"{name}_bn"),
        layers.ReLU(name=f"{name}_relu"),
    ]


def _conv_bn(x, width, kernel, name):
    for layer in _conv_layers(width, kernel, name):
        x = layer(x)
    return x


def _seg_top(features):
    """Stride 32, with what the whole image holds added everywhere (ParseNet; DeepLabV3)."""
    width = _SEG_WIDTH[32]
    top = _conv_bn(features, width, 1, "seg_32")
    whole = layers.GlobalAveragePooling2D(keepdims=True, name="seg_whole")(top)
    whole = layers.Conv2D(width, 1, activation="relu", name="seg_whole_conv")(whole)
    return layers.Add(name="seg_32_whole")([top, whole])


def _seg_in(seg, features, stride):
    side_layers = _conv_layers(_SEG_WIDTH[stride], 1, f"seg_{stride}_side")
    side = features
    for layer in side_layers:
        side = layer(side)
    up = Upsample(2, name=f"seg_{stride}_up")(seg)
    both = layers.Concatenate(name=f"seg_{stride}_join")([up, side])
    return _conv_bn(both, _SEG_WIDTH[stride], 3, f"seg_{stride}_in"), side_layers


def _seg_out(seg, motion, second, stride):
    parts = [seg]
    if motion is not None:
        if O["stop"] in ("flow", "both"):
            motion = Stop(name=f"stop_motion_{stride}")(motion)
        parts.append(_hand_over(motion, _SEG_WIDTH[stride], f"flow_to_seg_{stride}"))
    if second is not None:
        parts.append(_hand_over(second, _SEG_WIDTH[stride], f"second_to_seg_{stride}"))
    if len(parts) > 1:
        seg = layers.Add(name=f"seg_{stride}_add")(parts)
    if not O["seg_out"] and len(parts) == 1:
        return seg
    return _conv_bn(seg, _SEG_WIDTH[stride], 3 if O["seg_out"] else 1, f"seg_{stride}_out")


def _hand_over(x, width, name):
    """The other stream's features, projected; zero at first, so that "both" begins as "none"."""
    return layers.Conv2D(width, 1, kernel_initializer="zeros", name=name)(x)


def _flow_refiner(widths, radius, name):
    def conv(width, **kwargs):
        if O["sep"] and width > 2:
            return layers.SeparableConv2D(width, 3, padding="same", **kwargs)
        return layers.Conv2D(width, 3, padding="same", **kwargs)

    return {
        "radius": radius,
        "widths": widths,
        "cost": CostVolume(radius, name=f"{name}_cost"),
        "match": SoftArgmax(radius, dtype="float32", name=f"{name}_match"),
        "conv1": conv(widths[0], name=f"{name}_conv1"),
        "rest": [
            conv(width, activation="relu", name=f"{name}_conv{i + 2}")
            for i, width in enumerate(widths[1:])
        ],
        "gate": conv(1, activation="sigmoid", bias_initializer="ones", name=f"{name}_gate"),
        "residual": conv(2, kernel_initializer="zeros", name=f"{name}_residual"),
    }


def _flow_step(flow, hidden, features1, features2, refine, stride, side_width, seg):
    side = layers.Conv2D(side_width, 1, name=f"flow_{stride}_side")
    context, other = side(features1), side(features2)
    units = (UnitFeatures if O["units"] == "instance" else Unit)(name=f"flow_{stride}_units")
    target, source = units(context), units(other)
    if flow is None:
        flow = StartFlow(name="flow_start")(context)
        hidden = layers.Conv2D(
            refine["widths"][-1], 1, activation="relu", name="flow_hidden_start"
        )(context)
        if O["start"] == "global":
            found = GlobalMatch(dtype="float32", name="flow_global")(target, source)
            gate = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="global_gate")(
                layers.Concatenate(name="global_join")([found, context])
            )
            zero = layers.Conv2D(2, 1, kernel_initializer="zeros", name="global_none")(context)
            flow = MoveFlow(name="flow_global_move")(flow, found[..., :2], gate, zero)
    else:
        flow = UpsampleFlow(2, name=f"flow_{stride}_up")(flow)
        if hidden.shape[-1] != refine["widths"][-1]:
            hidden = layers.Conv2D(
                refine["widths"][-1], 1, activation="relu", name=f"flow_{stride}_hidden_in"
            )(hidden)
        hidden = Upsample(2, name=f"flow_{stride}_hidden_up")(hidden)
    if seg is not None and O["stop"] in ("seg", "both"):
        seg = Stop(name=f"stop_seg_{stride}")(seg)
    handed = (
        None if seg is None else _hand_over(seg, refine["widths"][0], f"seg_to_flow_{stride}")
    )
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
        hidden = layers.ReLU(name=f"flow_{stride}_relu_{step}")(x)
        for conv in refine["rest"]:
            hidden = conv(hidden)
        flow = MoveFlow(name=f"flow_{stride}_move_{step}")(
            flow, match, refine["gate"](hidden), refine["residual"](hidden)
        )
    if stride in O["fill"]:
        trust = layers.Conv2D(
            1, 3, padding="same", activation="sigmoid", name=f"trust_{stride}",
            bias_initializer=keras.initializers.Constant(1.0),
        )(hidden)
        flow = FillFlow(O["reaches"], name=f"fill_{stride}")(flow, trust)
    if O["attend"] and stride == 16:
        q = layers.Conv2D(32, 1, name="attend_q")(context)
        k = layers.Conv2D(32, 1, name="attend_k")(context)
        both = layers.Concatenate(name="attend_join")([flow, hidden])
        spread = Attend(dtype="float32", name="attend")(q, k, both)
        hidden = layers.Add(name="attend_add")(
            [hidden, _hand_over(spread[..., 2:], hidden.shape[-1], "attend_hidden")]
        )
        gate = layers.Conv2D(
            1, 3, padding="same", activation="sigmoid",
            bias_initializer=keras.initializers.Constant(-2.0), name="attend_gate",
        )(layers.Concatenate(name="attend_gate_join")([hidden, context]))
        flow = flow + gate * (spread[..., :2] - flow)
    return flow, hidden
