"""What the tests share: data folders made once a session, and how a command is run."""

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
# Where tests run in the background SIGINT is ignored, and so in the commands that they start: then
# no test could stop one as Ctrl-C does.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Of the made-up frames, in turn.
SIZES = [(96, 160), (90, 168)]


@pytest.fixture(scope="session")
def kitti_folder(tmp_path_factory):
    """Made-up KITTI: frames 0..3 in both sets, frame 4 with labels alone. Not to be changed.

    Of two sizes, as the real one has four: whatever takes these frames takes that too.
    """
    return write_kitti(tmp_path_factory.mktemp("kitti"), count=4, semantics_only=1, sizes=SIZES)


@pytest.fixture(scope="session")
def kitti_records(kitti_folder, tmp_path_factory):
    """Its records: frame 3 is val, the others train. Not to be changed."""
    from data_prep import kitti

    output = tmp_path_factory.mktemp("records")
    kitti.convert([kitti_folder], output)
    return output


def once(tmp_path_factory, name, make):
    """A folder that one of the processes that run tests makes for all: `make(folder)`."""
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


@pytest.fixture(scope="session")
def trained_run(kitti_records, tmp_path_factory):
    """Run folder of the KITTI recipe after two steps on the made-up records.

    By small crops and the small encoder, and without a graph, which saves minutes.

    Not to be changed. Tests that ask a network about pictures take it; what it knows is nothing.
    """
    sets = [f"--{split}_records={kitti_records}/{split}-*" for split in ("train", "val")]

    def make(folder):
        run_command(
            "tests.support.eager_train",
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
    """Run folder of a network of a few thousand weights, which is exported in seconds.

    It was written by an earlier version: see tests/reference/earlier_run. Not to be changed.
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
    """Its folder for servers, by the command. Not to be changed."""

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
        pytest.skip("FLOWSEG_SAMPLES is not set: no real samples at hand")
    return Path(folder)


def run_command(*args, ok=True, timeout=600):
    """Run `python -m ARGS` and return the CompletedProcess; see `forked`.

    Args:
        *args: module and its arguments; anything that `str` makes text of.
        ok: whether it must exit with 0; else it must end with one line on stderr and exit code 1.
        timeout: seconds after which it is taken for hanging.
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
    """Folder of pictures that have something to see at every scale."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for k in range(3):
        picture = sum(
            cv2.resize(rng.uniform(0, 85, (n, n, 3)), (160, 120)) for n in (4, 16, 64)
        )  # fmt: skip
        files.write(folder / f"{k}.png", cv2.imencode(".png", np.uint8(picture))[1].tobytes())
    return folder


@pytest.fixture(scope="session")
def layer_world(photos):
    """The world that costs least, as keywords of `write_pairs`."""
    return {"world": "layers", "photos": photos}
