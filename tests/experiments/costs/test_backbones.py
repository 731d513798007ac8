"""Costs of backbones: frames from records, networks in turn, the table and errors."""

import cv2
import numpy as np
import pytest

from experiments.costs import backbones
from experiments.exports import litert
from flowseg.data import records
from flowseg.errors import ArgumentError
from flowseg.media.frames import read_image
from tests.conftest import run_command


def test_frames_from_records(kitti_folder, kitti_records):
    shards = records.match_files(kitti_records / "train-*")
    frames = backbones.read_frames(shards, 64, 96, 3)
    assert frames.shape == (3, 64, 96, 3) and frames.dtype == np.float32
    files = kitti_folder.glob("*/training/image_2/*_10.png")
    expected = [cv2.resize(read_image(f), (96, 64), interpolation=cv2.INTER_AREA) for f in files]
    assert all(any((frame == x).all() for x in expected) for frame in frames)
    with pytest.raises(ArgumentError, match="calibrate and judge need 99") as error:
        backbones.read_frames(shards, 64, 96, 99)
    assert "--calibrate and --judge need 99" in error.value.with_flags()


def test_ratios_are_within_a_round(monkeypatch):
    calls = []

    def measured(model, calibration, judging):
        calls.append((model, len(calibration), len(judging)))
        return {"params/whole": len(calls)}, {"ms/encoder": b"file of " + model.encode()}

    def timed(files, frame, threads, rounds):
        assert list(files.values()) == [b"file of A", b"file of B"] and (threads, rounds) == (1, 2)
        return dict(zip(files, ([100, 300], [200, 900]), strict=True))

    monkeypatch.setattr(backbones, "cost", measured)
    monkeypatch.setattr(litert, "latencies", timed)
    networks = {"a": ("A", "random"), "b": ("B", "imagenet")}
    frames = np.zeros((5, 16, 24, 3), np.float32)
    results = backbones.compare(networks, frames, calibrate=2, threads=1, rounds=2)
    assert calls == [("A", 2, 3), ("B", 2, 3)]
    assert results["b"]["weights"] == "imagenet"
    assert results["a"]["ms/encoder"] == pytest.approx(200)
    assert results["b"]["ms/encoder"] == pytest.approx(550)
    assert results["b"]["ratio/ms/encoder"] == pytest.approx((2 + 3) / 2)


def test_table(monkeypatch):
    monkeypatch.setattr(backbones, "_ROWS", (("ms/x", "time", ".1f"), ("w", "weights", "")))
    first = {"ms/x": 4.0, "ratio/ms/x": 1.0, "w": "random"}
    text = backbones.table(
        {"one": first, "other": {"ms/x": 2.0, "ratio/ms/x": 0.5, "w": "imagenet"}}
    )
    assert text.splitlines() == [
        "            one       other",
        "time        4.0  2.0 (0.50)",
        "weights  random    imagenet",
    ]


def test_command_rejects_invalid_size(kitti_records):
    command = ("experiments.costs.backbones", "--records", kitti_records / "train-*")
    error = run_command(*command, "--height", 100, ok=False).stderr
    assert "(100, 416) are not multiples of 32" in error
