"""Functions of the demo, without its web page (see test_browser.py)."""

import sys

import cv2
import numpy as np
import pytest

from flowseg import demo
from flowseg.cli import entry
from flowseg.data.flow_io import read_flow
from flowseg.media.frames import open_frames
from flowseg.media.video_output import video_writer
from tests.conftest import run_command
from tests.support.stand_in import stand_in


def fake_run(flow=(3.0, -1.5)):
    """Predicts road and one motion everywhere; records the scales of its calls."""
    scales = []

    def predict(image1, image2, scale=1.0):
        scales.append(scale)
        size = image1.shape[:2]
        return np.zeros(size, np.uint8), np.full((*size, 2), flow, np.float32)

    return stand_in(predict, scales=scales)


@pytest.fixture
def pair(tmp_path):
    paths = [tmp_path / f"{n}.png" for n in (1, 2)]
    for n, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((96, 160, 3), 40 + 90 * n, np.uint8))
    return paths


def write_clip(path, count, size=(96, 160)):
    with video_writer(path, 12) as write:
        for n in range(count):
            write(np.full((*size, 3), 20 * n, np.uint8))
    return path


def test_pair_gives_image_summary_and_files(pair, tmp_path):
    run = fake_run()
    image, text, written = demo.predict_pair(run, *pair, tmp_path / "out", 0.5, 0, 0.75)
    assert image.dtype == np.uint8 and image.shape[2] == 3 and run.scales == [0.75]
    assert text == "road 100%; median motion 3.35 px"
    assert [path.rsplit("/", 1)[1] for path in written] == [
        "flow.png",
        "flow_color.png",
        "seg.png",
        "seg_color.png",
    ]
    flow = read_flow(written[0])
    assert (flow == [3.0, -1.5, 1.0]).all()
    with_arrows, _, _ = demo.predict_pair(run, *pair, tmp_path / "out", 0.5, 20.0)
    assert with_arrows.shape == image.shape and (with_arrows != image).any()


def test_large_frames_are_resized_and_reported(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MAX_PIXELS", 48 * 80)
    run = fake_run()
    _, text, _ = demo.predict_pair(run, *pair, tmp_path / "out")
    assert run.scales == [0.5] and text.endswith("; resized to 80x48 px for the network")
    text = demo.predict_clip(run, write_clip(tmp_path / "a.mp4", 3), tmp_path / "a.webm")
    assert run.scales == [0.5] * 3 and "resized to 80x48 px" in text


def test_clip_gives_a_webm_video(tmp_path):
    tracked = []

    def track(frames, total):
        tracked.append(total)
        return frames

    clip = write_clip(tmp_path / "clip.mp4", 5)
    text = demo.predict_clip(fake_run(), clip, tmp_path / "all.webm", track=track)
    assert text == "4 frames, 12 per second" and tracked == [5]
    text = demo.predict_clip(fake_run(), clip, tmp_path / "some.webm", max_frames=2, track=track)
    cut = "; only the beginning of the clip: --frames 2 is the limit"
    assert text == f"2 frames, 12 per second{cut}" and tracked == [5, 3]
    for name, count in (("all", 4), ("some", 2)):
        frames, fps, announced = open_frames(tmp_path / f"{name}.webm")
        assert (len(list(frames)), fps, announced) == (count, 12, count)


def test_clip_that_ends_early_is_reported(tmp_path):
    rng = np.random.default_rng(0)
    with video_writer(tmp_path / "complete.webm", 12) as write:
        for _ in range(12):
            write(rng.integers(0, 256, (96, 160, 3), np.uint8))
    data = (tmp_path / "complete.webm").read_bytes()
    (tmp_path / "cut.webm").write_bytes(data[: 2 * len(data) // 3])
    text = demo.predict_clip(fake_run(), tmp_path / "cut.webm", tmp_path / "out.webm")
    read = len(list(open_frames(tmp_path / "cut.webm")[0]))
    assert 2 <= read < 12
    early = f"the clip's header lists 12 frames, of which {read} could be read"
    assert text == f"{read - 1} frames, 12 per second; {early}"


def test_invalid_input_raises(pair, tmp_path):
    run = fake_run()
    with pytest.raises(ValueError, match="upload two frames"):
        demo.predict_pair(run, pair[0], None, tmp_path / "out")
    (tmp_path / "cut.png").write_bytes(pair[0].read_bytes()[:60])
    with pytest.raises(ValueError, match="cut.png"):
        demo.predict_pair(run, pair[0], tmp_path / "cut.png", tmp_path / "out")
    with pytest.raises(ValueError, match="upload a clip"):
        demo.predict_clip(run, None, tmp_path / "out.webm")
    with pytest.raises(ValueError, match="flow needs at least two"):
        demo.predict_clip(run, write_clip(tmp_path / "one.mp4", 1), tmp_path / "out.webm")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.webm").exists()


def test_errors_have_the_messages_of_the_commands():
    """Also TensorFlow errors, and without the folder of an upload."""
    import tensorflow as tf

    upload = "/tmp/somewhere/1f2e/frame.png"
    for error, message in (
        (ValueError(f"{upload}: damaged"), "frame.png: damaged"),
        (OSError(28, "No space left on device", upload), "frame.png: No space left on device"),
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node a/b}} OOM when allocating"),
            "OOM when allocating",
        ),
    ):
        assert isinstance(error, entry.expected_errors())
        assert demo.error_text(error, [upload, None, 0.5]) == message
    assert not isinstance(TypeError(), entry.expected_errors())


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"the page needs gradio: pip install 'flowseg\[demo\]'"):
        demo.page(fake_run(), "somewhere")


def test_command_has_help_and_requires_a_run():
    assert "--port" in run_command("flowseg.demo", "--help").stdout
    done = run_command("flowseg.demo", ok=False)
    assert "exactly one of --run_dir, --weights pretrained" in done.stderr
