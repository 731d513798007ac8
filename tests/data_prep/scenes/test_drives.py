"""Tests of folders of drives: layout, resuming, exactness of the files, and errors."""

import errno
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from data_prep.conversion import workers
from data_prep.scenes import drives, route, store, video
from experiments.studies import drive_flow
from flowseg import files
from flowseg.cli import entry
from flowseg.data import flow_io
from flowseg.data.labels import CITYSCAPES
from tests.conftest import ROOT, run_command
from tests.support.scene_folders import content

SIZE = {"height": 64, "width": 96}
FOLDERS = {
    "rgb": "rgb",
    "classSegmentation": "classgt",
    "instanceSegmentation": "instancegt",
    "forwardFlow": "flow",
    "backwardFlow": "backwardFlow",
    "occlusion": "occlusion",
}


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Render in this process: starting workers takes longer than the work."""
    monkeypatch.setattr(
        workers, "map_in_processes", lambda f, items, *_, **__: (f(i) for i in items)
    )


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A folder of two drives of four frames, and what the run printed. Do not modify."""
    output = tmp_path_factory.mktemp("drives") / "new"
    flags = ["--world=street", "--count=2", "--frames=4", "--height=64", "--width=96"]
    done = run_command("data_prep.scenes", *flags, "--workers=2", "--output", output)
    assert done.stderr == ""
    return output, done.stdout


def names_of(drive, frames):
    """Return the files of a drive."""
    names = {f"Scene{drive:04d}/clone/colors.txt"}
    for folder, name in FOLDERS.items():
        first = folder == "backwardFlow"
        last = frames - (folder in ("forwardFlow", "occlusion"))
        names |= {
            f"Scene{drive:04d}/clone/frames/{folder}/Camera_0/{name}_{k:05d}.png"
            for k in range(first, last)
        }
    return names


def test_layout(rendered):
    output, stdout = rendered
    assert set(content(output)) == {"scenes.json", *names_of(0, 4), *names_of(1, 4)}
    plan = json.loads((output / "scenes.json").read_text())
    assert plan["flow_encoding"] == "kitti"
    assert plan["labels"] == plan["instances"] == "cityscapes"
    assert plan["rate"] == 10 and plan["speed"] is None
    for part in ("8 frames in", "frames/s", "per core", "bytes per frame", "MiB"):
        assert part in stdout


def test_files_contain_the_rendered_frame(rendered):
    output, _ = rendered
    settings = route.Settings(1, 0, 64, 96, effects=True, speed=None, rate=10.0)
    frame = next(video.render(settings, [2]))
    root = output / "Scene0001/clone/frames"

    def read(folder):
        path = root / folder / f"Camera_0/{FOLDERS[folder]}_00002.png"
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)

    assert np.array_equal(read("rgb"), frame.image[..., ::-1])
    assert np.array_equal(read("classSegmentation"), frame.labels)
    assert read("instanceSegmentation").dtype == np.uint16
    assert np.array_equal(read("instanceSegmentation"), frame.instances)
    assert set(np.unique(read("occlusion"))) == {0, 255}
    assert np.array_equal(read("occlusion") == 0, frame.visible)
    for folder, flow, valid in (
        ("forwardFlow", frame.flow, frame.valid),
        ("backwardFlow", frame.backward, frame.backward_valid),
    ):
        written = flow_io.read_flow(root / folder / f"Camera_0/{FOLDERS[folder]}_00002.png")
        assert np.array_equal(written[..., 2] > 0, valid)
        assert np.abs(written[..., :2] - flow)[valid].max() <= 1 / 128


def test_colours_are_greys_of_the_label_ids(rendered):
    lines = (rendered[0] / "Scene0000/clone/colors.txt").read_text().splitlines()
    assert lines[0] == "Category r g b" and len(lines) == 1 + len(CITYSCAPES.names)
    assert "traffic_light 19 19 19" in lines and "car 26 26 26" in lines


