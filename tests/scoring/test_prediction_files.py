"""Answers as files: what is written is read back, holes are filled, bad files are told."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowseg.data import flow_io
from flowseg.data.labels import CAMVID, CITYSCAPES
from flowseg.scoring import prediction_files

SIZE = (24, 40)


def pair(seed=0):
    """Train ids and flow of one frame, to a 64th of a pixel, as a file holds it."""
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 20, (*SIZE, 2))
    return rng.integers(0, 19, SIZE).astype(np.uint8), np.float32(np.round(flow * 64) / 64)


@pytest.mark.parametrize("form", ["predict", "submission", "flo"])
@pytest.mark.parametrize("name", ["000007_10", "video/0003"])
def test_written_and_read_back(tmp_path, form, name):
    seg, flow = pair()
    ids = "label" if form == "submission" else "train"
    if form == "submission":
        prediction_files.write_submission(tmp_path, name, seg, flow, CITYSCAPES)
        told = cv2.imread(str(tmp_path / f"semantic/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert told.dtype == np.uint8 and set(np.unique(told)) <= set(range(7, 34))
        raw = cv2.imread(str(tmp_path / f"flow/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert raw.dtype == np.uint16 and raw.shape == (*SIZE, 3)
    else:
        prediction_files.write_answers(tmp_path / name, seg, flow, CITYSCAPES)
    if form == "flo":
        (tmp_path / name / "flow.png").unlink()
        (tmp_path / name / "flow.flo").write_bytes(flow_io.encode_flo(flow))
    written = prediction_files.find_answers(tmp_path, CITYSCAPES, ids)
    assert {kind: set(found) for kind, found in written.found.items()} == {
        "seg": {name},
        "flow": {name},
    }
    np.testing.assert_array_equal(written.read("seg", name, SIZE), seg)
    np.testing.assert_array_equal(written.read("flow", name, SIZE), flow)


def test_one_kind_alone(tmp_path):
    seg, flow = pair()
    prediction_files.write_submission(tmp_path, "a", seg, flow, CITYSCAPES)
    (tmp_path / "semantic/a.png").unlink()
    written = prediction_files.find_answers(tmp_path, CITYSCAPES)
    assert written.read("seg", "a", SIZE) is None
    prediction_files.check_all_there(written, {"seg": ["a", "b"], "flow": ["a"]})


def test_255_says_nothing(tmp_path):
    seg, flow = pair()
    seg[3] = 255
    prediction_files.write_answers(tmp_path / "a", seg, flow, CITYSCAPES)
    read = prediction_files.find_answers(tmp_path, CITYSCAPES).read("seg", "a", SIZE)
    np.testing.assert_array_equal(read, seg)
    # Void of the owner's ids says nothing, too.
    cv2.imwrite(str(tmp_path / "a/seg.png"), np.full(SIZE, 4, np.uint8))
    assert (
        prediction_files.find_answers(tmp_path, CITYSCAPES, "label").read("seg", "a", SIZE) == 255
    ).all()


def filled_by_hand(flow):
    """The kit's loops, pixel by pixel."""
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
def test_holes_are_filled_as_kittis_kit_fills_them(share):
    rng = np.random.default_rng(3)
    flow = np.float32(rng.normal(0, 9, (30, 20, 3)))
    flow[..., 2] = rng.random((30, 20)) < share
    flow *= flow[..., 2:] > 0
    filled = flow_io.fill_holes(flow)
    np.testing.assert_array_equal(filled, np.float32(filled_by_hand(flow)))
    known = flow[..., 2] > 0
    np.testing.assert_array_equal(filled[known], flow[known][:, :2])


def test_a_gap_takes_the_smaller_of_each_component():
    flow = np.zeros((1, 4, 3), np.float32)
    flow[0, 0], flow[0, 3] = (5, -2, 1), (3, 7, 1)
    assert flow_io.fill_holes(flow)[0].tolist() == [[5, -2], [3, -2], [3, -2], [3, 7]]


