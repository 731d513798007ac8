"""The built wheel: all of the package is in it, and it works where there is no checkout."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from flowseg.media.frames import read_image
from tests.conftest import ROOT

BUILT_FROM = ("setup.py", "pyproject.toml", "LICENSE")
PACKAGE = ROOT / "flowseg"


def command(*arguments, cwd):
    done = subprocess.run(
        [*map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def package_files():
    """Names of the package's modules and data files, as the checkout has them."""
    found = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if path.parent.name != "__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: building leaves folders beside setup.py."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "flowseg", ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel")
    command(
        *pip, "--no-deps", "--no-build-isolation", "--no-index", "-w", output, source, cwd=output
    )
    (path,) = output.glob("flowseg-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel, and with this one's packages but for the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder)
    command(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A line of a .pth file adds a folder but does not obey that folder's own .pth files, by which
    # the checkout is installed there. Added last: the wheel stands before it.
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "more.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


def test_everything_is_in_the_wheel(wheel):
    expected = package_files()
    assert {"flowseg/weights/weights.npz", "flowseg/network/model.py"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("flowseg/")}
        assert packed == expected
        weights = "flowseg/weights/weights.npz"
        assert archive.read(weights) == (ROOT / weights).read_bytes()


def test_the_wheel_runs_where_there_is_no_checkout(installed, tmp_path):
    program = "import sys, flowseg.runs as runs; print(runs.__file__, *sys.path, sep='\\n')"
    module, *path = command(installed / "bin/python", "-c", program, cwd=tmp_path).splitlines()
    assert Path(module).is_relative_to(installed)
    assert str(ROOT) not in path

    pictures = ROOT / "experiments/pictures"
    said = command(
        installed / "bin/flowseg-predict",
        "--weights",
        "pretrained",
        "--image1",
        pictures / "kitti_pair_1.png",
        "--image2",
        pictures / "kitti_pair_2.png",
        "--output",
        tmp_path / "out",
        cwd=tmp_path,
    )
    assert "seg.png, flow.png, seg_color.png, flow_color.png; " in said
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["flow.png", "flow_color.png", "seg.png", "seg_color.png"]
    shape = read_image(pictures / "kitti_pair_1.png").shape
    assert read_image(tmp_path / "out/seg_color.png").shape == shape
