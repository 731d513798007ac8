"""The DAVIS reader: objects of 2016 and 2017, the lists of the split, frames without annotation."""

import cv2
import numpy as np
import pytest

from data_prep import davis
from data_prep.conversion.frames import read_frame
from flowseg.data import records
from tests.conftest import run_command
from tests.support.made_files import ids, load, picture, save
from tests.support.png_writer import RGB, palette_png, stored_png

# The first entries of DAVIS's palette.
PALETTE = np.zeros((256, 3), int)
PALETTE[1:4] = [128, 0, 0], [0, 128, 0], [128, 128, 0]
OBJECTS = [0, 1, 2, 3]


def write_sequence(folder, name, count=3, png=None, resolution="480p", annotated=None):
    """Write a sequence; `png` makes the annotation of frame k, of which `annotated` have one."""
    for k in range(count):
        save(folder / f"JPEGImages/{resolution}/{name}/{k:05d}.jpg", picture(k))
        if annotated is None or k in annotated:
            data = (png or palette)(k)
            save(folder / f"Annotations/{resolution}/{name}/{k:05d}.png", data)
    return folder


def palette(k):
    return palette_png(ids(k, OBJECTS), PALETTE)


def mask(k):
    return stored_png(ids(k, [0, 255]))


def write_list(path, *lines):
    return save(path, "\n".join(lines).encode() + b"\n")


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def objects(frame):
    return decode(read_frame(frame)[0]["objects"])


def test_objects_of_2017_are_the_indices_of_the_palette(tmp_path, capsys):
    write_sequence(tmp_path, "bear")
    write_sequence(tmp_path, "dog", png=lambda k: palette_png(ids(k, [0, 1, 255]), PALETTE))
    write_sequence(tmp_path, "goat", annotated=[0])
    write_sequence(tmp_path, "boat")
    write_list(tmp_path / "ImageSets/2017/train.txt", "bear", "")
    write_list(tmp_path / "ImageSets/2017/val.txt", "dog")
    write_list(tmp_path / "ImageSets/2017/test-dev.txt", "goat")
    write_list(tmp_path / "ImageSets/2016/val.txt", "boat")
    splits = davis.find_frames([tmp_path])
    videos = {name: {frame.video for frame in frames} for name, frames in splits.items()}
    assert videos == {"train": {"bear"}, "val": {"dog"}, "test": {"goat"}}
    for k, frame in enumerate(splits["train"]):
        assert frame.frame_id == f"bear/{k:05d}" and frame.frame_index == k
        assert (objects(frame) == ids(k, OBJECTS)).all()
        assert ("image2" in frame.files) == (k < 2)
    assert (objects(splits["val"][1]) == ids(1, [0, 1, 255])).all(), "void stays 255"
    assert ["objects" in frame.files for frame in splits["test"]] == [True, False, False]
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}: skipped 1 sequences that no list of 2017 names: boat",
        "2 of 9 frames have no annotation",
    ]


@pytest.mark.parametrize("place", ["ImageSets/2016", "ImageSets/480p"])
def test_masks_and_lists_of_2016(tmp_path, place):
    write_sequence(tmp_path, "bear", png=mask)
    kinds = [lambda k: stored_png(np.repeat(ids(k, [0, 255])[..., None], 3, -1), 8, RGB), mask]
    write_sequence(tmp_path, "dog", count=2, png=lambda k: kinds[k](k))
    lines = [
        f"/JPEGImages/480p/bear/{k:05d}.jpg /Annotations/480p/bear/{k:05d}.png " for k in range(3)
    ]
    write_list(tmp_path / place / "train.txt", *lines)
    write_list(tmp_path / place / "val.txt", "dog")
    splits = davis.find_frames([tmp_path], year="2016")
    assert [len(splits[name]) for name in ("train", "val")] == [3, 2]
    for frame in splits["train"] + splits["val"]:
        k = frame.frame_index
        assert (objects(frame) == (ids(k, [0, 255]) == 255)).all()


