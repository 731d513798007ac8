"""TensorFlow Serving's REST interface: requests and answers as JSON, without TensorFlow.

https://www.tensorflow.org/tfx/serving/api_rest: rows (`instances` -> `predictions`) or columns
(`inputs` -> `outputs`), `signature_name`, bytes as {"b64": ...}. Beyond it, float16 is written as
numbers, which TensorFlow Serving refuses.
"""

import base64
import binascii
import io
import json
from typing import NamedTuple

import numpy as np
from PIL import Image


class Request(NamedTuple):
    """A request that was read.

    Attributes:
        signature: its name.
        rows: whether it came as `instances`, and is answered so.
        inputs: array of each input; all have the batch as their first axis.
    """

    signature: str
    rows: bool
    inputs: dict[str, np.ndarray]

    @property
    def batch(self) -> int:
        """How many rows."""
        return len(next(iter(self.inputs.values())))


def read(body: bytes, signatures: dict[str, dict], max_pixels: int) -> Request:
    """A :class:`Request` of the bytes of a body.

    Args:
        body: JSON.
        signatures: {name: {input: (NumPy's type, shape)}}; None in a shape is any size, None in
            place of it any shape; `object` is the type of bytes.
        max_pixels: of all frames of one input together.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError('the body must be an object: {"signature_name": ..., "instances": [...]}')
    name = content.get("signature_name", "serving_default")
    if not isinstance(name, str) or name not in signatures:
        raise ValueError(f"signature_name: one of {', '.join(sorted(signatures))}")
    if ("instances" in content) == ("inputs" in content):
        raise ValueError('give exactly one of "instances" (a list of rows) and "inputs" (columns)')
    rows = "instances" in content
    specs = signatures[name]
    given = _columns(content["instances"], specs) if rows else _named(content["inputs"], specs)
    inputs = {key: _array(key, given[key], *spec) for key, spec in specs.items()}
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) > 1 or not sizes.pop():
        raise ValueError("all inputs must have the same number of rows, and one or more")
    for key, array in inputs.items():
        _check_pixels(key, array, max_pixels)
    return Request(name, rows, inputs)


def _columns(instances, specs):
    """Rows to columns."""
    if not isinstance(instances, list) or not instances:
        raise ValueError('"instances" must be a list of one row or more')
    rows = [_named(row, specs) for row in instances]
    return {key: [row[key] for row in rows] for key in specs}


def _named(given, specs):
    """What was given by the name of its input; a single input may go without."""
    named = isinstance(given, dict) and set(given) != {"b64"}
    if not named and len(specs) == 1:
        return {next(iter(specs)): given}
    if not named or set(given) != set(specs):
        raise ValueError(f"give an object with exactly these inputs: {', '.join(sorted(specs))}")
    return given


def _array(key, value, dtype, shape):
    """Nested lists as an array of a type and shape."""
    if dtype is object:
        array = np.atleast_1d(_bytes(key, value))
    else:
        try:
            array = np.array(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{key}: lists of unequal lengths, or numbers too large") from error
        whole = np.issubdtype(dtype, np.integer)
        if array.dtype.kind not in ("iu" if whole else "iuf"):
            kind = "whole numbers" if whole else "numbers"
            raise ValueError(f"{key}: must be {kind}, nothing else")
        if whole and array.size:
            limits = np.iinfo(dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise ValueError(f"{key}: numbers must be in {limits.min}..{limits.max}")
        array = array.astype(dtype)
    fits = shape is None or (
        array.ndim == len(shape)
        and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    )
    if not fits or (shape is None and array.ndim != 1) or not array.size:
        wanted = "(any)" if shape is None else tuple("any" if n is None else n for n in shape)
        told = str(wanted).replace("'", "")
        raise ValueError(f"{key}: shape must be {told}, nothing empty; this is {array.shape}")
    return array


def _bytes(key, value):
    """Nested lists of text or {"b64": ...} as an array of bytes."""
    if isinstance(value, list):
        if any(isinstance(item, list) for item in value):
            raise ValueError(f"{key}: a list of bytes, not of lists")
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
        raise ValueError(f'{key}: bytes are given as {{"b64": "..."}}')
    array = np.empty((), object)
    array[()] = data
    return array


def picture_sizes(array: np.ndarray) -> list[tuple[int, int]]:
    """(width, height) of each picture of an array of bytes; looks at their beginnings alone.

    Raises:
        ValueError: one is no PNG or JPEG.
    """
    try:
        return [Image.open(io.BytesIO(data), formats=("PNG", "JPEG")).size for data in array]
    except Exception as error:  # Pillow raises its own, struct's and OSError for damaged files.
        raise ValueError("the bytes must be a PNG or a JPEG, and whole") from error


def _check_pixels(key, array, most):
    if key.endswith("_bytes"):
        pixels = sum(width * height for width, height in picture_sizes(array))
    elif array.ndim == 4 and array.shape[-1] == 3:
        pixels = array.size // 3
    else:
        return
    if pixels > most:
        raise ValueError(f"{key}: {pixels} pixels; this server takes {most} a request")


def write(answers: dict[str, np.ndarray], rows: bool) -> bytes:
    """The body of an answer, as bytes.

    Args:
        answers: array of each output, the batch first.
        rows: as the request came.
    """
    values = {key: _plain(array, key) for key, array in answers.items()}
    single = next(iter(values.values())) if len(values) == 1 else None
    if not rows:
        return json.dumps({"outputs": single or values}).encode()
    columns = zip(*values.values(), strict=True)
    turned = single or [dict(zip(values, row, strict=True)) for row in columns]
    return json.dumps({"predictions": turned}).encode()


def _plain(array, key):
    if array.dtype == np.float16:
        # As few digits as bring the number back: half the bytes, and less work for both sides.
        array = np.float64(array)
        array = np.where(np.abs(array) >= 1, np.round(array, 4), np.round(array, 8))
    if array.dtype != object:
        return array.tolist()
    if key.endswith("_bytes"):
        return [{"b64": base64.b64encode(data).decode()} for data in array]
    return [data.decode(errors="replace") for data in array]


def error(text: object) -> bytes:
    """The body that tells of an error."""
    return json.dumps({"error": " ".join(str(text).split())}).encode()
