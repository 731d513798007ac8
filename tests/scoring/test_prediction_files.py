"""Prediction files: round trips, filling of unknown flow, and messages for bad files."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowseg import files
from flowseg.data import flow_io
from flowseg.data.labels import CAMVID, CITYSCAPES, label_id_table
from flowseg.scoring import prediction_files
from tests.support.png_writer import RGB, palette_png, stored_png

SIZE = (24, 40)


def pair(seed=0):
    """Train ids and flow of one frame; flow in steps of 1/64 px, as in the files."""
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 20, (*SIZE, 2))
    return rng.integers(0, 19, SIZE).astype(np.uint8), np.float32(np.round(flow * 64) / 64)


@pytest.mark.parametrize("layout", ["predict", "submission", "flo"])
@pytest.mark.parametrize("name", ["000007_10", "video/0003"])
def test_round_trip(tmp_path, layout, name):
    seg, flow = pair()
    ids = "label" if layout == "submission" else "train"
    if layout == "submission":
        prediction_files.write_submission(tmp_path, name, seg, flow, CITYSCAPES)
        written_ids = cv2.imread(str(tmp_path / f"semantic/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert written_ids.dtype == np.uint8 and set(np.unique(written_ids)) <= set(range(7, 34))
        raw = cv2.imread(str(tmp_path / f"flow/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert raw.dtype == np.uint16 and raw.shape == (*SIZE, 3)
    else:
        prediction_files.write_predictions(tmp_path / name, seg, flow, CITYSCAPES)
    if layout == "flo":
        (tmp_path / name / "flow.png").unlink()
        (tmp_path / name / "flow.flo").write_bytes(flow_io.encode_flo(flow))
    predictions = prediction_files.open_predictions(tmp_path, CITYSCAPES, ids)
    assert {kind: set(files_of_kind) for kind, files_of_kind in predictions.files.items()} == {
        "seg": {name},
        "flow": {name},
    }
    np.testing.assert_array_equal(predictions.read("seg", name, SIZE), seg)
    np.testing.assert_array_equal(predictions.read("flow", name, SIZE), flow)


def test_flow_only(tmp_path):
    seg, flow = pair()
    prediction_files.write_submission(tmp_path, "a", seg, flow, CITYSCAPES)
    (tmp_path / "semantic/a.png").unlink()
    predictions = prediction_files.open_predictions(tmp_path, CITYSCAPES)
    assert predictions.read("seg", "a", SIZE) is None
    prediction_files.check_complete(predictions, {"seg": ["a", "b"], "flow": ["a"]})


def test_255_is_no_prediction(tmp_path):
    seg, flow = pair()
    seg[3] = 255
    prediction_files.write_predictions(tmp_path / "a", seg, flow, CITYSCAPES)
    read = prediction_files.open_predictions(tmp_path, CITYSCAPES).read("seg", "a", SIZE)
    np.testing.assert_array_equal(read, seg)
    # A void label id means no prediction, too.
    cv2.imwrite(str(tmp_path / "a/seg.png"), np.full(SIZE, 4, np.uint8))
    assert (
        prediction_files.open_predictions(tmp_path, CITYSCAPES, "label").read("seg", "a", SIZE)
        == 255
    ).all()


@pytest.mark.parametrize("ids", ["train", "label"])
def test_other_kinds_of_masks(tmp_path, ids):
    """Predictions as colours, as a palette image, and with 4 bits."""
    seg = np.random.default_rng(4).integers(0, 15, SIZE)
    written = np.arange(256) if ids == "train" else label_id_table(CITYSCAPES).astype(int)
    colours = np.array(CITYSCAPES.palette)
    kinds = [
        stored_png(colours[seg], 8, RGB),
        palette_png(written[seg], np.random.default_rng(5).integers(0, 255, (256, 3))),
        stored_png(written[seg], 16),
    ]
    if ids == "train":
        kinds.append(stored_png(seg, 4))
    for kind in kinds:
        files.write(tmp_path / "a/seg.png", kind)
        predictions = prediction_files.open_predictions(tmp_path, CITYSCAPES, ids)
        assert (predictions.read("seg", "a", SIZE) == seg).all()


def filled_by_loops(flow):
    """The loops of KITTI's development kit, pixel by pixel."""
    flow = flow.astype(np.float64)
    height, width = flow.shape[:2]
    for v in range(height):
        known = [u for u in range(width) if flow[v, u, 2]]
        for a, b in zip(known, known[1:], strict=False):
            for u in range(a + 1, b):
                flow[v, u] = [*np.minimum(flow[v, a, :2], flow[v, b, :2]), 1]
        for u in range(width if known else 0):
            if u < known[0] or u > known[-1]:
                flow[v, u] = flow[v, known[0] if u < known[0] else known[-1]]
    for u in range(width):
        known = [v for v in range(height) if flow[v, u, 2]]
        for v in range(height if known else 0):
            if v < known[0] or v > known[-1]:
                flow[v, u] = flow[known[0] if v < known[0] else known[-1], u]
    return flow[..., :2]


