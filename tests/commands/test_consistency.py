"""`flowseg.consistency`: hand-computed cases, and real clips."""

import json

import keras
import numpy as np
import pytest

from flowseg import files, runs
from flowseg.consistency import consistency
from flowseg.data.labels import CITYSCAPES
from flowseg.media.video import SourceFrame
from flowseg.network.model import compose
from flowseg.scoring import frame_scores
from tests.conftest import run_command
from tests.support.kitti_writer import write_clip
from tests.support.stand_in import stand_in


def test_pixels_move_right_and_down():
    first = np.array([[1, 2, 3], [4, 5, 6]])
    second = np.array([[0, 0, 0], [0, 1, 9]])
    # Each pixel moves one right and one down; only the upper left two stay inside.
    counts = frame_scores.count_consistency(first, second, np.ones((2, 3, 2)), 10)
    matrix = counts["video/confusion"]
    assert matrix.sum() == 2 and matrix[1, 1] == 1 and matrix[2, 9] == 1
    # u and v are not interchanged.
    for flow, expected in (
        ((1, 0), {(1, 0), (2, 0), (4, 1), (5, 9)}),
        ((0, 1), {(1, 0), (2, 1), (3, 9)}),
    ):
        moved = np.broadcast_to(np.float32(flow), (2, 3, 2))
        matrix = frame_scores.count_consistency(first, second, moved, 10)["video/confusion"]
        assert set(zip(*np.nonzero(matrix), strict=True)) == expected
    lost = frame_scores.count_consistency(first, second, np.full((2, 3, 2), np.nan), 10)
    assert lost["video/confusion"].sum() == 0


def frames_and_run(steps, flow):
    """A video of a bar of class 1 that moves right by `steps` px per frame, and a run for it."""
    frames = []
    for i in range(4):
        image = np.zeros((8, 40, 3), np.uint8)
        image[:, 5 + steps * i : 9 + steps * i] = 1
        frames.append(SourceFrame(str(i), image))

    def predict(image1, image2, scale):
        return image1[..., 0], np.broadcast_to(np.float32(flow), (*image1.shape[:2], 2))

    return frames, stand_in(predict)


def test_moving_object_is_consistent_with_flow():
    scores, pairs = consistency(frames_and_run(4, (4, 0))[1], frames_and_run(4, (4, 0))[0])
    assert pairs == 3 and scores["video/consistency"] == 100
    # Without flow the bar never overlaps itself: 4 of 40 columns each; class 0 agrees in 32.
    assert scores["video/consistency_at_rest"] == pytest.approx((0 + 100 * 32 / 40) / 2)


def test_no_flow_score_if_all_pixels_leave():
    frame = np.zeros((8, 9, 3), np.uint8)
    prediction = np.zeros((8, 9), np.uint8), np.full((8, 9, 2), 99, np.float32)
    run = stand_in(lambda *_, scale: prediction)
    scores, pairs = consistency(run, [SourceFrame("a", frame), SourceFrame("b", frame)])
    assert scores == {"video/consistency_at_rest": 100} and pairs == 1


def test_one_frame_raises():
    frames, run = frames_and_run(4, (4, 0))
    with pytest.raises(ValueError, match="fewer than two frames"):
        consistency(run, frames[:1])


def test_frames_across_a_gap_are_not_compared():
    frames, run = frames_and_run(4, (4, 0))
    # The motion across the gap is twice the flow.
    frames = [frames[0], frames[1], frames[3]._replace(sequence=1)]
    scores, pairs = consistency(run, frames)
    assert pairs == 1 and scores["video/consistency"] == 100


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run folder whose network predicts road and (1, 1) px for every input."""
    image = keras.Input((None, None, 3))
    encoder = keras.Model(image, {"pixels": keras.layers.Identity()(image)}, name="encoder")
    features = {f: {"pixels": keras.Input((None, None, 3))} for f in ("frame1", "frame2")}
    both = keras.layers.Concatenate()([each["pixels"] for each in features.values()])
    heads = {"seg": np.eye(19)[0].tolist(), "flow": [1.0, 1.0]}
    outputs = {
        name: keras.layers.Conv2D(
            filters=len(bias),
            kernel_size=1,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(bias),
        )(both)
        for name, bias in heads.items()
    }
    decoder = keras.Model(features, outputs, name="decoder")
    folder = tmp_path_factory.mktemp("run")
    network = compose(encoder, decoder, ("seg", "flow"), "flowseg")
    runs.save_model(network, folder / "best.keras")
    files.write_json(folder / "label_set.json", CITYSCAPES._asdict())
    return folder


def test_command(run_dir, tmp_path, sample_clip):
    done = run_command(
        "flowseg.consistency",
        "--run_dir",
        run_dir,
        "--input",
        sample_clip,
        "--metrics_json",
        tmp_path / "m.json",
    )
    # One class everywhere is perfectly consistent.
    scores = json.loads((tmp_path / "m.json").read_text())
    assert scores == {"video/consistency": 100.0, "video/consistency_at_rest": 100.0}
    rows = [line.split() for line in done.stdout.splitlines()[:2]]
    assert rows == [[name, "100.000", "%"] for name in scores]
    assert "frame pairs" in done.stdout


@pytest.fixture(params=["synthetic", "real"])
def sample_clip(request, tmp_path):
    """A folder of frames, or a real video."""
    if request.param == "synthetic":
        return write_clip(tmp_path / "clip", 3)
    return request.getfixturevalue("samples") / "clips/val/video_1000"
