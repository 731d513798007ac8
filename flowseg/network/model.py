"""Composes encoder and decoder into FlowSeg, and builds its training and streaming variants."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import ops

from flowseg.network.backbones import STRIDES, build_encoder
from flowseg.network.decoder import build_decoder, stream_layers
from flowseg.network.layers import CropLike, PadToMultiple


def build_flowseg(
    num_classes: int,
    exchange: str = "both",
    backbone: str = "resnet50",
    backbone_weights: str = "none",
    coarsest: int = 16,
) -> keras.Model:
    """Build the joint network.

    Args:
        num_classes: number of classes of `seg`.
        exchange: see `decoder.build_decoder`.
        backbone: see `backbones.build_encoder`.
        backbone_weights: `weights` of `backbones.build_encoder`.
        coarsest: see `decoder.build_decoder`.

    Returns:
        keras.Model: {"image1", "image2"}: (B, H, W, 3) RGB 0..255 -> {"seg": (B, H, W, classes)
        logits, "flow": (B, H, W, 2) pixels}, any H and W.
    """
    encoder = build_encoder(backbone, backbone_weights)
    shapes = {name: tensor.shape for name, tensor in encoder.output.items()}
    decoder = build_decoder(shapes, num_classes, exchange, coarsest)
    return compose(encoder, decoder, ("seg", "flow"), "flowseg")


class Parts(NamedTuple):
    """The two models of which a network is composed."""

    encoder: keras.Model
    decoder: keras.Model


def parts(network: keras.Model) -> Parts:
    """Return encoder and decoder of a network built by `compose` or loaded from its file."""
    return Parts(network.get_layer("encoder"), network.get_layer("decoder"))


def set_learning(model: keras.Model, learn: str, freeze: str) -> None:
    """Set which layers are trainable; the others keep their weights and batch statistics.

    Args:
        model: from `build_flowseg` or `training_model`; loaded from a file only if `learn` is
            "both", because files do not store the stream of each layer.
        learn: the decoder's stream to train, "seg", "flow" or "both".
        freeze: part of the encoder to freeze: "none", "encoder" (all of it), or "norms" (its batch
            norms). Their pretrained statistics are from a million images; small, mixed batches
            would make them drift.

    Raises:
        ValueError: the stream is unknown, or not recorded because the network was loaded from a
            file. Nothing is changed.
    """
    encoder, decoder = parts(model)
    learning = decoder.layers if learn == "both" else stream_layers(decoder, learn)
    for layer in decoder.layers:
        layer.trainable = layer in learning
    encoder.trainable = freeze != "encoder"
    for layer in encoder.layers:
        if freeze == "norms" and isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def training_model(model: keras.Model, unlabelled: Sequence[str] = ()) -> keras.Model:
    """Build `model` with all outputs of its decoder; all layers are shared.

    See `decoder.build_decoder`.

    Args:
        model: from `build_flowseg`, or loaded from a file.
        unlabelled: further outputs, for losses without ground truth: "photometric" and
            "consistency", in the form that `training.unsupervised_losses` expects. The decoder then
            processes each pair in both directions.
    """
    encoder, decoder = parts(model)
    outputs = tuple(decoder.output)
    return compose(encoder, decoder, outputs, "flowseg_training", unlabelled)


def confident_model(model: keras.Model) -> keras.Model:
    """Build `model` with a third output, `confidence`: (B, H, W), 0..1; all layers are shared.

    The confidence is the probability that the flow is correct by KITTI's rule (within 3 px or 5 %).
    It is low where pixels are occluded in the second frame, leave the image or have no texture.

    Raises:
        ValueError: the model was saved before the confidence head existed.
    """
    encoder, decoder = parts(model)
    if "sure_2" not in decoder.output:
        raise ValueError("this network was saved before the confidence head existed: retrain it")
    keys = ("seg", "flow", "sure_2")
    full = compose(encoder, decoder, keys, "whole")
    outputs = {key: full.output[key] for key in ("seg", "flow")}
    outputs["confidence"] = ops.sigmoid(full.output["sure_2"][..., 2])
    return keras.Model(full.input, outputs, name="flowseg_confident")


def streaming_models(network: keras.Model, outputs: tuple[str, ...] = ("seg", "flow")) -> Parts:
    """Split `network` into two models, so that each video frame is encoded once; shares layers.

    Given the encoded features of two frames, the decoder returns the network's predictions for
    that pair.

    Args:
        network: from `build_flowseg`, or loaded from a file.
        outputs: which of the decoder's outputs to return.

    Returns:
        Parts: encoder: (B, H, W, 3) RGB 0..255, any H and W -> features of the padded frame, by
        name. Decoder: {"frame1": features, "frame2": features, "image1": (B, H, W, 3)} -> the
        outputs by name, (B, H, W, ...); image1 is used only for the size to which they are cropped.
    """
    encoder, decoder = parts(network)
    image = keras.Input((None, None, 3), name="image")
    encode = keras.Model(image, encoder(PadToMultiple(STRIDES[-1])(image)), name="encode")
    frames = {
        frame: {
            key: keras.Input(tensor.shape[1:], name=f"{frame}_{key}")
            for key, tensor in encoder.output.items()
        }
        for frame in ("frame1", "frame2")
    }
    image1 = keras.Input((None, None, 3), name="image1")
    decoded = decoder(frames)
    cropped = {key: CropLike(name=key)(decoded[key], image1) for key in outputs}
    return Parts(encode, keras.Model({**frames, "image1": image1}, cropped, name="decode"))


def compose(
    encoder: keras.Model,
    decoder: keras.Model,
    outputs: Sequence[str],
    name: str,
    unlabelled: Sequence[str] = (),
) -> keras.Model:
    """Compose a two-frame network: `encoder` runs on each padded frame, `decoder` on both.

    Args:
        encoder: (B, H, W, 3) -> features by name; see `backbones.build_encoder`.
        decoder: features of "frame1" and "frame2" by name -> outputs at full size by name.
        outputs: which of the decoder's outputs to return.
        name: name of the network.
        unlabelled: see `training_model`.

    Returns:
        keras.Model: {"image1", "image2"}: (B, H, W, 3), any H and W -> the outputs by name.
    """
    images = {frame: keras.Input((None, None, 3), name=frame) for frame in ("image1", "image2")}
    pad = PadToMultiple(STRIDES[-1], name="pad")
    # One pass over both frames halves the graph, and batch statistics cover both.
    both = encoder(ops.concatenate([pad(image) for image in images.values()], axis=0))
    frames = {"frame1": {}, "frame2": {}}
    for key, features in both.items():
        first, second = ops.split(features, 2, axis=0)
        if unlabelled:  # All pairs, then all pairs reversed.
            first, second = features, ops.concatenate([second, first], axis=0)
        frames["frame1"][key], frames["frame2"][key] = first, second
    decoded = decoder(frames)
    if unlabelled:
        directions = {key: ops.split(decoded[key], 2, axis=0) for key in outputs}
        decoded = {key: halves[0] for key, halves in directions.items()}
        decoded["photometric"] = ops.concatenate(directions["flow"], axis=-1)
        decoded["consistency"] = ops.concatenate([*directions["flow"], *directions["seg"]], axis=-1)
    outputs = (*outputs, *unlabelled)
    cropped = {key: CropLike(name=key)(decoded[key], images["image1"]) for key in outputs}
    return keras.Model(images, cropped, name=name)
