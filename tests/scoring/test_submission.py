"""KITTI's test frames without ground truth: from `testing/` to files for its servers."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data_prep import kitti
from flowseg import files, runs
from flowseg.data.labels import CAMVID, CITYSCAPES, KNOWN_IDS, from_dict
from flowseg.scoring import prediction_files
from tests.commands.test_evaluate import (
    make_record,  # noqa: F401
    run_dir,  # noqa: F401
    tiny_model,  # noqa: F401
    write,  # noqa: F401
)
from tests.conftest import run_command
from tests.support import official

SETS = ("data_scene_flow", "data_semantics")


def without_truth(source, folder):
    """Copy the frames of a KITTI folder as test frames: only `testing/image_2` of both sets."""
    for name in SETS:
        images = source / name / "training/image_2"
        shutil.copytree(images, folder / name / "testing/image_2")
    return folder


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.png")}


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_submission_of_test_frames(kind, request, run_dir, tmp_path):  # noqa: F811
    if kind == "synthetic":
        source = request.getfixturevalue("kitti_folder")
    else:
        source = request.getfixturevalue("samples") / "kitti"
    testing = without_truth(source, tmp_path / "kitti")
    done = run_command(
        "data_prep.kitti", "--source", testing, "--output", tmp_path / "records", "--testing"
    )
    images = source / "data_scene_flow/training/image_2"
    pairs = sorted(path.name for path in images.glob("*_10.png"))
    stills = sorted(p.name for p in (source / "data_semantics/training/image_2").glob("*_10.png"))
    row = [line.split() for line in done.stdout.splitlines() if line.split()[0] == "test"]
    assert row[0][:5] == ["test", str(len(stills)), str(len(pairs)), "0", "0"]
    done = run_command(
        "flowseg.evaluate",
        "--run_dir",
        run_dir,
        "--records",
        tmp_path / "records/test-*",
        "--submission",
        tmp_path / "sent",
        "--metrics_json",
        tmp_path / "scores.json",
        "--report",
        tmp_path / "report.html",
    )
    assert "nothing to score: these frames have no ground truth" in done.stdout
    assert f"{len(stills)} frames, 0 with labels, 0 with flow ground truth" in done.stdout
    assert f"wrote {tmp_path}/sent\n" in done.stdout
    assert json.loads((tmp_path / "scores.json").read_text()) == {}
    page_text = (tmp_path / "report.html").read_text()
    assert (
        "These frames have no ground truth: nothing was scored." in page_text
        and "nan" not in page_text
    )

    sent = files_of(tmp_path / "sent")
    assert sorted(sent) == [*(f"flow/{n}" for n in pairs), *(f"semantic/{n}" for n in stills)]
    for name in stills:
        ids = official.read_labels(sent[f"semantic/{name}"])  # 8 bits, one channel
        assert set(np.unique(ids)) <= {group[0] for group in CITYSCAPES.ids["cityscapes"]}
    for name in pairs:
        flow, known = official.read_flow(sent[f"flow/{name}"])  # 16 bits, three channels
        assert known.all() and flow.shape[:2] == cv2.imread(str(images / name)).shape[:2]

    # The same frames with ground truth have bitwise equal predictions.
    kitti.convert([source], tmp_path / "known", val_fraction=0)
    run_command(
        "flowseg.evaluate",
        "--run_dir",
        run_dir,
        "--records",
        tmp_path / "known/train-*",
        "--submission",
        tmp_path / "with_truth",
    )
    files_with_truth = files_of(tmp_path / "with_truth")
    assert {name: path.read_bytes() for name, path in files_with_truth.items()} == {
        name: path.read_bytes() for name, path in sent.items()
    }


def test_single_kitti_set(kitti_folder, tmp_path):
    folder = without_truth(kitti_folder, tmp_path / "kitti")
    for name, pairs in zip(SETS, (4, 0), strict=True):
        frames = kitti.find_frames([folder / name], testing=True)
        assert len(frames) == (4 if name == "data_scene_flow" else 5)
        assert sum("image2" in frame.files for frame in frames) == pairs
    # Both sets, one without test frames.
    shutil.rmtree(folder / "data_semantics/testing")
    (folder / "data_semantics/training").mkdir()
    assert len(kitti.find_frames([folder], testing=True)) == 4


def test_missing_test_frames(kitti_folder, tmp_path):
    with pytest.raises(ValueError, match="no test frames here .testing/image_2"):
        kitti.convert([kitti_folder], tmp_path / "out", testing=True)
    folder = without_truth(kitti_folder, tmp_path / "kitti")
    with pytest.raises(
        ValueError, match="no KITTI set here: .* .give testing to convert the frames of testing/"
    ):
        kitti.convert([folder], tmp_path / "out")
    (folder / "data_scene_flow/testing/image_2/000001_11.png").unlink()
    with pytest.raises(ValueError, match="testing/image_2/000001_11.png: missing"):
        kitti.convert([folder], tmp_path / "out", testing=True)
    # Test frames have the ids of training frames, so they cannot be in the same records.
    kitti.convert([kitti_folder], tmp_path / "train")
    with pytest.raises(ValueError, match="holds another conversion"):
        kitti.convert([folder / "data_semantics"], tmp_path / "train", testing=True)


def test_predictions_without_truth(tmp_path):
    path = write(tmp_path / "test", make_record((4, 5), 7))
    seg, flow = np.zeros((4, 5), np.uint8), np.zeros((4, 5, 2), np.float32)
    prediction_files.write_submission(tmp_path / "sent", "000007_10", seg, flow, CITYSCAPES)
    failed = run_command(
        "flowseg.evaluate", "--records", path, "--predictions", tmp_path / "sent", ok=False
    )
    assert "sent: has seg or flow, but no frame has ground truth for it" in failed.stderr


CUSTOM = {"name": "own", "names": ["free", "blocked"], "palette": [[0, 0, 0], [255, 0, 0]]}
# A class with several ids; a class without a Cityscapes id; no Cityscapes numbering.
WIDE = from_dict(CUSTOM | {"ids": {"mine": [1, 2], "cityscapes": [[8, 7], [26, 27]]}})
FEW = from_dict(CUSTOM | {"ids": {"mine": [1, 2], "cityscapes": [7, []]}})
NONE = from_dict(CUSTOM | {"ids": {"mine": [7, 26]}})


def test_cityscapes_ids_of_classes():
    city = prediction_files.city_ids(CITYSCAPES)
    np.testing.assert_array_equal(city[:19], np.ravel(CITYSCAPES.ids["cityscapes"]))
    assert (city[19:] == 255).all()
    assert prediction_files.city_ids(WIDE)[:3].tolist() == [8, 26, 255]
    assert prediction_files.city_ids(FEW) is None and prediction_files.city_ids(NONE) is None
    # CamVid's ids differ: sky is 0 in CamVid and 23 in Cityscapes.
    camvid = prediction_files.city_ids(CAMVID)[:11].tolist()
    assert camvid[0] == 23 and set(camvid) < set(KNOWN_IDS["cityscapes"])


@pytest.mark.parametrize("label_set", [NONE, CAMVID])
def test_classes_without_cityscapes_id(label_set, tmp_path):
    runs.save_model(tiny_model(1, classes=len(label_set.names)), tmp_path / "run/best.keras")
    files.write_json(tmp_path / "run/label_set.json", label_set._asdict())
    path = write(tmp_path / "test", make_record((4, 5), 7))
    done = run_command(
        "flowseg.evaluate",
        "--run_dir",
        tmp_path / "run",
        "--records",
        path,
        "--submission",
        tmp_path / "sent",
    )
    sent = files_of(tmp_path / "sent")
    warned = "sent/semantic is not written: label set own has classes without a Cityscapes id"
    if label_set is NONE:
        assert set(sent) == {"flow/000007_10.png"} and warned in done.stderr
    else:
        assert set(sent) == {"flow/000007_10.png", "semantic/000007_10.png"} and not done.stderr
        # The network predicts class 1, CamVid's building.
        assert (official.read_labels(sent["semantic/000007_10.png"]) == 11).all()
