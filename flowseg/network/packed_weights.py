"""A trained network in a few megabytes, to be carried or kept: a folder that stands for a run's.

Every command takes it as `--run_dir`, and training as `--init_from`; the one in `BOX`, which comes
with the package, also as `--weights pretrained`, in training as `--init_from pretrained`. Beside
`label_set.json` and a sample pair, as any run folder has them, it holds what this file reads and
writes:

weights.npz   every weight, kernels in float16, the rest (norms, biases) in float32
network.json  what `build_flowseg` is called with, and the SHA-256 of weights.npz
"""

import hashlib
import io
import json
from pathlib import Path

import keras
import numpy as np

from flowseg import files
from flowseg.network.model import build_flowseg, parts

BOX = Path(__file__).parents[1] / "weights"
_WEIGHTS, _NETWORK = "weights.npz", "network.json"


def write_network(folder: str | Path, model: keras.Model, backbone: str, exchange: str) -> int:
    """Write a network's weights and description; returns the bytes of the weights file.

    Args:
        folder: where to.
        model: of `build_flowseg(classes, exchange, backbone)`.
        backbone: see there.
        exchange: likewise.

    Raises:
        ValueError: the model is not what `build_flowseg` makes of these today; a weight that is no
            number, or too large for float16.
    """
    network = {"backbone": backbone, "exchange": exchange}
    own = dict(_variables(model))
    built = build_flowseg(model.output["seg"].shape[-1], **network)
    if _shapes(own) != _shapes(dict(_variables(built))):
        raise ValueError(f"the network is not what backbone {backbone}, exchange {exchange} make")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: _small(key, variable) for key, variable in own.items()})
    data = buffer.getvalue()
    files.write(Path(folder) / _WEIGHTS, data)
    told = {**network, "sha256": hashlib.sha256(data).hexdigest()}
    files.write(Path(folder) / _NETWORK, json.dumps(told, indent=2) + "\n")
    return len(data)


def is_packed(folder: str | Path) -> bool:
    """Whether a folder holds a packed network."""
    return (Path(folder) / _NETWORK).is_file()


def read_network(folder: str | Path, classes: int) -> keras.Model:
    """The network that `write_network` wrote.

    Args:
        folder: where it lies.
        classes: how many its folder's label set has.

    Raises:
        ValueError: a file is missing, damaged, or of another network.
    """
    path = Path(folder) / _WEIGHTS
    try:
        network = json.loads((Path(folder) / _NETWORK).read_text())
        sha256 = network.pop("sha256")
        data = path.read_bytes()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: no weights here that can be read ({error})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path}: damaged: not the checksum of {_NETWORK}; install it again")
    model = build_flowseg(classes, **network)
    variables = dict(_variables(model))
    with np.load(io.BytesIO(data)) as arrays:
        if _shapes(variables) != _shapes(arrays):
            raise ValueError(f"{path}: weights of another network than this version builds")
        for key, variable in variables.items():
            variable.assign(np.float32(arrays[key]))
    return model


def _variables(model):
    """Yields ("part/layer/weight", variable)."""
    for name, part in parts(model)._asdict().items():
        for layer in part.layers:
            for variable in layer.weights:
                yield f"{name}/{layer.name}/{variable.path.rpartition('/')[2]}", variable


def _shapes(weights):
    return {key: tuple(value.shape) for key, value in weights.items()}


def _small(key, variable):
    array = np.asarray(keras.ops.convert_to_numpy(variable))
    # A norm's variance may be 1e-6, which float16 holds badly; and vectors are few.
    with np.errstate(over="ignore"):
        small = array.astype(np.float16 if array.ndim > 1 else np.float32)
    if not np.isfinite(small).all():
        raise ValueError(f"{key}: a weight is no number, or too large for float16")
    return small
