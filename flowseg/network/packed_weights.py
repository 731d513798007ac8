"""Writes and reads packed networks: trained networks stored in a few megabytes.

Every command accepts a packed network's folder as `--run_dir`, and training as `--init_from`. Those
that come with the package (`flowseg.packaged`) can also be selected by `--weights pretrained`, and
for training by `--init_from pretrained`. Like a run folder, the folder contains
`label_set.json` and a sample pair. This module reads and writes two more files:

weights.npz   every weight: kernels in float16, the rest (norms, biases) in float32
network.json  the arguments of `build_flowseg`, and the SHA-256 of weights.npz
"""

import hashlib
import io
import json
from pathlib import Path

import keras
import numpy as np

from flowseg import files
from flowseg.network.model import build_flowseg, parts

_WEIGHTS, _NETWORK = "weights.npz", "network.json"


def write_network(
    folder: str | Path, model: keras.Model, backbone: str, exchange: str, coarsest: int = 16
) -> int:
    """Write a network's weights and description; return the size of the weights file in bytes.

    Args:
        folder: folder to write to.
        model: from `build_flowseg(classes, exchange, backbone, coarsest=coarsest)`.
        backbone: see `build_flowseg`.
        exchange: see `build_flowseg`.
        coarsest: see `build_flowseg`.

    Raises:
        ValueError: the model differs from what `build_flowseg` builds with these arguments, or a
            weight is NaN, Inf or too large for float16.
    """
    network = {"backbone": backbone, "exchange": exchange, "coarsest": coarsest}
    variables = dict(_variables(model))
    built = build_flowseg(model.output["seg"].shape[-1], **network)
    if _shapes(variables) != _shapes(dict(_variables(built))):
        settings = ", ".join(f"{key} {value}" for key, value in network.items())
        raise ValueError(f"the network does not match {settings}")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, **{key: _packed_array(key, variable) for key, variable in variables.items()}
    )
    data = buffer.getvalue()
    files.write(Path(folder) / _WEIGHTS, data)
    description = {**network, "sha256": hashlib.sha256(data).hexdigest()}
    files.write(Path(folder) / _NETWORK, json.dumps(description, indent=2) + "\n")
    return len(data)


def is_packed(folder: str | Path) -> bool:
    """Return whether a folder holds a packed network."""
    return (Path(folder) / _NETWORK).is_file()


def read_network(folder: str | Path, classes: int) -> keras.Model:
    """Read a network written by `write_network`.

    Args:
        folder: the packed network's folder.
        classes: number of classes of the folder's label set.

    Raises:
        ValueError: a file is missing, damaged, or belongs to another network.
    """
    path = Path(folder) / _WEIGHTS
    try:
        network = json.loads((Path(folder) / _NETWORK).read_text())
        sha256 = network.pop("sha256")
        data = path.read_bytes()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: the packed weights cannot be read ({error})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path}: damaged: its checksum is not that in {_NETWORK}; reinstall it")
    model = build_flowseg(classes, **network)
    variables = dict(_variables(model))
    with np.load(io.BytesIO(data)) as arrays:
        if _shapes(variables) != _shapes(arrays):
            raise ValueError(f"{path}: the weights do not match the network of this version")
        for key, variable in variables.items():
            variable.assign(np.float32(arrays[key]))
    return model


def _variables(model):
    """Yield ("part/layer/weight", variable)."""
    for name, part in parts(model)._asdict().items():
        for layer in part.layers:
            for variable in layer.weights:
                yield f"{name}/{layer.name}/{variable.path.rpartition('/')[2]}", variable


def _shapes(weights):
    return {key: tuple(value.shape) for key, value in weights.items()}


def _packed_array(key, variable):
    array = np.asarray(keras.ops.convert_to_numpy(variable))
    # Vectors stay float32: the variance of a norm may be 1e-6, which float16 stores imprecisely.
    with np.errstate(over="ignore"):
        packed = array.astype(np.float16 if array.ndim > 1 else np.float32)
    if not np.isfinite(packed).all():
        raise ValueError(f"{key}: a weight is NaN, Inf or too large for float16")
    return packed
