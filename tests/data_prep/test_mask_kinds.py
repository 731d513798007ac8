"""Conversion of every kind of mask, of masks with other values, and the warnings about labels."""

import json

import numpy as np
import pytest

from data_prep import kitti
from data_prep.conversion import label_checks
from data_prep.doctor.read import decode
from flowseg.data import labels, records
from tests.conftest import run_command
from tests.support import city_frames
from tests.support.made_files import HEIGHT, WIDTH, ids, load, picture, read_back, save
from tests.support.own_folder import convert
from tests.support.png_writer import RGB, palette_png, stored_png

PALETTE = [[10, 20, 30], [255, 140, 0]]


def write_set(folder, *pngs):
    for k, png in enumerate(pngs):
        save(folder / f"images/{k}.png", picture(k))
        save(folder / f"masks/{k}.png", png)
    return folder


@pytest.fixture
def two(tmp_path):
    """A label set of two classes with the ids 0 and 1."""
    path = tmp_path / "two.json"
    content = {"names": ["back", "thing"], "palette": PALETTE, "ids": {"two": [0, 1]}}
    path.write_text(json.dumps(content))
    return path


def convert_and_read(folder, classes, **options):
    """Return {frame id: decoded frame} and {frame id: bytes of the labels in the record}."""
    convert(folder, folder / "out", classes, **options)
    frames = read_back(folder / "out", labels.load_label_set(str(classes)))
    shards = records.match_files(f"{folder}/out/*.tfrecord")
    read = [fields for shard in shards for _, fields in records.read_shard(shard)]
    return frames, {fields["frame_id"].decode(): fields["labels"] for fields in read}


def test_every_kind_of_mask_gives_the_same_labels(tmp_path, two, capsys):
    drawn = ids(1, [0, 1])
    pngs = [stored_png(drawn, depth) for depth in (8, 1, 2, 4, 16)]
    pngs += [palette_png(drawn, PALETTE, depth) for depth in (1, 8)]
    pngs.append(stored_png(np.array(PALETTE)[drawn], 8, RGB))
    frames, stored = convert_and_read(write_set(tmp_path / "in", *pngs), two)
    assert len(frames) == len(pngs) and capsys.readouterr().err == ""
    for name, frame in frames.items():
        assert (frame["seg"] == drawn).all(), name
        save(tmp_path / "stored.png", stored[name])
        assert (load(tmp_path / "stored.png") == drawn).all()
    assert stored["0"] == pngs[0], "8-bit grey files are stored unchanged"


def test_kinds_of_masks_of_an_official_data_set(tmp_path):
    seg = ids(2, range(19))
    colours = np.array(labels.CITYSCAPES.palette)[seg]
    training = tmp_path / "training"
    stored = labels.label_id_table(labels.CITYSCAPES).astype(int)[seg]
    pngs = [stored_png(colours, 8, RGB), stored_png(stored, 16)]
    pngs.append(palette_png(stored, np.zeros((256, 3), int)))
    for k, png in enumerate(pngs):
        save(training / f"image_2/{k:06d}_10.png", picture(k))
        save(training / f"semantic/{k:06d}_10.png", png)
    kitti.convert([tmp_path], tmp_path / "out", val_fraction=0)
    frames = read_back(tmp_path / "out")
    assert len(frames) == 3 and all((frame["seg"] == seg).all() for frame in frames.values())


def test_mask_values(tmp_path, two, capsys):
    drawn = ids(3, [0, 100, 128, 255])
    frames, _ = convert_and_read(
        write_set(tmp_path / "in", stored_png(drawn)), two, mask_values=["128", "255"],
        void_ids=["0", "100"],
    )  # fmt: skip
    assert (frames["0"]["seg"] == np.select([drawn == 128, drawn == 255], [0, 1], 255)).all()
    # 255 is void unless it is listed; other values are errors.
    frames, _ = convert_and_read(
        write_set(tmp_path / "more", stored_png(ids(3, [0, 7, 255]))), two, mask_values=[7, 0]
    )
    assert (frames["0"]["seg"] == np.array([1, *[0] * 254, 255])[ids(3, [0, 7, 255])]).all()
    # The void half of the first mask is reported, but not its values.
    assert capsys.readouterr().err.startswith("warning: 53% of the labelled")
    with pytest.raises(ValueError, match="masks/0.png: holds values that are not in mask_v.*: 100"):
        convert(tmp_path / "in", tmp_path / "bad", two, mask_values=[0, 128])


def test_mask_values_with_a_numbering_whose_void_is_not_255(tmp_path):
    values = list(range(0, 110, 10))
    frames, stored = convert_and_read(
        write_set(tmp_path / "in", stored_png(ids(1, [0, 30, 255]))), "camvid", mask_values=values
    )
    expected = np.select([ids(1, [0, 30, 255]) == 0, ids(1, [0, 30, 255]) == 30], [0, 3], 255)
    assert (frames["0"]["seg"] == expected).all()
    save(tmp_path / "stored.png", stored["0"])
    assert set(np.unique(load(tmp_path / "stored.png"))) == {0, 3, 11}