def spoil(folder, what):
    """Make the written answer of frame "a" a bad one; the message that is to come."""
    seg, flow = folder / "a/seg.png", folder / "a/flow.png"
    whole = Path(seg).read_bytes(), Path(flow).read_bytes()
    if what == "size":
        cv2.imwrite(str(seg), np.zeros((5, 6), np.uint8))
        return "seg.png: is 6x5 px, but frame a is 40x24"
    if what == "class":
        cv2.imwrite(str(seg), np.full(SIZE, 26, np.uint8))
        return "seg.png: holds 26, but cityscapes has the train ids 0 to 18 .*[( ]seg_ids label"
    if what == "colour":
        cv2.imwrite(str(seg), np.zeros((*SIZE, 3), np.uint8))
        return "seg.png: not a PNG of 8 bits and one channel"
    if what == "cut seg":
        seg.write_bytes(whole[0][:-20])
        return "seg.png: truncated PNG"
    if what == "8-bit flow":
        cv2.imwrite(str(flow), np.zeros((*SIZE, 3), np.uint8))
        return "flow.png: a KITTI flow PNG has 16 bits"
    if what == "no number":
        vectors = np.ones((*SIZE, 2), np.float32)
        # Unknown flow is a hole, to be filled; this is none.
        vectors[0, 0], vectors[3, 4, 1], vectors[5, 6, 0] = 1e10, np.nan, np.inf
        flow.unlink()
        flow.with_suffix(".flo").write_bytes(flow_io.encode_flo(vectors))
        return "flow.flo: is no number at 2 of 960 pixels"
    flow.write_bytes(whole[1][:-20])
    return "flow.png: truncated PNG"


@pytest.mark.parametrize(
    "what", ["size", "class", "colour", "cut seg", "8-bit flow", "cut flow", "no number"]
)
def test_bad_answers_are_told(tmp_path, what):
    prediction_files.write_answers(tmp_path / "a", *pair(), CITYSCAPES)
    told = spoil(tmp_path, what)
    written = prediction_files.find_answers(tmp_path, CITYSCAPES)
    with pytest.raises(ValueError, match=told):
        for kind in ("seg", "flow"):
            written.read(kind, "a", SIZE)


def test_foreign_label_ids_are_told(tmp_path):
    prediction_files.write_answers(tmp_path / "a", *pair(), CITYSCAPES, "label")
    written = prediction_files.find_answers(tmp_path, CITYSCAPES, "label")
    assert written.read("seg", "a", SIZE).shape == SIZE
    cv2.imwrite(str(tmp_path / "a/seg.png"), np.full(SIZE, 200, np.uint8))
    with pytest.raises(ValueError, match="seg.png: holds 200, but cityscapes numbers no class so"):
        written.read("seg", "a", SIZE)


def test_missing_answers_are_told(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        prediction_files.find_answers(tmp_path / "nowhere", CITYSCAPES)
    with pytest.raises(ValueError, match="holds no answers: <frame id>/seg.png"):
        prediction_files.find_answers(tmp_path, CITYSCAPES)
    prediction_files.write_answers(tmp_path / "a", *pair(), CAMVID)
    written = prediction_files.find_answers(tmp_path, CAMVID)
    with pytest.raises(ValueError, match="no seg for 4 of 5 frames .*: b, c, d, ..."):
        prediction_files.check_all_there(written, {"seg": list("abcde"), "flow": []})
    with pytest.raises(ValueError, match="no flow for 1 of 2 frames .*: b$"):
        prediction_files.check_all_there(written, {"seg": ["a"], "flow": ["a", "b"]})
    os.remove(tmp_path / "a/flow.png")
    with pytest.raises(ValueError, match="holds no flow of frame b"):
        prediction_files.Written(tmp_path, {"flow": {"a": 1}}, CAMVID, "train").read(
            "flow", "b", SIZE
        )
