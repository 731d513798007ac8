"""Tests of the shard writer: atomic writes, resuming, and protection of other files."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data_prep import kitti
from data_prep.conversion import frames, workers
from data_prep.conversion import split as split_frames
from flowseg import files
from flowseg.cli import entry
from tests.conftest import ROOT
from tests.support.kitti_writer import write_kitti

SMALL = {"val_fraction": 0.1, "records_per_shard": 1}
# Frames 0..4 with seed 0, one per shard: frame 3 is val.
SHARDS = [*(f"train-{i:05d}-of-00004.tfrecord" for i in range(4)), "val-00000-of-00001.tfrecord"]


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def content(folder):
    return {name: (folder / name).read_bytes() for name in visible(folder)}


@pytest.fixture(scope="module")
def complete(kitti_folder, tmp_path_factory):
    """Output of an uninterrupted conversion in shards of one record."""
    output = tmp_path_factory.mktemp("complete")
    kitti.convert([kitti_folder], output, **SMALL)
    assert visible(output) == ["index.json", *SHARDS]
    return content(output)


class Writer(tf.io.TFRecordWriter):
    """Fails at the third record after writing half of it."""

    written = 0
    error = None

    def write(self, record):
        Writer.written += 1
        if Writer.written == 3:
            super().write(record[: len(record) // 2])
            raise Writer.error
        super().write(record)


@pytest.fixture
def broken_writer(monkeypatch):
    def install(error):
        monkeypatch.setattr(Writer, "written", 0)
        monkeypatch.setattr(Writer, "error", error)
        monkeypatch.setattr(tf.io, "TFRecordWriter", Writer)

    return install


def test_interrupted_run_is_resumed(
    kitti_folder, tmp_path, complete, broken_writer, monkeypatch, capsys
):
    broken_writer(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        kitti.convert([kitti_folder], tmp_path, **SMALL)
    assert sorted(os.listdir(tmp_path)) == [".lock", ".plan.json", *SHARDS[:2]]
    before = [(tmp_path / name).stat().st_mtime_ns for name in SHARDS[:2]]
    monkeypatch.undo()
    capsys.readouterr()
    kitti.convert([kitti_folder], tmp_path, **SMALL)
    assert "resuming, 2 of 5 shards" in capsys.readouterr().out
    assert content(tmp_path) == complete
    assert before == [(tmp_path / name).stat().st_mtime_ns for name in SHARDS[:2]]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"),
    ],
)
def test_full_disk(kitti_folder, tmp_path, broken_writer, error):
    broken_writer(error)
    with pytest.raises(OSError, match="no space left on the disk: free some space") as caught:
        kitti.convert([kitti_folder], tmp_path, **SMALL)
    assert caught.value.filename == str(tmp_path) and caught.value.errno == errno.ENOSPC
    assert sorted(os.listdir(tmp_path)) == [".lock", ".plan.json", *SHARDS[:2]]


def test_killed_run_is_resumed(kitti_folder, tmp_path, complete):
    """SIGKILL leaves partial files, which the next run removes."""
    command = f"""
import os, signal, tensorflow as tf
from data_prep import kitti
close = tf.io.TFRecordWriter.write
def write(self, record):
    close(self, record)
    self.flush()
    if {SHARDS[2]!r} in " ".join(os.listdir({str(tmp_path)!r})):
        os.kill(os.getpid(), signal.SIGKILL)
