"""Encoders: an RGB image in, features at strides 4, 8, 16 and 32 out, as one Keras model.

Normalisation is part of the encoder, so that whoever feeds it gives plain RGB in 0..255.
"""

from pathlib import Path

import keras
from keras import layers, ops

STRIDES = (4, 8, 16, 32)
# The last activation at each stride (keras.applications' names).
_RESNET50_LAYERS = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")
# "Caffe" preprocessing of the ImageNet weights: BGR, channel means subtracted.
_BGR_MEAN = (103.939, 116.779, 123.68)

# Of the batch statistics' running mean: over about 20 steps. Keras's 0.99 lags a short training.
_MOMENTUM = 0.95


def build_resnet50(weights="none"):
    """ResNet50 (He et al. 2016, keras.applications) as an encoder.

    Args:
        weights: "none" (random), "imagenet" (Keras downloads them once), or the path of a weights
            file that fits keras.applications' ResNet50 without its top.

    Returns:
        keras.Model, (B, H, W, 3) RGB 0..255 -> {"stride4": (B, H/4, W/4, 256), "stride8": ...512,
        "stride16": ...1024, "stride32": ...2048}; H and W multiples of 32.

    Raises:
        ValueError: the weights cannot be had, or do not fit.
    """
    image = keras.Input((None, None, 3), name="image")
    bgr = ops.flip(image, axis=-1)
    normalized = layers.Rescaling(1.0, offset=[-mean for mean in _BGR_MEAN], name="normalize")(bgr)
    network = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=normalized)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = _MOMENTUM
    if weights != "none":
        _load(network, weights)
    features = {
        f"stride{stride}": network.get_layer(name).output
        for stride, name in zip(STRIDES, _RESNET50_LAYERS, strict=True)
    }
    return keras.Model(image, features, name="encoder")


def _load(network, weights):
    if weights == "imagenet":
        try:
            donor = keras.applications.ResNet50(include_top=False, weights="imagenet")
        except Exception as error:  # urllib, ssl and Keras each raise their own.
            raise ValueError(
                f"the ImageNet weights of ResNet50 could not be downloaded ({error}). Download "
                "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 (keras-applications "
                "releases) where there is a network and give its path as --backbone_weights, or "
                "train from random weights with --backbone_weights none"
            ) from error
        network.set_weights(donor.get_weights())
        return
    if not Path(weights).is_file():
        raise ValueError(f"--backbone_weights {weights}: neither none, imagenet, nor a file")
    try:
        network.load_weights(weights)
    except Exception as error:
        raise ValueError(f"{weights}: not weights of ResNet50 without its top: {error}") from error