def test_first_frames_do_not_depend_on_frames_count_or_processes(rendered, tmp_path, capsys):
    drives.write_drives(tmp_path, 1, 2, processes=1, **SIZE)
    assert set(content(tmp_path)) == {"scenes.json", *names_of(0, 2)}
    drives.write_drives(tmp_path, 2, 4, processes=1, **SIZE)
    # The first drive's last frame lacked its flow forward.
    assert "resuming, 1 of 8 frames of 2 drives" in capsys.readouterr().out
    assert content(tmp_path) == content(rendered[0])
    drives.write_drives(tmp_path, 2, 3, processes=1, **SIZE)
    assert "all 6 frames of 2 drives are already finished" in capsys.readouterr().out


def test_lost_files_are_rewritten(rendered, tmp_path, capsys):
    output = shutil.copytree(rendered[0], tmp_path / "copy")
    frames = output / "Scene0001/clone/frames"
    (frames / "occlusion/Camera_0/occlusion_00001.png").unlink()
    (frames / "rgb/Camera_0/rgb_00003.png").write_bytes(b"")
    files.write(frames / "rgb/Camera_0/.partial-rgb_00003.png", "half")
    (output / "Scene0000/clone/colors.txt").unlink()
    kept = frames / "rgb/Camera_0/rgb_00002.png"
    before = kept.stat().st_mtime_ns
    drives.write_drives(output, 2, 4, **SIZE)
    assert "resuming, 5 of 8 frames" in capsys.readouterr().out
    assert content(output) == content(rendered[0]) and kept.stat().st_mtime_ns == before


def test_tasks_are_short_runs_of_missing_frames(tmp_path):
    tasks = list(drives._tasks(tmp_path, 2, 23))
    assert tasks[:3] == [(0, 0, 10), (0, 10, 20), (0, 20, 23)] and len(tasks) == 6
    for frame in (0, 1, 5, 22):
        for path in drives.paths(tmp_path, 0, frame, 23).values():
            files.write(path, "x")
    files.write(tmp_path / "Scene0000/clone/colors.txt", "x")
    tasks = list(drives._tasks(tmp_path, 1, 23))
    assert tasks == [(0, 2, 5), (0, 6, 16), (0, 16, 22)]


def test_complete_drives_have_no_tasks(tmp_path):
    # One complete drive of two frames beside one without files.
    for frame in range(2):
        for path in drives.paths(tmp_path, 0, frame, 2).values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"png")
    (drives.scene(tmp_path, 0) / "colors.txt").write_text("colours")
    assert list(drives._tasks(tmp_path, 2, 2)) == [(1, 0, 2)]
    assert list(drives._tasks(tmp_path, 1, 2)) == []


def test_forward_then_backward_returns_from_files(tmp_path):
    """Within 0.1 px at 99 % of the points away from edges and occlusions."""
    drives.write_drives(tmp_path, 2, 4, height=96, width=312, effects=False)
    measured = drive_flow.measure(tmp_path)
    assert measured["frames with flow to the next"] == 6
    assert measured["checked forward and backward, pixels"] > 0.25 * 6 * 96 * 312
    assert measured["of these returned within 0.1 px, %"] > 99
    assert 90 < measured["known, % of the pixels"] <= 100
    assert 3 < measured["not visible in the next frame, % of the known pixels"] < 50


def test_wrong_backward_flow_does_not_return():
    y, x = np.mgrid[:40, :60].astype(np.float32)
    forward = np.dstack([3 + 0.01 * x, 2 + 0 * y, np.ones_like(x)])
    # The exact inverse: x' = 1.01 x + 3.
    backward = np.dstack([(x - 3) / 1.01 - x, 0 * y - 2, np.ones_like(x)])
    hidden = x > 50
    assert drive_flow.return_errors(forward, backward, hidden).max() < 1e-3
    assert len(drive_flow.return_errors(forward, backward, hidden)) > 1000
    backward[..., 0] += 0.2
    assert drive_flow.return_errors(forward, backward, hidden).min() > 0.1


