"""Tests of the KITTI converter: records from official folders, and errors for bad folders."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data_prep import kitti
from flowseg.data import flow_io, records
from tests.conftest import SIZES, run_command
from tests.support.kitti_writer import make_frame, write_kitti
from tests.support.made_files import picture, save

FLOW = "data_scene_flow/training"
LABELS = "data_semantics/training"


@pytest.fixture
def folder(kitti_folder, tmp_path):
    """A copy of the synthetic KITTI folder that a test may modify."""
    return shutil.copytree(kitti_folder, tmp_path / "kitti")


def read_all(output):
    """Return {frame id: record} of all shards of a folder."""
    files = records.match_files(f"{output}/train-*.tfrecord", f"{output}/val-*.tfrecord")
    fields_of_all = [fields for file in files for _, fields in records.read_shard(file)]
    by_id = {fields["frame_id"].decode(): fields for fields in fields_of_all}
    assert len(by_id) == len(fields_of_all)
    return by_id


def assert_refused(sources, tmp_path, match):
    """Assert that conversion fails with a matching error and leaves no output files."""
    output = tmp_path / "refused"
    with pytest.raises(ValueError, match=match):
        kitti.convert(sources, output)
    assert not list(output.glob("[!.]*")) and not list(output.glob(".*partial*"))


def change_png(path, change):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    path.write_bytes(cv2.imencode(".png", change(image))[1].tobytes())


def test_records_contain_unchanged_files(kitti_folder, kitti_records):
    fields_by_id = read_all(kitti_records)
    assert sorted(fields_by_id) == [f"{k:06d}_10" for k in range(5)]
    for k in range(4):
        fields = fields_by_id[f"{k:06d}_10"]
        for field, file in {
            "image1": f"{FLOW}/image_2/{k:06d}_10.png",
            "image2": f"{FLOW}/image_2/{k:06d}_11.png",
            "flow": f"{FLOW}/flow_occ/{k:06d}_10.png",
            "flow_noc": f"{FLOW}/flow_noc/{k:06d}_10.png",
            "objects": f"{FLOW}/obj_map/{k:06d}_10.png",
            "labels": f"{LABELS}/semantic/{k:06d}_10.png",
            "instances": f"{LABELS}/instance/{k:06d}_10.png",
        }.items():
            assert fields[field] == (kitti_folder / file).read_bytes()
        odd = int(fields["frame_id"].decode()[:6]) % 2
        assert (fields["height"], fields["width"]) == SIZES[odd]
        assert fields["dataset"] == b"kitti" and fields["label_set"] == b"cityscapes"
        assert fields["flow_format"] == b"kitti" and fields["image2_format"] == b"png"


def test_semantics_only_record(kitti_records):
    fields = read_all(kitti_records)["000004_10"]
    assert fields["labels"] and fields["image1_format"] == b"png"
    for field in ("image2", "image2_format", "flow", "flow_format", "flow_noc", "objects"):
        assert fields[field] == b""


def test_uncompressed(kitti_folder, kitti_records, tmp_path):
    kitti.convert([kitti_folder], tmp_path / "records", uncompressed=True)
    index = json.loads((tmp_path / "records/index.json").read_text())
    assert index["settings"]["uncompressed"] is True
    compressed, uncompressed = read_all(kitti_records), read_all(tmp_path / "records")
    assert compressed.keys() == uncompressed.keys()
    for name, fields in uncompressed.items():
        height, width = fields["height"], fields["width"]
        for field, bytes_per_pixel in (("image1", 3), ("flow", 6), ("labels", 1), ("instances", 2)):
            original = compressed[name][field]
            assert bool(original) == bool(fields[field])
            if original:
                # As large as the pixels, and the same pixels.
                assert 0 <= len(fields[field]) - height * width * bytes_per_pixel < 1500
                pixels = [
                    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                    for data in (original, fields[field])
                ]
                assert pixels[0].dtype == pixels[1].dtype
                np.testing.assert_array_equal(*pixels)


def test_index(kitti_folder, kitti_records):
    index = json.loads((kitti_records / "index.json").read_text())
    assert index["schema"] == records.SCHEMA_VERSION and index["dataset"] == "kitti"
    assert index["records"] == {"train": 4, "val": 1}
    train = {"image2": 3, "flow": 3, "flow_noc": 3, "labels": 4, "instances": 4, "objects": 3}
    train |= {"backward_flow": 0, "occlusion": 0}
    assert index["truth"]["train"] == train
    assert index["settings"] == {"val_fraction": 0.1, "seed": 0, "records_per_shard": 32}
    assert index["sizes_height_x_width"] == {"90x168": 2, "96x160": 3} and index["left_out"] == []
    frames = [make_frame(k, 0, *SIZES[k % 2]) for k in range(5)]
    expected = sum(np.bincount(frame["labels"].ravel(), minlength=34) for frame in frames)
    assert index["class_pixels"]["cityscapes"] == {
        str(i): int(n) for i, n in enumerate(expected) if n
    }
    assert str(kitti_folder.parent) not in (kitti_records / "index.json").read_text()
    assert {file["records"] for file in index["files"].values()} == {4, 1}


def test_real_samples(samples, tmp_path):
    sources = [samples / "kitti", samples / "kitti_semantics_extra"]
    index = kitti.convert(sources, tmp_path, processes=1)
    assert sum(index["records"].values()) == 20
    assert sum(truth["flow"] for truth in index["truth"].values()) == 2
    assert sum(truth["labels"] for truth in index["truth"].values()) == 20
    assert index["sizes_height_x_width"] == {"375x1242": 20}
    pair = read_all(tmp_path)["000002_10"]
    official = samples / "kitti" / FLOW / "flow_noc" / "000002_10.png"
    assert pair["flow_noc"] == official.read_bytes() and pair["labels"] and pair["image2"]
    all_known = flow_io.decode_kitti_flow(pair["flow"])[..., 2].sum()
    assert 0 < flow_io.decode_kitti_flow(pair["flow_noc"])[..., 2].sum() < all_known


@pytest.mark.parametrize("which", ["data_scene_flow", "data_semantics"])
def test_one_set_alone(kitti_folder, tmp_path, which):
    index = kitti.convert([kitti_folder / which], tmp_path)
    count = 4 if which == "data_scene_flow" else 5
    assert sum(index["records"].values()) == count
    assert index["label_sets"] == ([] if which == "data_scene_flow" else ["cityscapes"])
    assert set(read_all(tmp_path)) == {f"{k:06d}_10" for k in range(count)}


def test_two_sources_are_joined(kitti_folder, tmp_path):
    # The second folder's frames 4 and 5 have flow; frame 4 is in the first one with labels only.
    more = write_kitti(tmp_path / "more", count=2, first_id=4)
    index = kitti.convert([kitti_folder, more], tmp_path / "out")
    assert sum(index["records"].values()) == 6
    fourth = read_all(tmp_path / "out")["000004_10"]
    assert fourth["flow"] and fourth["labels"]


def test_duplicate_frames_must_be_identical(kitti_folder, folder, tmp_path):
    kitti.convert([kitti_folder, folder], tmp_path / "out")
    change_png(folder / LABELS / "semantic/000001_10.png", lambda ids: np.where(ids == 7, 8, ids))
    assert_refused([kitti_folder, folder], tmp_path, r"semantic/000001_10\.png: differs from")


def test_images_of_both_sets_must_have_equal_pixels(folder, tmp_path):
    image = folder / LABELS / "image_2/000002_10.png"
    # Different bytes, same pixels: the image may have been compressed again.
    pixels = cv2.imread(str(image))
    image.write_bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())
    kitti.convert([folder], tmp_path / "out")
    change_png(image, lambda pixels: pixels ^ 1)
    assert_refused([folder], tmp_path, r"000002_10\.png: its pixels differ from .*000002_10\.png")


@pytest.mark.parametrize(
    "file", [f"{FLOW}/image_2/000001_11.png", f"{FLOW}/flow_occ/000001_10.png",
             f"{FLOW}/image_2/000001_10.png", f"{LABELS}/semantic/000001_10.png"],
)  # fmt: skip
def test_missing_file(folder, tmp_path, file):
    (folder / file).unlink()
    assert_refused([folder], tmp_path, f"{file}: missing")


def test_missing_or_invalid_source(kitti_folder, tmp_path):
    assert_refused([tmp_path / "nowhere"], tmp_path, "nowhere: no such folder")
    (tmp_path / "empty").mkdir()
    assert_refused([tmp_path / "empty"], tmp_path, "empty: no KITTI set here")
    assert_refused([kitti_folder / LABELS], tmp_path, "training: no KITTI set here")
    (tmp_path / "bare/training/flow_occ").mkdir(parents=True)
    assert_refused([tmp_path / "bare"], tmp_path, "bare: no frames")


@pytest.mark.parametrize("images", ["colored_0", "image_0"])
@pytest.mark.parametrize("parent", ["data_stereo_flow", "."])
def test_kitti_2012_is_named(tmp_path, images, parent):
    for name in (f"training/{images}", "training/flow_occ", f"testing/{images}"):
        (tmp_path / parent / name).mkdir(parents=True)
        save(tmp_path / parent / name / "000000_10.png", picture(0))
    match = f"this is KITTI 2012 .training/{images}.: convert it with data_prep.kitti2012; "
    assert_refused([tmp_path], tmp_path, match)
    with pytest.raises(ValueError, match=f"KITTI 2012 .testing/{images}"):
        kitti.convert([tmp_path], tmp_path / "out", testing=True)


def narrow(image):
    return image[:, :-4]


@pytest.mark.parametrize(
    ("file", "change", "match"),
    [
        (f"{FLOW}/flow_occ", lambda flow: np.uint8(flow >> 8), "16 bits and 3 channels"),
        (f"{FLOW}/flow_occ", narrow, "is 90x164, but 000001_10.png is 90x168"),
        (f"{FLOW}/flow_occ", lambda flow: flow * 0, "without a single valid pixel"),
        (f"{FLOW}/flow_noc", narrow, "is 90x164"),
        (f"{FLOW}/obj_map", narrow, "is 90x164"),
        (f"{LABELS}/semantic", lambda ids: np.where(ids == 7, 77, ids), "does not have: 77"),
        (f"{LABELS}/semantic", lambda ids: np.uint16(ids) + 300, "the largest value is 3"),
        (f"{LABELS}/semantic", lambda ids: np.dstack([ids] * 3), "holds the ids, save only one"),
        (f"{LABELS}/semantic", narrow, "is 90x164"),
    ],
)
def test_invalid_files(folder, tmp_path, file, change, match):
    change_png(folder / file / "000001_10.png", change)
    assert_refused([folder], tmp_path, f"{file}/000001_10.png: .*{match}")


def test_second_frame_of_another_size(folder, tmp_path):
    change_png(folder / FLOW / "image_2/000001_11.png", narrow)
    assert_refused([folder], tmp_path, r"000001_11\.png: is 90x164, but 000001_10\.png is 90x168")


@pytest.mark.parametrize("file", [f"{FLOW}/image_2", f"{FLOW}/flow_occ", f"{LABELS}/semantic"])
@pytest.mark.parametrize("length", [0, 5, 40, 0.5, -13, -1])
def test_truncated_file(folder, tmp_path, file, length):
    path = folder / file / "000001_10.png"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * length) if 0 < length < 1 else length])
    assert_refused([folder], tmp_path, f"{file}/000001_10.png: (truncated PNG|not a)")


@pytest.mark.parametrize("file", [f"{FLOW}/image_2", f"{FLOW}/flow_occ", f"{LABELS}/semantic"])
def test_damaged_file(folder, tmp_path, file):
    path = folder / file / "000001_10.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert_refused([folder], tmp_path, f"{file}/000001_10.png: damaged PNG")


def test_on_error_skip_lists_bad_frames(folder, tmp_path, capsys):
    (folder / FLOW / "image_2/000001_11.png").unlink()
    change_png(folder / LABELS / "semantic/000004_10.png", lambda ids: ids * 0 + 77)
    index = kitti.convert([folder], tmp_path / "out", on_error="skip")
    assert index["records"] == {"train": 2, "val": 1}
    left_out = {item["frame_id"]: item["reason"] for item in index["left_out"]}
    assert set(left_out) == {"000001_10", "000004_10"}
    assert left_out["000001_10"].startswith(f"{FLOW}/image_2/000001_11.png: missing")
    assert "77" in left_out["000004_10"]
    printed = capsys.readouterr().out
    assert "skipped: 2" in printed and left_out["000004_10"] in printed
    # With on_error="stop" the same folder is not finished.
    with pytest.raises(ValueError, match="000001_11.png: missing|have: 77"):
        kitti.convert([folder], tmp_path / "out")


def test_only_bad_frames(folder, tmp_path):
    shutil.rmtree(folder / FLOW / "image_2")
    with pytest.raises(ValueError, match="every frame is bad; first: .*missing"):
        kitti.convert([folder / "data_scene_flow"], tmp_path / "out", on_error="skip")
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_split_is_stable_when_frames_are_added(kitti_folder, tmp_path):
    kitti.convert([kitti_folder / "data_scene_flow"], tmp_path / "four", val_fraction=0.58)
    kitti.convert([kitti_folder], tmp_path / "five", val_fraction=0.58)
    splits = []
    for output in (tmp_path / "four", tmp_path / "five"):
        files = sorted(output.glob("*.tfrecord"))
        splits.append(
            {f["frame_id"]: file.name[:5] for file in files for _, f in records.read_shard(file)}
        )
    assert set(splits[0].values()) == {"train", "val-0"}
    assert splits[0].items() < splits[1].items()


def test_empty_val_split(kitti_folder, tmp_path, capsys):
    index = kitti.convert([kitti_folder / "data_scene_flow"], tmp_path / "none", val_fraction=0)
    assert index["records"] == {"train": 4, "val": 0} and not capsys.readouterr().err
    # With this seed no frame of 0..3 is assigned to a fraction of 0.01.
    index = kitti.convert([kitti_folder], tmp_path / "unlucky", val_fraction=0.01)
    assert index["records"] == {"train": 5, "val": 0}
    assert not list((tmp_path / "unlucky").glob("val-*"))
    warning = capsys.readouterr().err
    assert "--val_fraction=0" in warning and "--seed" in warning


def test_command(kitti_folder, kitti_records, tmp_path):
    done = run_command("data_prep.kitti", "--source", kitti_folder, "--output", tmp_path)
    assert done.stderr == "" and "train" in done.stdout and "val" in done.stdout
    for file in kitti_records.glob("*.tfrecord"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--sauce=a"], ["unknown", "'sauce'", "--help"]),
        (["--output=x"], ["--source is not given"]),
        (["--source=x", "--output=y", "--val_fraction=1.5"], ["--val_fraction=1.5", "[0.0, 1.0]"]),
        (["--source=nowhere", "--output=y"], ["nowhere: no such folder"]),
        (["--source=x", "y"], ["unexpected argument 'y'"]),
    ],
)
def test_bad_commands_print_one_line(args, parts):
    line = run_command("data_prep.kitti", *args, ok=False).stderr
    assert all(part.lower() in line.lower() for part in parts), line


def test_help():
    text = run_command("data_prep.kitti", "--help").stdout
    assert (
        "data_scene_flow" in text and "--val_fraction" in text and "--only_check_args" not in text
    )


@pytest.mark.parametrize(
    ("map_folder", "dtype", "message"),
    [(f"{LABELS}/instance", np.uint8, "8 bits, but instances have 16"),
     (f"{FLOW}/obj_map", np.uint16, "16 bits, but objects have 8")],
)  # fmt: skip
def test_wrong_bit_depth(folder, tmp_path, map_folder, dtype, message):
    path = next((folder / map_folder).iterdir())
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), (ids & 255).astype(dtype))
    assert_refused([folder], tmp_path, f"{path.name}: {message}")
