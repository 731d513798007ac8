"""All exports: outputs equal Keras, nothing is replaced, no partial files are left."""

import resource
import subprocess
import sys

import numpy as np
import pytest

from export import check
from tests.conftest import ROOT, run_command
from tests.support.own_folder import convert, write_classes, write_user_folder

EXPORTS = {
    "saved_model": ("export.saved_model",),
    "tflite": ("export.tflite", "--height", 32, "--width", 64),
    "onnx": ("export.onnx", "--height", 32, "--width", 64),
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.onnx] * (name == "onnx")) for name in EXPORTS]
)
def command(request):
    return EXPORTS[request.param]


def test_export_with_wrong_outputs_raises():
    rng = np.random.default_rng(0)
    expected = {"seg": rng.normal(size=(1, 40, 50, 3)), "flow": rng.normal(size=(1, 40, 50, 2))}
    assert "100.000 %" in check.compare(expected, expected, "same")
    for key, change in (("flow", 0.01), ("seg", expected["seg"][..., ::-1] * 3), ("flow", np.nan)):
        wrong = {**expected, key: expected[key] + change}
        with pytest.raises(ValueError, match="edge.tflite: the export's outputs differ"):
            check.compare(expected, wrong, "edge.tflite")


def test_run_without_weights(command, tmp_path):
    run = tmp_path / "started"
    arguments = (*command, "--run_dir", run, "--output", tmp_path / "out")
    assert "started: no such run folder" in run_command(*arguments, ok=False).stderr
    run.mkdir()
    assert "best.keras: missing; training writes it" in run_command(*arguments, ok=False).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["started"]


def test_full_disk(command, tiny_run, tmp_path):
    arguments = [*command, "--run_dir", tiny_run, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        # A file size limit of 128 kB simulates a full disk.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--height", 0, "--width", 64), "--height"),
        (("--height", 9000, "--width", 9000), "9000x9000: TFLite supports frames of at most"),
        (("--height", 32, "--width", 64, "--calibration", "FARM"), "--quantize int8, not for none"),
        (("--height", 32, "--width", 64, "--records", "FARM"), "train-00000"),
        (
            ("--height", 32, "--width", 64, "--quantize", "int8", "--calibration", "FARM"),
            "train-00000",
        ),
        (("--height", 32, "--width", 64, "--quantize", "int8", "--calibration", "none-*"), "none-"),
    ],
)
def test_invalid_sizes_and_records(flags, message, trained_run, tmp_path):
    # The records have farm labels, for which the run's classes have no ids.
    farm = write_user_folder(tmp_path / "farm")
    classes = write_classes(tmp_path / "classes.json")
    convert(farm, tmp_path / "records", classes, numbering="farm")
    flags = [f"{tmp_path}/records/train-*" if flag == "FARM" else flag for flag in flags]
    arguments = (
        "export.tflite",
        "--run_dir",
        trained_run,
        "--output",
        tmp_path / "x.tflite",
        *flags,
    )
    assert message in run_command(*arguments, ok=False).stderr
    assert not (tmp_path / "x.tflite").exists()
