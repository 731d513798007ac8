"""A trained run leaves the house and answers there as it does in Keras."""

import errno
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from export import check, tflite
from flowseg import runs
from tests.conftest import run_command


@pytest.fixture(scope="module")
def run(trained_run):
    return runs.load_run(trained_run)


def test_tflite_by_command_on_a_size_that_needs_padding(trained_run, run, tmp_path):
    path = tmp_path / "flowseg.tflite"
    size = ("--height", 60, "--width", 100, "--quantize", "none")
    command = ("export.tflite", "--run_dir", trained_run, "--output", path, *size)
    assert "TFLite 60x100" in run_command(*command).stdout
    content = path.read_bytes()
    assert len(content) > 4 * 0.95 * run.model.count_params()
    operators = tf.lite.Interpreter(model_content=content)._get_ops_details()
    assert not [op["op_name"] for op in operators if "Flex" in op["op_name"]]
    pair = check.sample_pair(trained_run, 60, 100)
    answers, expected = tflite.answer(content, pair), run.model.predict_on_batch(pair)
    assert answers["flow"].shape == (1, 60, 100, 2)
    np.testing.assert_allclose(answers["flow"], expected["flow"], atol=5e-3)
    # Swapped frames must show: the names are wired to the right inputs.
    swapped = tflite.answer(content, {"image1": pair["image2"], "image2": pair["image1"]})
    assert np.abs(swapped["flow"] - expected["flow"]).max() > 0.05
    with pytest.raises(ValueError, match="exists already; --overwrite"):
        tflite.export(run, path, 60, 100)


def test_an_export_that_answers_otherwise_is_refused():
    rng = np.random.default_rng(0)
    expected = {"seg": rng.normal(size=(1, 40, 50, 3)), "flow": rng.normal(size=(1, 40, 50, 2))}
    assert "100.000 %" in check.compare(expected, expected, "same")
    for key, change in (("flow", 0.01), ("seg", expected["seg"][..., ::-1] * 3), ("flow", np.nan)):
        wrong = {**expected, key: expected[key] + change}
        with pytest.raises(ValueError, match="edge.tflite: the export does not answer"):
            check.compare(expected, wrong, "edge.tflite")


def test_nothing_half_written_when_the_disk_is_full(trained_run, run, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(tflite, "convert", lambda *args: b"file")
    monkeypatch.setattr(tflite, "answer", lambda *args: None)
    monkeypatch.setattr(tflite, "compare", lambda *args: "")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        tflite.export(run, tmp_path / "f.tflite", 64, 64)
    assert list(tmp_path.iterdir()) == []


def test_run_folder_without_weights(tmp_path):
    for command in (("export.saved_model",), ("export.tflite", "--height", 64, "--width", 64)):
        error = run_command(*command, "--run_dir", tmp_path, "--output", tmp_path / "x", ok=False)
        assert "best.keras: missing" in error.stderr
