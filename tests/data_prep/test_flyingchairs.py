"""Tests of the FlyingChairs converter: records with exact flow from the official folder."""

import numpy as np
import pytest

from data_prep import camvid, flyingchairs
from flowseg.data import decoding, records
from flowseg.data.batches import Draw, training_batches
from flowseg.data.labels import CITYSCAPES
from tests.conftest import run_command
from tests.data_prep.test_camvid import write_camvid
from tests.support.made_files import (
    WIDTH,
    motion,
    picture,
    read_back,
    save,
    splits_of,
    warp_error,
)

OFFICIAL = ["00001", "00002", "00003", "00010", "00011", "22872"]
SPLIT_FILE = "FlyingChairs_train_val.txt"


def write_pairs(folder, pairs=OFFICIAL, endings=("_img1.ppm", "_img2.ppm", "_flow.flo")):
    for pair in pairs:
        k = int(pair)
        contents = (picture(k), picture(k + 50000), flo(motion(k)))
        for ending, content in zip(endings, contents, strict=True):
            save(folder / f"{pair}{ending}", content)
    return folder


def flo(flow):
    """Encode a `.flo` file according to the format's description."""
    height, width = flow.shape[:2]
    header = b"PIEH" + np.array([width, height], "<i4").tobytes()
    return header + flow.astype("<f4").tobytes()


@pytest.fixture
def folder(tmp_path):
    write_pairs(tmp_path / "place/FlyingChairs_release/data")
    return tmp_path / "place/FlyingChairs_release"


def test_split_file_with_byte_order_mark(folder, tmp_path):
    text = "1\r\n2\r\n1\r\n1\r\n2\r\n1\r\n"
    (folder / SPLIT_FILE).write_text(text, encoding="utf-8-sig", newline="")
    flyingchairs.convert([folder], tmp_path / "out")
    assert sorted(splits_of(tmp_path / "out")["val"]) == ["00002", "00011"]


def assert_refused(source, tmp_path, match):
    with pytest.raises(ValueError, match=match):
        flyingchairs.convert([source], tmp_path / "refused")
    assert not (tmp_path / "refused" / "index.json").exists()


@pytest.mark.parametrize("source", [".", "data", ".."])
def test_pixels_and_flow(folder, tmp_path, source):
    source = (folder / source).resolve()
    index = flyingchairs.convert([source], tmp_path / "out")
    frames = read_back(tmp_path / "out")
    assert sorted(frames) == OFFICIAL
    for pair, frame in frames.items():
        k = int(pair)
        assert (frame["image1"] == picture(k)).all()
        assert frame["has_image2"] and (frame["image2"] == picture(k + 50000)).all()
        assert (frame["flow"][..., :2] == motion(k)).all() and (frame["flow"][..., 2] == 1).all()
        assert (frame["seg"] == 255).all() and frame["dataset"] == b"flyingchairs"
    assert sum(index["records"].values()) == 6 and index["label_sets"] == []
    assert index["settings"]["val_fraction"] == 0.1 and index["left_out"] == []


def test_names_of_flownet2_examples(tmp_path):
    endings = ("-img0.ppm", "-img1.ppm", "-gt.flo")
    folder = write_pairs(tmp_path / "in", ["0000000", "0000007"], endings)
    flyingchairs.convert([folder], tmp_path / "out")
    frames = read_back(tmp_path / "out")
    assert sorted(frames) == ["0000000", "0000007"]
    assert (frames["0000007"]["image1"] == picture(7)).all()
    assert (frames["0000007"]["image2"] == picture(50007)).all()
    assert (frames["0000007"]["flow"][..., :2] == motion(7)).all()


