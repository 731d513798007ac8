"""Ctrl-C while the real command writes a video: the frames written so far can be read."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flowseg.media.drawing import write_png
from flowseg.media.frames import open_frames
from tests.conftest import ROOT


@pytest.fixture(params=["synthetic", "real"])
def long_input(request, tmp_path):
    """Enough frames to keep the network busy throughout the test; they hardly compress."""
    if request.param == "real":
        return request.getfixturevalue("samples") / "davis/JPEGImages/480p/libby"
    noise = np.random.default_rng(0).integers(0, 256, (160, 240, 3), np.uint8)
    for n in range(200):
        write_png(tmp_path / "in" / f"{n}.png", np.roll(noise, 2 * n, 1))
    return tmp_path / "in"


def test_ctrl_c_keeps_the_frames_written_so_far(long_input, tmp_path):
    out = tmp_path / "out/a.mp4"
    command = ("--weights", "pretrained", "--input", long_input, "--output", out)
    run = subprocess.Popen(
        [sys.executable, "-m", "flowseg.visualize", *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    growing = out.with_name(f".partial-{out.name}")
    # More than the container's header and the first frame.
    while not growing.exists() or growing.stat().st_size < 200_000:
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=600)
    assert run.returncode == 130 and stdout == ""
    match = re.fullmatch(r"stopped: .*a\.part\.mp4 holds the (\d+) frames so far\n", stderr)
    assert match, stderr
    frames, fps, announced = open_frames(out.with_name("a.part.mp4"))
    assert len(list(frames)) == announced == int(match[1]) >= 2 and fps == 10
    assert [path.name for path in out.parent.iterdir()] == ["a.part.mp4"]
