"""Tests of errors and interruptions of the command of synthetic worlds."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.conversion import workers
from data_prep.scenes import farm, layers, store
from flowseg import files
from flowseg.cli import entry
from tests.conftest import ROOT, run_command
from tests.support.scene_folders import FLOW, SIZE, as_flags, content, find_photos_of, pictures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "generated with --seed=0, not --seed=1"),
        ({"height": 65, "width": 97}, "--height=64, --width=96, not --height=65, --width=97"),
        ({"effects": False}, "with --effects, not --noeffects"),
        ({"motion": 4.0}, "generated with --motion=1.0, not --motion=4.0"),
        (
            {"world": "street", "photos": None},
            r"--world=layers, --photos of 3 \(.{6}\), not --world=street, no --photos",
        ),
    ],
)
def test_different_settings_are_rejected(layer_world, tmp_path, change, message):
    store.write_pairs(tmp_path, count=1, processes=1, **SIZE, **layer_world)
    before = content(tmp_path)
    message = f"{message}: give another --output$"
    with pytest.raises(ValueError, match=message.replace("--", "")) as caught:
        store.write_pairs(tmp_path, **{"count": 2, **SIZE, **layer_world, **change})
    assert re.search(message, entry.message(caught.value)) and "--" not in str(caught.value)
    assert content(tmp_path) == before


def test_folder_of_an_earlier_version_is_continued(layer_world, tmp_path):
    store.write_pairs(tmp_path, count=1, processes=1, **SIZE, **layer_world)
    plan = json.loads((tmp_path / "scenes.json").read_text())
    assert plan.pop("motion") == 1
    (tmp_path / "scenes.json").write_text(json.dumps(plan))
    store.write_pairs(tmp_path, count=2, processes=1, **SIZE, **layer_world)
    assert len(list((tmp_path / FLOW / "flow_occ").iterdir())) == 2


def test_different_photos_are_rejected(layer_world, photos, tmp_path):
    output, other_photos = tmp_path / "out", shutil.copytree(photos, tmp_path / "moved")
    store.write_pairs(output, count=1, processes=1, **SIZE, **layer_world)
    store.write_pairs(output, count=1, world="layers", photos=other_photos, **SIZE)
    (other_photos / "2.png").rename(other_photos / "3.png")
    with pytest.raises(ValueError, match=r"with photos of 3 \(\w{6}\), not photos of 3 \(\w{6}\):"):
        store.write_pairs(output, count=1, world="layers", photos=other_photos, **SIZE)


def test_foreign_folders_are_rejected(kitti_folder, layer_world, tmp_path):
    before = content(kitti_folder)
    for folder in (kitti_folder, kitti_folder / "data_semantics"):
        with pytest.raises(
            ValueError, match="holds a .* this command did not create.*another output"
        ):
            store.write_pairs(folder, count=1, **SIZE, **layer_world)
    assert content(kitti_folder) == before and not list(kitti_folder.rglob(".*"))
    (tmp_path / "scenes.json").write_text("[1")
    with pytest.raises(ValueError, match="scenes.json: damaged"):
        store.write_pairs(tmp_path, count=1, **SIZE, **layer_world)


def test_concurrent_run_is_rejected(layer_world, tmp_path):
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is using this folder"):
            store.write_pairs(tmp_path, count=1, **SIZE, **layer_world)
    assert content(tmp_path) == {}


def test_full_disk(layer_world, tmp_path, monkeypatch):
    write, written = files.write, []

    def run_full(path, data):
        written.append(path)
        if len(written) == 7:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(farm.files, "write", run_full)
    monkeypatch.setattr(
        workers, "map_in_processes", lambda f, items, *_, **__: (f(i) for i in items)
    )
    with pytest.raises(
        OSError, match="No space left.*pairs are kept, free some space and run"
    ) as caught:
        store.write_pairs(tmp_path, count=4, **SIZE, **layer_world)
    assert caught.value.filename.endswith("image_2/000001_11.png")
    monkeypatch.setattr(farm.files, "write", write)
    assert len(pictures(tmp_path)) == 5
    store.write_pairs(tmp_path, count=4, **SIZE, **layer_world)
    assert len(pictures(tmp_path)) == 16


def start(layer_world, output, count, **kwargs):
    """Start the command in its own process group, with two workers."""
    flags = map(str, as_flags(**layer_world, count=count))
    command = [sys.executable, "-m", "data_prep.scenes", *flags, "--workers=2", "--output", output]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **kwargs,
    )  # fmt: skip


def wait_for_pairs(run, output):
    while not list((output / FLOW).glob("flow_occ/0*.png")) and run.poll() is None:
        time.sleep(0.01)
    assert run.poll() is None


def test_write_error_in_worker(layer_world, tmp_path):
    """A limit on the file size simulates a full disk."""
    import resource

    store.write_pairs(tmp_path / "good", count=4, **SIZE, **layer_world)
    largest = max(pictures(tmp_path / "good"), key=lambda path: path.stat().st_size)
    limit = largest.stat().st_size - 1
    output = tmp_path / "out"
    run = start(
        layer_world, output, 4,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    message = run.communicate(timeout=60)[1]
    assert run.returncode == 1 and message.count("\n") == 1
    assert f"{largest.name}: File too large; finished pairs are kept" in message
    assert not list(output.rglob(".partial-*")) and len(pictures(output)) < 16
    store.write_pairs(output, count=4, **SIZE, **layer_world)
    assert content(output) == content(tmp_path / "good")


def test_ctrl_c(layer_world, tmp_path):
    run = start(layer_world, tmp_path, 10_000)
    wait_for_pairs(run, tmp_path)
    os.killpg(run.pid, signal.SIGINT)
    message = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and message == "stopped\n"
    assert not list(tmp_path.rglob(".partial-*"))
    assert len(pictures(tmp_path)) % 4 == 0  # pairs already started are finished


def test_killed_worker_and_killed_run(layer_world, tmp_path):
    run = start(layer_world, tmp_path, 10_000)
    wait_for_pairs(run, tmp_path)
    os.kill(find_workers(run.pid)[0], signal.SIGKILL)
    message = run.communicate(timeout=60)[1]
    assert run.returncode == 1
    assert message.startswith("error: a worker process died (out of memory?)"), message
    assert message.count("\n") == 1, message
    count = len(list((tmp_path / FLOW).glob("flow_occ/0*.png")))
    run = start(layer_world, tmp_path, 10_000)
    while len(list((tmp_path / FLOW).glob("flow_occ/0*.png"))) <= count and run.poll() is None:
        time.sleep(0.01)
    orphans = find_workers(run.pid)
    run.kill()
    run.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert orphans and not any(Path(f"/proc/{pid}").exists() for pid in orphans)
    store.write_pairs(tmp_path, count=count, **SIZE, **layer_world)
    assert not list(tmp_path.rglob(".partial-*"))


def find_workers(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def test_pair_without_flow_is_reported(layer_world, tmp_path, monkeypatch):
    job = farm.Job(
        tmp_path, world="layers", seed=7, **SIZE, effects=True, photos=find_photos_of(layer_world)
    )
    pair = farm._make_pair(job, 5)
    blind = pair._replace(visible=np.zeros_like(pair.visible))
    monkeypatch.setattr(layers, "make_pair", lambda *_, **__: blind)
    with pytest.raises(ValueError, match="pair 5 of seed=7 has no visible flow"):
        farm.make(job, 5)
    assert content(tmp_path) == {}


def test_bad_photo_is_reported_with_its_pair(tmp_path):
    files.write(tmp_path / "photos/bad.png", "no picture")
    with pytest.raises(ValueError, match=r"^pair 0: .*bad\.png"):
        store.write_pairs(tmp_path / "out", "layers", 1, photos=tmp_path / "photos", **SIZE)


def test_copy_without_link_support(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files.write(tmp_path / "a", "content")
    farm._link(tmp_path / "a", tmp_path / "b")
    assert content(tmp_path) == {"a": b"content", "b": b"content"}


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ([], ["--world is not given"]),
        (["--world=street"], ["--count is not given"]),
        (["--world=street", "--count=1"], ["--output is not given"]),
        (["--world=moon"], ["--world=moon", "<street|layers>"]),
        (["--count=-1"], ["--count=-1", "[1, 1000000]"]),
        (["--count=1000001"], ["[1, 1000000]"]),
        (["--seed=-1"], ["--seed=-1"]),
        (["--height=31"], ["--height=31", "[32, 8192]"]),
        (["--width=8193"], ["--width=8193", "[32, 8192]"]),
        (["--world=layers", "--count=1", "--output=x"], ["--photos is not given"]),
        (["--world=street", "--count=1", "--output=x", "--photos=y"], ["--photos=y: only"]),
        (["--world=layers", "--count=1", "--output=x", "--photos=nowhere"], ["nowhere: no such"]),
        (["--world=street", "--count=1", "--output=x", "--motion=2"], ["--motion=2: only"]),
        (["--world=street", "--frames=2", "--count=1", "--output=x", "--motion=2"], ["only used"]),
        (["--world=street", "--count=1", "--output=x", "--height=99", "--width=49"], ["twice as"]),
        (["--world=street", "--count=1", "--output=setup.py"], ["setup.py: is a file"]),
        (["--world=street", "--count=1", "--output=setup.py/x"], ["setup.py/x: Not a directory"]),
    ],
)
def test_bad_commands_print_one_line(args, parts):
    line = run_command("data_prep.scenes", *args, ok=False).stderr
    assert all(part in line for part in parts), line
    assert not (ROOT / "x").exists()


def test_missing_mujoco_is_reported(tmp_path):
    code = """
import runpy, sys
sys.modules["mujoco"] = None
runpy.run_module("data_prep.scenes", run_name="__main__")
"""
    command = [sys.executable, "-c", code, "--world=street", "--count=1", f"--output={tmp_path}/x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "mujoco" in done.stderr and "pip install -e '.[scenes]'" in done.stderr
    assert not (tmp_path / "x").exists()


def test_workers_are_pinned_and_lazy():
    consumed = []
    items = (consumed.append(None) or 0 for _ in range(1000))
    core_sets = workers.map_in_processes(os.sched_getaffinity, items, 2, pin=True)
    assert len(next(core_sets)) == 1 and len(consumed) < 10
    core_sets.close()
    with pytest.raises(TypeError):
        list(workers.map_in_processes(len, [3], 1))
