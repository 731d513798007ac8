"""Tests of the Cityscapes converter: official split, instance ids, and optional files."""

import cv2
import numpy as np
import pytest

from data_prep import cityscapes
from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES
from tests.commands.test_evaluate import png, write
from tests.conftest import run_command
from tests.support import city_frames
from tests.support.made_files import splits_of

TRUTH = "gtFine/val/aachen/aachen_000001_000019_gtFine"


@pytest.fixture
def folder(tmp_path):
    """Two frames of train, three of val, one of test with the official dummy labels."""
    place, frames = tmp_path / "cityscapes", city_frames.make_frames()
    city_frames.write_cityscapes(place, frames[:2], "train", "ulm")
    city_frames.write_cityscapes(place, frames, "val")
    dummy = frames[0]._replace(truth=frames[0].truth * 0 + 3, number=frames[0].number * 0 - 1)
    city_frames.write_cityscapes(place, [dummy], "test", "berlin")
    return place


def test_command(folder, tmp_path):
    done = run_command("data_prep.cityscapes", "--source", folder, "--output", tmp_path / "out")
    assert [line.split()[:5] for line in done.stdout.splitlines()[1:4]] == [
        ["train", "2", "0", "0", "2"],
        ["val", "3", "0", "0", "3"],
        ["test", "1", "0", "0", "1"],
    ]
    # Rare classes are listed in a line, without a warning; the void labels of `test` are ignored.
    assert "2 of the 19 classes of label set cityscapes have no pixel: " in done.stdout
    assert done.stderr == ""
    assert {split: sorted(names) for split, names in splits_of(tmp_path / "out").items()} == {
        "train": ["ulm_000000_000019", "ulm_000001_000019"],
        "val": [f"aachen_00000{k}_000019" for k in range(3)],
        "test": ["berlin_000000_000019"],
    }
    [shard] = records.match_files(f"{tmp_path}/out/val-*")
    fields = {f["frame_id"].decode(): f for _, f in records.read_shard(shard)}
    record = fields["aachen_000001_000019"]
    for field, ending in (("labels", "labelIds"), ("instances", "instanceIds")):
        assert record[field] == (folder / f"{TRUTH}_{ending}.png").read_bytes()
    assert record["dataset"] == record["label_set"] == record["instances_format"] == b"cityscapes"
    # The ground truth for training and scoring.
    frames = {f["frame_id"].decode(): f for f in decoded(shard)}
    expected, frame = city_frames.make_frames()[1], frames["aachen_000001_000019"]
    assert (frame["things"] > 0).sum() == (expected.number >= 0).sum() > 0 and frame["has_things"]
    assert (frame["seg"] == CITYSCAPES.names.index("car")).sum() == (expected.truth == 26).sum() > 0


def decoded(shard):
    return decoding.evaluation_data([str(shard)], CITYSCAPES).as_numpy_iterator()


@pytest.mark.parametrize(
    ("form", "ids"),
    [
        ("cityscapes", [[7, 26, 26000, 26001, 33000]]),
        ("kitti", [[7 * 256, 26 * 256, 26 * 256 + 1, 26 * 256 + 2, 33 * 256 + 1]]),
        # Older records do not store the format, which is KITTI's.
        ("", [[7 * 256, 26 * 256, 26 * 256 + 1, 26 * 256 + 2, 33 * 256 + 1]]),
    ],
)
def test_instance_formats(form, ids, tmp_path):
    ids = np.uint16(ids)
    fields = {"height": 1, "width": 5, "image1": png(np.zeros((1, 5, 3), np.uint8))}
    fields |= {"image1_format": "png", "instances": png(ids), "instances_format": form}
    [frame] = decoded(write(tmp_path / "a", records.make_example(**fields)))
    np.testing.assert_array_equal(frame["things"], np.where([[0, 0, 1, 1, 1]], ids, 0))


def test_optional_files(folder, tmp_path):
    for path in (folder / "gtFine/val/aachen").glob("*_instanceIds.png"):
        path.unlink()
    (folder / "gtFine/test").rename(tmp_path / "kept")
    splits = cityscapes.find_frames([folder])
    assert [set(frame.files) for frame in splits["val"]] == [{"image1", "labels"}] * 3
    assert [set(frame.files) for frame in splits["test"]] == [{"image1"}]
    index = cityscapes.convert([folder], tmp_path / "out")
    assert index["records"] == {"train": 2, "val": 3, "test": 1}
    (folder / "leftImg8bit/test").rename(tmp_path / "too")
    assert set(cityscapes.find_frames([folder])) == {"train", "val"}


def test_required_files(folder, tmp_path):
    def refused(match, source=folder):
        with pytest.raises(ValueError, match=match):
            cityscapes.convert([source], tmp_path / "refused")
        assert not (tmp_path / "refused/index.json").exists()

    refused("nowhere: no such folder", tmp_path / "nowhere")
    refused(r"leftImg8bit/train: no \*/\*_leftImg8bit.png here: source", folder / "gtFine")
    image = next((folder / "leftImg8bit/val/aachen").glob("*_000001_*"))
    image.rename(tmp_path / "image")
    refused("aachen_000001_000019_leftImg8bit.png: missing")
    (tmp_path / "image").rename(image)
    path = folder / f"{TRUTH}_labelIds.png"
    labels = path.read_bytes()
    path.unlink()
    refused("aachen_000001_000019_gtFine_labelIds.png: missing")
    path.write_bytes(labels)
    instances = folder / f"{TRUTH}_instanceIds.png"
    cv2.imwrite(str(instances), np.zeros(city_frames.SIZES[1], np.uint8))
    refused("instanceIds.png: 8 bits, but instances have 16")
    (folder / "gtFine/train").rename(tmp_path / "kept")
    refused(r"gtFine/train: no \*/\*_gtFine_labelIds.png here")
