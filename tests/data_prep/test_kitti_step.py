"""The KITTI-STEP reader, on panoptic maps written by the published formula."""

import cv2
import numpy as np
import pytest

from data_prep import kitti_step
from data_prep.conversion.frames import read_frame
from flowseg.data import records
from tests.conftest import run_command
from tests.support.made_files import ids, picture, save, splits_of

# Cityscapes label ids by train id.
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
PERSON, CAR, VOID = 11, 13, 255


def panoptic(classes, numbers):
    """The map of DeepLab2's page: R = class, G = number // 256, B = number % 256."""
    numbers = numbers.astype(int)
    return np.stack([classes, numbers // 256, numbers % 256], -1).astype(np.uint8)


def truth(seed):
    """Classes, and the numbers of some persons and cars; the rest has none."""
    classes = ids(seed, [*range(19), VOID])
    drawn = np.random.default_rng([seed, 9]).choice([0, 1, 300, 999], classes.shape)
    return classes, np.where(np.isin(classes, [PERSON, CAR]), drawn, 0)


def write_set(folder, images="training/image_02/{}", sequences=("0000", "0002"), count=3):
    """Write sequences of train and val; their images in the given folder."""
    for sequence in sequences:
        split = "val" if sequence in kitti_step.VAL_SEQUENCES else "train"
        for k in range(count):
            name = f"{k:06d}.png"
            place = folder / images.format(sequence, split=split) / name
            save(place, picture(int(sequence) + k))
            seg = panoptic(*truth(int(sequence) + k))
            save(folder / "panoptic_maps" / split / sequence / name, seg)
    return folder


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def test_frames_classes_and_instances(tmp_path):
    splits = kitti_step.find_frames([write_set(tmp_path)])
    assert [frame.frame_id for frame in splits["train"]] == [f"0000/00000{k}" for k in range(3)]
    assert [frame.frame_id for frame in splits["val"]] == [f"0002/00000{k}" for k in range(3)]
    for k, frame in enumerate(splits["val"]):
        fields, facts = read_frame(frame)
        classes, numbers = truth(2 + k)
        assert (decode(fields["labels"]) == classes).all()
        assert fields["label_set"] == "cityscapes_train"
        label_ids = np.array([*LABEL_IDS, *[0] * 237])[classes]
        expected = np.where(numbers > 0, label_ids * 1000 + numbers, label_ids)
        stored = decode(fields["instances"])
        assert stored.dtype == np.uint16 and (stored == expected).all()
        assert fields["instances_format"] == "cityscapes"
        assert (fields["video"], fields["frame_index"]) == ("0002", k)
        assert fields.get("next_index") == (k + 1 if k < 2 else None)
        assert ("image2" in fields) == (k < 2)
        assert facts["truth"] == sorted({"labels", "instances", *(["image2"] if k < 2 else [])})


@pytest.mark.parametrize(
    "images",
    ["images/{split}/{}", "image_02/{}", "data_tracking_image_2/training/image_02/{}"],
)
def test_other_layouts(tmp_path, images):
    splits = kitti_step.find_frames([write_set(tmp_path, images, count=2)])
    assert all(frame.files["image1"].is_file() for frame in splits["train"] + splits["val"])
    assert [len(frames) for frames in splits.values()] == [2, 2]


def test_every_official_validation_sequence(tmp_path):
    write_set(tmp_path, sequences=[f"{k:04d}" for k in range(21)], count=1)
    splits = kitti_step.find_frames([tmp_path])
    assert len(splits["train"]) == 12
    assert [frame.video for frame in splits["val"]] == (
        "0002 0006 0007 0008 0010 0013 0014 0016 0018".split()
    )


def test_command_and_skipped_frames(tmp_path):
    write_set(tmp_path / "in", count=4)
    (tmp_path / "in/training/image_02/0000/000001.png").unlink()
    (tmp_path / "in/panoptic_maps/val/0002/000003.png").unlink()
    done = run_command(
        *("data_prep.kitti_step", "--source", tmp_path / "in", "--output", tmp_path / "out"),
        "--on_error=skip",
    )
    assert "0000/000001: training/image_02/0000/000001.png: missing" in done.stdout
    assert "0002/000003: panoptic_maps/val/0002/000003.png: missing" in done.stdout
    assert {split: sorted(names) for split, names in splits_of(tmp_path / "out").items()} == {
        "train": ["0000/000000", "0000/000002", "0000/000003"],
        "val": ["0002/000000", "0002/000001", "0002/000002"],
    }
    [shard] = records.match_files(f"{tmp_path}/out/train-*")
    seconds = {f["frame_index"]: f["next_index"] for _, f in records.read_shard(shard)}
    assert seconds == {0: 0, 2: 3, 3: 0}, "the frame before the missing one is a still"


def refused(folder, match):
    with pytest.raises(ValueError, match=match):
        for frames in kitti_step.find_frames([folder]).values():
            for frame in frames:
                read_frame(frame)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (panoptic(ids(1, [11]), np.full((24, 32), 1000)), "holds the object number 1000 .* 999"),
        # Label ids in place of train ids.
        (panoptic(ids(1, [7, 26]), ids(1, [0])), "label ids that cityscapes_train .* have: 26"),
        (ids(1, [7]), "not a panoptic map of KITTI-STEP, which is a PNG of 8-bit RGB"),
        (np.uint16(picture(1)), "not a panoptic map"),
        (panoptic(*truth(1))[1:], "is 23x32, but 000001.png is 24x32"),
    ],
)
def test_wrong_maps(tmp_path, content, match):
    save(write_set(tmp_path) / "panoptic_maps/train/0000/000001.png", content)
    refused(tmp_path, f"0000/000001.png: {match}")


def test_truncated_map(tmp_path):
    path = write_set(tmp_path) / "panoptic_maps/train/0000/000001.png"
    path.write_bytes(path.read_bytes()[:-9])
    refused(tmp_path, "0000/000001.png: truncated PNG")


def test_wrong_folders(tmp_path):
    refused(tmp_path, "panoptic_maps: no maps here: source is the folder")
    write_set(tmp_path)
    (tmp_path / "training").rename(tmp_path / "testing")
    refused(tmp_path, "no images of sequence 0000: unpack KITTI's tracking images")
    (tmp_path / "testing").rename(tmp_path / "training")
    (tmp_path / "panoptic_maps/val/0002").rename(tmp_path / "panoptic_maps/train/0002")
    refused(tmp_path, "train/0002: sequence 0002 belongs to val in the official split")


def test_frame_of_another_size_is_refused(tmp_path):
    save(write_set(tmp_path, count=4) / "training/image_02/0000/000002.png", picture(1, 20, 30))
    save(tmp_path / "panoptic_maps/train/0000/000002.png", panoptic(*truth(0))[:20, :30])
    with pytest.raises(ValueError, match="0000/00000[12].png: is "):
        kitti_step.convert([tmp_path], tmp_path / "out")
    index = kitti_step.convert([tmp_path], tmp_path / "out", on_error="skip")
    reasons = {item["frame_id"]: item["reason"] for item in index["left_out"]}
    assert "most frames of video 0000 are 24x32" in reasons["0000/000002"]
