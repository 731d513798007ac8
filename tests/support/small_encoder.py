"""An encoder of five convolutions in place of a backbone, so that trainings in tests are fast.

Everything else is the real network: its decoder, losses, optimizer and files. Flags and run folders
name the backbone that it replaces. Tests that are about a backbone build that one.
"""

import keras
from keras import layers

from flowseg.network import backbones, model

_CHANNELS = (8, 12, 16, 24, 32)


def build_encoder(backbone: str = "resnet50", weights: str = "none") -> keras.Model:
    """Build an encoder with the inputs and outputs of `backbones.build_encoder`."""
    assert backbone in backbones.BACKBONES and weights == "none"
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(image)
    features = {}
    for stride, channels in zip(backbones.STRIDES, _CHANNELS, strict=True):
        name = f"stride{stride}"
        conv = layers.Conv2D(channels, 3, 2, padding="same", use_bias=False, name=f"{name}_conv")
        x = layers.BatchNormalization(momentum=0.95, name=f"{name}_bn")(conv(x))
        features[name] = x = layers.ReLU(6.0, name=f"{name}_relu")(x)
    return keras.Model(image, features, name="encoder")


def install() -> None:
    """Make `build_flowseg` use it, in this process, from now on."""
    model.build_encoder = build_encoder
