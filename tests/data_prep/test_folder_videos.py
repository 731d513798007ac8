"""Own data as videos: files and folders of frames, their numbers, and ids of class and instance."""

import av
import cv2
import numpy as np
import pytest

from data_prep import folder as reader
from data_prep.conversion import video_files
from data_prep.conversion.frames import read_frame
from data_prep.conversion.label_maps import choose_ids
from flowseg.data import flow_io, records
from flowseg.data.labels import CITYSCAPES
from flowseg.media.video import SourceFrame
from tests.conftest import run_command
from tests.support.made_files import HEIGHT, WIDTH, ids, motion, picture, save
from tests.support.own_folder import convert, write_classes

IDS = [2, 3, 9, 255]


def write_video(path, count=6):
    """Write a video without loss; frame k is `picture(k)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("ffv1", 10, width=WIDTH, height=HEIGHT)
        stream.pix_fmt = "bgr0"
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def classes(tmp_path):
    return write_classes(tmp_path / "classes.json")


@pytest.fixture
def folder(tmp_path):
    """A video of six frames; 1, 2 and 5 have masks, 3 has flow."""
    write_video(tmp_path / "own/images/trip/drive.mkv")
    for name, k in (("000001", 1), ("frame_2", 2), ("5", 5)):
        save(tmp_path / f"own/masks/trip/drive/{name}.png", ids(k, IDS))
    save(tmp_path / "own/flow/trip/drive/03.flo", flow_io.encode_flo(motion(3)))
    return tmp_path / "own"


def read(output):
    """Return frame id -> fields of the records."""
    shards = records.match_files(f"{output}/*.tfrecord")
    return {f["frame_id"].decode(): f for path in shards for _, f in records.read_shard(path)}


def decode(data, flags=cv2.IMREAD_UNCHANGED):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return image if image.ndim == 2 else image[..., ::-1]


def test_frames_of_a_video_file(folder, tmp_path, classes, capsys):
    index = convert(folder, tmp_path / "out", classes)
    frames = read(tmp_path / "out")
    assert sorted(frames) == [f"trip/drive/00000{k}" for k in (1, 2, 3, 5)]
    for k in (1, 2, 3, 5):
        frame = frames[f"trip/drive/00000{k}"]
        assert (decode(frame["image1"]) == picture(k)).all()
        assert (frame["video"], frame["frame_index"]) == (b"trip/drive", k)
        assert bool(frame["image2"]) == (k < 5) and frame["next_index"] == (k + 1) % 6
        if k < 5:
            assert (decode(frame["image2"]) == picture(k + 1)).all()
        assert bool(frame["flow"]) == (k == 3)
        if k != 3:
            assert (decode(frame["labels"]) == ids(k, IDS)).all()
    assert index["records"] == {"train": 4, "val": 0}
    assert not (tmp_path / "out" / video_files.FOLDER).exists()
    # The same command finds the same frames, although they are extracted again.
    capsys.readouterr()
    convert(folder, tmp_path / "out", classes)
    assert capsys.readouterr().out.endswith("already finished, nothing to do\n")
    assert not (tmp_path / "out" / video_files.FOLDER).exists()


def test_only_needed_frames_are_extracted(folder, tmp_path):
    videos = {"trip/drive": folder / "images/trip/drive.mkv"}
    truth = {"trip/drive/000001": folder / "masks/trip/drive/000001.png"}
    arguments = (videos, truth, tmp_path / "frames", 2, 0)
    images, errors = video_files.extract_all(*arguments)
    assert not errors and [path.name for path in images.values()] == ["000001.png", "000003.png"]
    assert sorted((tmp_path / "frames").rglob("*.png")) == sorted(images.values())
    images, _ = video_files.extract_all(*arguments, everything=True)
    assert list(images) == [f"trip/drive/00000{k}" for k in range(6)]


def test_number_of_the_first_frame(folder, tmp_path, classes):
    """Masks of frames that ffmpeg numbered from 1."""
    convert(folder, tmp_path / "out", classes, first_frame=1)
    frame = read(tmp_path / "out")["trip/drive/000005"]
    assert (decode(frame["image1"]) == picture(4)).all()
    assert frame["frame_index"] == 5 and frame["image2"]
    with pytest.raises(ValueError, match=r"drive/000001.png: no such frame: .* numbered 2 to 7"):
        convert(folder, tmp_path / "no", classes, first_frame=2)


def test_all_frames_by_request(folder, tmp_path, classes):
    save(folder / "images/still.png", picture(9))
    index = convert(folder, tmp_path / "out", classes, unlabelled=True)
    assert index["records"]["train"] == 7 and index["settings"]["unlabelled"]
    counts = index["truth"]["train"]
    assert (counts["labels"], counts["flow"], counts["image2"]) == (3, 1, 5)
    frame = read(tmp_path / "out")["trip/drive/000000"]
    assert (decode(frame["image1"]) == picture(0)).all() and frame["next_index"] == 1


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda data: data[: len(data) * 2 // 3], "drive.mkv: .*: the numbers of its frames may"),
        (lambda data: b"", "drive.mkv: not a video that FFmpeg can read"),
        (lambda data: b"no video", "drive.mkv: not a video that FFmpeg can read"),
    ],
)
def test_damaged_video(folder, tmp_path, classes, damage, match):
    video = folder / "images/trip/drive.mkv"
    video.write_bytes(damage(video.read_bytes()))
    save(folder / "images/a.png", picture(9))
    save(folder / "masks/a.png", ids(9, IDS))
    with pytest.raises(ValueError, match=match):
        convert(folder, tmp_path / "out", classes)
    assert not (tmp_path / "out" / video_files.FOLDER).exists()
    index = convert(folder, tmp_path / "out", classes, on_error="skip")
    assert index["records"]["train"] == 1
    left_out = {item["frame_id"]: item["reason"] for item in index["left_out"]}
    assert sorted(left_out) == [f"trip/drive/00000{k}" for k in (1, 2, 3, 5)]
    assert all(reason.startswith("images/trip/drive.mkv: ") for reason in left_out.values())


def test_video_whose_size_changes(folder, tmp_path, classes, monkeypatch):
    def open_video(path, on_damage):
        def frames():
            yield from [SourceFrame(f"frame {k}", picture(k)) for k in range(2)]
            raise ValueError(f"{path}: frame 2 has 64x48 px, but the frames before it have 32x24")

        return frames(), None, None

    monkeypatch.setattr(video_files, "open_video", open_video)
    with pytest.raises(ValueError, match="drive.mkv: frame 2 has 64x48 px"):
        convert(folder, tmp_path / "out", classes)


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("masks/trip/drive/000006.png", "000006.png: no such frame: .*drive.mkv has 6 frames, "),
        ("masks/trip/drive/cover.png", "cover.png: has no frame number, but belongs to the video"),
        ("masks/trip/drive/01.png", "same frame as .*1.png: keep one of the two"),
        ("images/trip/drive/000000.png", "drive.mkv: the folder drive beside it holds images, too"),
        ("images/trip/drive.png", "drive.png: same name as drive.mkv"),
    ],
)  # fmt: skip
def test_wrong_files_beside_a_video(folder, tmp_path, classes, file, match):
    save(folder / file, ids(1, IDS))
    with pytest.raises(ValueError, match=match):
        convert(folder, tmp_path / "out", classes)
    assert not list((tmp_path).glob("out/*"))


def test_video_without_masks_is_reported(folder, tmp_path, classes, capsys):
    write_video(folder / "images/other.mkv")
    convert(folder, tmp_path / "out", classes)
    assert "images/other.mkv: skipped, it has neither masks nor flow" in capsys.readouterr().out


def test_frames_of_a_subfolder_are_numbered(tmp_path, classes):
    for name in ("walk/f08", "walk/f10", "walk/f12", "mixed/a_1", "mixed/b_2", "1", "2"):
        save(tmp_path / f"own/images/{name}.png", picture(len(name)))
        save(tmp_path / f"own/masks/{name}.png", ids(1, IDS))
    convert(tmp_path / "own", tmp_path / "out", classes, next=2)
    frames = read(tmp_path / "out")
    numbers = {n: (f["video"], f["frame_index"], f["next_index"]) for n, f in frames.items()}
    assert numbers == {
        "walk/f08": (b"walk", 8, 10),
        "walk/f10": (b"walk", 10, 12),
        "walk/f12": (b"walk", 12, 0),
        **dict.fromkeys(["mixed/a_1", "mixed/b_2", "1", "2"], (b"", 0, 0)),
    }


def test_subfolders_of_two_sources_are_different_videos(tmp_path, classes):
    for source, k in (("one", 1), ("two", 2)):
        save(tmp_path / f"{source}/images/walk/{k}.png", picture(k))
        save(tmp_path / f"{source}/masks/walk/{k}.png", ids(1, IDS))
    sources = [tmp_path / "one", tmp_path / "two"]
    reader.convert(sources, tmp_path / "out", val_fraction=0, label_set=str(classes))
    assert {f["video"] for f in read(tmp_path / "out").values()} == {b"walk", b"walk#1"}


@pytest.mark.parametrize(
    ("divisor", "kind", "coded"),
    [
        (1000, "cityscapes", [2, 9013, 9999, 3001]),
        (256, "kitti", [2 * 256, 9 * 256 + 13, 9 * 256 + 255, 3 * 256 + 1]),
        (5000, "cityscapes", [2, 9013, 9999, 3001]),
    ],
)
def test_class_and_instance_by_a_divisor(tmp_path, classes, divisor, kind, coded):
    numbers = [0, 13, 999 if kind == "cityscapes" else 255, 1]
    values = np.array([c * divisor + n for c, n in zip([2, 9, 9, 3], numbers, strict=True)])
    places = ids(1, [0, 1, 2, 3])
    save(tmp_path / "own/images/a.png", picture(1))
    save(tmp_path / "own/masks/a.png", values[places].astype(np.uint16))
    convert(tmp_path / "own", tmp_path / "out", classes, instance_divisor=divisor)
    frame = read(tmp_path / "out")["a"]
    assert (decode(frame["labels"]) == np.array([2, 9, 9, 3])[places]).all()
    assert (decode(frame["instances"]) == np.array(coded)[places]).all()
    assert decode(frame["instances"]).dtype == np.uint16
    assert frame["instances_format"] == kind.encode()


@pytest.mark.parametrize(
    ("value", "divisor", "match"),
    [
        (9013, None, "the largest value is 9013, .*--instance_divisor N reads ids of the form"),
        (9013, 10, "id 9013 is class 901 with the divisor 10, but classes are at most 255"),
        (65_535, 1000, "the largest class is 65, the largest number 535 with the divisor 1000"),
        (2500, 2000, None),
        (9013, 1000, None),
        (9013, 256, "label ids that farm does not have: 35"),
    ],
)
def test_ids_that_do_not_fit(tmp_path, classes, value, divisor, match):
    save(tmp_path / "own/images/a.png", picture(1))
    drawn = np.full((HEIGHT, WIDTH), value, np.uint16)
    save(tmp_path / "own/masks/a.png", drawn)
    options = {"instance_divisor": divisor, "void_ids": [1]}
    if match:
        with pytest.raises(ValueError, match=f"masks/a.png: .*{match}"):
            convert(tmp_path / "own", tmp_path / "out", classes, **options)
    else:
        convert(tmp_path / "own", tmp_path / "out", classes, **options)
        assert (decode(read(tmp_path / "out")["a"]["labels"]) == value // divisor).all()


def test_16_bit_masks_of_classes_need_no_divisor(tmp_path, classes):
    save(tmp_path / "own/images/a.png", picture(1))
    save(tmp_path / "own/masks/a.png", ids(1, IDS).astype(np.uint16))
    convert(tmp_path / "own", tmp_path / "out", classes)
    assert (decode(read(tmp_path / "out")["a"]["labels"]) == ids(1, IDS)).all()


def test_command(folder, tmp_path, classes):
    args = ("--source", folder, "--output", tmp_path / "out", "--label_set", classes)
    done = run_command("data_prep.folder", *args, "--val_fraction=0", "--unlabelled")
    assert done.stderr == "" and "6 images, 3 masks, 1 flow files" in done.stdout
    line = run_command("data_prep.folder", *args, "--first_frame=3", ok=False).stderr
    assert line.endswith("numbered 3 to 8 (--first_frame=3)\n")


def test_real_cityscapes_videos(samples):
    frames = reader.find_frames(samples / "cityscapes_video", mask_ids=choose_ids(CITYSCAPES))
    assert len(frames) == 120 and {frame.video for frame in frames} == {
        f"aachen_00000{n}" for n in range(4)
    }
    fields, _ = read_frame(frames[29])
    assert (fields["video"], fields["frame_index"]) == ("aachen_000000", 29)
    assert "image2" not in fields and fields["label_set"] == "cityscapes"
    assert [frame.next_index for frame in frames[:30]] == [*range(1, 30), None]