@pytest.mark.parametrize("share", [0.9, 0.1, 0.02, 0])
def test_fill_holes_equals_kitti_kit(share):
    rng = np.random.default_rng(3)
    flow = np.float32(rng.normal(0, 9, (30, 20, 3)))
    flow[..., 2] = rng.random((30, 20)) < share
    flow *= flow[..., 2:] > 0
    filled = flow_io.fill_holes(flow)
    np.testing.assert_array_equal(filled, np.float32(filled_by_loops(flow)))
    known = flow[..., 2] > 0
    np.testing.assert_array_equal(filled[known], flow[known][:, :2])


def test_fill_holes_takes_smaller_components():
    flow = np.zeros((1, 4, 3), np.float32)
    flow[0, 0], flow[0, 3] = (5, -2, 1), (3, 7, 1)
    assert flow_io.fill_holes(flow)[0].tolist() == [[5, -2], [3, -2], [3, -2], [3, 7]]


def damage(folder, fault):
    """Damage the written prediction of frame "a"; return the expected message."""
    seg, flow = folder / "a/seg.png", folder / "a/flow.png"
    undamaged = Path(seg).read_bytes(), Path(flow).read_bytes()
    if fault == "size":
        cv2.imwrite(str(seg), np.zeros((5, 6), np.uint8))
        return "seg.png: is 6x5 px, but frame a is 40x24"
    if fault == "class":
        cv2.imwrite(str(seg), np.full(SIZE, 26, np.uint8))
        return "seg.png: holds 26, but cityscapes has the train ids 0 to 18 .*[( ]seg_ids label"
    if fault == "colour":
        cv2.imwrite(str(seg), np.full((*SIZE, 3), (3, 2, 1), np.uint8))
        return r"seg.png: the colour \(1, 2, 3\), at 960 pixels, is not in the palette"
    if fault == "cut seg":
        seg.write_bytes(undamaged[0][:-20])
        return "seg.png: truncated PNG"
    if fault == "8-bit flow":
        cv2.imwrite(str(flow), np.zeros((*SIZE, 3), np.uint8))
        return "flow.png: a KITTI flow PNG has 16 bits"
    if fault == "nan":
        vectors = np.ones((*SIZE, 2), np.float32)
        # 1e10 means unknown flow, which is filled; NaN and Inf are errors.
        vectors[0, 0], vectors[3, 4, 1], vectors[5, 6, 0] = 1e10, np.nan, np.inf
        flow.unlink()
        flow.with_suffix(".flo").write_bytes(flow_io.encode_flo(vectors))
        return "flow.flo: is NaN or Inf at 2 of 960 pixels"
    flow.write_bytes(undamaged[1][:-20])
    return "flow.png: truncated PNG"


@pytest.mark.parametrize(
    "fault", ["size", "class", "colour", "cut seg", "8-bit flow", "cut flow", "nan"]
)
def test_bad_files(tmp_path, fault):
    prediction_files.write_predictions(tmp_path / "a", *pair(), CITYSCAPES)
    message = damage(tmp_path, fault)
    predictions = prediction_files.open_predictions(tmp_path, CITYSCAPES)
    with pytest.raises(ValueError, match=message):
        for kind in ("seg", "flow"):
            predictions.read(kind, "a", SIZE)


def test_unknown_label_ids(tmp_path):
    prediction_files.write_predictions(tmp_path / "a", *pair(), CITYSCAPES, "label")
    predictions = prediction_files.open_predictions(tmp_path, CITYSCAPES, "label")
    assert predictions.read("seg", "a", SIZE).shape == SIZE
    cv2.imwrite(str(tmp_path / "a/seg.png"), np.full(SIZE, 200, np.uint8))
    with pytest.raises(ValueError, match="seg.png: holds 200, but cityscapes has no such label id"):
        predictions.read("seg", "a", SIZE)


def test_missing_predictions(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        prediction_files.open_predictions(tmp_path / "nowhere", CITYSCAPES)
    with pytest.raises(ValueError, match="has no predictions: expected <frame id>/seg.png"):
        prediction_files.open_predictions(tmp_path, CITYSCAPES)
    prediction_files.write_predictions(tmp_path / "a", *pair(), CAMVID)
    predictions = prediction_files.open_predictions(tmp_path, CAMVID)
    with pytest.raises(ValueError, match="no seg for 4 of 5 frames .*: b, c, d, ..."):
        prediction_files.check_complete(predictions, {"seg": list("abcde"), "flow": []})
    with pytest.raises(ValueError, match="no flow for 1 of 2 frames .*: b$"):
        prediction_files.check_complete(predictions, {"seg": ["a"], "flow": ["a", "b"]})
    os.remove(tmp_path / "a/flow.png")
    with pytest.raises(ValueError, match="has no flow for frame b"):
        prediction_files.PredictionFolder(tmp_path, {"flow": {"a": 1}}, CAMVID, "train").read(
            "flow", "b", SIZE
        )
