"""ONNX export: the file's outputs equal those of Keras, in a process without Keras."""

import json
import subprocess
import sys

import numpy as np
import pytest

from export import check, onnx
from flowseg import runs
from tests.conftest import ROOT, run_command

pytestmark = pytest.mark.onnx
# As a user runs it: only ONNX Runtime and NumPy.
SCRIPT = """
import sys
sys.modules.update(tensorflow=None, keras=None, onnx=None)
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
frames = dict(np.load(sys.argv[2]))
names = [entry.name for entry in session.get_outputs()]
np.savez(sys.argv[3], **dict(zip(names, session.run(names, frames))))
print(session.get_modelmeta().custom_metadata_map["flowseg"])
"""


def run_file(path, frames, folder):
    """Run a file in a separate process; return its outputs and metadata."""
    np.savez(folder / "frames.npz", **frames)
    command = [sys.executable, "-c", SCRIPT, path, folder / "frames.npz", folder / "outputs.npz"]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "outputs.npz")), json.loads(done.stdout)


@pytest.fixture(scope="module")
def any_size(trained_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "any.onnx"
    done = run_command("export.onnx", "--run_dir", trained_run, "--output", output)
    assert "any.onnx: ONNX of any size" in done.stdout and "of labels equal" in done.stdout
    assert done.stderr == ""
    return output


def test_any_batch_and_size_equal_keras(any_size, trained_run, tmp_path):
    run = runs.load_run(trained_run)
    rng = np.random.default_rng(0)
    frames = {
        key: rng.uniform(0, 255, (3, 50, 81, 3)).astype(np.float32) for key in ("image1", "image2")
    }
    outputs, metadata = run_file(any_size, frames, tmp_path)
    expected = run.model.predict_on_batch(frames)
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(outputs[key], value, atol=1e-3)
    swapped, _ = run_file(
        any_size, dict(zip(frames, [*frames.values()][::-1], strict=True)), tmp_path
    )
    assert np.abs(swapped["flow"] - outputs["flow"]).max() > 0.05
    assert metadata["label_set"]["palette"][0] == list(run.label_set.palette[0])
    assert metadata["height"] is None and "--steps=2" in metadata["training_flags"]


def test_fixed_size_of_the_pretrained_network(tmp_path):
    run = runs.load_run(None, "pretrained")
    summary = onnx.export(run, tmp_path / "fixed.onnx", 64, 96)
    assert "100.000 % of labels equal" in summary
    pair = check.sample_pair(run.folder, 64, 96)
    outputs, metadata = run_file(tmp_path / "fixed.onnx", pair, tmp_path)
    assert (metadata["height"], metadata["width"]) == (64, 96)
    expected = run.model.predict_on_batch(pair)
    np.testing.assert_allclose(outputs["flow"], expected["flow"], atol=1e-3)


def test_invalid_arguments(trained_run, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    command = ("export.onnx", "--run_dir", trained_run, "--output")
    error = run_command(*command, tmp_path / "mine.onnx", ok=False).stderr
    assert "exists already; --overwrite" in error
    error = run_command(*command, tmp_path / "x.onnx", "--height", 64, ok=False).stderr
    assert "must be given together" in error
    empty = tmp_path / "no run"
    empty.mkdir()
    arguments = ("export.onnx", "--run_dir", empty, "--output", tmp_path / "x.onnx")
    assert "no run" in run_command(*arguments, ok=False).stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.onnx"]


def test_file_with_wrong_outputs_is_not_written(trained_run, tmp_path, monkeypatch):
    run = runs.load_run(trained_run)
    pair = check.sample_pair(run.folder, 32, 64)
    monkeypatch.setattr(check, "MAX_FLOW_DIFFERENCE", -1)
    with pytest.raises(ValueError, match="x.onnx: the export's outputs differ from the network's"):
        onnx.export(run, tmp_path / "x.onnx", *pair["image1"].shape[1:3])
    assert list(tmp_path.iterdir()) == []
