"""Invalid request bodies that a server must reject: over 200 kinds, always the same."""

import json

import numpy as np

# Values that are invalid for every input of every signature, whatever its type and shape.
VALUES = {
    "null": None,
    "a boolean": True,
    "text": "text",
    "a number": 7,
    "no base64": {"b64": "!"},
    "base64 of nothing known": {"b64": "bm90aGluZw=="},
    "an object": {"a": 1},
    "an empty list": [],
    "lists of nothing": [[[[]]]],
    "too deep": [[[[[[1]]]]]],
    "mixed": [1, "a"],
    "unequal rows": [[1], [1, 2]],
    "too large a number": 10**30,
    "four channels": [[[[0, 0, 0, 0]]]],
}
NAMES = ("", "x", "predict", "SERVING_DEFAULT", "serving_default ", 1, None, [], {}, True)


def bad_bodies(signatures):
    """Yield (kind, bytes) for a server with these signatures: {name: (its inputs)}."""
    for name, inputs in sorted(signatures.items()):
        first, *others = sorted(inputs)
        for kind, value in VALUES.items():
            row = {first: value, **dict.fromkeys(others, value)}
            for form, rows in (("instances", [row]), ("inputs", row)):
                body = {"signature_name": name, form: rows}
                yield f"{name}, {form}: {kind}", json.dumps(body).encode()
        for kind, row in (
            ("none", {}),
            ("another", {**dict.fromkeys(inputs, 0), "other": 0}),
            ("one too few", dict.fromkeys(others, 0)),
            ("no object", 3),
        ):
            body = {"signature_name": name, "instances": [row]}
            yield f"{name}: inputs: {kind}", json.dumps(body).encode()
    pair = np.zeros((1, 4, 4, 3), int).tolist()
    good = {"signature_name": "predict_labels", "inputs": {"image1": pair, "image2": pair}}
    for name in NAMES:
        yield f"signature_name {name!r}", json.dumps({**good, "signature_name": name}).encode()
    for kind, change in (
        ("both forms", {"instances": [{}]}),
        ("neither form", {"inputs": None}),
        ("other sizes", {"inputs": {"image1": pair, "image2": [[[[0, 0, 0]]]]}}),
        ("other batches", {"inputs": {"image1": pair, "image2": pair * 2}}),
        ("negative", {"inputs": {"image1": pair, "image2": [[[[-1, 0, 0]]]]}}),
        ("256", {"inputs": {"image1": pair, "image2": [[[[256, 0, 0]]]]}}),
        ("fractions", {"inputs": {"image1": pair, "image2": [[[[0.5, 0, 0]]]]}}),
        ("not a number", {"inputs": {"image1": pair, "image2": [[[[float("nan"), 0, 0]]]]}}),
        ("many rows of nothing", {"inputs": {"image1": [[]] * 10000, "image2": [[]] * 10000}}),
    ):
        yield kind, json.dumps({**good, **change}).encode()
    complete = json.dumps(good).encode()
    for end in range(0, len(complete), len(complete) // 20):
        yield f"cut at {end}", complete[:end]
    yield "an empty row", json.dumps({"instances": []}).encode()
    yield "rows that are no list", json.dumps({"instances": {"a": 1}}).encode()
    yield "a list", b"[]"
    yield "null", b"null"
    yield "text", b'"text"'
    yield "a form", b"image1=1&image2=2"
    yield "not UTF-8", b'{"signature_name": "\xff\xfe"}'
    yield "UTF-16 cut", complete.decode().encode("utf-16")[:-1]
    yield "zeros", bytes(1000)
    yield "deep lists", b"[" * 100_000
    yield "deep objects", b'{"a":' * 50_000
    yield "a long number", b'{"inputs": ' + b"9" * 100_000 + b"}"
    yield "a huge exponent", b'{"inputs": 1e999999999}'
