"""Evaluation of confidence, on synthetic errors with a known order."""

import numpy as np
import pytest

from experiments.studies import confidence
from flowseg.data import flow_io, records
from flowseg.data.labels import CITYSCAPES
from tests.conftest import run_command
from tests.support import markdown


def test_ause_of_known_orders():
    error = np.float32([0.5, 1, 4, 10] * 50)
    assert confidence.ause(error, -error) == pytest.approx(0, abs=1e-6)
    # With equal confidences the pixels keep their order, which repeats every four.
    assert confidence.ause(error, np.zeros(200)) == pytest.approx(1, abs=0.05)
    assert confidence.ause(error, error) > 1.5


def test_tables_by_hand():
    # Ten pixels: eight within 1 px and confident; two wrong, one unconfident and one confident.
    error = np.float32([1] * 8 + [20, 10])
    certainty = np.float32([0.9] * 8 + [0.1, 0.95])
    text = confidence.tables(error, error > 3, certainty)
    # All: (8 + 30) / 10 px. The nine most confident: (8 + 10) / 9; also in the best order.
    rows = markdown.rows(text)
    assert ["100 %", "3.80", "20.0", "3.80"] in rows
    assert ["90 %", "2.00", "11.1", "2.00"] in rows
    # The most confident half: the wrong pixel and four correct ones.
    assert ["50 %", "2.80", "20.0", "1.00"] in rows
    assert ["0.0 to 0.2", "10.0", "0"] in rows and ["0.8 to 1.0", "90.0", "89"] in rows
    assert ["0.4 to 0.6", "0.0", "-"] in rows


class StubNetwork:
    """A network with correct flow on the left half and unconfident errors of 30 px on the right."""

    def __init__(self, truth):
        self.truth = truth

    def predict_on_batch(self, pair):
        assert pair["image1"].shape == pair["image2"].shape == (1, *self.truth.shape)
        flow, certainty = (
            self.truth[None, ..., :2].copy(),
            np.full(self.truth[None, ..., 0].shape, 0.9),
        )
        right_half = np.s_[:, :, flow.shape[2] // 2 :]
        flow[right_half] += [18, 24]
        certainty[right_half] = 0.2
        return {"flow": flow, "confidence": certainty}


def test_valid_pixels_are_collected(kitti_folder, kitti_records):
    files = records.match_files(str(kitti_records / "val-*"))
    truth = flow_io.read_flow(
        kitti_folder / "data_scene_flow" / "training" / "flow_occ" / "000003_10.png"
    )
    error, wrong, certainty = confidence.collect(StubNetwork(truth), CITYSCAPES, files)
    assert len(error) == (truth[..., 2] > 0).sum()
    known = truth[..., 2] > 0
    right_half = known[:, known.shape[1] // 2 :].sum()
    assert (error > 29).sum() == right_half == (certainty < 0.5).sum()
    # 30 px would be within 5 % of motion beyond 600 px, which does not occur here.
    assert ((error > 29) == wrong).all()
    assert confidence.ause(error, certainty) == pytest.approx(0, abs=1e-3)


def test_command(trained_run, kitti_records):
    flags = ("--run_dir", trained_run, "--records", kitti_records / "val-*")
    done = run_command("experiments.studies.confidence", *flags)
    assert "AUSE" in done.stdout
    assert "100 %" in [row[0] for row in markdown.rows(done.stdout)]
    folder = kitti_records.parent
    error = run_command(
        "experiments.studies.confidence",
        "--run_dir",
        trained_run,
        "--records",
        folder / "none-*",
        ok=False,
    ).stderr
    assert "none-*" in error
