"""Cityscapes' 30-frame videos, coarse annotations, and train ids in place of label ids."""

import cv2
import numpy as np
import pytest

from data_prep import cityscapes
from data_prep.conversion.frames import read_frame
from tests.conftest import run_command
from tests.support.made_files import ids, picture, save

LABELS = [3, 7, 11, 23, 26]


def write_frame(folder, name, tree="leftImg8bit_sequence", split="train", seed=0):
    city = name.split("_")[0]
    return save(folder / tree / split / city / f"{name}_leftImg8bit.png", picture(seed))


def write_labels(folder, name, tree="gtFine", split="train", values=LABELS):
    base = folder / tree / split / name.split("_")[0] / f"{name}_{tree}"
    seg = ids(1, values)
    save(base.with_name(f"{base.name}_labelIds.png"), seg)
    instances = np.where(seg == 26, 26000, seg).astype(np.uint16)
    save(base.with_name(f"{base.name}_instanceIds.png"), instances)


@pytest.fixture
def videos(tmp_path):
    """A snippet of frames 17 to 20 with labels of 19, and two snippets of one video."""
    for k in (17, 18, 19, 20):
        write_frame(tmp_path, f"ulm_000003_{k:06d}", seed=k)
    write_labels(tmp_path, "ulm_000003_000019")
    for k in (100, 101, 102, 400, 401):
        write_frame(tmp_path, f"bochum_000000_{k:06d}", split="val", seed=k)
    write_labels(tmp_path, "bochum_000000_000101", split="val")
    return tmp_path


def test_frames_of_the_videos(videos, capsys):
    splits = cityscapes.find_frames([videos], frames="sequence")
    assert capsys.readouterr().out == "2 of 9 frames have labels\n"
    assert [frame.frame_id for frame in splits["train"]] == [
        f"ulm_000003_0000{k}" for k in (17, 18, 19, 20)
    ]
    assert [("labels" in f.files, "instances" in f.files) for f in splits["train"]] == [
        (False,) * 2, (False,) * 2, (True,) * 2, (False,) * 2,
    ]  # fmt: skip
    for k, frame in zip((17, 18, 19, 20), splits["train"], strict=True):
        fields, _ = read_frame(frame)
        assert (fields["video"], fields["frame_index"]) == ("ulm_000003", k)
        assert fields.get("next_index") == (k + 1 if k < 20 else None)
        decoded = cv2.imdecode(np.frombuffer(fields["image1"], np.uint8), cv2.IMREAD_COLOR)
        assert (decoded[..., ::-1] == picture(k)).all()
    # The gap between snippets is no missing frame, and no pair crosses it.
    assert [frame.frame_index for frame in splits["val"]] == [100, 101, 102, 400, 401]
    assert ["image2" in frame.files for frame in splits["val"]] == [True, True, False, True, False]


def test_missing_frame_of_a_snippet(videos, tmp_path):
    (videos / "leftImg8bit_sequence/train/ulm/ulm_000003_000018_leftImg8bit.png").unlink()
    with pytest.raises(ValueError, match="train/ulm/ulm_000003_000018_leftImg8bit.png: missing"):
        cityscapes.convert([videos], tmp_path / "out", frames="sequence")
    index = cityscapes.convert([videos], tmp_path / "out", frames="sequence", on_error="skip")
    assert index["records"] == {"train": 3, "val": 5}
    assert [item["frame_id"] for item in index["left_out"]] == ["ulm_000003_000018"]
    # Labels whose image is missing are not lost silently.
    write_labels(videos, "ulm_000003_000021")
    *_, last = cityscapes.find_frames([videos], frames="sequence")["train"]
    with pytest.raises(ValueError, match="ulm_000003_000021_leftImg8bit.png: missing"):
        read_frame(last)


