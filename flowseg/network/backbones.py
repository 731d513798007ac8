"""Builds encoders: Keras models from an RGB image to features at strides 2, 4, 8, 16 and 32.

Normalisation is part of the encoder: its input is plain RGB in 0..255.
"""

from pathlib import Path

import keras
from keras import layers, ops

from flowseg.errors import ArgumentError
from flowseg.network import efficientnet_lite

BACKBONES = ("resnet50", "efficientnet_lite0")
STRIDES = (2, 4, 8, 16, 32)
# The last activation at each stride (keras.applications' names).
_RESNET50_LAYERS = (
    "conv1_relu",
    "conv2_block3_out",
    "conv3_block4_out",
    "conv4_block6_out",
    "conv5_block3_out",
)
# "Caffe" preprocessing of the ImageNet weights: BGR, channel means subtracted.
_BGR_MEAN = (103.939, 116.779, 123.68)

# Momentum of batch norms: averages about 20 steps. Keras's default of 0.99 lags in short trainings.
_MOMENTUM = 0.95


def build_encoder(backbone: str = "resnet50", weights: str = "none") -> keras.Model:
    """Build the encoder, which maps an image to features at `STRIDES`.

    Args:
        backbone: one of `BACKBONES`: ResNet50 (He et al. 2016, keras.applications) or
            EfficientNet-Lite0 (see `efficientnet_lite`), for int8 devices and for CPUs.
        weights: "none" (random), "imagenet" (ResNet50: Keras downloads them once; EfficientNet-
            Lite0: from the installed package), or the path of a weights file: for ResNet50, that of
            keras.applications without the top; for EfficientNet-Lite0, one written by
            `flowseg.convert_lite0`.

    Returns:
        keras.Model, (B, H, W, 3) RGB 0..255 -> {"stride2": (B, H/2, W/2, C), "stride4": ...,
        "stride8": ..., "stride16": ..., "stride32": ...}; H and W multiples of 32. C is 64, 256,
        512, 1024, 2048 for ResNet50, and 16, 24, 40, 112, 320 for EfficientNet-Lite0.

    Raises:
        ValueError: the backbone is unknown, or the weights are unavailable or do not fit.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r}: not one of {', '.join(BACKBONES)}")
    image = keras.Input((None, None, 3), name="image")
    if backbone == "resnet50":
        network, names = _resnet50(image), _RESNET50_LAYERS
    else:
        network = efficientnet_lite.build(image, _MOMENTUM)
        names = efficientnet_lite.FEATURE_LAYERS
    if weights == "imagenet":
        _load_imagenet(network, backbone)
    elif weights != "none":
        _load_file(network, backbone, weights)
    features = {
        f"stride{stride}": network.get_layer(name).output
        for stride, name in zip(STRIDES, names, strict=True)
    }
    return keras.Model(image, features, name="encoder")


def _resnet50(image):
    # Not ops.flip: TensorFlow 2.21's int8 converter gives the output of a flip its input's scale.
    bgr = ops.take(image, [2, 1, 0], axis=-1)
    normalized = layers.Rescaling(1.0, offset=[-mean for mean in _BGR_MEAN], name="normalize")(bgr)
    network = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=normalized)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = _MOMENTUM
    return network


def _load_imagenet(network, backbone):
    if backbone == "efficientnet_lite0":
        efficientnet_lite.load_imagenet(network)
        return
    try:
        donor = keras.applications.ResNet50(include_top=False, weights="imagenet")
    except Exception as error:  # urllib, ssl and Keras each raise their own types.
        raise ArgumentError(
            f"the ImageNet weights of ResNet50 could not be downloaded ({error}). Download "
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 (keras-applications "
            "releases) on a machine with internet access and give its path as backbone_weights, or "
            "train from random weights with backbone_weights none",
            "backbone_weights",
        ) from error
    network.set_weights(donor.get_weights())


def _load_file(network, backbone, path):
    if not Path(path).is_file():
        raise ArgumentError(
            f"backbone_weights {path}: neither none, imagenet, nor a file", "backbone_weights"
        )
    try:
        network.load_weights(path)
    except Exception as error:
        raise ValueError(f"{path}: not weights of {backbone} without its top: {error}") from error
