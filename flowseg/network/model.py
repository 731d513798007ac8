"""FlowSeg itself: encoder and decoder composed, with padding inside; and its training form."""

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
) -> keras.Model:
    """The joint network.

    Args:
        num_classes: classes of `seg`.
        exchange: see `decoder.build_decoder`.
        backbone: see `backbones.build_encoder`.
        backbone_weights: likewise.

    Returns:
        keras.Model: {"image1", "image2"}: (B, H, W, 3) RGB 0..255 -> {"seg": (B, H, W, classes)
        logits, "flow": (B, H, W, 2) pixels}, any H and W.
    """
    encoder = build_encoder(backbone, backbone_weights)
    shapes = {name: tensor.shape for name, tensor in encoder.output.items()}
    decoder = build_decoder(shapes, num_classes, exchange)
    return compose(encoder, decoder, ("seg", "flow"), "flowseg")


class Parts(NamedTuple):
    """The two models that a network is composed of."""

    encoder: keras.Model
    decoder: keras.Model


def parts(network: keras.Model) -> Parts:
    """Encoder and decoder of a network made by `compose`, or loaded from its file."""
    return Parts(network.get_layer("encoder"), network.get_layer("decoder"))


def set_learning(model: keras.Model, learn: str, freeze: str) -> None:
    """What of a network learns; the rest keeps its weights and batch statistics.

    Args:
        model: of `build_flowseg` or `training_model`; loaded from a file only if `learn` is
            "both", as files do not hold which layers are of which stream.
        learn: the decoder's stream, "seg", "flow" or "both".
        freeze: of the encoder, "none", "encoder", or "norms", its batch norms: pretrained
            statistics rest on a million images; those of a small batch of mixed sets wander.

    Raises:
        ValueError: an unknown stream, or one of a network loaded from a file. Nothing is changed.
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
    """`model` with all that its decoder gives as outputs; all layers shared.

    See `decoder.build_decoder`.

    Args:
        model: of `build_flowseg`, or loaded from a file that one was saved to.
        unlabelled: further outputs, for what needs no truth: "photometric", "consistency", as the
            losses in `training.unsupervised_losses` want them. The decoder then sees each pair both
            ways.
    """
    encoder, decoder = parts(model)
    outputs = tuple(decoder.output)
    return compose(encoder, decoder, outputs, "flowseg_training", unlabelled)


def confident_model(model: keras.Model) -> keras.Model:
    """`model` with a third output, `confidence`: (B, H, W), 0..1; all layers shared.

    It is the probability that the flow is right by KITTI's rule (within 3 px or 5 %); low where
    things are hidden in the second frame, leave the picture or have no texture.

    Raises:
        ValueError: a network of before there was confidence.
    """
    encoder, decoder = parts(model)
    if "sure_2" not in decoder.output:
        raise ValueError("this network was made before flow had a confidence: train it anew")
    keys = ("seg", "flow", "sure_2")
    whole = compose(encoder, decoder, keys, "whole")
    answers = {key: whole.output[key] for key in ("seg", "flow")}
    answers["confidence"] = ops.sigmoid(whole.output["sure_2"][..., 2])
    return keras.Model(whole.input, answers, name="flowseg_confident")


def streaming_models(network: keras.Model, outputs: tuple[str, ...] = ("seg", "flow")) -> Parts:
    """`network` as two models, so that a video's frames are each encoded once; all layers shared.

    The decoder, given what the encoder makes of two frames, returns what the network predicts for
    that pair.

    Args:
        network: of `build_flowseg`, or loaded from a file that one was saved to.
        outputs: which of the decoder's outputs.

    Returns:
        Parts: encoder: (B, H, W, 3) RGB 0..255, any H and W -> features by name, of the padded
        frame. Decoder: {"frame1": features, "frame2": features, "image1": (B, H, W, 3)} -> the
        outputs by name, (B, H, W, ...); of image1 only the size counts, to which they are cropped.
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
    """A network of two frames: `encoder` sees each once, `decoder` both, padding is inside.

    Args:
        encoder: (B, H, W, 3) -> features by name; see `backbones.build_encoder`.
        decoder: features of "frame1" and "frame2", named likewise -> answers at full size by name.
        outputs: which of the decoder's answers.
        name: of the network.
        unlabelled: see `training_model`.

    Returns:
        keras.Model: {"image1", "image2"}: (B, H, W, 3), any H and W -> the outputs by name.
    """
    images = {frame: keras.Input((None, None, 3), name=frame) for frame in ("image1", "image2")}
    pad = PadToMultiple(STRIDES[-1], name="pad")
    # One pass over both frames: half the graph, and batch statistics over both.
    both = encoder(ops.concatenate([pad(image) for image in images.values()], axis=0))
    frames = {"frame1": {}, "frame2": {}}
    for key, features in both.items():
        first, second = ops.split(features, 2, axis=0)
        if unlabelled:  # Each pair, and then each the other way round.
            first, second = features, ops.concatenate([second, first], axis=0)
        frames["frame1"][key], frames["frame2"][key] = first, second
    decoded = decoder(frames)
    if unlabelled:
        ways = {key: ops.split(decoded[key], 2, axis=0) for key in outputs}
        decoded = {key: way[0] for key, way in ways.items()}
        decoded["photometric"] = ops.concatenate(ways["flow"], axis=-1)
        decoded["consistency"] = ops.concatenate([*ways["flow"], *ways["seg"]], axis=-1)
    outputs = (*outputs, *unlabelled)
    cropped = {key: CropLike(name=key)(decoded[key], images["image1"]) for key in outputs}
    return keras.Model(images, cropped, name=name)
