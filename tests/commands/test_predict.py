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
from flowseg.media.video import SourceFrame
from flowseg.media.video_output import video_writer
from flowseg.predict import predict, predict_frames
from flowseg.runs import load_run
from tests import conftest
from tests.support.stand_in import stand_in

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


def video_run(labels=CITYSCAPES):
    """A run that predicts the grey value as class, and the difference of the frames as motion."""

    def predict_pair(image1, image2, scale=1.0):
        flow = np.zeros((*image1.shape[:2], 2), np.float32)
        flow[..., 0] = image2[..., 0].astype(float) - image1[..., 0]
        return image1[..., 0], flow

    return stand_in(predict_pair, labels)


def grey_frames(values, sequences=None):
    for i, value in enumerate(values):
        image = np.full((6, 8, 3), value, np.uint8)
        yield SourceFrame(str(i), image, sequence=sequences[i] if sequences else 0)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_frame_of_a_video_is_predicted(tmp_path):
    line = predict_frames(video_run(), grey_frames([1, 3, 6]), tmp_path / "new/out")
    out = tmp_path / "new/out"
    assert line == f"{out}: 3 frames in seg/, 2 in flow/" and names_in(out) == ["flow", "seg"]
    assert names_in(out / "seg") == ["00000.png", "00001.png", "00002.png"]
    assert names_in(out / "flow") == ["00000.png", "00001.png"]
    for i, value in enumerate([1, 3, 6]):
        ids = read_ids(out / f"seg/{i:05d}.png")
        assert ids.dtype == np.uint8 and ids.shape == (6, 8) and (ids == value).all()
    for i, motion in enumerate([2, 3]):
        assert (read_flow(out / f"flow/{i:05d}.png") == (motion, 0, 1)).all()


def test_flow_across_a_gap_is_not_written(tmp_path):
    line = predict_frames(video_run(), grey_frames([1, 3, 6, 7], [0, 0, 1, 1]), tmp_path)
    assert "4 frames in seg/, 2 in flow/" in line
    assert len(names_in(tmp_path / "seg")) == 4
    assert names_in(tmp_path / "flow") == ["00000.png", "00002.png"]


def test_video_with_label_ids_and_fast_motion(tmp_path):
    run = stand_in(lambda image1, image2, scale: (SEG, FLOW + 600))
    line = predict_frames(run, grey_frames([0, 0]), tmp_path, seg_ids="label")
    assert "12 px move too far" in line and not read_flow(tmp_path / "flow/00000.png")[..., 2].any()
    assert read_ids(tmp_path / "seg/00001.png").tolist()[2] == [26, 26, 26, 255]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_stopped_video_keeps_its_files(tmp_path, error):
    def stopped():
        yield from grey_frames([1, 2, 3])
        raise error("bad frame")

    with pytest.raises(error, match="holds the 2 frames so far"):
        predict_frames(video_run(), stopped(), tmp_path)
    assert names_in(tmp_path / "seg") == names_in(tmp_path / "flow") == ["00000.png", "00001.png"]


def test_files_of_an_earlier_video_are_named(tmp_path, capsys):
    predict_frames(video_run(), grey_frames([1, 2, 3, 4]), tmp_path)
    assert capsys.readouterr().err == ""
    predict_frames(video_run(), grey_frames([5, 6]), tmp_path)
    older = tmp_path / "seg/00002.png"
    assert f"warning: {older}: from an earlier command, as are 4 files" in capsys.readouterr().err
    assert (read_ids(older) == 3).all() and (read_ids(tmp_path / "seg/00000.png") == 5).all()


def run_command(*arguments):
    """`python -m flowseg.predict` with a stand-in for the trained run."""
    program = """if True:
        import json, sys, types
        import numpy as np
        from flowseg import predict
        from tests.support.stand_in import stand_in

        def load_run(run_dir, weights):
            def predict_pair(image1, image2, scale):
                print(json.dumps([run_dir, weights, scale]), file=sys.stderr)
                return np.zeros(image1.shape[:2], np.uint8), image2[..., :2].astype("f4")
            return stand_in(predict_pair)

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
        (("--run_dir", "r", *out), "give either --image1 and --image2, or --input"),
        (("--run_dir", "r", *pair[:2], *out), "give either --image1 and --image2, or --input"),
        (("--run_dir", "r", *pair, *out, "--input", tmp_path), "or --input"),
        (("--run_dir", "r", *out, "--input", tmp_path, "--confidence"), "--confidence needs"),
        (("--run_dir", "r", *out, "--input", tmp_path / "out/seg"), "no such video file"),
        (("--run_dir", "r", "--input", tmp_path, "--output", tmp_path / "a.png"), "is a file"),
    ):
        done = run_command(*arguments)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and message in done.stderr


def test_command_on_a_video_and_a_folder(tmp_path):
    with video_writer(tmp_path / "a.mp4", 10) as write:
        for i in range(4):
            write(np.full((6, 8, 3), 20 * i, np.uint8))
    for i in range(3):
        write_png(tmp_path / f"in/{i}.png", FRAME)
    for name, count in (("a.mp4", 4), ("in", 3), ("in/%d.png", 3)):
        out = tmp_path / f"out{len(name)}"
        done = run_command("--run_dir", "r", "--input", tmp_path / name, "--output", out)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{out}: {count} frames in seg/, {count - 1} in flow/\n"
        assert len(names_in(out / "seg")) == count
    done = run_command("--run_dir", "r", "--input", tmp_path / "in", "--output", tmp_path)
    assert done.returncode == 1 and "is the folder of the input" in done.stderr


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
