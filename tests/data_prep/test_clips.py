"""The reader of the 22-frame clips: masks out of mask.npy, hidden and unlabelled clips."""

import io

import cv2
import numpy as np
import pytest

from data_prep import clips
from data_prep.conversion.frames import read_frame
from flowseg.data import labels, records
from tests.conftest import run_command
from tests.support.made_files import load, picture, save, splits_of

SHAPE = (22, 160, 240)


def masks(seed):
    """Masks of a clip; every frame differs, and holds id 48."""
    drawn = np.random.default_rng(seed).integers(0, 49, SHAPE, np.uint8)
    drawn[:, 0, 0] = 48
    return drawn


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def write_clip(folder, seed=0, length=22, mask=None):
    for k in range(length):
        save(folder / f"image_{k}.png", np.full((160, 240, 3), (seed + k) % 256, np.uint8))
    if mask is not None:
        save(folder / "mask.npy", npy(mask))
    return folder


@pytest.fixture
def folder(tmp_path):
    write_clip(tmp_path / "train/video_0", 0, mask=masks(0))
    return tmp_path


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def refused(folder, match):
    with pytest.raises(ValueError, match=match):
        for frame in clips.find_frames([folder])["train"]:
            read_frame(frame)


@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_of_the_frames(folder, order):
    save(folder / "train/video_0/mask.npy", npy(np.array(masks(0), order=order)))
    frames = clips.find_frames([folder])["train"]
    assert [frame.frame_index for frame in frames] == list(range(22))
    for k in (0, 10, 21):
        fields, _ = read_frame(frames[k])
        assert (decode(fields["labels"]) == masks(0)[k]).all() and fields["label_set"] == "clips"
        assert fields["frame_id"] == f"train/video_0/{k:02d}"
        assert fields.get("next_index") == (k + 1 if k < 21 else None)
        assert (decode(fields["image1"]) == k).all()


def test_splits_and_unlabelled_clips(folder, capsys):
    write_clip(folder / "val/video_1000", mask=masks(1))
    for n in (2010, 2002):
        write_clip(folder / f"unlabeled/video_{n}")
    write_clip(folder / "hidden/video_15000", length=11)
    splits = clips.find_frames([folder])
    assert {name: len(frames) for name, frames in splits.items()} == dict(train=22, val=22, test=11)
    assert capsys.readouterr().out.endswith("2 clips of unlabeled are not converted\n")
    assert [frame.video for frame in splits["test"]] == ["hidden/video_15000"] * 11
    assert {field for frame in splits["test"] for field in frame.files} == {"image1", "image2"}
    splits = clips.find_frames([folder], unlabeled=True)
    videos = dict.fromkeys(frame.video for frame in splits["train"])
    assert list(videos) == ["train/video_0", "unlabeled/video_2002", "unlabeled/video_2010"]
    fields, facts = read_frame(splits["train"][22])
    assert facts["truth"] == ["image2"] and "label_set" not in fields


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (npy(masks(0)[:21]), r"holds \(21, 160, 240\) uint8, but the masks of a clip are \(22, "),
        (npy(masks(0).transpose(0, 2, 1)), r"holds \(22, 240, 160\) uint8"),
        (npy(masks(0).astype(np.int64)), r"holds \(22, 160, 240\) int64"),
        (npy(np.where(masks(0) == 48, np.uint8(49), 0)), "frame 0 holds the id 49, .* are 0 to 48"),
        (npy(np.where(masks(0) == 48, np.uint8(255), 0)), "frame 0 holds the id 255"),
        (npy(masks(0))[:-9], "not a readable NumPy file .damaged or truncated"),
        (b"", "not a readable NumPy file"),
        (b"\x93NUMPY", "not a readable NumPy file"),
        (npy(np.array([{"a": 1}]), allow_pickle=True), "not a readable NumPy file"),
        (None, "missing"),
    ],
)
def test_wrong_masks(folder, content, match):
    path = folder / "train/video_0/mask.npy"
    save(path, content) if content is not None else path.unlink()
    refused(folder, f"train/video_0/mask.npy: {match}")


def test_archive_in_place_of_an_array(folder):
    np.savez(folder / "a.npz", masks(0))
    (folder / "a.npz").rename(folder / "train/video_0/mask.npy")
    refused(folder, "mask.npy: holds an archive")


def test_wrong_images_and_folders(folder, tmp_path):
    clip = folder / "train/video_0"
    (clip / "image_21.png").rename(tmp_path / "kept.png")
    refused(folder, "video_0/image_21.png: missing")
    (tmp_path / "kept.png").rename(clip / "image_22.png")
    refused(folder, "image_22.png: a clip has only frames 0 to 21")
    (clip / "image_22.png").rename(clip / "frame_21.png")
    refused(folder, "frame_21.png: unexpected file name")
    (clip / "frame_21.png").unlink()
    save(clip / "image_21.png", picture(0))
    refused(folder, "image_21.png: is 24x32, but image_20.png is 160x240")
    clip.rename(folder / "train/video_x")
    refused(folder, "video_x: not a clip")
    refused(folder / "train", "no clips here: source is the folder with train, val")


def test_missing_frame_is_skipped(folder, tmp_path):
    (folder / "train/video_0/image_5.png").unlink()
    index = clips.convert([folder], tmp_path / "out", on_error="skip")
    assert index["records"] == {"train": 21, "val": 0}
    assert [item["frame_id"] for item in index["left_out"]] == ["train/video_0/05"]


def test_label_set():
    clip_set = labels.load_label_set("clips")
    assert len(clip_set.names) == len(set(clip_set.palette)) == 49
    for shape, material, colour in ((0, 0, 0), (1, 1, 5), (2, 1, 7)):
        name = clip_set.names[16 * shape + 8 * material + colour + 1]
        assert name == " ".join(
            (
                "gray red blue green brown cyan purple yellow".split()[colour],
                ("metal", "rubber")[material],
                ("cube", "sphere", "cylinder")[shape],
            )
        )
    assert labels.from_dict(clip_set._asdict()) == clip_set


def test_command_on_real_clips(samples, tmp_path):
    args = ("--source", samples / "clips", "--output", tmp_path, "--unlabeled", "--workers=1")
    done = run_command("data_prep.clips", *args)
    assert done.stderr == ""
    assert {name: len(frames) for name, frames in splits_of(tmp_path).items()} == {
        "train": 132,
        "val": 22,
    }
    shards = records.match_files(f"{tmp_path}/*.tfrecord")
    frames = {f["frame_id"].decode(): f for path in shards for _, f in records.read_shard(path)}
    truth = np.load(samples / "clips/val/video_1000/mask.npy")
    for k in range(22):
        stored = decode(frames[f"val/video_1000/{k:02d}"]["labels"])
        assert (stored == truth[k]).all()
    # The colour that its name says is the strongest of each coloured object.
    image = load(samples / "clips/train/video_0/image_0.png").astype(int)
    seg = decode(frames["train/video_0/00"]["labels"])
    for i in np.unique(seg)[1:]:
        mean = image[seg == i].mean(0)
        colour = labels.CLIPS.names[i].split()[0]
        rule = {"brown": mean[0] > mean[2] + 9, "green": mean[1] > mean[[0, 2]].max() + 9}
        rule |= {"cyan": mean[1:].min() > mean[0] + 9, "gray": np.ptp(mean) < 9}
        assert rule[colour], (i, colour, mean)