tf.io.TFRecordWriter.write = write
kitti.convert([{str(kitti_folder)!r}], {str(tmp_path)!r}, val_fraction=0.1, records_per_shard=1)
"""
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert any(".partial-" in name for name in left) and "index.json" not in left
    assert visible(tmp_path) == SHARDS[:2]
    kitti.convert([kitti_folder], tmp_path, **SMALL)
    assert content(tmp_path) == complete and not any(".partial-" in n for n in os.listdir(tmp_path))


def test_finished_output_is_not_rewritten(kitti_folder, tmp_path, complete, capsys, monkeypatch):
    kitti.convert([kitti_folder], tmp_path, **SMALL)
    monkeypatch.setattr(workers, "read_frames", None)  # reading again would fail
    capsys.readouterr()
    index = kitti.convert([kitti_folder], tmp_path, **SMALL)
    assert "already finished" in capsys.readouterr().out
    assert index == json.loads(complete["index.json"])


@pytest.mark.parametrize("spoil", [os.unlink, lambda path: os.truncate(path, 1000)])
def test_lost_shard_is_rewritten(kitti_folder, tmp_path, complete, spoil, capsys):
    kitti.convert([kitti_folder], tmp_path, **SMALL)
    spoil(tmp_path / SHARDS[1])
    kitti.convert([kitti_folder], tmp_path, **SMALL)
    assert "resuming, 4 of 5" in capsys.readouterr().out and content(tmp_path) == complete


def test_fixed_file_is_read_again(kitti_folder, tmp_path, complete):
    source = shutil.copytree(kitti_folder, tmp_path / kitti_folder.name)
    file = source / "data_semantics/training/semantic/000003_10.png"
    good = file.read_bytes()
    file.write_bytes(good[:-20])
    with pytest.raises(ValueError, match="000003_10.png: truncated"):
        kitti.convert([source], tmp_path / "out", **SMALL)
    assert visible(tmp_path / "out") == SHARDS[:4]
    file.write_bytes(good)
    kitti.convert([source], tmp_path / "out", **SMALL)
    assert content(tmp_path / "out") == complete


def test_stop_at_bad_frame_keeps_existing_shards(kitti_folder, tmp_path):
    source, output = tmp_path / "kitti", tmp_path / "records"
    shutil.copytree(kitti_folder, source)
    bad_file = source / "data_semantics/training/semantic/000002_10.png"
    bad_file.write_bytes(bad_file.read_bytes()[:50])
    kitti.convert([source], output, on_error="skip", **SMALL)
    before = content(output)
    with pytest.raises(ValueError, match="000002_10.png: truncated"):
        kitti.convert([source], output, **SMALL)
    assert {name: before[name] for name in content(output)} == content(output)
    assert "index.json" in before and any(name.endswith(".tfrecord") for name in content(output))


def test_another_conversion_requires_overwrite(kitti_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "train-old.tfrecord").write_text("mine too")
    kitti.convert([kitti_folder], tmp_path, **SMALL)
    before = content(tmp_path)
    with pytest.raises(ValueError, match="with seed=0 instead of 1.*, or overwrite") as caught:
        kitti.convert([kitti_folder], tmp_path, seed=1, **SMALL)
    assert entry.message(caught.value) == (
        f"{tmp_path}: holds another conversion, with --seed=0 instead of 1 (index.json): "
        "give another --output, or --overwrite to replace it"
    )
    with pytest.raises(ValueError, match="another conversion, of different sources"):
        kitti.convert([kitti_folder / "data_scene_flow"], tmp_path, **SMALL)
    # Frames with the same names in another folder are different frames.
    shutil.copytree(kitti_folder, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="another conversion, of different sources"):
        kitti.convert([tmp_path / "elsewhere"], tmp_path, **SMALL)
    shutil.rmtree(tmp_path / "elsewhere")
    assert content(tmp_path) == before
    kitti.convert([kitti_folder], tmp_path, val_fraction=0, overwrite=True)
    assert visible(tmp_path) == [
        "index.json",
        "notes.txt",
        "train-00000-of-00001.tfrecord",
        "train-old.tfrecord",
    ]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_shards_without_journal_are_not_overwritten(kitti_folder, tmp_path):
    (tmp_path / SHARDS[0]).write_text("unknown origin")
    with pytest.raises(ValueError, match="another conversion, without its journal"):
        kitti.convert([kitti_folder], tmp_path)
    assert (tmp_path / SHARDS[0]).read_text() == "unknown origin"


def test_output_is_a_file(kitti_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: is a file"):
        kitti.convert([kitti_folder], tmp_path / "file")


def test_concurrent_conversion_is_rejected(kitti_folder, tmp_path):
    with files.lock(tmp_path, "locked"), pytest.raises(ValueError) as caught:
        kitti.convert([kitti_folder], tmp_path)
    assert entry.message(caught.value) == (
        f"{tmp_path}: another conversion is using this folder: wait for it, or give another "
        "--output"
    )
    assert os.listdir(tmp_path) == [".lock"]
    kitti.convert([kitti_folder], tmp_path)
    assert "index.json" in visible(tmp_path)


def test_output_is_a_link_to_a_missing_folder(kitti_folder, tmp_path):
    (tmp_path / "link").symlink_to("far/records")
    kitti.convert([kitti_folder], tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and "index.json" in visible(tmp_path / "far/records")


def test_split_depends_only_on_id_and_seed():
    def split(ids, seed=0):
        splits = split_frames.by_hash([frames.Frame(i, {}) for i in ids], 0.25, seed)
        return {name: [frame.frame_id for frame in part] for name, part in splits.items()}

    ids = [f"{k:06d}_10" for k in range(400)]
    all_ids, subset = split(ids), split(ids[::-3])
    for name in ("train", "val"):
        assert [i for i in all_ids[name] if i in subset[name]] == subset[name]
    # A quarter of 400, plus or minus three standard deviations (8.7 each).
    assert 74 <= len(all_ids["val"]) <= 126
    assert all_ids["val"] != sorted(all_ids["val"])
    assert set(split(ids, seed=1)["val"]) != set(all_ids["val"])
    with pytest.raises(ValueError, match=r"^val_fraction=1\.5: must be between 0 and 1"):
        split_frames.by_hash([], 1.5, 0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough small frames for worker processes."""
    return write_kitti(tmp_path_factory.mktemp("many"), count=20, height=32, width=48)


