"""The table of image files in docs/files.md: what each door does with each kind of file."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_prep.conversion.frames import Frame, read_frame
from export.run_tflite import resized
from export.serving import rest
from flowseg.data import graph_images, images
from flowseg.media.frames import open_frames
from flowseg.media.pairs import read_pair
from tests.support.image_files import KINDS
from tests.support.made_files import save

DOCUMENT = Path(__file__).parents[2] / "docs/files.md"
SPECS = {"predict_png": {f"image{n}_bytes": (object, None) for n in (1, 2)}}
DEPTH = 12  # of the 16-bit files in `KINDS`
decode_in_graph = tf.function(graph_images.decode, input_signature=[tf.TensorSpec((), tf.string)])


def table():
    """Return {row: {column: cell}} of the first table of the page."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head, rows = rows[0], rows[2 : 2 + len(KINDS)]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def predict(path):
    return read_pair(path, path)[0]


def data_prep(path):
    fields, _ = read_frame(Frame("a", {"image1": path}, bit_depth=DEPTH))
    # What the record's decoder returns is compared in tests of the conversion.
    return images.decode(fields["image1"], "record"), fields["image1"] == path.read_bytes()


def saved_model(path):
    try:
        return decode_in_graph(path.read_bytes()).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(error.message) from error


def server(path):
    data = {"b64": base64.b64encode(path.read_bytes()).decode()}
    inputs = {key: data for key in SPECS["predict_png"]}
    body = json.dumps({"signature_name": "predict_png", "inputs": inputs}).encode()
    request = rest.read(body, SPECS, 1_000_000)
    try:
        return decode_in_graph(request.inputs["image1_bytes"][0]).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(error.message) from error


def tflite(path):
    save(path.parent / f"second{path.suffix}", path.read_bytes())
    frames, _, _ = open_frames(path.parent)
    first = next(frames)
    (unchanged,) = resized([first], *first.image.shape[:2])
    return unchanged.image


DOORS = {
    "`predict`, `visualize`": predict,
    "`data_prep.*`": data_prep,
    "SavedModel `predict_png`": saved_model,
    "server": server,
    "`export.run_tflite`": tflite,
}


def test_table_lists_every_kind_and_door():
    assert list(table()) == list(KINDS)
    assert all(list(cells) == list(DOORS) for cells in table().values())


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_cell(tmp_path, kind, door):
    cell = table()[kind][door]
    for number, (suffix, data) in enumerate(KINDS[kind]):
        path = save(tmp_path / f"{number}/first{suffix}", data)
        if cell.startswith("refused"):
            with pytest.raises(ValueError):
                DOORS[door](path)
            continue
        result = DOORS[door](path)
        if door == "`data_prep.*`":
            result, unchanged = result
            assert unchanged == ("as PNG" not in cell), cell
        if cell == "not noticed":
            assert result.shape[2] == 3
            continue
        assert cell.startswith("yes"), cell
        stored = images.decode(data, path, DEPTH)
        np.testing.assert_array_equal(result, stored)
        assert ("16 bits" in kind) == ("bit depth" in cell)
