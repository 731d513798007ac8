"""A trained run becomes an ONNX file, which answers as Keras does in a process without it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from export import check, onnx
from flowseg import runs
from tests.conftest import ROOT, run_command

pytestmark = pytest.mark.onnx
# As a user runs it: ONNX Runtime and NumPy alone.
ASK = """
import sys
sys.modules.update(tensorflow=None, keras=None, onnx=None)
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
frames = dict(np.load(sys.argv[2]))
names = [entry.name for entry in session.get_outputs()]
np.savez(sys.argv[3], **dict(zip(names, session.run(names, frames))))
print(session.get_modelmeta().custom_metadata_map["flowseg"])
"""


def ask(path, frames, folder):
    """(answers, metadata) of a file, asked in a process of its own."""
    np.savez(folder / "frames.npz", **frames)
    command = [sys.executable, "-c", ASK, path, folder / "frames.npz", folder / "answers.npz"]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "answers.npz")), json.loads(done.stdout)


@pytest.fixture(scope="module")
def any_size(trained_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "any.onnx"
    done = run_command("export.onnx", "--run_dir", trained_run, "--output", output)
    assert "any.onnx: ONNX of any size" in done.stdout and "of labels equal" in done.stdout
    assert done.stderr == ""
    return output


def test_any_batch_and_size_answer_as_keras_does(any_size, trained_run, tmp_path):
    run = runs.load_run(trained_run)
    rng = np.random.default_rng(0)
    frames = {
        key: rng.uniform(0, 255, (3, 50, 81, 3)).astype(np.float32) for key in ("image1", "image2")
    }
    answers, told = ask(any_size, frames, tmp_path)
    expected = run.model.predict_on_batch(frames)
    assert answers.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(answers[key], value, atol=1e-3)
    swapped, _ = ask(any_size, dict(zip(frames, [*frames.values()][::-1], strict=True)), tmp_path)
    assert np.abs(swapped["flow"] - answers["flow"]).max() > 0.05
    assert told["label_set"]["palette"][0] == list(run.label_set.palette[0])
    assert told["height"] is None and "--steps=2" in told["training_flags"]


def test_fixed_size_of_the_network_in_the_box(tmp_path):
    run = runs.load_run(None, "pretrained")
    told = onnx.export(run, tmp_path / "fixed.onnx", 64, 96)
    assert "100.000 % of labels equal" in told
    pair = check.sample_pair(run.folder, 64, 96)
    answers, about = ask(tmp_path / "fixed.onnx", pair, tmp_path)
    assert (about["height"], about["width"]) == (64, 96)
    expected = run.model.predict_on_batch(pair)
    np.testing.assert_allclose(answers["flow"], expected["flow"], atol=1e-3)


def test_refusals(trained_run, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(b"mine")
    command = ("export.onnx", "--run_dir", trained_run, "--output")
    error = run_command(*command, tmp_path / "mine.onnx", ok=False).stderr
    assert "exists already; --overwrite" in error
    error = run_command(*command, tmp_path / "x.onnx", "--height", 64, ok=False).stderr
    assert "fix the size together" in error
    empty = tmp_path / "no run"
    empty.mkdir()
    asked = ("export.onnx", "--run_dir", empty, "--output", tmp_path / "x.onnx")
    assert "no run" in run_command(*asked, ok=False).stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine.onnx"]


def test_a_file_that_answers_otherwise_is_not_written(trained_run, tmp_path, monkeypatch):
    run = runs.load_run(trained_run)
    pair = check.sample_pair(run.folder, 32, 64)
    monkeypatch.setattr(check, "MAX_FLOW_DIFFERENCE", -1)
    with pytest.raises(ValueError, match="x.onnx: the export does not answer as the network does"):
        onnx.export(run, tmp_path / "x.onnx", *pair["image1"].shape[1:3])
    assert list(tmp_path.iterdir()) == []