def test_worker_processes_give_equal_records(many, tmp_path):
    kitti.convert([many], tmp_path / "one", processes=1, records_per_shard=4)
    kitti.convert([many], tmp_path / "two", processes=2, records_per_shard=4)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(visible(tmp_path / "one")) > 5


def test_bad_frame_in_worker(many, tmp_path):
    source = shutil.copytree(many, tmp_path / "many")
    for k in (3, 11):
        (source / f"data_scene_flow/training/flow_occ/{k:06d}_10.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"flow_occ/0000\d\d_10.png: not a PNG"):
        kitti.convert([source], tmp_path / "out", processes=2)
    index = kitti.convert([source], tmp_path / "out", processes=2, on_error="skip")
    assert {item["frame_id"] for item in index["left_out"]} == {"000003_10", "000011_10"}
    assert sum(index["records"].values()) == 18


def test_ctrl_c(many, tmp_path):
    """Ctrl-C reaches the whole process group, as from a terminal."""
    command = [sys.executable, "-m", "data_prep.kitti", f"--source={many}", f"--output={tmp_path}"]
    run = subprocess.Popen(
        [*command, "--workers=2", "--records_per_shard=1"],
        None, None, None, None, subprocess.PIPE,
        cwd=ROOT, text=True, start_new_session=True,
    )  # fmt: skip
    while not visible(tmp_path) and run.poll() is None:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    message = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and message == "stopped\n"
    assert not any(".partial-" in name for name in os.listdir(tmp_path))
    assert 1 <= len(visible(tmp_path)) < 20 and "index.json" not in visible(tmp_path)


def test_dead_worker_is_reported(monkeypatch):
    monkeypatch.setattr(workers, "_attempt", os._exit)
    with pytest.raises(OSError, match="worker process died.*fewer workers$") as caught:
        list(workers.read_frames([9] * 20, processes=2))
    assert entry.message(caught.value).endswith("use fewer --workers")


@pytest.mark.parametrize("suffix", [".jpg", ".ppm"])
def test_other_image_formats_are_checked(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    image1 = tmp_path / f"a{suffix}"
    image1.write_bytes(data)
    fields, facts = frames.read_frame(frames.Frame("a", {"image1": image1}))
    assert fields["image1"] == data and (facts["height"], facts["width"]) == (20, 30)
    for cut in (3, len(data) // 2, len(data) - 1):
        image1.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=f"a{suffix}: "):
            frames.read_frame(frames.Frame("a", {"image1": image1}))
