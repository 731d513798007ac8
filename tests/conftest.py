"""Fixtures shared by the tests, most of them folders created once per session; `run_command`."""

import fcntl
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

# isort: split
from flowseg import files
from tests.support import forked
from tests.support.kitti_writer import write_kitti

ROOT = Path(__file__).parent.parent
# Background processes ignore SIGINT, and so would the commands that tests start. Restoring the
# handler lets tests stop commands like Ctrl-C does.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Sizes of the synthetic frames, in turn.
SIZES = [(96, 160), (90, 168)]


@pytest.fixture(scope="session")
def kitti_folder(tmp_path_factory):
    """Synthetic KITTI: frames 0..3 in both sets, frame 4 with only labels. Do not modify.

    The frames have two sizes, because those of the real data set differ in size, too.
    """
    return write_kitti(tmp_path_factory.mktemp("kitti"), count=4, semantics_only=1, sizes=SIZES)


@pytest.fixture(scope="session")
def kitti_records(kitti_folder, tmp_path_factory):
    """Records of the synthetic KITTI: frame 3 is val, the others train. Do not modify."""
    from data_prep import kitti

    output = tmp_path_factory.mktemp("records")
    kitti.convert([kitti_folder], output)
    return output


def once(tmp_path_factory, name, make):
    """Return a folder that one test process creates for all of them, with `make(folder)`."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture
def small_encoder(monkeypatch):
    """Makes `build_flowseg` build a small encoder in place of the backbone, in this process."""
    from flowseg.network import model
    from tests.support.small_encoder import build_encoder

    monkeypatch.setattr(model, "build_encoder", build_encoder)


@pytest.fixture(scope="session")
def trained_run(kitti_records, tmp_path_factory):
    """Run folder of the KITTI recipe after two steps on the synthetic records. Do not modify.

    Trained eagerly with small crops and the small encoder, which saves minutes. For tests that need
    a network's predictions, but not good ones.
    """
    sets = [f"--{split}_records={kitti_records}/{split}-*" for split in ("train", "val")]

    def make(folder):
        run_command(
            "tests.support.small_train",
            "--flagfile",
            "experiments/kitti.flags",
            *sets,
            "--steps",
            2,
            "--batch_size",
            1,
            "--run_dir",
            folder,
            "--pictures",
            1,
            "--height",
            96,
            "--width",
            160,
            "--backbone",
            "efficientnet_lite0",
        )

    return once(tmp_path_factory, "two steps", make)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Run folder of a network with a few thousand weights, which exports in seconds.

    It was written by an earlier version: see tests/reference/earlier_run. Do not modify.
    """
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    shutil.copytree(ROOT / "tests/reference/earlier_run", folder)
    rng = np.random.default_rng(4)
    for name in ("sample_image1.png", "sample_image2.png"):
        image = cv2.resize(rng.uniform(0, 255, (6, 9, 3)), (56, 40))
        files.write(folder / name, cv2.imencode(".png", np.uint8(image))[1].tobytes())
    return folder


@pytest.fixture(scope="session")
def served(trained_run, tmp_path_factory):
    """Folder of served models, exported from `trained_run` by the command. Do not modify."""

    def make(folder):
        done = run_command("export.saved_model", "--run_dir", trained_run, "--output", folder)
        assert "served/1: SavedModel" in done.stdout and "of labels equal" in done.stdout
        assert done.stderr == ""

    return once(tmp_path_factory, "served", make)


@pytest.fixture(scope="session")
def samples():
    """Folder of small real samples of the public data sets."""
    folder = os.environ.get("FLOWSEG_SAMPLES")
    if not folder:
        pytest.skip("FLOWSEG_SAMPLES is not set: no real samples available")
    return Path(folder)


def run_command(*args, ok=True, timeout=600):
    """Run `python -m ARGS` and return the CompletedProcess; see `forked`.

    Args:
        *args: module and its arguments, converted to text by `str`.
        ok: whether it must exit with 0; else it must print one line to stderr and exit with 1.
        timeout: seconds after which the command is killed.
    """
    module, *arguments = map(str, args)
    done = forked.run(module, arguments, ROOT, timeout)
    if ok:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Folder of images with texture at every scale."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for k in range(3):
        image = sum(
            cv2.resize(rng.uniform(0, 85, (n, n, 3)), (160, 120)) for n in (4, 16, 64)
        )  # fmt: skip
        files.write(folder / f"{k}.png", cv2.imencode(".png", np.uint8(image))[1].tobytes())
    return folder


@pytest.fixture(scope="session")
def layer_world(photos):
    """Keyword arguments of `write_pairs` for the cheapest world."""
    return {"world": "layers", "photos": photos}
