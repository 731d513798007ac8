import io
import itertools
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from flowseg.data.flow_io import flow_to_color
from flowseg.data.labels import CITYSCAPES
from flowseg.media.drawing import overlay_labels, write_png
from flowseg.media.frames import open_frames
from flowseg.media.video import SourceFrame
from flowseg.media.video_output import video_writer
from flowseg.media.video_panels import compose, first_max_flow, write_video
from tests.support.stand_in import stand_in

SKY = 10


def fake_run(fails_at=None):
    """Predicts sky and 4 px right everywhere; may fail at one pair, like a real model."""
    calls = []

    def predict(image1, image2, scale=1.0):
        if len(calls) == fails_at:
            raise RuntimeError("out of memory")
        calls.append((int(image1[0, 0, 0]), int(image2[0, 0, 0]), scale))
        flow = np.zeros((*image1.shape[:2], 2), np.float32)
        flow[..., 0] = 4
        return np.full(image1.shape[:2], SKY, np.uint8), flow

    return stand_in(predict, calls=calls)


def grey_frames(count, height=160, width=240):
    for i in range(count):
        yield SourceFrame(f"{i}.png", np.full((height, width, 3), 10 * i, np.uint8))


def test_video_has_one_frame_per_pair(tmp_path):
    run = fake_run()
    written = write_video({"a": run}, grey_frames(5), tmp_path / "a.mp4", 12.5, count=5, scale=0.5)
    assert written == 4
    assert run.calls == [(0, 10, 0.5), (10, 20, 0.5), (20, 30, 0.5), (30, 40, 0.5)]
    frames, fps, count = open_frames(tmp_path / "a.mp4")
    assert (fps, count, len(list(frames))) == (12.5, 4, 4)


def test_image_shows_input_classes_and_flow(tmp_path):
    image = np.full((400, 800, 3), 90, np.uint8)
    seg = np.full((400, 800), SKY, np.uint8)
    flow = np.full((400, 800, 2), (6.0, 0), np.float32)
    panels = compose("1.png", image, {"a": (seg, flow, CITYSCAPES)}, 10, 0.5)
    for shown in (image, overlay_labels(image, seg, CITYSCAPES, 0.5), flow_to_color(flow, 10)):
        # Colours of neither text nor legend: the three complete images, at their size.
        assert (panels == shown[0, 0]).all(-1).sum() == pytest.approx(400 * 800, rel=0.001)


@pytest.mark.parametrize(
    ("height", "width", "columns", "rows"),
    [(375, 1242, 1, 3), (480, 854, 2, 2), (1080, 1920, 2, 2), (1920, 1080, 3, 1)],
)
def test_layout_fits_the_screen(height, width, columns, rows):
    seg, flow = np.zeros((height, width), np.uint8), np.zeros((height, width, 2), np.float32)
    image = np.full((height, width, 3), (91, 92, 93), np.uint8)
    panels = compose("1.png", image, {"a": (seg, flow, CITYSCAPES)}, 10, 0.5)
    assert panels.shape[1] <= 1920 and panels.shape[0] <= 1440
    y, x = np.nonzero((panels == (91, 92, 93)).all(-1))
    shown = np.ptp(y) + 1, np.ptp(x) + 1
    assert shown[1] / shown[0] == pytest.approx(width / height, rel=0.02)
    assert panels.shape[1] // shown[1] == columns and panels.shape[0] // shown[0] >= rows


def test_small_frames_are_enlarged():
    seg, flow = np.zeros((64, 96), np.uint8), np.zeros((64, 96, 2), np.float32)
    panels = compose("1", np.zeros((64, 96, 3), np.uint8), {"a": (seg, flow, CITYSCAPES)}, 10, 0.5)
    assert panels.shape[0] > 640


