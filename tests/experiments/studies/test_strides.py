"""Flow by stride: the taps are the decoder's flow, and scores equal those of `evaluate`."""

import keras
import numpy as np
import pytest

from experiments.studies import strides
from flowseg import runs
from flowseg.data import records
from flowseg.network.model import parts
from flowseg.scoring.evaluation import evaluate
from tests.conftest import run_command
from tests.support import markdown


def test_last_tap_is_the_output_of_the_network(trained_run, kitti_records):
    run = runs.load_run(trained_run)
    files = records.match_files(str(kitti_records / "val-*"))
    by_title = strides.score(run.model, run.label_set, files)
    assert list(by_title) == ["stride_16", "stride_8", "stride_4", "stride_2", "learned_upsampling"]
    scores, _ = evaluate(run, files)
    assert by_title["learned_upsampling"]["flow/aepe"] == pytest.approx(
        scores["flow/aepe"], rel=1e-5
    )
    assert by_title["learned_upsampling"]["flow/fl_all"] == pytest.approx(scores["flow/fl_all"])
    # Each tap is at another point of the decoder.
    assert len({round(values["flow/aepe"], 6) for values in by_title.values()}) == 5


def test_flow_at_a_stride_is_in_image_pixels(trained_run):
    run = runs.load_run(trained_run)
    decoder = parts(run.model).decoder
    before = decoder.get_layer("flow_4_move_0")
    # A decoder that moves flow by 3 px right, 1 px up at stride 4: 12 and 4 px in the image.
    decoder.get_layer("flow_fine_gate").set_weights(
        [w * 0 - 100 * (w.ndim == 1) for w in decoder.get_layer("flow_fine_gate").get_weights()]
    )
    kernel, bias = decoder.get_layer("flow_fine_residual").get_weights()
    decoder.get_layer("flow_fine_residual").set_weights([kernel * 0, np.float32([3, -1])])
    features = {
        frame: {k: np.zeros((1, *(64 // int(k[6:]),) * 2, x.shape[-1])) for k, x in maps.items()}
        for frame, maps in decoder.input.items()
    }
    taps = keras.Model(decoder.input, {**strides.taps(decoder), "at": before.output})
    outputs = taps.predict_on_batch(features)
    coarse = outputs["stride_8"][0, 32, 32]
    np.testing.assert_allclose(outputs["stride_4"][0, 32, 32] - coarse, [12, -4], atol=1e-3)
    np.testing.assert_allclose(
        outputs["at"][0, 8, 8] * 4, outputs["stride_4"][0, 32, 32], atol=1e-3
    )


def test_command(trained_run, kitti_records):
    flags = ("--run_dir", trained_run, "--records")
    done = run_command("experiments.studies.strides", *flags, kitti_records / "val-*")
    assert {"learned upsampling", "stride 16"} < {row[0] for row in markdown.rows(done.stdout)}
    none = run_command("experiments.studies.strides", *flags, kitti_records / "none-*", ok=False)
    assert "none-*" in none.stderr