def test_short_gap_between_two_snippets(tmp_path):
    """Only frames within 30 numbers are of one snippet."""
    numbers = [*range(5, 20), *range(21, 35), *range(38, 68)]
    for k in numbers:
        write_frame(tmp_path, f"frankfurt_000000_{k:06d}", split="val")
    frames = cityscapes.find_frames([tmp_path], frames="sequence")["val"]
    assert [frame.frame_index for frame in frames] == sorted([*numbers, 20])


def test_coarse_labels_with_the_extra_frames(tmp_path):
    for split, name in (("train", "ulm_000000_000019"), ("train_extra", "mainz_000000_000005")):
        write_frame(tmp_path, name, "leftImg8bit", split)
        write_labels(tmp_path, name, "gtCoarse", split)
    splits = cityscapes.find_frames([tmp_path], truth="coarse")
    assert {name: [f.frame_id for f in frames] for name, frames in splits.items()} == {
        "train": ["ulm_000000_000019", "mainz_000000_000005"],
        "val": [],
    }
    fields, facts = read_frame(splits["train"][1])
    assert facts["truth"] == ["instances", "labels"]
    assert (fields["video"], fields["frame_index"]) == ("mainz_000000", 5)
    with pytest.raises(ValueError, match="no folder gtCoarse/train or the like here"):
        cityscapes.find_frames([tmp_path / "gtCoarse"], truth="coarse")


def test_fine_stills_have_their_number(tmp_path):
    for split in ("train", "val"):
        name = f"ulm_00000{len(split)}_000019"
        write_frame(tmp_path, name, "leftImg8bit", split)
        write_labels(tmp_path, name, split=split)
    [frame] = cityscapes.find_frames([tmp_path])["train"]
    fields, _ = read_frame(frame)
    assert (fields["video"], fields["frame_index"]) == ("ulm_000005", 19)
    assert "image2" not in fields and fields["image1"] == frame.files["image1"].read_bytes()
    assert fields["labels"] == frame.files["labels"].read_bytes()


def test_train_ids_are_refused(videos, tmp_path):
    write_labels(videos, "ulm_000003_000019", values=[*range(19), 255])
    with pytest.raises(ValueError, match="000019_gtFine_labelIds.png: .* which are train ids: use"):
        cityscapes.convert([videos], tmp_path / "out", frames="sequence")
    # The void labels of `test`, and a frame of road alone, are no train ids.
    for values in ([3], [0, 7]):
        write_labels(videos, "ulm_000003_000019", values=values)
        frames = cityscapes.find_frames([videos], frames="sequence")["train"]
        assert read_frame(frames[2])[1]["class_pixels"].keys() == set(values)


def test_only_train_id_files(tmp_path):
    write_frame(tmp_path, "ulm_000000_000019", "leftImg8bit")
    save(tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelTrainIds.png", ids(1, [0]))
    with pytest.raises(ValueError, match="gtFine/train: no .* hold train ids, not label ids"):
        cityscapes.find_frames([tmp_path])


def test_names_of_video_frames(videos):
    write_frame(videos, "ulm_frame")
    with pytest.raises(ValueError, match="ulm_frame_leftImg8bit.png: its name is not CITY_SEQ"):
        cityscapes.find_frames([videos], frames="sequence")
    with pytest.raises(ValueError, match="no folder leftImg8bit_sequence/train or the like here"):
        cityscapes.find_frames([videos / "gtFine"], frames="sequence")


def test_command_on_real_snippets(samples, tmp_path):
    args = ("--source", samples / "cityscapes", "--frames=sequence", "--workers=1")
    done = run_command("data_prep.cityscapes", *args, "--output", tmp_path / "out")
    assert done.stderr == "" and "2 of 6 frames have labels" in done.stdout
    assert [line.split()[:5] for line in done.stdout.splitlines()[2:4]] == [
        ["train", "6", "4", "0", "2"],
        ["val", "0", "0", "0", "0"],
    ]
    frames = cityscapes.find_frames([samples / "cityscapes"], frames="sequence")["train"]
    assert {(f.video, f.frame_index) for f in frames} == {
        (f"aachen_00000{n}", k) for n in (0, 1) for k in (18, 19, 20)
    }