def test_other_values_or_colours_are_another_conversion(tmp_path, two):
    """The shards are written again, because the same files give other labels."""
    folder = write_set(tmp_path / "in", stored_png(ids(1, [0, 255])))
    convert(folder, tmp_path / "out", two)
    with pytest.raises(ValueError, match=r"another conversion, with mask_values=\[\] instead of"):
        convert(folder, tmp_path / "out", two, mask_values=[0, 255])
    convert(folder, tmp_path / "out", two, mask_values=[0, 255], overwrite=True)
    assert read_back(tmp_path / "out", labels.load_label_set(str(two)))["0"]["seg"].max() == 1
    coloured = write_set(
        tmp_path / "coloured", stored_png(np.array(PALETTE)[ids(1, [0, 1])], 8, RGB)
    )
    convert(coloured, tmp_path / "rgb", two)
    swapped = json.loads(two.read_text()) | {"palette": PALETTE[::-1]}
    two.write_text(json.dumps(swapped))
    convert(coloured, tmp_path / "rgb", two)
    frame = read_back(tmp_path / "rgb", labels.load_label_set(str(two)))["0"]
    assert (frame["seg"] == 1 - ids(1, [0, 1])).all()


def test_masks_of_0_and_255_are_reported(tmp_path, two, capsys):
    folder = write_set(tmp_path / "in", stored_png(ids(1, [0, 255])), stored_png(ids(2, [0])))
    convert(folder, tmp_path / "out", two)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the masks hold only the values 0 and 255, and 255 means void")
    assert "class thing has no pixel" in line and "--mask_values 0,255 --overwrite" in line
    # A single pixel of class 1 shows that 255 is void on purpose.
    save(folder / "masks/1.png", stored_png(ids(2, [0, 1])))
    convert(folder, tmp_path / "out", two)
    assert capsys.readouterr().err == ""


def test_absent_classes_and_void_are_reported(tmp_path, two, capsys):
    half = np.zeros((HEIGHT, WIDTH), int)
    half[: HEIGHT // 2] = 255
    folder = write_set(tmp_path / "in", stored_png(half), *[stored_png(half * 0 + 255)] * 5)
    index = convert(folder, tmp_path / "out", two, void_ids=[9])
    void, empty, values = capsys.readouterr().err.splitlines()
    # Five frames and half of the sixth.
    assert void.startswith("warning: 92% of the labelled frames' pixels are void, as their ids")
    assert empty.startswith("warning: 5 of 6 labelled frames without a pixel of any class: ")
    assert empty.endswith(" and 2 more: correct or remove their masks")
    assert sorted(index["all_void"]) == ["1", "2", "3", "4", "5"]
    assert "--mask_values" in values
    write_set(folder, stored_png(half // 255), stored_png(half * 0 + 1))
    for k in range(2, 6):
        (folder / f"masks/{k}.png").unlink()
    content = json.loads(two.read_text())
    content = {"names": [*content["names"], "valve"], "palette": [*PALETTE, [0, 1, 2]]}
    two.write_text(json.dumps({**content, "ids": {"two": [0, 1, 2]}}))
    convert(folder, tmp_path / "more", two)
    [line] = capsys.readouterr().err.splitlines()
    assert line == "warning: 1 of the 3 classes of label set two have no pixel: valve"


def test_absent_classes_of_a_built_in_label_set_are_one_line(tmp_path, capsys):
    city_frames.write_kitti(tmp_path / "in", city_frames.make_frames())
    kitti.convert([tmp_path / "in"], tmp_path / "out", val_fraction=0)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == captured.out.rstrip("\n").count("\n") + 1
    [line] = [line for line in captured.out.splitlines() if "have no pixel" in line]
    assert line.startswith("2 of the 19 classes of label set cityscapes have no pixel: ")


def test_nothing_but_void_has_no_absent_classes():
    entry = {"class_pixels": {"camvid": {"11": 9}}, "truth": {"labels": 1}, "all_void": ["a"]}
    warnings, notes = label_checks.check({"train-0": entry}, labels.CAMVID)
    assert [line.split()[0] for line in warnings] == ["100%", "1"] and notes == []
    # The ground truth of a test split may be missing on purpose.
    assert label_checks.check({"test-0": entry}, labels.CAMVID) == ([], [])


def test_doctor_refuses_records_of_masks_that_training_misreads():
    """Earlier versions stored masks of 1 bit unchanged."""
    fields = {"height": HEIGHT, "width": WIDTH, "labels": stored_png(ids(1, [0, 1]), 1)}
    frame, [(kind, text)] = decode(fields)
    assert frame == {} and kind == "file" and "labels: not an 8-bit grey PNG" in text


def test_command(tmp_path, two):
    folder = write_set(tmp_path / "in", stored_png(ids(1, [0, 255])))
    args = ("--source", folder, "--output", tmp_path / "out", "--label_set", two)
    done = run_command("data_prep.folder", *args, "--mask_values", "0,255", "--val_fraction=0")
    assert done.stderr == ""
    line = run_command("data_prep.folder", *args, "--mask_values", "0", ok=False).stderr
    assert line.startswith("error: --mask_values=0: label set two has 2 classes")
