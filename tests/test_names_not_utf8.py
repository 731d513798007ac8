"""Names with bytes that are not valid UTF-8: they work, or are refused by name before any work."""

import os
import shutil

import numpy as np
import pytest

from data_prep import folder as folder_reader
from data_prep import kitti
from export import saved_model
from flowseg import runs
from flowseg.cli import entry
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.media.frames import open_frames
from flowseg.media.pairs import read_pair
from flowseg.predict import predict
from flowseg.scoring import prediction_files
from flowseg.training import loop
from tests.conftest import ROOT
from tests.support.made_files import ids, picture, save
from tests.support.stand_in import stand_in
from tests.support.trainings import small

NAME = os.fsdecode(b"caf\xe9")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / NAME


def predicted(image1, image2, scale):
    size = image1.shape[:2]
    return np.zeros(size, np.uint8), np.zeros((*size, 2), np.float32)


def test_predict_reads_and_writes(folder):
    paths = [save(folder / f"{NAME}{k}.png", picture(k)) for k in (1, 2)]
    line = predict(stand_in(predicted), *read_pair(*paths), folder / NAME)
    assert line.startswith(str(folder / NAME))
    assert "seg.png" in os.listdir(folder / NAME)
    written = prediction_files.open_predictions(folder, CITYSCAPES)
    assert written.read("seg", NAME, picture(1).shape[:2]).shape == picture(1).shape[:2]
    with pytest.raises(ValueError) as caught:
        read_pair(paths[0], folder / "gone.png")
    assert str(folder) in entry.message(caught.value)


def test_folder_of_frames_is_read(folder):
    for k in (1, 2):
        save(folder / f"{NAME}{k}.png", picture(k))
    names = [frame.name for frame in open_frames(folder)[0]]
    assert names == [f"{NAME}1.png", f"{NAME}2.png"]


def test_run_folder_is_read_but_not_trained(folder):
    shutil.copytree(ROOT / "tests/reference/earlier_run", folder)
    assert runs.load_run(folder).classes
    with pytest.raises(ValueError, match="needs a name that is valid UTF-8: give another run_dir"):
        loop.train(small(train_records=("x",)), folder / "new")
    assert not (folder / "new").exists()


def test_conversion_reads_the_source_and_refuses_ids_and_outputs(kitti_folder, folder, tmp_path):
    shutil.copytree(kitti_folder, folder)
    index = kitti.convert([folder], tmp_path / "records")
    assert sum(index["records"].values()) == 5
    with pytest.raises(ValueError, match="valid UTF-8: give another output"):
        kitti.convert([kitti_folder], tmp_path / f"{NAME} out")
    assert not (tmp_path / f"{NAME} out").exists()
    save(tmp_path / f"own/images/{NAME}.png", picture(1))
    save(tmp_path / f"own/masks/{NAME}.png", ids(1, [7]))
    with pytest.raises(ValueError, match=r"caf.*png: the name is not valid UTF-8"):
        folder_reader.convert([tmp_path / "own"], tmp_path / "r", label_set="cityscapes")
    assert not (tmp_path / "r").exists()


def test_records_and_exports_are_refused(folder):
    folder.mkdir()
    (folder / "train-0.tfrecord").touch()
    with pytest.raises(ValueError, match="valid UTF-8: rename it"):
        records.match_files(folder / "train-*")
    with pytest.raises(ValueError, match="valid UTF-8: give another output"):
        saved_model.export(None, folder / "served")
    assert os.listdir(folder) == ["train-0.tfrecord"]