def test_listed_frames_are_expected(tmp_path):
    write_sequence(tmp_path, "bear", png=mask)
    line = "/JPEGImages/480p/bear/00003.jpg /Annotations/480p/bear/00003.png"
    write_list(tmp_path / "ImageSets/2016/train.txt", line)
    *_, last = davis.find_frames([tmp_path], year="2016")["train"]
    with pytest.raises(ValueError, match="bear/00003.jpg: missing"):
        read_frame(last)
    write_list(tmp_path / "ImageSets/2016/val.txt", "goat")
    with pytest.raises(ValueError, match="480p/goat: missing, but ImageSets lists it for val"):
        davis.find_frames([tmp_path], year="2016")


@pytest.mark.parametrize(
    ("year", "png", "match"),
    [
        ("2017", mask(0), "holds only 0 and 255 without a palette: a mask of DAVIS 2016"),
        ("2016", palette(0), "holds the values 0, 1, 2, 3, but a mask of DAVIS 2016 .* year 2017"),
        ("2016", stored_png(ids(1, [0, 1])), "holds the values 0, 1, but a mask of DAVIS 2016"),
        ("2017", stored_png(np.array(PALETTE)[ids(1, OBJECTS)], 8, RGB), "holds colours"),
        ("2017", b"GIF89a", "not a PNG"),
        ("2017", palette_png(ids(1, OBJECTS)[1:], PALETTE), "is 23x32, but 00001.jpg is 24x32"),
    ],
)
def test_wrong_annotations(tmp_path, year, png, match):
    write_sequence(tmp_path, "bear", png=mask if year == "2016" else palette)
    save(tmp_path / "Annotations/480p/bear/00001.png", png)
    frames = davis.find_frames([tmp_path], year=year)["val"]
    with pytest.raises(ValueError, match=f"bear/00001.png: .*{match}"):
        read_frame(frames[1])
    read_frame(frames[2])


def test_0_and_255_with_a_palette_are_background_and_void(tmp_path):
    png = palette_png(ids(1, [0, 255]), PALETTE)
    [frame, _] = davis.find_frames([write_sequence(tmp_path, "a", 2, lambda k: png)])["val"]
    assert (objects(frame) == ids(1, [0, 255])).all()


def test_missing_frames_and_other_files(tmp_path, capsys):
    write_sequence(tmp_path, "bear", count=4)
    (tmp_path / "JPEGImages/480p/bear/00001.jpg").unlink()
    index = davis.convert([tmp_path], tmp_path / "out", on_error="skip")
    assert index["records"] == {"train": 0, "val": 3}
    assert index["left_out"][0]["reason"].startswith("JPEGImages/480p/bear/00001.jpg: missing")
    assert "all sequences are val" in capsys.readouterr().out
    save(tmp_path / "JPEGImages/480p/bear/frame_0001.jpg", picture(1))
    with pytest.raises(
        ValueError, match="frame_0001.jpg: unexpected file name .* are two data sets"
    ):
        davis.find_frames([tmp_path])
    with pytest.raises(ValueError, match="Full-Resolution: no sequences here: source is"):
        davis.find_frames([tmp_path], resolution="Full-Resolution")


def test_command_on_real_frames(samples, tmp_path):
    """One of the three sequences, with the annotations of 2016."""
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "in" / kind / "480p").mkdir(parents=True)
        source = samples / "davis" / kind / "480p/car-shadow"
        (tmp_path / "in" / kind / "480p/car-shadow").symlink_to(source)
    args = ("--source", tmp_path / "in", "--output", tmp_path / "out", "--workers=1")
    line = run_command("data_prep.davis", *args, ok=False).stderr
    assert "a mask of DAVIS 2016" in line and "give --year 2016" in line
    done = run_command("data_prep.davis", *args, "--year=2016", "--overwrite")
    assert done.stderr == ""
    shards = records.match_files(f"{tmp_path}/out/val-*")
    frames = {f["frame_index"]: f for path in shards for _, f in records.read_shard(path)}
    assert sorted(frames) == list(range(40))
    for k in (0, 17, 39):
        path = samples / f"davis/Annotations/480p/car-shadow/{k:05d}.png"
        assert (decode(frames[k]["objects"]) * 255 == load(path)).all()
        name = f"davis/JPEGImages/480p/car-shadow/{k:05d}.jpg"
        assert frames[k]["image1"] == (samples / name).read_bytes()
    assert frames[0]["video"] == b"car-shadow" and frames[0]["next_index"] == 1
