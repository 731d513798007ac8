"""FlowSeg itself: encoder and decoder composed, with padding inside; and its training form."""

import keras
from keras import ops

from flowseg.backbones import STRIDES, build_resnet50
from flowseg.decoder import build_decoder
from flowseg.layers import CropLike, PadToMultiple


def build_flowseg(num_classes, exchange="both", backbone_weights="none"):
    """The joint network.

    Args:
        num_classes: classes of `seg`.
        exchange: see `decoder.build_decoder`.
        backbone_weights: see `backbones.build_resnet50`.

    Returns:
        keras.Model: {"image1", "image2"}: (B, H, W, 3) RGB 0..255 -> {"seg": (B, H, W, classes)
        logits, "flow": (B, H, W, 2) pixels}, any H and W.
    """
    encoder = build_resnet50(backbone_weights)
    shapes = {name: tensor.shape for name, tensor in encoder.output.items()}
    decoder = build_decoder(shapes, num_classes, exchange)
    return _compose(encoder, decoder, ("seg", "flow"), "flowseg")


def training_model(model):
    """`model` with its coarser flows (`flow_8`, `flow_16`) as outputs too; all layers shared.

    Args:
        model: of `build_flowseg`, or loaded from a file that one was saved to.
    """
    decoder = model.get_layer("decoder")
    return _compose(model.get_layer("encoder"), decoder, tuple(decoder.output), "flowseg_training")


def _compose(encoder, decoder, outputs, name):
    images = {frame: keras.Input((None, None, 3), name=frame) for frame in ("image1", "image2")}
    pad = PadToMultiple(STRIDES[-1], name="pad")
    # One pass over both frames: half the graph, and batch statistics over both.
    both = encoder(ops.concatenate([pad(image) for image in images.values()], axis=0))
    frames = {"frame1": {}, "frame2": {}}
    for key, features in both.items():
        frames["frame1"][key], frames["frame2"][key] = ops.split(features, 2, axis=0)
    decoded = decoder(frames)
    cropped = {key: CropLike(name=key)(decoded[key], images["image1"]) for key in outputs}
    return keras.Model(images, cropped, name=name)
