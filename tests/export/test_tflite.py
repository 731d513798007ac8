"""TFLite export: outputs equal Keras, and quantization losses match the parity report."""

import errno
import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.exports.litert import operators
from export import check, lite_convert, lite_file, parity, run_tflite, tflite
from flowseg import files, packaged, runs
from flowseg.data import decoding, records
from flowseg.media import frames
from tests.conftest import ROOT, run_command

# A size that needs padding, with an odd height.
HEIGHT, WIDTH = 61, 100


@pytest.fixture(scope="module")
def pretrained_run(trained_run, tmp_path_factory):
    """The run with the pretrained network, for int8: of an untrained network it is arbitrary."""
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    shutil.copytree(trained_run, folder)
    pretrained = runs.load_run(packaged.NETWORKS["pretrained"])
    assert pretrained.label_set == runs.load_run_labels(folder)
    runs.save_model(pretrained.model, folder / "best.keras")
    return folder


@pytest.fixture(scope="module")
def run(trained_run):
    return runs.load_run(trained_run)


@pytest.fixture(scope="module")
def pair(trained_run):
    return [np.uint8(x[0]) for x in check.sample_pair(trained_run, HEIGHT, WIDTH).values()]


@pytest.fixture(scope="module")
def folder(pretrained_run, run, kitti_records, tmp_path_factory):
    """Files of every format, int8 by the command; float32 and int8 are scored on the records."""
    folder = tmp_path_factory.mktemp("lite")
    shards = records.match_files(f"{kitti_records}/train-*")
    output = folder / "none.tflite"
    write = lite_convert.write_signatures

    def written(model, where, height, width):
        write(model, where, height, width)
        shutil.copytree(where, folder / "saved_model")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tflite, "write_signatures", written)
        tflite.export(run, output, HEIGHT, WIDTH, scoring=shards, bounds=(20, 2))
    for quantize in ("float16", "dynamic"):
        content = lite_convert.convert(str(folder / "saved_model"), quantize)
        (folder / f"{quantize}.raw").write_bytes(content)
        metadata = lite_file.read(output).metadata
        files.write(folder / f"{quantize}.tflite", lite_file.with_metadata(content, metadata))
    done = run_command(
        "export.tflite",
        "--run_dir",
        pretrained_run,
        "--output",
        folder / "int8.tflite",
        "--height",
        HEIGHT,
        "--width",
        WIDTH,
        "--quantize",
        "int8",
        "--calibration",
        kitti_records / "val-*",
        "--records",
        kitti_records / "train-*",
        # Loose limits: test_parity_report checks the losses.
        "--max_miou_drop",
        50,
        "--max_aepe_rise",
        50,
    )
    assert f"TFLite {HEIGHT}x{WIDTH} int8" in done.stdout and "4 frames" in done.stdout
    assert done.stderr == ""
    return folder


def read_scores(folder, quantize):
    return json.loads((folder / f"{quantize}.parity.json").read_text())


def test_float32_equals_keras(folder, run, pair):
    opened = lite_file.read(folder / "none.tflite")
    seg, flow = opened.predict(*pair)
    assert seg.shape == (HEIGHT, WIDTH) and seg.dtype == np.uint8 and flow.dtype == np.float32
    expected = parity.keras_predictor(run.model)(*pair)
    assert (seg == expected[0]).mean() >= 0.9999
    np.testing.assert_allclose(flow, expected[1], atol=1e-3)
    # Swapping the frames must change the flow: the names match the right inputs.
    assert np.abs(opened.predict(*pair[::-1])[1] - flow).max() > 0.05


@pytest.mark.parametrize("quantize", lite_convert.FORMATS)
def test_encode_and_decode_equal_predict(quantize, folder, pair):
    opened = lite_file.read(folder / f"{quantize}.tflite")
    seg, flow = opened.decode(*(opened.encode(image) for image in pair))
    expected = opened.predict(*pair)
    if quantize == "int8":  # The ranges are set per signature.
        scores = read_scores(folder, quantize)
        assert scores["stream/flow_difference"] < 2 * scores["file/flow_difference"]
        assert scores["stream/labels_equal"] > scores["file/labels_equal"] - 10
        return
    assert (seg == expected[0]).mean() >= 0.9999
    np.testing.assert_allclose(flow, expected[1], atol=1e-3)


def test_operators_file_size_and_number_formats(folder, run, pretrained_run):
    exported = {"int8": runs.load_run(pretrained_run).model}
    for quantize, least, most in (
        ("none", 0.98, 1.15),
        ("float16", 0.49, 0.65),
        ("dynamic", 0.24, 0.45),
        ("int8", 0.24, 0.5),
    ):
        content = (folder / f"{quantize}.tflite").read_bytes()
        floats = 4 * exported.get(quantize, run.model).count_params()
        assert least * floats < len(content) < most * floats, quantize
        used_operators = operators(content)
        assert not [op.name for op in used_operators if "Flex" in op.name or "CUSTOM" in op.name]
        # All convolutions are quantized or none, except the one that upsamples the flow.
        convolutions = Counter(op.formats for op in used_operators if op.name == "CONV_2D")
        if quantize == "int8":
            assert convolutions.pop(("int8",)) > 50
            assert convolutions == {("float32",): 1}
        assert set(convolutions) == {("float32",)}
        assert {op.formats for op in used_operators if op.name == "L2_NORMALIZATION"} == {
            ("float32",)
        }


