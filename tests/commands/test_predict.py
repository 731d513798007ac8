import json
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from flowseg.data.flow_io import flow_to_color, read_flow
from flowseg.data.labels import CITYSCAPES
from flowseg.media.drawing import color_labels, write_png
from flowseg.media.frames import read_image
from flowseg.media.pairs import read_pair
from flowseg.predict import predict
from flowseg.runs import load_run
from tests import conftest

# Of 12 px, 8 are road, 3 car and 1 void.
SEG = np.uint8([[0, 0, 0, 0], [0, 0, 0, 0], [13, 13, 13, 255]])
FLOW = np.float32(np.stack(np.meshgrid([-3.3, 0, 1.017, 40], [0.5, 2, -7.77]), -1))
FRAME = np.full((3, 4, 3), 90, np.uint8)


def fake_run(seg=SEG, flow=FLOW):
    """A run with known predictions that records its calls."""
    run = SimpleNamespace(label_set=CITYSCAPES, calls=[])

    def predict_pair(image1, image2, scale=1.0):
        run.calls.append((image1.copy(), image2.copy(), scale))
        return seg, flow

    run.predict = predict_pair
    return run


def read_ids(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_predictions_are_written_and_read_back(tmp_path):
    run = fake_run()
    line = predict(run, FRAME, FRAME + 1, tmp_path / "new" / "out", scale=0.5)
    out = tmp_path / "new" / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        "flow.png",
        "flow_color.png",
        "seg.png",
        "seg_color.png",
    ]
    ids = read_ids(out / "seg.png")
    assert ids.dtype == np.uint8 and ids.ndim == 2 and (ids == SEG).all()
    flow = read_flow(out / "flow.png")
    assert (flow[..., 2] == 1).all()
    np.testing.assert_allclose(flow[..., :2], FLOW, rtol=0, atol=1 / 128)
    assert (read_image(out / "seg_color.png") == color_labels(SEG, CITYSCAPES)).all()
    assert (read_image(out / "flow_color.png") == flow_to_color(FLOW)).all()
    (image1, image2, scale), *_ = run.calls
    assert (image1 == FRAME).all() and (image2 == FRAME + 1).all() and scale == 0.5
    median = np.median(np.linalg.norm(FLOW, axis=-1))
    assert f"road 67%, car 25%; median motion {median:.2f} px" in line and str(out) in line


def test_label_ids(tmp_path):
    predict(fake_run(), FRAME, FRAME, tmp_path, seg_ids="label")
    # Cityscapes' label ids of road and car are 7 and 26; void stays 255.
    assert read_ids(tmp_path / "seg.png").tolist() == [[7] * 4, [7] * 4, [26, 26, 26, 255]]
    assert (read_image(tmp_path / "seg_color.png") == color_labels(SEG, CITYSCAPES)).all()


def test_flow_out_of_range_is_unknown_and_reported(tmp_path):
    flow = FLOW.copy()
    flow[0, 0] = (600, 0)
    flow[1, 1] = np.nan
    line = predict(fake_run(flow=flow), FRAME, FRAME, tmp_path)
    assert read_flow(tmp_path / "flow.png")[..., 2].sum() == 10
    assert "2 px move too far" in line


def test_frames_of_different_sizes_raise(tmp_path):
    write_png(tmp_path / "a.png", FRAME)
    write_png(tmp_path / "b.png", FRAME[:, :3])
    with pytest.raises(ValueError, match=r"a\.png is 4x3 px but .*b\.png is 3x3 px"):
        read_pair(tmp_path / "a.png", tmp_path / "b.png")
    assert [image.shape for image in read_pair(tmp_path / "a.png", tmp_path / "a.png")] == [
        (3, 4, 3),
        (3, 4, 3),
    ]


def run_command(*arguments):
    """`python -m flowseg.predict` with a stand-in for the trained run."""
    program = """if True:
        import json, sys, types
        import numpy as np
        from flowseg import predict
        from flowseg.data.labels import CITYSCAPES

        def load_run(run_dir, weights):
            def predict_pair(image1, image2, scale):
                print(json.dumps([run_dir, weights, scale]), file=sys.stderr)
                return np.zeros(image1.shape[:2], np.uint8), image2[..., :2].astype("f4")
            return types.SimpleNamespace(predict=predict_pair, label_set=CITYSCAPES)

        sys.modules["flowseg.runs"] = types.SimpleNamespace(load_run=load_run)
        predict.entry_point()
    """
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command(tmp_path):
    write_png(tmp_path / "a.png", FRAME)
    write_png(tmp_path / "b.png", FRAME + 10)
    pair = ("--image1", tmp_path / "a.png", "--image2", tmp_path / "b.png")
    out = ("--output", tmp_path / "out")
    done = run_command("--run_dir", "r", *pair, *out, "--weights=last", "--input_scale=2")
    assert done.returncode == 0 and json.loads(done.stderr) == ["r", "last", 2.0]
    assert done.stdout.count("\n") == 1 and "road 100%" in done.stdout
    assert (read_flow(tmp_path / "out" / "flow.png")[..., :2] == 100).all()

    for arguments, message in (
        (("--run_dir", "r", *pair[:2], *out, "--image2", tmp_path / "c.png"), "c.png"),
        ((*pair, *out), "run_dir"),
        (("--run_dir", "", *pair, *out), "run_dir"),
        (("--run_dir", "r", *pair, *out, "--input_scale=0"), "input_scale"),
        (("--run_dir", "r", *pair, *out, "--seg_ids=owner"), "seg_ids"),
    ):
        done = run_command(*arguments)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and message in done.stderr


def test_confidence(trained_run, kitti_folder, tmp_path):
    frames = kitti_folder / "data_scene_flow/training/image_2"
    pair = frames / "000001_10.png", frames / "000001_11.png"
    stdout = conftest.run_command(
        "flowseg.predict",
        "--run_dir",
        trained_run,
        "--output",
        tmp_path,
        "--confidence",
        "--image1",
        pair[0],
        "--image2",
        pair[1],
    ).stdout
    confidence = load_run(trained_run).predict_confidence(*read_pair(*pair))
    assert confidence.shape == (90, 168) and 0 < confidence.min() < confidence.max() < 1
    written = read_ids(tmp_path / "confidence.png")
    assert written.dtype == np.uint8 and np.abs(written - 255 * confidence).max() <= 1
    assert f"correct at {np.mean(confidence > 0.5):.0%} of the pixels" in stdout


def test_real_kitti_pair(samples, tmp_path):
    folder = samples / "kitti/data_scene_flow/training"
    pair = read_pair(*(folder / f"image_2/000002_1{i}.png" for i in (0, 1)))
    assert pair[0].shape == (375, 1242, 3)
    truth = read_flow(folder / "flow_occ/000002_10.png")
    seg = np.zeros((375, 1242), np.uint8)
    predict(fake_run(seg, truth[..., :2]), *pair, tmp_path)
    # The true flow was read from such a file, so it is written without loss.
    assert (read_flow(tmp_path / "flow.png")[..., :2] == truth[..., :2]).all()


def test_real_frames_of_different_sizes_raise(samples):
    kitti = samples / "kitti/data_scene_flow/training/image_2/000002_10.png"
    camvid = sorted((samples / "camvid/val").iterdir())[0]
    with pytest.raises(ValueError, match="1242x375 px but .* is 480x360 px"):
        read_pair(kitti, camvid)