def test_measuring_a_folder_without_drives_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no drive of data_prep.scenes --frames in it"):
        drive_flow.measure(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "holds drives generated with --seed=0, not --seed=1"),
        ({"speed": 9.0}, "generated with no --speed, not --speed=9.0"),
        ({"rate": 5.0, "height": 65}, "--height=64, --rate=10.0, not --height=65, --rate=5.0"),
        ({"effects": False}, "with --effects, not --noeffects"),
    ],
)
def test_different_settings_are_rejected(rendered, change, message):
    before = content(rendered[0])
    message = f"{message}: give another --output$"
    with pytest.raises(ValueError) as caught:
        drives.write_drives(rendered[0], 3, 9, **{**SIZE, **change})
    assert re.search(message, entry.message(caught.value)) and "--" not in str(caught.value)
    assert content(rendered[0]) == before


def test_pairs_and_drives_do_not_share_a_folder(rendered, layer_world, tmp_path):
    with pytest.raises(ValueError, match="new: holds drives, not pairs: give another output"):
        store.write_pairs(rendered[0], "street", 1, **SIZE)
    store.write_pairs(tmp_path, count=1, **SIZE, **layer_world)
    with pytest.raises(ValueError, match="holds pairs, not drives: give another output"):
        drives.write_drives(tmp_path, 1, 2, **SIZE)


def test_foreign_folders_are_rejected(tmp_path):
    files.write(tmp_path / "Scene01/clone/colors.txt", "x")
    with pytest.raises(ValueError, match="holds a folder Scene01 that this command did not create"):
        drives.write_drives(tmp_path, 1, 2, **SIZE)
    assert set(content(tmp_path)) == {"Scene01/clone/colors.txt"}


def test_full_disk_keeps_finished_frames(rendered, tmp_path, monkeypatch):
    write, written = files.write, []

    def run_full(path, data):
        written.append(path)
        if len(written) == 14:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(drives.files, "write", run_full)
    with pytest.raises(OSError, match="finished frames are kept, free some space and run"):
        drives.write_drives(tmp_path, 2, 4, **SIZE)
    monkeypatch.setattr(drives.files, "write", write)
    drives.write_drives(tmp_path, 2, 4, **SIZE)
    assert content(tmp_path) == content(rendered[0])


def test_error_names_drive_and_frame(tmp_path, monkeypatch):
    def render(settings, frames):
        for frame in original(settings, frames):
            yield frame._replace(valid=np.zeros_like(frame.valid))

    original = video.render
    monkeypatch.setattr(video, "render", render)
    with pytest.raises(ValueError, match="drive 0, frame 0: no pixel has known flow"):
        drives.write_drives(tmp_path, 1, 2, **SIZE)
    assert set(content(tmp_path)) == {"scenes.json"}


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--frames=1"], ["--frames=1", "[2, 100000]"]),
        (["--frames=2", "--speed=41"], ["--speed=41", "[0.5, 40.0]"]),
        (["--frames=2", "--rate=0"], ["--rate=0", "[1.0, 1000.0]"]),
        (["--speed=3"], ["--speed: only used with --frames"]),
        (["--rate=3"], ["--rate: only used with --frames"]),
        (["--frames=2", "--photos=y"], ["--photos=y: only used with --world=layers"]),
        (["--frames=2", "--world=layers"], ["--frames: only used with --world=street"]),
        (["--frames=2", "--count=10001"], ["--count=10001: with --frames", "1 to 10000"]),
        (["--frames=2", "--height=99", "--width=49"], ["twice as high"]),
        (["--frames=2", "--output=setup.py"], ["setup.py: is a file"]),
    ],
)
def test_bad_commands_print_one_line(args, parts):
    line = run_command(
        "data_prep.scenes", "--world=street", "--count=1", "--output=x", *args, ok=False
    ).stderr
    assert all(part in line for part in parts), line
    assert not (ROOT / "x").exists()
