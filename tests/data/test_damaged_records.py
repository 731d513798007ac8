"""Damaged shards: bad records are reported and skipped, the others are used."""

import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import damaged_records, decoding, records
from flowseg.data.labels import CITYSCAPES


def read_records(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


@pytest.fixture(scope="module")
def intact_shard(kitti_records):
    return next(kitti_records.glob("train-*"))


def record_starts(path):
    """Start position of each record."""
    content, position, starts = path.read_bytes(), 0, []
    while position < len(content):
        starts.append(position)
        position += 12 + struct.unpack_from("<Q", content, position)[0] + 4
    return starts


def damaged(intact_shard, folder, position, value=b"????"):
    path = folder / "shard.tfrecord"
    content = intact_shard.read_bytes()
    path.write_bytes(content[:position] + value + content[position + len(value) :])
    return path


def test_intact_shard_is_unchanged(intact_shard, tmp_path):
    assert damaged_records.intact_files([intact_shard], CITYSCAPES, tmp_path / "x") == (
        [str(intact_shard)],
        0,
    )
    assert list((tmp_path / "x").glob("*.tfrecord")) == []


def test_flipped_bits_skip_one_record(intact_shard, tmp_path, capsys):
    starts = record_starts(intact_shard)
    path = damaged(intact_shard, tmp_path, starts[1] + 500)
    (copy,), bad = damaged_records.intact_files([path], CITYSCAPES, tmp_path / "x")
    assert bad == 1 and f"{path}, record 1: damaged bytes; skipped" in capsys.readouterr().err
    intact_records = read_records(intact_shard)
    assert read_records(copy) == [intact_records[0], *intact_records[2:]]
    frames = list(decoding.evaluation_data([copy], CITYSCAPES).as_numpy_iterator())
    assert len(frames) == len(intact_records) - 1
    # The stored result is reused, without a check; the shard is checked again once it has changed.
    assert damaged_records.intact_files([path], CITYSCAPES, tmp_path / "x") == ([copy], 1)
    assert "record 1" in capsys.readouterr().err
    shutil.copy(intact_shard, path)
    assert damaged_records.intact_files([path], CITYSCAPES, tmp_path / "x") == ([str(path)], 0)


def test_records_before_truncation_are_kept(intact_shard, tmp_path):
    starts, intact_records = record_starts(intact_shard), read_records(intact_shard)
    truncated = tmp_path / "cut.tfrecord"
    truncated.write_bytes(intact_shard.read_bytes()[: starts[2] + 100])
    wrong_length = damaged(intact_shard, tmp_path, starts[2], struct.pack("<Q", 77))
    copies, bad = damaged_records.intact_files(
        [truncated, wrong_length], CITYSCAPES, tmp_path / "x"
    )
    assert bad == 2 and [read_records(copy) for copy in copies] == [intact_records[:2]] * 2


def test_undecodable_records_are_skipped(intact_shard, tmp_path, capsys):
    intact_records = read_records(intact_shard)
    example = tf.train.Example.FromString(intact_records[0])
    # Labels of another size; a truncated image.
    labels = tf.io.encode_png(np.zeros((5, 7, 1), np.uint8)).numpy()
    example.features.feature["labels"].bytes_list.value[0] = labels
    other = tf.train.Example.FromString(intact_records[1])
    image = other.features.feature["image1"].bytes_list.value
    image[0] = image[0][:-200]
    path = tmp_path / "shard.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in (example.SerializeToString(), other.SerializeToString(), *intact_records[2:]):
            writer.write(record)
    (copy,), bad = damaged_records.intact_files([path], CITYSCAPES, tmp_path / "x")
    warnings = capsys.readouterr().err
    assert bad == 2 and "record 0: " in warnings and "record 1: " in warnings
    assert warnings.count("cannot be decoded") == 2 and "kitti/" in warnings
    assert read_records(copy) == intact_records[2:]


def test_no_intact_record(intact_shard, tmp_path):
    path = tmp_path / "shard.tfrecord"
    path.write_bytes(intact_shard.read_bytes()[:300])
    with pytest.raises(ValueError, match="shard.tfrecord: no record is intact"):
        damaged_records.intact_files([path], CITYSCAPES, tmp_path / "x")


def test_read_raw_equals_tensorflow(intact_shard):
    assert list(damaged_records._read_raw(str(intact_shard))) == read_records(intact_shard)
    assert records.count([intact_shard]) == len(record_starts(intact_shard))