def test_legend_of_many_classes_shows_those_present():
    colours = [(i, 255 - i, 77) for i in range(200)]
    many = CITYSCAPES._replace(
        names=tuple(f"class {i}" for i in range(200)),
        ids=tuple((i,) for i in range(200)),
        palette=tuple(colours),
    )
    image, flow = np.zeros((375, 1242, 3), np.uint8), np.zeros((375, 1242, 2), np.float32)
    seg = np.full((375, 1242), 150, np.uint8)
    panels = compose("1", image, {"a": (seg, flow, many)}, 10, 0)
    assert (panels == colours[150]).all(-1).sum() > 100
    assert not (panels == colours[3]).all(-1).any()
    seg[:] = np.arange(1242) % 200
    assert compose("1", image, {"a": (seg, flow, many)}, 10, 0).shape == panels.shape


def test_flow_colours_have_one_scale(tmp_path, monkeypatch):
    scales = []

    def record(name, image, predictions, max_flow, **style):
        scales.append((style, max_flow))
        return image

    monkeypatch.setattr("flowseg.media.video_panels.compose", record)
    write_video({"a": fake_run()}, grey_frames(4), tmp_path / "a.mp4", 10, overlay=0.7)
    # 1.5 times 4 px.
    assert scales == [({"overlay": 0.7}, 6)] * 3
    scales.clear()
    write_video({"a": fake_run()}, grey_frames(3), tmp_path / "a.mp4", 10, max_flow=2.5)
    assert scales == [({}, 2.5)] * 2


def test_first_max_flow():
    flow = np.zeros((10, 1000, 2), np.float32)
    assert first_max_flow(flow) == 5, "at rest: 0.5 % of the width"
    assert first_max_flow(flow[:, :50]) == 1
    flow[:] = (30, 40)
    flow[0, 0] = 1e6
    flow[0, 1] = np.nan
    assert first_max_flow(flow) == 75, "1.5 times 50 px; outliers have no effect"


