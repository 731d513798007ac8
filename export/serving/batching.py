"""The folder of `export.saved_model`, loaded to be asked: what a replica of a server holds."""

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

# Whose requests may be answered together: frames in, a batch in any number.
_BATCHED = ("serving_default", "serving_uint8", "predict_labels", "predict_png")


def newest(folder: Path | str) -> int:
    """The version that servers take: the highest number in a folder of models.

    Raises:
        ValueError: none there.
    """
    folder = Path(folder)
    found = [int(path.parent.name) for path in folder.glob("*/saved_model.pb")
             if path.parent.name.isdigit()]  # fmt: skip
    if not found:
        raise ValueError(
            f"{folder}: no model here; write one: python -m export.saved_model --output {folder}"
        )
    return max(found)


class Network:
    """A loaded version. Its methods may be called by several threads."""

    def __init__(self, folder: Path | str):
        """Load the newest version in `folder` and warm it up.

        Raises:
            ValueError: none there, or it is damaged.
        """
        self.version = newest(folder)
        path = Path(folder) / str(self.version)
        try:
            self._model = tf.saved_model.load(str(path))
            graph = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0]
        except Exception as error:  # TensorFlow, protobuf and the file system raise their own.
            raise ValueError(f"{path}: damaged, or no SavedModel ({error})") from error
        own = {k: v for k, v in graph.signature_def.items() if not k.startswith("__")}
        self.signatures = {name: _specs(definition) for name, definition in own.items()}
        told = {
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in own.items()
        }
        self.metadata = {
            "model_spec": {"name": NAME, "signature_name": "", "version": str(self.version)},
            "metadata": {"signature_def": {"signature_def": told}},
        }
        # oneDNN says at the first float16 that it leaves it to others.
        with console.no_stderr():
            for request in saved_model_extras.read_requests(path):
                self.answer(*request)

    @property
    def status(self) -> dict:
        """What a server says of itself."""
        fine = {"error_code": "OK", "error_message": ""}
        version = {"version": str(self.version), "state": "AVAILABLE", "status": fine}
        return {"model_version_status": [version]}

    def answer(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays in, arrays out.

        Raises:
            ValueError: the network refuses the inputs.
        """
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        try:
            answers = self._model.signatures[signature](**tensors)
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            raise ValueError(_reason(error)) from error
        return {key: value.numpy() for key, value in answers.items()}

    def answer_all(self, requests: Sequence[rest.Request]) -> list[dict | ValueError]:
        """Answers, or the ValueErrors, to several `rest.Request`s; alike ones run as one batch."""
        groups = {}
        for i, request in enumerate(requests):
            groups.setdefault(_likeness(request, i), []).append(i)
        answers = {}
        for group in groups.values():
            together = self._together([requests[i] for i in group])
            answers |= dict(zip(group, together, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _together(self, requests):
        first = requests[0]
        inputs = {k: np.concatenate([r.inputs[k] for r in requests]) for k in first.inputs}
        try:
            joint = self.answer(first.signature, inputs)
        except ValueError as error:
            if len(requests) == 1:
                return [error]
            # One of them is to blame; the others get their answers.
            return [answer for request in requests for answer in self._together([request])]
        ends = np.cumsum([request.batch for request in requests])[:-1]
        parts = {key: np.split(value, ends) for key, value in joint.items()}
        return [{key: value[i] for key, value in parts.items()} for i in range(len(requests))]


def _likeness(request, own):
    """Equal for requests that may run as one batch."""
    if request.signature not in _BATCHED:
        return own
    # Bytes are alike if their pictures are of one size.
    sizes = (
        frozenset(rest.picture_sizes(x)) if x.dtype == object else x.shape[1:]
        for x in request.inputs.values()
    )
    return request.signature, *sizes


def _specs(definition):
    """{input: (NumPy's type, shape)} of a signature, as `rest.read` wants it."""
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
    """What a person needs of TensorFlow's message."""
    text = str(error)
    asserted = re.search(r"assertion failed: \[(.*?)\] \[", text, re.S)
    if asserted:
        return asserted[1].replace('\\"', '"')
    lines = [line for line in text.splitlines() if line.strip() and "node" not in line]
    return next((line for line in lines[1:] if "stack traces" not in line), text[:300])