def test_embedded_metadata(folder, run):
    with zipfile.ZipFile(folder / "int8.tflite") as archive:
        metadata = json.loads(archive.read("flowseg.json"))
        assert archive.read("labels.txt").decode().split("\n")[:-1] == list(run.label_set.names)
    assert (metadata["height"], metadata["width"], metadata["quantize"]) == (HEIGHT, WIDTH, "int8")
    assert metadata["label_set"]["palette"][0] == list(run.label_set.palette[0])
    assert "--steps=2" in metadata["training_flags"] and "pixels" in metadata["units"]["flow"]


def test_parity_report(folder, run, kitti_records):
    for quantize in ("none", "int8"):
        scores = read_scores(folder, quantize)
        for key in ("seg/miou", "flow/aepe", "flow/fl_all"):
            assert scores[f"saved_model/{key}"] == pytest.approx(scores[f"keras/{key}"], abs=1e-3)
            bound = 1e-3 if quantize == "none" else 20
            assert scores[f"file/{key}"] == pytest.approx(scores[f"keras/{key}"], abs=bound)
        size = (folder / f"{quantize}.tflite").stat().st_size
        assert scores["file/bytes"] == size and scores["file/latency_2"] > 0
    assert read_scores(folder, "none")["file/labels_equal"] >= 99.99
    assert read_scores(folder, "none")["file/flow_difference"] <= 1e-3
    assert 0 < read_scores(folder, "int8")["file/flow_difference"] < 10
    # The scores are those of evaluate, with predictions resized to the original size.
    shards = records.match_files(f"{kitti_records}/train-*")
    [first, *_] = decoding.evaluation_data(shards, run.label_set).as_numpy_iterator()
    assert first["seg"].shape != (HEIGHT, WIDTH)
    methods = {"keras": lambda *_: (small, np.zeros((HEIGHT, WIDTH, 2), np.float32))}
    small = np.zeros((HEIGHT, WIDTH), np.uint8)
    scores = parity.score(methods, shards, run.label_set, HEIGHT, WIDTH)
    truth = [f["flow"] for f in decoding.evaluation_data(shards, run.label_set).as_numpy_iterator()]
    speeds = np.concatenate([np.hypot(f[..., 0], f[..., 1])[f[..., 2] > 0] for f in truth])
    assert scores["keras/flow/aepe"] == pytest.approx(speeds.mean(), rel=1e-5)


def test_parity_table():
    scores = {"frames": 3, "file/latency_1": 20.4, "file/latency_2": 11.6}
    scores |= {"keras/flow/aepe": 1.0, "file/flow/aepe": 1.25, "file/labels_equal": 99.95}
    heading, keras_row, file_row, last = parity.table(scores, ("keras", "file")).splitlines()
    assert heading.split() == ["flow/aepe", "labels_equal"]
    assert keras_row.split() == ["keras", "1"]
    assert file_row.split() == ["file", "1.25", "99.95"]
    assert last == "3 frames; a pair takes 20 ms with 1, 12 ms with 2 threads"


def test_bounds():
    scores = {
        "stream/seg/miou": 50,
        "stream/flow/aepe": 1,
        "keras/seg/miou": 50,
        "file/seg/miou": 49.6,
        "keras/flow/aepe": 1,
        "file/flow/aepe": 1.05,
    }
    parity.check(scores, "f.tflite", 0.5, 0.1)
    with pytest.raises(
        ValueError, match=r"f.tflite: not written: its file loses 0.400 points of seg/miou"
    ):
        parity.check(scores, "f.tflite", 0.3, 0.1)
    with pytest.raises(
        ValueError, match=r"its file loses 0.050 px of flow/aepe, over the bound of 0.01"
    ):
        parity.check(scores, "f.tflite", 0.5, 0.01)
    with pytest.raises(ValueError, match="its stream loses 1.000 px"):
        parity.check(scores | {"stream/flow/aepe": 2}, "f.tflite", 0.5, 0.1)
    with pytest.raises(ValueError, match="loses nan px"):
        parity.check(scores | {"file/flow/aepe": np.nan}, "f.tflite", 0.5, 0.1)


