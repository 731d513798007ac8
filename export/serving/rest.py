"""Parses requests and writes responses of TensorFlow Serving's REST API, without TensorFlow.

https://www.tensorflow.org/tfx/serving/api_rest: rows (`instances` -> `predictions`) or columns
(`inputs` -> `outputs`), `signature_name`, bytes as {"b64": ...}. In addition, float16 is written as
numbers, which TensorFlow Serving does not support.
"""

import base64
import binascii
import io
import json
from typing import NamedTuple

import numpy as np
from PIL import Image

from flowseg import memory
from flowseg.data.image_headers import graph_obstacle


class TooLarge(ValueError):
    """The frames of a request do not fit into the server's memory."""


class Request(NamedTuple):
    """A parsed request.

    Attributes:
        signature: name of the signature.
        rows: whether the request has `instances`, and the response `predictions`.
        inputs: array of each input, with the batch as first axis.
    """

    signature: str
    rows: bool
    inputs: dict[str, np.ndarray]

    @property
    def batch(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))


def read(body: bytes, signatures: dict[str, dict], max_pixels: int) -> Request:
    """Parse the body of a request.

    Args:
        body: JSON as bytes.
        signatures: {name: {input: (NumPy type, shape)}}; None in a shape stands for any size, None
            instead of a shape for any shape; `object` is the type of bytes.
        max_pixels: maximum total number of pixels of all frames of one input.

    Raises:
        TooLarge: there is too little memory for the frames.
        ValueError: the body is invalid; the message says why.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError('the body must be an object: {"signature_name": ..., "instances": [...]}')
    name = content.get("signature_name", "serving_default")
    if not isinstance(name, str) or name not in signatures:
        raise ValueError(f"signature_name: one of {', '.join(sorted(signatures))}")
    if ("instances" in content) == ("inputs" in content):
        raise ValueError('give exactly one of "instances" (a list of rows) and "inputs" (columns)')
    rows = "instances" in content
    specs = signatures[name]
    values = _columns(content["instances"], specs) if rows else _named(content["inputs"], specs)
    inputs = {key: _array(key, values[key], *spec) for key, spec in specs.items()}
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) > 1 or not sizes.pop():
        raise ValueError("all inputs must have the same number of rows, at least one")
    for key, array in inputs.items():
        _check_pixels(key, array, max_pixels)
    return Request(name, rows, inputs)


def _columns(instances, specs):
    """Convert rows to columns."""
    if not isinstance(instances, list) or not instances:
        raise ValueError('"instances" must be a list of at least one row')
    rows = [_named(row, specs) for row in instances]
    return {key: [row[key] for row in rows] for key in specs}


def _named(values, specs):
    """Return values by input name; a single input may be given without its name."""
    named = isinstance(values, dict) and set(values) != {"b64"}
    if not named and len(specs) == 1:
        return {next(iter(specs)): values}
    if not named or set(values) != set(specs):
        raise ValueError(f"give an object with exactly these inputs: {', '.join(sorted(specs))}")
    return values


def _array(key, value, dtype, shape):
    """Convert nested lists to an array of the required type and shape."""
    if dtype is object:
        array = np.atleast_1d(_bytes(key, value))
    else:
        try:
            array = np.array(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{key}: lists of unequal lengths, or numbers too large") from error
        integer = np.issubdtype(dtype, np.integer)
        if array.dtype.kind not in ("iu" if integer else "iuf"):
            kind = "integers" if integer else "numbers"
            raise ValueError(f"{key}: all values must be {kind}")
        if integer and array.size:
            limits = np.iinfo(dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise ValueError(f"{key}: numbers must be in {limits.min}..{limits.max}")
        array = array.astype(dtype)
    fits = shape is None or (
        array.ndim == len(shape)
        and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    )
    if not fits or (shape is None and array.ndim != 1) or not array.size:
        expected = "(any)" if shape is None else tuple("any" if n is None else n for n in shape)
        text = str(expected).replace("'", "")
        raise ValueError(f"{key}: shape must be {text} and not empty; this is {array.shape}")
    return array


def _bytes(key, value):
    """Convert nested lists of text or {"b64": ...} to an array of bytes."""
    if isinstance(value, list):
        if any(isinstance(item, list) for item in value):
            raise ValueError(f"{key}: must be a list of bytes, not of lists")
        array = np.empty(len(value), object)
        for i, item in enumerate(value):
            array[i] = _bytes(key, item)[()]
        return array
    if isinstance(value, str):
        data = value.encode(errors="replace")
    elif isinstance(value, dict) and isinstance(value.get("b64"), str) and len(value) == 1:
        try:
            data = base64.b64decode(value["b64"], validate=True)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"{key}: not base64 ({error})") from error
    else:
        raise ValueError(f'{key}: bytes must be given as {{"b64": "..."}}')
    array = np.empty((), object)
    array[()] = data
    return array


def image_sizes(array: np.ndarray) -> list[tuple[int, int]]:
    """Return (width, height) of each encoded image in an array, reading only their headers.

    Raises:
        ValueError: an image is not a PNG or JPEG.
    """
    try:
        return [Image.open(io.BytesIO(data), formats=("PNG", "JPEG")).size for data in array]
    except Exception as error:  # Pillow raises its own exceptions, struct.error and OSError.
        raise ValueError("the bytes must be a complete PNG or JPEG image") from error


def _check_pixels(key, array, max_pixels):
    if key.endswith("_bytes"):
        pixels = sum(width * height for width, height in image_sizes(array))
        for obstacle in filter(None, map(graph_obstacle, array)):
            raise ValueError(f"{key}: the image {obstacle}: convert it as export.client does")
    elif array.ndim == 4 and array.shape[-1] == 3:
        pixels = array.size // 3
    else:
        return
    if pixels > max_pixels:
        raise ValueError(f"{key}: {pixels} pixels; this server accepts {max_pixels} per request")
    try:
        needed = memory.bytes_of_prediction(pixels)
        memory.require(needed, f"{key}: a prediction of {pixels} pixels", "send smaller frames")
    except ValueError as error:
        raise TooLarge(str(error)) from error


def write(outputs: dict[str, np.ndarray], rows: bool) -> bytes:
    """Return the body of a response, as bytes.

    Args:
        outputs: array of each output, with the batch as first axis.
        rows: `rows` of the request.
    """
    values = {key: _to_json(array, key) for key, array in outputs.items()}
    single = next(iter(values.values())) if len(values) == 1 else None
    if not rows:
        return json.dumps({"outputs": single or values}).encode()
    columns = zip(*values.values(), strict=True)
    predictions = single or [dict(zip(values, row, strict=True)) for row in columns]
    return json.dumps({"predictions": predictions}).encode()


def _to_json(array, key):
    if array.dtype == np.float16:
        # The fewest digits that restore the float16: half the bytes, and less work on both sides.
        array = np.float64(array)
        array = np.where(np.abs(array) >= 1, np.round(array, 4), np.round(array, 8))
    if array.dtype != object:
        return array.tolist()
    if key.endswith("_bytes"):
        return [{"b64": base64.b64encode(data).decode()} for data in array]
    return [data.decode(errors="replace") for data in array]


def error(text: object) -> bytes:
    """Return the body of an error response."""
    return json.dumps({"error": " ".join(str(text).split())}).encode()
