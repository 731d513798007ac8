"""Errors in records name the file and record, before or while reading."""

import shutil

import pytest
import tensorflow as tf

from flowseg.data import decoding, records
from flowseg.data.batches import Draw, training_batches
from flowseg.data.labels import CITYSCAPES
from tests.data.test_decoding import read_frames, write_shard


@pytest.fixture
def copy(kitti_records, tmp_path):
    """Train shard of a copy of the synthetic records, for tests that damage it."""
    shutil.copytree(kitti_records, tmp_path / "copy")
    return next((tmp_path / "copy").glob("train-*.tfrecord"))


def test_intact_records_pass_check(copy):
    decoding.check_records([str(copy)], CITYSCAPES)
    # Shards that were copied without the index of the conversion.
    copy.with_name("index.json").unlink()
    copy.with_name(".plan.json").unlink()
    decoding.check_records([str(copy)], CITYSCAPES)


def test_shard_size_differs_from_index(copy):
    write_shard(copy, *(s.numpy() for s in tf.data.TFRecordDataset(str(copy)).take(3)))
    with pytest.raises(ValueError, match=f"{copy.name}: .* bytes, but .*index.json says .*again"):
        decoding.check_records([str(copy)], CITYSCAPES)


def test_another_schema_version(copy, monkeypatch):
    monkeypatch.setattr(records, "_READABLE", (3, 4))
    with pytest.raises(ValueError, match=f"{copy.name}, record 0: .*version 2, .* versions 3 to 4"):
        decoding.check_records([str(copy)], CITYSCAPES)


def damage(path, number):
    """Flip one bit in the middle of record `number`: length (8), sum (4), Example, sum (4)."""
    content, start = bytearray(path.read_bytes()), 0
    for _ in range(number):
        start += int.from_bytes(content[start : start + 8], "little") + 16
    content[start + 12 + int.from_bytes(content[start : start + 8], "little") // 2] ^= 1
    path.write_bytes(content)


def test_damaged_record(copy):
    damage(copy, 2)
    files = records.match_files(f"{copy.parent}/*.tfrecord")
    decoding.check_records(files, CITYSCAPES)  # checks first records only
    with pytest.raises(ValueError, match=f"{copy.name}, record 2: damaged"):
        with records.named_errors(files):
            read_frames(files)
    drawn = Draw([files], batch_size=1, steps_per_epoch=8)
    batches = training_batches(drawn, CITYSCAPES, height=32, width=32)
    with pytest.raises(ValueError, match=f"{copy.name}, record 2: damaged"):
        with records.named_errors(files):
            for _ in batches.take(8):
                pass
    damage(copy, 2)
    damage(copy, 0)
    with pytest.raises(ValueError, match=f"{copy.name}, record 0: damaged"):
        decoding.check_records([str(copy)], CITYSCAPES)


def test_other_errors_are_unchanged(tmp_path):
    record = records.make_example(image1=b"no PNG", image1_format="png", height=4, width=4)
    files = write_shard(tmp_path / "a.tfrecord", record)
    with pytest.raises(tf.errors.InvalidArgumentError), records.named_errors(files):
        read_frames(files)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": 3}'])
def test_damaged_index(content, kitti_records, tmp_path):
    shard = shutil.copy(next(kitti_records.glob("train-*")), tmp_path)
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match="index.json: damaged"):
        decoding.check_records([shard], CITYSCAPES)
    # A journal without an index: the conversion was interrupted.
    (tmp_path / "index.json").rename(tmp_path / ".plan.json")
    with pytest.raises(ValueError, match="this conversion is not finished"):
        decoding.check_records([shard], CITYSCAPES)
