"""Benchmark of export formats: rows, times, sizes, profile, ratios and errors."""

import json
import re

import numpy as np
import pytest

import flowseg
from data_prep import kitti
from experiments.exports import (
    benchmark,
    benchmark_row,
    benchmark_table,
    benchmark_turns,
    litert,
    operator_profile,
)
from flowseg import files
from tests.conftest import run_command
from tests.support import markdown

FLOWSEG_ROWS = [name for name in benchmark_table.ROWS if name not in benchmark_table.PEERS]
FLOAT_ROWS = [name for name in FLOWSEG_ROWS if name != "int8"]


@pytest.fixture(scope="module")
def measured(trained_run, tmp_path_factory):
    """(text, JSON) of FlowSeg's rows except int8, which needs a real encoder."""
    flags = ("--run_dir", trained_run, "--profile", "--rows", ",".join(FLOAT_ROWS), "--rounds", 2)
    return _measure(*flags, output=tmp_path_factory.mktemp("out") / "benchmark.json")


def _measure(*flags, output):
    settings = ("--sizes", "64x96", "--threads", 2, "--output", output)
    done = run_command("experiments.exports.benchmark", *flags, *settings)
    return done.stdout, json.loads(output.read_text())


def _check_rows(text, results, names):
    rows = markdown.rows(text)
    assert len(rows) == 1 + len(names)
    assert {len(row) for row in rows} == {len(rows[0])}
    for name, cells in zip(names, rows[1:], strict=True):
        place = f"64x96/2/{name}/"
        values = {key.removeprefix(place): x for key, x in results.items() if key.startswith(place)}
        assert cells[:2] == [benchmark_table.ROWS[name], "2"]
        assert cells[2:4] == [f"{values['pair']:.1f}", f"{values['pair_p90']:.1f}"]
        assert (
            0 < values["pair"] <= values["pair_p90"]
            and values["cpu"] > 0
            and values["stream_ratio"] > 0
        )
        # A streamed frame consists of its two parts.
        assert values["stream"] >= max(values["encode"], values["decode"])
        assert 1 < values["stream_allowed"] < 2


def test_every_row_is_reported(measured):
    _check_rows(*measured, FLOAT_ROWS)


@pytest.mark.parametrize("frames", ["synthetic", pytest.param("real", marks=pytest.mark.long)])
def test_int8_of_the_pretrained_network(frames, request, tmp_path):
    if frames == "synthetic":
        records = request.getfixturevalue("kitti_records")
    else:
        records = tmp_path / "records"
        kitti.convert([request.getfixturevalue("samples") / "kitti"], records, val_fraction=0)
    names = ["int8"] if frames == "synthetic" else ["none", "int8"]
    flags = ("--weights", "pretrained", "--rows", ",".join(names), "--rounds", 1, "--profile")
    ranges = ("--calibration", records / "train-*")
    text, results = _measure(*flags, *ranges, output=tmp_path / "results.json")
    _check_rows(text, results, names)
    floats = 4 * flowseg.load("pretrained").model.count_params()
    assert results["64x96/2/int8/bytes"] < 0.5 * floats
    # The row loads no TensorFlow; the parent process, which has loaded it, is not counted.
    assert 30 < results["64x96/2/int8/peak_mb"] < 400
    _check_profile(text, "TFLite int8", "int8", "encoder")
    if "none" in names:
        _check_profile(text, "TFLite float32", "float32", "encoder")


def test_sizes_and_memory(measured):
    _, results = measured
    size = {name: results[f"64x96/2/{name}/bytes"] for name in FLOAT_ROWS}
    assert size["none"] > 1.7 * size["float16"] > 1.7 * size["dynamic"]
    assert size["saved_model"] > size["none"]
    peak = {name: results[f"64x96/2/{name}/peak_mb"] for name in FLOAT_ROWS}
    assert 30 < peak["none"] < 400 < peak["keras"]


def _check_profile(text, title, kind, layers):
    part = text.split(f"\n{title}, 64x96\n")[1].split("\n| ")[0]
    assert re.search(rf"^CONV_2D {kind} +\d+ +operators", part, re.M)
    assert re.search(rf"^{layers} +\d+ +operators", part, re.M)
    for block in part.strip().split("\n\n")[1:3]:
        shares = [float(x) for x in re.findall(r"([\d.]+)%", block)]
        assert sum(shares) == pytest.approx(100, abs=2)


def test_profile(measured):
    # The small encoder is not among the parts that cost most; which layers are depends on the run.
    _check_profile(measured[0], "TFLite float32", "float32", r"(flow|seg)_\d\w*")


