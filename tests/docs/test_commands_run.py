"""Every command of the README and of docs/*.md runs, or is in the table of commands run by hand.

Pages under docs/results are records of runs, with the data and the commit of their time; that their
commands exist is tested in tests/test_documented_commands.py.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowseg.media import drawing, video_output
from tests.conftest import ROOT
from tests.data_prep.test_davis import write_sequence
from tests.data_prep.test_kitti_step import write_set
from tests.support import city_frames, flow_sets, forked
from tests.support.kitti_writer import write_clip, write_kitti
from tests.support.made_files import ids, picture, save
from tests.support.own_folder import write_classes

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BY_HAND = ROOT / "docs/commands-run-by-hand.md"
# Commands that a shell runs; other lines of fenced blocks are output, code or files.
COMMAND = re.compile(
    r"(?:\w+=\S+ )*(?:python -m|make|pip|git|source|tensorboard|docker|unzip|curl|\(?cd) "
)
# Flags that make a command small enough for a test; the last value of a flag counts.
TINY = "--height=64 --width=96 --batch_size=2 --steps=2 --steps_per_epoch=2 --warmup_steps=1"
SMALLER = {
    # ResNet50's ImageNet weights would be a download.
    "flowseg.train": f"{TINY} --pictures 1 --backbone_weights none",
    "data_prep.scenes": "--height 64 --width 96 --count 4",
    "export.saved_model": "--overwrite",
    "export.tflite": "--height 64 --width 96 --max_miou_drop 100 --max_aepe_rise 100",
    "experiments.costs.train_memory": "--train_flag=--height=64 --train_flag=--width=96",
    "experiments.costs.train_speed": f"{TINY} --turns=1 --turn=1",
    "experiments.studies.cross_validate": " ".join(f"--train_flag={x}" for x in TINY.split()),
    "experiments.costs.scene_benchmark": "--height 64 --width 96 --count 1",
}
# In place of the modules of the documentation, with the same flags.
TRAIN = {False: "tests.support.small_train", True: "tests.support.eager_train"}


def commands(page):
    """The command lines of a page's fenced blocks, continued lines joined, in order."""
    lines = []
    for block in re.findall(
        r"^ *```\w*\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.S | re.M
    ):
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\s+#.*", "", line.strip())
            if COMMAND.match(f"{line} "):
                lines.append(line)
    return lines


def run_by_hand():
    """Commands of the table's first column."""
    rows = re.findall(r"^\| `([^`]+)` \|", BY_HAND.read_text(encoding="utf-8"), re.M)
    return {row.replace("\\|", "|") for row in rows}


def documented():
    """Command -> the page that shows it first; pages in the order in which a user reads them."""
    order = ("README", "index", "install", "data", "synthetic-data", "training", "distributed")
    pages = sorted(PAGES, key=lambda p: order.index(p.stem) if p.stem in order else len(order))
    shown = {}
    for page in pages:
        if page != BY_HAND:
            for command in commands(page):
                shown.setdefault(command, page)
    return shown


def test_commands_run_by_hand_are_documented():
    assert run_by_hand() - set(documented()) == set()


def test_commands_are_found(tmp_path):
    page = tmp_path / "page.md"
    block = "make setup  # once\nA=1 python -m flowseg.train \\\n    --steps 5\nprinted\n"
    page.write_text(f"```\n{block}```\nmake x")
    assert commands(page) == ["make setup", "A=1 python -m flowseg.train --steps 5"]


