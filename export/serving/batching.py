"""Loads the newest SavedModel of a folder and runs requests in batches, for a server replica."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from export import saved_model_extras
from export.metadata import NAME
from export.serving import rest
from flowseg import console

# Signatures whose requests may run as one batch: they take frames in batches of any size.
_BATCHED = ("serving_default", "serving_uint8", "predict_labels", "predict_png")


def newest(folder: Path | str) -> int:
    """Return the version that servers load: the highest number in a folder of models.

    Raises:
        ValueError: the folder has no model.
    """
    folder = Path(folder)
    versions = [
        int(path.parent.name)
        for path in folder.glob("*/saved_model.pb")
        if path.parent.name.isdigit()
    ]
    if not versions:
        raise ValueError(
            f"{folder}: has no model; write one: python -m export.saved_model --output {folder}"
        )
    return max(versions)


class Network:
    """A loaded version of the network; its methods are thread-safe."""

    def __init__(self, folder: Path | str):
        """Load the newest version in `folder` and warm it up.

        Raises:
            ValueError: there is no version, or it is damaged.
        """
        self.version = newest(folder)
        path = Path(folder) / str(self.version)
        try:
            self._model = tf.saved_model.load(str(path))
            graph = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0]
        except Exception as error:  # TensorFlow, protobuf and the file system raise different ones.
            raise ValueError(f"{path}: damaged, or not a SavedModel ({error})") from error
        definitions = {k: v for k, v in graph.signature_def.items() if not k.startswith("__")}
        self.signatures = {name: _specs(definition) for name, definition in definitions.items()}
        described = {
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in definitions.items()
        }
        self.metadata = {
            "model_spec": {"name": NAME, "signature_name": "", "version": str(self.version)},
            "metadata": {"signature_def": {"signature_def": described}},
        }
        # oneDNN reports the first float16 operation that it does not support.
        with console.no_stderr():
            for request in saved_model_extras.read_requests(path):
                self.predict(*request)

    @property
    def status(self) -> dict:
        """Status of the model, as TensorFlow Serving reports it."""
        ok = {"error_code": "OK", "error_message": ""}
        version = {"version": str(self.version), "state": "AVAILABLE", "status": ok}
        return {"model_version_status": [version]}

    def predict(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Call a signature with arrays and return its outputs as arrays.

        Raises:
            ValueError: the network rejects the inputs.
        """
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        try:
            outputs = self._model.signatures[signature](**tensors)
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            raise ValueError(_reason(error)) from error
        return {key: value.numpy() for key, value in outputs.items()}

    def run_batch(self, requests: Sequence[rest.Request]) -> list[dict | ValueError]:
        """Return the outputs or the ValueError of each request; compatible ones share a batch."""
        groups = {}
        for i, request in enumerate(requests):
            groups.setdefault(_batch_key(request, i), []).append(i)
        results = {}
        for group in groups.values():
            group_results = self._run_group([requests[i] for i in group])
            results |= dict(zip(group, group_results, strict=True))
        return [results[i] for i in range(len(requests))]

    def _run_group(self, requests):
        first = requests[0]
        inputs = {k: np.concatenate([r.inputs[k] for r in requests]) for k in first.inputs}
        try:
            outputs = self.predict(first.signature, inputs)
        except ValueError as error:
            if len(requests) == 1:
                return [error]
            # At least one request is invalid: run them one by one, so that the others succeed.
            return [result for request in requests for result in self._run_group([request])]
        ends = np.cumsum([request.batch for request in requests])[:-1]
        parts = {key: np.split(value, ends) for key, value in outputs.items()}
        return [{key: value[i] for key, value in parts.items()} for i in range(len(requests))]


def _batch_key(request, index):
    """Return a key that is equal for requests that can share a batch."""
    if request.signature not in _BATCHED:
        return index
    # Encoded images can share a batch if they decode to one size.
    sizes = (
        frozenset(rest.image_sizes(x)) if x.dtype == object else x.shape[1:]
        for x in request.inputs.values()
    )
    return request.signature, *sizes


def _specs(definition):
    """Return {input: (NumPy type, shape)} of a signature, for `rest.read`."""
    specs = {}
    for key, tensor in definition.inputs.items():
        shape = tensor.tensor_shape
        sizes = tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
        dtype = tf.dtypes.as_dtype(tensor.dtype)
        specs[key] = (
            object if dtype == tf.string else dtype.as_numpy_dtype,
            None if shape.unknown_rank else sizes,
        )
    return specs


def _reason(error):
    """Extract the useful part of TensorFlow's message."""
    text = str(error)
    asserted = re.search(r"assertion failed: \[(.*?)\] \[", text, re.S)
    if asserted:
        return asserted[1].replace('\\"', '"')
    lines = [line for line in text.splitlines() if line.strip() and "node" not in line]
    return next((line for line in lines[1:] if "stack traces" not in line), text[:300])