def test_operators_run_alone_reproduce_the_network():
    import keras

    image = keras.Input((64, 96, 3))
    x = keras.layers.Conv2D(32, 3, padding="same", name="large")(image)
    y = keras.layers.Conv2D(32, 3, padding="same")(x) + x
    content = litert.convert(keras.Model(image, {"out": y}), 64, 96)
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    subgraph = model.subgraphs[0]
    frame = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    values = {int(subgraph.inputs[0]): frame}
    # Running each operator alone, in order, gives the output of the complete file.
    for operator in subgraph.operators:
        single, inputs = operator_profile.one_operator(model, subgraph, operator)
        ready = litert.interpreter(single)
        for entry, index in zip(ready.get_input_details(), inputs, strict=True):
            ready.set_tensor(entry["index"], values[index])
        ready.invoke()
        for entry, index in zip(ready.get_output_details(), operator.outputs, strict=True):
            values[int(index)] = ready.get_tensor(entry["index"])
    run = litert.interpreter(content).get_signature_runner("serving_default")
    expected = run(image=frame)["out"]
    np.testing.assert_allclose(values[int(subgraph.outputs[0])], expected, rtol=1e-4, atol=1e-3)


def test_ratios_are_within_a_round():
    slow, fast = [10, 11, 12], [1, 2, 3]
    turns = [{"pair": slow, "stream": fast, "encode": [1], "decode": [2]}] * 3
    medians = {key: np.array([np.median(each[key]) for each in turns]) for key in turns[0]}
    statistics = benchmark_table.summary(turns, medians)
    assert (
        statistics["pair"] == 11
        and statistics["pair_p90"] == 12
        and statistics["stream_ratio"] == 5.5
    )
    assert statistics["stream_allowed"] == pytest.approx(4 / 3)


def test_turn_skips_the_first_run():
    seconds = iter([9, 1, 2, 3])
    times = benchmark_row.turn([lambda: ({"pair": next(seconds)}, None)])
    assert times == {"pair": [1000, 2000, 3000]}


@pytest.mark.parametrize(
    "predictions, problem",
    [
        ((np.zeros((4, 6), np.uint8), np.zeros((4, 6, 2))), None),
        ((np.zeros((4, 6), np.int64), np.zeros((4, 6, 2))), "int64"),
        ((np.zeros((4, 6), np.uint8), np.zeros((6, 4, 2))), r"\(6, 4, 2\)"),
        ((np.zeros((4, 6), np.uint8), np.full((4, 6, 2), np.nan)), "NaN or Inf"),
    ],
)
def test_predictions_are_checked(predictions, problem):
    if problem is None:
        benchmark_row.check(predictions, (4, 6))
    else:
        with pytest.raises(ValueError, match=problem):
            benchmark_row.check(predictions, (4, 6))


@pytest.mark.parametrize("text", ["60x96", "64", "0x64", "64x-96", "x"])
def test_invalid_sizes(text):
    assert benchmark.parse_sizes(["64x96"]) == [(64, 96)]
    with pytest.raises(ValueError, match="must be HEIGHTxWIDTH, multiples of 32"):
        benchmark.parse_sizes(["64x96", text])


def test_invalid_flags(tmp_path):
    command = ("experiments.exports.benchmark", "--weights", "pretrained")
    for flags, message in (
        (("--rows", "onnx"), "'onnx'"),
        (("--rows", "int8"), "--calibration GLOB"),
        (("--rows", "deeplab_raft", "--sizes", "64x96"), "RAFT needs sides of at least 128"),
        (("--rows", "int8", "--calibration", tmp_path / "no-*"), "no-*"),
    ):
        assert message in run_command(*command, *flags, ok=False).stderr
    error = run_command(command[0], "--rows", "keras", ok=False).stderr
    assert "exactly one of --run_dir, --backbone, --weights pretrained" in error


def test_failing_row_reports_the_cause(tmp_path):
    frames = tmp_path / "frames.npy"
    np.save(frames, np.zeros((2, 64, 96, 3), np.uint8))
    files.write(tmp_path / "x.tflite", b"no file")
    with pytest.raises(ValueError, match="TFLite float32: .*x.tflite: LiteRT cannot run it"):
        with benchmark_turns.row("TFLite float32", "tflite", tmp_path / "x.tflite", 1, frames):
            pass


@pytest.mark.torch
def test_peers(tmp_path):
    output = tmp_path / "benchmark.json"
    done = run_command(
        "experiments.exports.benchmark",
        "--backbone",
        "efficientnet_lite0",
        "--threads",
        2,
        "--rows",
        "none,deeplab_raft,lraspp_dis",
        "--sizes",
        "128x160",
        "--rounds",
        2,
        "--output",
        output,
    )
    results = {
        key.removeprefix("128x160/2/"): x for key, x in json.loads(output.read_text()).items()
    }
    for peer, title in benchmark_table.PEERS.items():
        assert [title, "2"] in [row[:2] for row in markdown.rows(done.stdout)]
        assert results[f"{peer}/pair"] >= max(results[f"{peer}/seg"], results[f"{peer}/flow"])
        assert results[f"{peer}/pair_faster_than/{peer}"] == 1
        assert results[f"none/stream_faster_than/{peer}"] > 0
        assert f"{peer}/stream" not in results
    # DeepLabV3 has 42 million weights and RAFT-small one million; LRASPP has 3.2 million.
    assert results["deeplab_raft/bytes"] == pytest.approx(4 * 41e6, rel=0.1)
    assert results["lraspp_dis/bytes"] == pytest.approx(4 * 3.2e6, rel=0.1)
