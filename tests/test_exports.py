"""A trained run leaves the house and answers there as it does in Keras."""

import numpy as np
import pytest

from export import check
from tests.conftest import run_command


def test_an_export_that_answers_otherwise_is_refused():
    rng = np.random.default_rng(0)
    expected = {"seg": rng.normal(size=(1, 40, 50, 3)), "flow": rng.normal(size=(1, 40, 50, 2))}
    assert "100.000 %" in check.compare(expected, expected, "same")
    for key, change in (("flow", 0.01), ("seg", expected["seg"][..., ::-1] * 3), ("flow", np.nan)):
        wrong = {**expected, key: expected[key] + change}
        with pytest.raises(ValueError, match="edge.tflite: the export does not answer"):
            check.compare(expected, wrong, "edge.tflite")


def test_run_folder_without_weights(tmp_path):
    for command in (("export.saved_model",), ("export.tflite", "--height", 64, "--width", 64)):
        error = run_command(*command, "--run_dir", tmp_path, "--output", tmp_path / "x", ok=False)
        assert "best.keras: missing" in error.stderr
