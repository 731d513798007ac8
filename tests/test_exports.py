"""A trained run leaves the house and answers there as it does in Keras."""

import numpy as np
import pytest
import tensorflow as tf

from export import check, saved_model
from flowseg import runs
from tests.conftest import run_command


@pytest.fixture(scope="module")
def run(trained_run):
    return runs.load_run(trained_run)


def test_saved_model_by_command(trained_run, run, tmp_path):
    folder = tmp_path / "served"
    command = ("export.saved_model", "--run_dir", trained_run, "--output", folder)
    assert "of labels equal" in run_command(*command).stdout
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    inputs = serve.structured_input_signature[1]
    assert {k: tuple(v.shape) for k, v in inputs.items()} == dict.fromkeys(
        ("image1", "image2"), (None, None, None, 3)
    )
    # Another size and batch than it was checked with; and the two frames keep their places.
    rng = np.random.default_rng(0)
    pair = {k: rng.uniform(0, 255, (3, 48, 80, 3)).astype("float32") for k in inputs}
    answers = serve(**{k: tf.constant(v) for k, v in pair.items()})
    expected = run.model.predict_on_batch(pair)
    for key in ("seg", "flow"):
        np.testing.assert_allclose(answers[key].numpy(), expected[key], atol=2e-3)
    with pytest.raises(ValueError, match="exists already; --overwrite"):
        saved_model.export(run, folder)
    saved_model.export(run, folder, overwrite=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine: is no SavedModel"):
        saved_model.export(run, tmp_path / "mine", overwrite=True)


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