@pytest.mark.parametrize(
    ("source", "place"),
    [("data", "data"), ("data", "."), (".", "data"), (".", "."), (".", ".."), ("..", ".")],
)
def test_official_split(folder, tmp_path, source, place, capsys):
    (folder / place / SPLIT_FILE).write_text("1\n2\n1\n1\n2\n1\n")
    index = flyingchairs.convert([(folder / source).resolve()], tmp_path / "out", val_fraction=0.9)
    ids_of_split = splits_of(tmp_path / "out")
    assert sorted(ids_of_split["val"]) == ["00002", "00011"]
    assert sorted(ids_of_split["train"]) == ["00001", "00003", "00010", "22872"]
    assert index["settings"]["val_fraction"] == SPLIT_FILE
    printed = capsys.readouterr().out
    assert f"{SPLIT_FILE}; --val_fraction is ignored" in printed
    # Without it, the conversion does not silently resume in the same output.
    (folder / place / SPLIT_FILE).unlink()
    with pytest.raises(ValueError, match=f"with val_fraction=.{SPLIT_FILE}. instead of 0.9"):
        flyingchairs.convert([(folder / source).resolve()], tmp_path / "out", val_fraction=0.9)
    printed = capsys.readouterr().out
    assert f"no {SPLIT_FILE}; split by names and --seed" in printed


def test_split_file_with_relative_source(folder, tmp_path, monkeypatch):
    (folder.parent / SPLIT_FILE).write_text("2\n" * 6)
    for place, source in ((folder, "."), (folder / "data", "..")):
        monkeypatch.chdir(place)
        index = flyingchairs.convert([source], tmp_path / f"out{len(source)}")
        assert index["records"] == {"train": 0, "val": 6}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("1\n" * 5, f"{SPLIT_FILE}: 5 lines for 6 pairs: complete the data set, or move"),
        ("1\n" * 22872, f"{SPLIT_FILE}: 22872 lines for 6 pairs"),
        ("", f"{SPLIT_FILE}: 0 lines"),
        ("1\n2\n0\n1\n2\n1\n", f"{SPLIT_FILE}: not a split file"),
        ("<html>not found</html>", f"{SPLIT_FILE}: not a split file"),
    ],
)
def test_bad_split_files(folder, tmp_path, content, match):
    (folder / SPLIT_FILE).write_text(content)
    assert_refused(folder, tmp_path, match)


@pytest.mark.parametrize("ending", ["_img1.ppm", "_img2.ppm", "_flow.flo"])
def test_incomplete_pair(folder, tmp_path, ending):
    (folder / f"data/00010{ending}").unlink()
    assert_refused(folder, tmp_path, f"data/00010{ending}: missing")
    # And for a pair with a single remaining file.
    for other in {"_img1.ppm", "_img2.ppm", "_flow.flo"} - {ending}:
        (folder / f"data/00011{other}").unlink()
    index = flyingchairs.convert([folder], tmp_path / "out", on_error="skip")
    assert {item["frame_id"] for item in index["left_out"]} == {"00010", "00011"}


def wide(flow):
    return flo(np.hstack([flow, flow]))


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("00002_img1.ppm", lambda data: data[:-7], "the PPM has .* bytes, but its header implies"),
        ("00002_img2.ppm", lambda data: data[:9], "not a readable image"),
        ("00002_img2.ppm", lambda data: b"", "not a readable image"),
        ("00002_flow.flo", lambda data: data[:-4], f"a .flo file of {WIDTH}x24 cannot have"),
        ("00002_flow.flo", lambda data: b"PIEX" + data[4:], "not a .flo file"),
        ("00002_flow.flo", lambda data: wide(motion(2)), "is 24x64, but 00002_img1.ppm is 24x32"),
        ("00002_flow.flo", lambda data: flo(motion(2) + 1e10), "flow without a single valid pixel"),
    ],
)
def test_damaged_files(folder, tmp_path, file, content, match):
    path = folder / "data" / file
    path.write_bytes(content(path.read_bytes()))
    assert_refused(folder, tmp_path, f"data/{file}: {match}")


def test_folders_without_pairs(tmp_path):
    assert_refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")
    save(tmp_path / "other/a.ppm", picture(0))
    assert_refused(tmp_path / "other", tmp_path, "other: no FlyingChairs pairs here or in .* data")


