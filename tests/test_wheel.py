"""The built wheel: it contains the complete package and works without a checkout."""

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
    """Return the names of the package's modules and data files in the checkout."""
    paths = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in paths if path.parent.name != "__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, because building creates folders next to setup.py."""
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
    """A new environment with the wheel and this environment's packages, but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder)
    command(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A line of a .pth file adds a folder, but does not process that folder's .pth files, which
    # would add the checkout. It is added last, after the wheel.
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "more.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


def test_wheel_is_complete(wheel):
    expected = package_files()
    assert {"flowseg/weights/weights.npz", "flowseg/network/model.py"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("flowseg/")}
        assert packed == expected
        weights = "flowseg/weights/weights.npz"
        assert archive.read(weights) == (ROOT / weights).read_bytes()


def test_wheel_without_checkout(installed, tmp_path):
    program = "import sys, flowseg.runs as runs; print(runs.__file__, *sys.path, sep='\\n')"
    module, *path = command(installed / "bin/python", "-c", program, cwd=tmp_path).splitlines()
    assert Path(module).is_relative_to(installed)
    assert str(ROOT) not in path

    pictures = ROOT / "experiments/pictures"
    printed = command(
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
    assert "seg.png, flow.png, seg_color.png, flow_color.png; " in printed
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["flow.png", "flow_color.png", "seg.png", "seg_color.png"]
    shape = read_image(pictures / "kitti_pair_1.png").shape
    assert read_image(tmp_path / "out/seg_color.png").shape == shape
