"""Estimates of memory: refused before the work starts, with the numbers and the remedy."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from flowseg import memory, runs
from flowseg.cli import entry
from flowseg.data import flow_io
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.media.frames import read_image
from flowseg.training import loop
from tests.support.trainings import small

MEMINFO = "MemTotal: 900 kB\nMemAvailable: 500 kB\nSwapFree: 20 kB\n"


@pytest.fixture
def limited(monkeypatch):
    """Sets the available memory, in bytes."""
    return lambda size: monkeypatch.setattr(memory, "available", lambda: size)


def system(monkeypatch, files):
    """Let `memory` read these files only: path -> text; 100 pages of this process are in use."""
    files = {"/proc/self/statm": "900 100 5", **files}
    monkeypatch.setattr(memory, "_read", lambda path: files.get(str(path), ""))
    monkeypatch.setattr(memory.os, "sysconf", lambda name: 1000)


def test_available_of_system(monkeypatch):
    system(monkeypatch, {"/proc/meminfo": MEMINFO})
    assert memory.available() == 500 * 1024 + 100 * 1000 + 20 * 1024
    system(monkeypatch, {})
    assert memory.available() is None


def test_available_in_control_groups(monkeypatch):
    group = "/sys/fs/cgroup/a"
    files = {
        "/proc/meminfo": MEMINFO,
        "/proc/self/cgroup": "0::/a/b\n",
        f"{group}/b/memory.max": "max\n",
        f"{group}/b/memory.current": "70000\n",
        f"{group}/memory.max": "300000\n",
        f"{group}/memory.current": "80000\n",
        f"{group}/memory.stat": "anon 5\ninactive_file 30000\n",
    }
    system(monkeypatch, files)
    assert memory.available() == 300_000 - 80_000 + 30_000 + 100_000 + 20 * 1024
    group = "/sys/fs/cgroup/memory/a"
    files = {
        "/proc/meminfo": MEMINFO,
        "/proc/self/cgroup": "9:cpu:/x\n4:memory:/a\n0::/\n",
        f"{group}/memory.limit_in_bytes": "200000\n",
        f"{group}/memory.usage_in_bytes": "90000\n",
        f"{group}/memory.stat": "total_inactive_file 10000\n",
    }
    system(monkeypatch, files)
    assert memory.available() == 200_000 - 90_000 + 10_000 + 100_000 + 20 * 1024


def test_sizes_of_documentation_fit(limited):
    """See docs/install.md and docs/results: measured peaks in GiB, of the whole process."""
    for batch, peak in ((1, 3.91), (2, 5.13), (3, 6.35)):
        limited((peak - 1) * 2**30)
        memory.require_for_training("resnet50", batch, 256, 832, partly=False)
    limited(1.2e9)
    memory.require_for_prediction(1024, 2048)
    limited(0.74e9)
    memory.require_for_lite_file(384, 1248, "")
    limited(None)
    memory.require_for_prediction(10**6, 10**6)


def test_prediction_is_refused_before_the_network_runs(limited):
    run = runs.Run(None, CITYSCAPES, None)
    frame = np.zeros((100, 200, 3), np.uint8)
    limited(20e9)
    text = (
        r"^a prediction of 200000x100000 px needs about 8,000.0 GB of memory, but 20.0 GB is "
        "available: lower input_scale"
    )
    for predict in (run.predict, run.predict_logits):
        with pytest.raises(ArgumentError, match=text) as caught:
            predict(frame, frame, scale=1000)
    assert "lower --input_scale, or give" in entry.message(caught.value)
    with pytest.raises(ArgumentError, match=text):
        object.__setattr__(run, "_streaming_models", None)
        next(run.stream([frame, frame], scale=1000))


def test_training_is_refused(limited):
    limited(8e9)
    loop.require_memory(small(height=256, width=832, batch_size=4))
    loop.require_memory(small(height=256, width=832, batch_size=8, precision="bfloat16"))
    with pytest.raises(ArgumentError) as caught:
        loop.require_memory(small(height=2560, width=8320, batch_size=4))
    assert entry.message(caught.value) == (
        "a training step with --batch_size=4 and crops of 8320x2560 px needs about 468.6 GB of "
        "memory, but 8.0 GB is available: lower --batch_size, --height or --width"
    )


def png(width, height, content=b""):
    """Return a PNG, grey, whose header claims any size."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b"")
    return flow_io.PNG_MAGIC + b"".join(parts)


def test_image_is_refused_by_its_header(tmp_path, limited):
    path = tmp_path / "a.png"
    path.write_bytes(png(40_000, 40_000))
    with pytest.raises(ValueError, match="a.png: an image of 40000x40000 px, but OpenCV reads at"):
        read_image(path)
    limited(1e9)
    path.write_bytes(png(20_000, 30_000))
    text = "a.png: an image of 20000x30000 px needs about 3.6 GB of memory, but 1.0 GB is available"
    with pytest.raises(ValueError, match=text):
        read_image(path)
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 30_000, 20_000)
    path.write_bytes(jpeg)
    with pytest.raises(ValueError, match=text):
        read_image(path)


def test_png_that_decompresses_to_more_than_its_header_states():
    with pytest.raises(ValueError, match="x.png: .*more pixels than its header states"):
        flow_io.check_png(png(8, 8, bytes(2**22)), "x.png")
    with pytest.raises(ValueError, match="x.png: damaged PNG"):
        flow_io.check_png(png(8, 8)[:-24] + png(8, 8)[-12:], "x.png")
    flow_io.check_png(png(8, 8, bytes(72)), "x.png")