def test_two_sources(folder, tmp_path):
    """Each source is split by its own file or by names; a pair must not be in both."""
    (folder / SPLIT_FILE).write_text("2\n" * 6)
    more = write_pairs(tmp_path / "more", ["00100", "00101"])
    index = flyingchairs.convert([folder, more], tmp_path / "out", val_fraction=0)
    assert index["records"] == {"train": 2, "val": 6}
    twice = write_pairs(tmp_path / "twice", ["00011"])
    with pytest.raises(ValueError, match="_img1.ppm: duplicate frame id 00011, also used by"):
        flyingchairs.convert([folder, twice], tmp_path / "refused")


def test_subsequent_runs(folder, tmp_path, capsys):
    output = tmp_path / "out"
    flyingchairs.convert([folder], output, val_fraction=0, records_per_shard=2)
    before = {path.name: path.read_bytes() for path in output.glob("[!.]*")}
    flyingchairs.convert([folder], output, val_fraction=0, records_per_shard=2)
    assert capsys.readouterr().out.endswith("already finished, nothing to do\n")
    (output / "train-00001-of-00003.tfrecord").unlink()
    flyingchairs.convert([folder], output, val_fraction=0, records_per_shard=2)
    assert "resuming, 2 of 3 shards" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in output.glob("[!.]*")}


def test_mixed_with_camvid(folder, tmp_path):
    """Missing labels or flow are masked: an example has one of them, never both."""
    camvid.convert([write_camvid(tmp_path / "CamVid")], tmp_path / "camvid")
    flyingchairs.convert([folder], tmp_path / "chairs", val_fraction=0)
    files = [records.match_files(tmp_path / name / "train-*") for name in ("camvid", "chairs")]
    for part in files:
        decoding.check_records(part, CITYSCAPES)
    size = {"height": 16, "width": 16}
    drawn = Draw(files, batch_size=8, steps_per_epoch=2)
    batches = training_batches(drawn, CITYSCAPES, **size, synthetic_flow=False)
    kinds = []
    for inputs, targets in batches.take(2).as_numpy_iterator():
        assert inputs["image1"].shape == inputs["image2"].shape == (8, 16, 16, 3)
        has_labels = (targets["seg"] != 255).any((1, 2))
        has_flow = (targets["flow"][..., 2] > 0).any((1, 2))
        assert (has_labels != has_flow).all()
        kinds += has_flow.tolist()
    assert set(kinds) == {False, True}


def test_command(folder, tmp_path):
    args = ("--source", folder, "--output", tmp_path / "out", "--val_fraction=0")
    done = run_command("data_prep.flyingchairs", *args)
    assert done.stderr == "" and f"no {SPLIT_FILE}" in done.stdout
    line = run_command("data_prep.flyingchairs", "--source=no", "--output=x", ok=False).stderr
    assert line == "error: no: no such folder (--source)\n"


def test_real_samples(samples, tmp_path):
    index = flyingchairs.convert([samples / "flyingchairs"], tmp_path, val_fraction=1)
    assert index["records"] == {"train": 0, "val": 3}
    assert index["sizes_height_x_width"] == {"384x512": 3}
    for pair, frame in read_back(tmp_path).items():
        bodies = [
            (samples / f"flyingchairs/{pair}-img{i}.ppm").read_bytes()[-384 * 512 * 3 :]
            for i in (0, 1)
        ]
        for i, body in enumerate(bodies):
            pixels = np.frombuffer(body, np.uint8).reshape(384, 512, 3)
            assert (frame[f"image{i + 1}"] == pixels).all()
        flow = np.fromfile(samples / f"flyingchairs/{pair}-gt.flo", "<f4")[3:]
        assert (frame["flow"][..., :2] == flow.reshape(384, 512, 2)).all()
        assert (frame["flow"][..., 2] == 1).all()
        true = warp_error(frame, frame["flow"][..., :2])
        for wrong in (frame["flow"][..., 1::-1], -frame["flow"][..., :2]):
            assert true < 0.7 * warp_error(frame, wrong)