def test_invalid_arguments(trained_run, run, kitti_records, tmp_path):
    command = ("export.tflite", "--run_dir", trained_run, "--height", 64, "--width", 64)
    output = ("--output", tmp_path / "f.tflite")
    error = run_command(*command, *output, "--quantize", "int8", ok=False).stderr
    assert "--calibration GLOB" in error
    (tmp_path / "f.tflite").write_bytes(b"mine")
    error = run_command(*command, *output, ok=False).stderr
    assert "exists already; --overwrite" in error
    assert (tmp_path / "f.tflite").read_bytes() == b"mine"
    error = run_command(*command, *output, "--records", tmp_path / "no-*", ok=False).stderr
    assert "no-*" in error


def test_file_that_loses_too_much_is_not_written(folder, run, kitti_records, tmp_path, monkeypatch):
    def write(model, where, height, width):
        shutil.copytree(folder / "saved_model", where, dirs_exist_ok=True)

    # Reuses the files of the fixture, since conversion takes long.
    monkeypatch.setattr(tflite, "write_signatures", write)
    monkeypatch.setattr(tflite, "convert", lambda *_: (folder / "float16.raw").read_bytes())
    monkeypatch.setattr(parity, "latencies", lambda *_: {"file/latency_1": 1, "file/latency_2": 1})
    options = {"scoring": records.match_files(f"{kitti_records}/val-*"), "quantize": "float16"}
    output = tmp_path / "f.tflite"
    with pytest.raises(ValueError, match="not written: its file loses"):
        tflite.export(run, output, HEIGHT, WIDTH, bounds=(-1, -1), **options)
    assert list(tmp_path.iterdir()) == []
    tflite.export(run, output, HEIGHT, WIDTH, bounds=(20, 2), **options)
    assert {path.name for path in tmp_path.iterdir()} == {"f.tflite", "f.parity.json"}


def test_full_disk_leaves_no_partial_file(run, tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "f.tflite", b"file")
    assert list(tmp_path.iterdir()) == []


def test_invalid_files_raise(folder, tmp_path):
    content = (folder / "none.tflite").read_bytes()
    with pytest.raises(ValueError, match="x: damaged, or not a TFLite file of export.tflite"):
        lite_file.open_file(content[:-3000], "x")
    with pytest.raises(ValueError, match="x: LiteRT cannot run it"):
        metadata = {"label_set": {"names": []}, "height": 64, "width": 96}
        lite_file.open_file(lite_file.with_metadata(b"no model at all" * 9, metadata), "x")
    # LiteRT finds some damage only when the file runs, as it does frames of another size.
    with pytest.raises(ValueError, match=r"none\.tflite: LiteRT cannot run it: "):
        lite_file.read(folder / "none.tflite").predict(*np.zeros((2, 7, 9, 3), np.uint8))


@pytest.fixture(params=["synthetic", "real"])
def video(request, tmp_path):
    """A folder of frames whose size differs from the file's."""
    if request.param == "real":
        return request.getfixturevalue("samples") / "clips/unlabeled/video_2000"
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (90, 140, 3), np.uint8)
    for n in range(5):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.roll(image, 2 * n, 1))
    return tmp_path


def test_video_without_tensorflow(folder, video, tmp_path_factory):
    output = tmp_path_factory.mktemp("video") / "video.mp4"
    names = (
        "tensorflow",
        "keras",
        "matplotlib",
        "jinja2",
        "tabulate",
        "tensorboard",
        "h5py",
        "PIL",
    )
    absent = f"import sys, runpy; sys.modules.update(dict.fromkeys({names})); "
    command = ("--model", folder / "int8.tflite", "--input", video, "--output", output)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            absent + "runpy.run_module('export.run_tflite', run_name='__main__')",
        ]
        + [*map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    count = len(list(video.iterdir())) - 1
    assert f"{count} frames; " in done.stdout and "frames per second by the network" in done.stdout
    assert len(list(frames.open_frames(output)[0])) == count


def test_each_frame_is_encoded_once(folder, pair):
    opened = lite_file.read(folder / "none.tflite")
    calls = []
    counting = opened._replace(
        signatures=opened.signatures
        | {"encode": lambda image: calls.append(1) or opened.signatures["encode"](image=image)}
    )
    run = run_tflite.LiteRun(counting)
    video = [*pair, *pair[::-1]]
    predictions = list(run.stream(video))
    assert len(calls) == len(predictions) == len(video) and run.seconds > 0
    for prediction, image1, image2 in zip(predictions, video, video[1:], strict=False):
        for actual, expected in zip(prediction, opened.predict(image1, image2), strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-3)
    last_seg, last_flow = predictions[-1]
    assert (last_seg == opened.predict(*video[:-3:-1])[0]).all() and last_flow is None


def test_stream_of_another_size_raises(folder, pair):
    run = run_tflite.LiteRun(lite_file.read(folder / "none.tflite"))
    with pytest.raises(ValueError, match="frame 1: uint8 of shape .*, but the file takes uint8"):
        list(run.stream([pair[0], pair[1][:-1]]))
    with pytest.raises(ValueError, match="scale: 0.5, but the size"):
        run.stream(pair, scale=0.5)
