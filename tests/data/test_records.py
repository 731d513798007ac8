"""The record schema: valid and invalid fields, and messages for damaged shards."""

import pytest
import tensorflow as tf

from flowseg.data import records

FRAME = {"image1": b"one", "image1_format": "png", "height": 4, "width": 6}
PAIR = FRAME | {"image2": b"two", "image2_format": "jpeg", "flow": b"f", "flow_format": "flo"}


def write(path, *examples):
    with tf.io.TFRecordWriter(str(path)) as shard:
        for example in examples:
            shard.write(example)
    return str(path)


def test_round_trip(tmp_path):
    full = PAIR | {
        "flow_noc": b"n", "labels": b"\0\xff", "label_set": "cityscapes", "instances": b"i",
        "instances_format": "cityscapes", "objects": b"o", "dataset": "kitti",
        "frame_id": "000002_10", "backward_flow": b"b", "video": "drive", "frame_index": 7,
        "next_index": 9,
    }  # fmt: skip
    path = write(tmp_path / "a.tfrecord", records.make_example(**full))
    [(index, fields)] = records.read_shard(path)
    text = {k: v.encode() if isinstance(v, str) else v for k, v in full.items()}
    assert index == 0 and fields == text | {"schema": 2, "occlusion": b""}
    assert set(fields) == set(records.FEATURES)


def test_missing_fields_are_empty(tmp_path):
    [(_, fields)] = records.read_shard(write(tmp_path / "a", records.make_example(**FRAME)))
    assert fields["image2"] == fields["flow"] == fields["labels"] == fields["label_set"] == b""


def test_serialisation_is_deterministic():
    assert records.make_example(**PAIR) == records.make_example(**dict(reversed(PAIR.items())))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (FRAME | {"depth": b"d"}, "no such record fields: depth"),
        (FRAME | {"schema": 1}, "no such record fields: schema"),
        ({"image1": b"one", "image1_format": "png"}, "needs image1, height and width"),
        (FRAME | {"image1": b""}, "needs image1"),
        (FRAME | {"image1_format": "gif"}, "image1_format is 'gif'"),
        (FRAME | {"image2": b"two"}, "image2 and image2_format"),
        (FRAME | {"labels": b"l"}, "labels and label_set"),
        (FRAME | {"instances": b"i", "instances_format": "coco"}, "instances_format is 'coco'"),
        (PAIR | {"flow_format": ""}, "flow and flow_format"),
        (FRAME | {"flow": b"f", "flow_format": "flo"}, "flow without a second frame"),
        (FRAME | {"flow_noc": b"f"}, "flow_noc without flow"),
        (FRAME | {"occlusion": b"f"}, "occlusion without flow"),
        (PAIR | {"flow_noc": b"f", "occlusion": b"o"}, "flow_noc and occlusion say the same"),
        (FRAME | {"backward_flow": b"b", "flow_format": "flo"}, "flow without a second frame"),
        (FRAME | {"frame_index": 3}, "frame numbers 3, 0: need a video"),
        (FRAME | {"video": "v", "frame_index": -1}, "frame numbers -1, 0: need a video"),
        (PAIR | {"video": "v", "frame_index": 3, "next_index": 3}, "frame 3 of video v has next_"),
        (FRAME | {"video": "v", "next_index": 1}, "without one it is 0"),
    ],
)
def test_inconsistent_fields(fields, match):
    with pytest.raises(ValueError, match=match):
        records.make_example(**fields)


def test_another_schema_version(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SCHEMA_VERSION", 99)
    monkeypatch.setattr(records, "_READABLE", (99,))
    path = write(tmp_path / "new.tfrecord", records.make_example(**FRAME))
    monkeypatch.undo()
    match = "new.tfrecord, record 0: .*version 99, but this FlowSeg reads versions 1 to 2: convert"
    with pytest.raises(ValueError, match=match):
        next(records.read_shard(path))


def test_first_version_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SCHEMA_VERSION", 1)
    example = tf.train.Example.FromString(records.make_example(**PAIR))
    for name in ("video", "frame_index", "next_index", "backward_flow", "occlusion"):
        del example.features.feature[name]
    path = write(tmp_path / "old.tfrecord", example.SerializeToString())
    [(_, fields)] = records.read_shard(path)
    assert fields["schema"] == 1 and fields["flow"] == b"f"
    assert fields["video"] == b"" and fields["backward_flow"] == b""


def test_foreign_record(tmp_path):
    foreign = tf.train.Example(
        features=tf.train.Features(
            feature={"height": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"4"]))}
        )
    )
    path = write(tmp_path / "foreign.tfrecord", foreign.SerializeToString())
    with pytest.raises(ValueError, match="foreign.tfrecord, record 0"):
        next(records.read_shard(path))
    path = write(tmp_path / "noise.tfrecord", records.make_example(**FRAME), b"noise")
    with pytest.raises(ValueError, match="noise.tfrecord, record 1: damaged"):
        list(records.read_shard(path))


def test_damaged_shard(kitti_records, tmp_path):
    intact = sorted(kitti_records.glob("train-*.tfrecord"))[0].read_bytes()
    # A record is: its length (8 bytes), a checksum (4), the Example, a checksum (4).
    first = int.from_bytes(intact[:8], "little") + 16
    damaged = bytearray(intact)
    damaged[first + 1000] ^= 1
    path = tmp_path / "damaged.tfrecord"
    path.write_bytes(damaged)
    records_of_shard = records.read_shard(path)
    assert next(records_of_shard)[0] == 0
    with pytest.raises(ValueError, match="damaged.tfrecord, record 1: damaged.*convert this data"):
        next(records_of_shard)
    path.write_bytes(intact[: first + 1000])
    with pytest.raises(ValueError, match="damaged.tfrecord, record 1: damaged"):
        list(records.read_shard(path))


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match="nothing.tfrecord: no such record file"):
        next(records.read_shard(tmp_path / "nothing.tfrecord"))
    with pytest.raises(ValueError, match=r"val-\*: no record files match"):
        records.match_files(f"{tmp_path}/val-*")


def test_folder_in_place_of_its_shards(tmp_path):
    with pytest.raises(ValueError) as caught:
        records.match_files(tmp_path)
    assert str(caught.value) == f"{tmp_path}: a folder; give its shards, such as {tmp_path}/train-*"


def test_match_files(tmp_path):
    for name in ("train-1", "train-0", "val-0"):
        (tmp_path / name).write_bytes(b"")
    matches = records.match_files(f"{tmp_path}/val-*", f"{tmp_path}/train-*")
    assert matches == [f"{tmp_path}/{name}" for name in ("val-0", "train-0", "train-1")]