@pytest.fixture
def workspace(tmp_path, samples, photos, monkeypatch):
    """A folder with the code and small data under the names that the documentation uses."""
    for name in ("flowseg", "data_prep", "export", "experiments", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    kitti = write_kitti(tmp_path / "KITTI", count=6, sizes=[(96, 160)])
    images = kitti / "data_scene_flow/training/image_2"
    shutil.copytree(images, kitti / "data_scene_flow/testing/image_2")
    city = city_frames.make_frames()
    for split, name in (("train", "aachen"), ("val", "ulm")):
        city_frames.write_cityscapes(tmp_path / "CITYSCAPES", city, split, name)
    for name, sample in (
        ("CamVid", "camvid"),
        ("FlyingChairs_release", "flyingchairs"),
        ("MIDDLEBURY", "middlebury"),
        ("CLIPS", "clips"),
        ("KITTI2012", "kitti2012"),
        ("SINTEL", "sintel"),
    ):
        (tmp_path / name).symlink_to(samples / sample)
    (tmp_path / "PHOTOS").symlink_to(photos)
    write_flow_sets(tmp_path)
    write_classes(tmp_path / "classes.json")
    for k in range(1, 13):
        save(tmp_path / f"MINE/images/{k:04d}.jpg", picture(k))
        save(tmp_path / f"MINE/masks/{k:04d}.png", ids(k, [2, 3, 4, 9]))
    two = {"names": ["background", "crack"], "palette": [[70, 70, 70], [220, 20, 60]]}
    (tmp_path / "two.json").write_text(json.dumps({**two, "ids": {"mine": [0, 1]}}))
    for k in range(2):
        save(tmp_path / f"BINARY/images/{k}.png", picture(k))
        save(tmp_path / f"BINARY/masks/{k}.png", 255 * ids(k, [0, 1]))
    write_sequence(tmp_path / "DAVIS", "bear")
    write_set(tmp_path / "KITTI_STEP")
    cityscapes = tmp_path / "CITYSCAPES"
    shutil.copytree(cityscapes / "leftImg8bit", cityscapes / "leftImg8bit_sequence")
    for path in (cityscapes / "gtFine").rglob("*.png"):
        save(Path(str(path).replace("gtFine", "gtCoarse")), path.read_bytes())
    save(tmp_path / "PANOPTIC/images/a.png", picture(1))
    save(tmp_path / "PANOPTIC/masks/a.png", np.uint16(1000) * ids(1, [2, 3, 4, 9]) + np.uint16(7))
    write_clip(tmp_path / "VIDEO_OR_FOLDER", 4)
    for name in ("VIDEO.mp4", "phone.mp4"):
        with video_output.video_writer(tmp_path / name, 5) as write:
            for path in sorted((tmp_path / "VIDEO_OR_FOLDER").iterdir()):
                write(cv2.imread(str(path))[..., ::-1].copy())
    for path in ("A.png", "B.png"):
        drawing.write_png(tmp_path / path, np.full((64, 96, 3), 90, np.uint8))
    return tmp_path


def write_flow_sets(folder):
    """Write Virtual KITTI 2, HD1K and the subset of FlyingThings3D, small."""
    images, flow, backward = flow_sets.noise_video(0)
    for scene in ("01", "02", "06", "18", "20"):
        masked = (flow_sets.with_masks(vectors) for vectors in (flow, backward))
        video = (f"Scene{scene}", "clone", "Camera_0")
        flow_sets.write_vkitti2(folder / "VKITTI2", video, images, *masked)
    flow_sets.write_hd1k(folder / "HD1K", 0, images, flow_sets.with_masks(flow))
    flow_sets.write_things_subset(folder / "THINGS", "train", images, flow, backward)


def run(command, folder):
    """Run a documented command, made small; return the CompletedProcess."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"], command
    module, arguments = words[2], words[3:]
    # Four scenes in place of 2,000 have no hundredth for validation.
    arguments = ["0.5" if argument == "0.01" else argument for argument in arguments]
    arguments += shlex.split(SMALLER.get(module, ""))
    if module == "data_prep.scenes" and "--frames" in arguments:
        arguments += ["--frames", "3"]
    if module == "flowseg.train":
        module = TRAIN["pretrained" in command]
    if module == "export.packed":
        # Packed networks are rebuilt by the name of their backbone: not one with a small encoder.
        arguments = [a.replace("runs/kitti", "runs/kitti_lite0") for a in arguments]
    return forked.run(module, arguments, folder, timeout=900)


@pytest.mark.long
def test_documented_commands_run(workspace):
    by_hand = run_by_hand()
    failures = []
    for command, page in documented().items():
        if command in by_hand:
            continue
        done = run(command, Path(workspace))
        print(done.returncode, command, flush=True)
        if done.returncode:
            failures.append(f"{page.name}: {command}: {done.stderr[-500:]}")
    assert not failures, "\n".join(failures)