def test_gap_has_no_pair(tmp_path):
    run = fake_run()
    frames = [frame._replace(sequence=i // 2) for i, frame in enumerate(grey_frames(5))]
    assert write_video({"a": run}, iter(frames), tmp_path / "out", 10) == 2
    assert [call[:2] for call in run.calls] == [(0, 10), (20, 30)]


def test_times_of_the_source_are_kept(tmp_path):
    times = [0, 0.2, 0.25, 1.5, 2]
    frames = (f._replace(time=t) for f, t in zip(grey_frames(5), times, strict=True))
    write_video({"a": fake_run()}, frames, tmp_path / "a.mp4", 10)
    written = [float(frame.time) for frame in open_frames(tmp_path / "a.mp4")[0]]
    np.testing.assert_allclose(written, times[:4], atol=1e-3)


def test_failure_leaves_no_video(tmp_path):
    with pytest.raises(RuntimeError, match="memory"):
        write_video({"a": fake_run(fails_at=2)}, grey_frames(5), tmp_path / "a.mp4", 10)
    assert list(tmp_path.iterdir()) == []


def test_bad_frame_keeps_earlier_frames(tmp_path):
    for n in range(4):
        write_png(tmp_path / "in" / f"{n}.png", np.full((96, 160, 3), 60 * n, np.uint8))
    bad = tmp_path / "in/3.png"
    bad.write_bytes(bad.read_bytes()[:-20])
    out = tmp_path / "a.webm"
    done = run_command("--run_dir", "r", "--input", tmp_path / "in", "--output", out)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.search(r"3\.png: .*; .*a\.part\.webm holds the 2 frames so far", done.stderr)
    assert len(list(open_frames(tmp_path / "a.part.webm")[0])) == 2 and not out.exists()


def test_ctrl_c_keeps_written_frames(tmp_path):
    def stopped():
        yield from itertools.islice(grey_frames(9), 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="a.part.mp4 holds the 3 frames so far"):
        write_video({"a": fake_run()}, stopped(), tmp_path / "a.mp4", 10)
    frames, fps, count = open_frames(tmp_path / "a.part.mp4")
    assert (fps, count, len(list(frames))) == (10, 3, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.part.mp4"]
    # Before the first frame there is nothing to save.
    with pytest.raises(KeyboardInterrupt), video_writer(tmp_path / "b.mp4", 10):
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_gets_one_image_per_pair(tmp_path):
    assert write_video({"a": fake_run()}, grey_frames(3), tmp_path / "out", 10) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "000000.png",
        "000001.png",
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: is a file: specify FILE.mp4, or a folder"):
        write_video({"a": fake_run()}, grey_frames(3), tmp_path / "file", 10)


def test_output_must_not_be_the_input(tmp_path):
    with video_writer(tmp_path / "a.mp4", 10) as write:
        for frame in grey_frames(3):
            write(frame.image)
    content = (tmp_path / "a.mp4").read_bytes()
    for name in (tmp_path / "a.mp4", tmp_path):
        done = run_command("--run_dir", "r", "--input", name, "--output", name)
        assert done.returncode == 1 and "is the input itself" in done.stderr
    assert (tmp_path / "a.mp4").read_bytes() == content


def test_run_beside_itself_raises(tmp_path):
    same = ("--run_dir", "r", "--beside", "r/", "--input", tmp_path, "--output", tmp_path / "a.mp4")
    done = run_command(*same)
    assert done.returncode == 1 and "--beside r/: is --run_dir itself" in done.stderr


def test_two_runs_are_shown_side_by_side():
    image = np.full((200, 400, 3), 90, np.uint8)
    flow = np.full((200, 400, 2), (6.0, 0), np.float32)
    first, second = (np.full((200, 400), k, np.uint8) for k in (SKY, 0))
    predictions = {"a": (first, flow, CITYSCAPES), "b": (second, -flow, CITYSCAPES)}
    panels = compose("1.png", image, predictions, 10)
    places = []
    for shown in (
        image,
        overlay_labels(image, first, CITYSCAPES, 0.5),
        overlay_labels(image, second, CITYSCAPES, 0.5),
        flow_to_color(flow, 10),
        flow_to_color(-flow, 10),
    ):
        # Small frames are enlarged; a single colour identifies each of them.
        rows, columns = np.nonzero((panels == shown[0, 0]).all(-1))
        assert len(rows) > 200 * 400
        places.append((np.median(rows), np.median(columns)))
    (_, left), (first_seg, a), (second_seg, b), (first_flow, c), (second_flow, d) = places
    assert a == c == left < b == d
    assert first_seg == second_seg < first_flow == second_flow


def test_arrows_point_along_the_flow():
    image = np.full((400, 800, 3), 90, np.uint8)
    flow = np.zeros((400, 800, 2), np.float32)
    flow[..., 0] = 30
    flow[:200, :, 0] = np.nan
    seg = np.full((400, 800), SKY, np.uint8)
    predictions = {"a": (seg, flow, CITYSCAPES)}
    plain, drawn = (
        compose("1.png", image, predictions, 40, arrows=n).astype(int) for n in (0, 100)
    )
    rows, columns = np.nonzero((plain != drawn).any(-1))
    # Two rows of eight arrows where flow is known, each 30 px long and as high as its tip.
    assert len(np.unique(rows // 100)) <= 4 and 16 * 30 <= len(rows) < 16 * 30 * 8
    gaps = np.diff(np.unique(columns))
    assert (gaps > 1).sum() == 7
    runs = np.split(np.unique(columns), np.nonzero(gaps > 1)[0] + 1)
    assert all(30 <= len(run) <= 36 for run in runs)
    # The wide tip is at the right end.
    last = runs[0][-6:-1]
    high = [np.ptp(rows[columns == x]) for x in (runs[0][3], last[0])]
    assert high[1] > high[0]


def run_command(*arguments):
    """`python -m flowseg.visualize` with a stand-in for the trained run."""
    program = """if True:
        import json, sys, types
        import numpy as np
        from flowseg import visualize
        from tests.support.stand_in import stand_in

        def load_run(run_dir, weights):
            def predict(image1, image2, scale):
                size = image1.shape[:2]
                return np.zeros(size, np.uint8), np.full((*size, 2), scale, np.float32)
            print(json.dumps([run_dir, weights]))
            return stand_in(predict)

        sys.modules["flowseg.runs"] = types.SimpleNamespace(load_run=load_run)
        visualize.entry_point()
    """
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_keeps_the_rate_of_a_video(tmp_path):
    with video_writer(tmp_path / "in.mp4", 24) as write:
        for frame in grey_frames(4):
            write(frame.image)
    out = tmp_path / "out.mp4"
    done = run_command("--run_dir", "r", "--input", tmp_path / "in.mp4", "--output", out)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert json.loads(first) == ["r", "best"] and "3 frames, 24 per second" in last
    assert open_frames(out)[1:] == (24.0, 3)
    assert done.stderr == "", "no progress bar without a terminal"


def test_progress_bar_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    write_video({"a": fake_run()}, grey_frames(4), tmp_path / "a.mp4", 10, count=4)
    assert "3/3" in sys.stderr.getvalue()


def test_command_sets_the_frame_rate_of_a_folder(tmp_path):
    for frame in grey_frames(3):
        write_png(tmp_path / frame.name, frame.image)
    out = tmp_path / "out.mp4"
    for more, fps in (((), 10.0), (("--fps=5",), 5.0)):
        done = run_command("--run_dir", "r", "--input", tmp_path, "--output", out, *more)
        assert done.returncode == 0, done.stderr
        assert open_frames(out)[1:] == (fps, 2)


def test_command_reports_bad_input_in_one_line(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "empty").mkdir()
    good = ("--run_dir", "r", "--output", tmp_path / "out.mp4")
    for arguments, message in (
        ((*good, "--input", tmp_path / "bad.mp4"), "bad.mp4"),
        ((*good, "--input", tmp_path / "empty"), "empty"),
        ((*good[:2], "--input", tmp_path, "--output", tmp_path / "out.avi"), "out.avi"),
        ((*good, "--input", tmp_path, "--overlay=2"), "overlay"),
        ((*good, "--input", tmp_path, "--fps=0"), "fps"),
        (good, "input"),
    ):
        done = run_command(*arguments)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and message in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.mp4", "empty"]


def dis_run():
    """Flow by OpenCV's DIS, classes by brightness: real predictions without a network."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def predict(image1, image2, scale=1.0):
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (image1, image2)]
        return np.uint8(grey[0] // 14), dis.calc(*grey, None)

    return stand_in(predict)


@pytest.mark.parametrize(
    ("folder", "taken", "size"),
    [
        ("clips/val/video_1000", 22, (480, 320)),
        ("davis/JPEGImages/480p/car-shadow", 4, (854, 480)),
        ("camvid/val", 4, (480, 360)),
        ("kitti/data_scene_flow/training/image_2", 2, (1242, 375)),
    ],
)
def test_real_frames(samples, tmp_path, folder, taken, size):
    frames, fps, count = open_frames(samples / folder)
    assert fps is None and count >= taken
    frames = [frame for frame, _ in zip(frames, range(taken), strict=False)]
    run = dis_run()
    written = write_video({"a": run}, iter(frames), tmp_path / "a.mp4", 10, taken)
    assert written == taken - 1
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    shown = video.read()[1][..., ::-1].astype(int)
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == taken - 1
    # The first panel of the first frame is the input, up to the video's compression.
    name, image = frames[0].name, frames[0].image
    seg, flow = run.predict(image, frames[1].image)
    exact = compose(name, image, {"a": (seg, flow, CITYSCAPES)}, first_max_flow(flow), 0.5)
    assert np.abs(shown[: exact.shape[0], : exact.shape[1]] - exact).mean() < 10
    expected = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    corner = exact[: size[1] + 60, : size[0] + 30]
    assert cv2.matchTemplate(corner, expected, cv2.TM_SQDIFF_NORMED).min() < 1e-6
