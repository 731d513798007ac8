"""Damaged shards: what is bad is named and left out, the rest is trained on."""

import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import damaged_records, decoding, records
from flowseg.data.labels import CITYSCAPES


def raw(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


@pytest.fixture(scope="module")
def sound(kitti_records):
    return next(kitti_records.glob("train-*"))


def starts(path):
    """Where each record begins."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        found.append(at)
        at += 12 + struct.unpack_from("<Q", content, at)[0] + 4
    return found


def damaged(sound, folder, at, value=b"????"):
    path = folder / "shard.tfrecord"
    content = sound.read_bytes()
    path.write_bytes(content[:at] + value + content[at + len(value) :])
    return path


def test_a_sound_shard_is_itself(sound, tmp_path):
    assert damaged_records.sound_files([sound], CITYSCAPES, tmp_path / "x") == ([str(sound)], 0)
    assert list((tmp_path / "x").glob("*.tfrecord")) == []


def test_flipped_bits_cost_one_record(sound, tmp_path, capsys):
    begins = starts(sound)
    path = damaged(sound, tmp_path, begins[1] + 500)
    (copy,), bad = damaged_records.sound_files([path], CITYSCAPES, tmp_path / "x")
    assert bad == 1 and f"{path}, record 1: damaged bytes; left out" in capsys.readouterr().err
    whole = raw(sound)
    assert raw(copy) == [whole[0], *whole[2:]]
    frames = list(decoding.evaluation_data([copy], CITYSCAPES).as_numpy_iterator())
    assert len(frames) == len(whole) - 1
    # The same again from what was found, without a look; and anew once the shard has changed.
    assert damaged_records.sound_files([path], CITYSCAPES, tmp_path / "x") == ([copy], 1)
    assert "record 1" in capsys.readouterr().err
    shutil.copy(sound, path)
    assert damaged_records.sound_files([path], CITYSCAPES, tmp_path / "x") == ([str(path)], 0)


def test_a_cut_shard_and_a_damaged_length_keep_what_is_before(sound, tmp_path):
    begins, whole = starts(sound), raw(sound)
    cut = tmp_path / "cut.tfrecord"
    cut.write_bytes(sound.read_bytes()[: begins[2] + 100])
    wrong = damaged(sound, tmp_path, begins[2], struct.pack("<Q", 77))
    copies, bad = damaged_records.sound_files([cut, wrong], CITYSCAPES, tmp_path / "x")
    assert bad == 2 and [raw(copy) for copy in copies] == [whole[:2]] * 2


def test_what_cannot_be_decoded_is_left_out(sound, tmp_path, capsys):
    whole = raw(sound)
    example = tf.train.Example.FromString(whole[0])
    # Labels of another size; a picture that is cut off.
    labels = tf.io.encode_png(np.zeros((5, 7, 1), np.uint8)).numpy()
    example.features.feature["labels"].bytes_list.value[0] = labels
    other = tf.train.Example.FromString(whole[1])
    image = other.features.feature["image1"].bytes_list.value
    image[0] = image[0][:-200]
    path = tmp_path / "shard.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in (example.SerializeToString(), other.SerializeToString(), *whole[2:]):
            writer.write(record)
    (copy,), bad = damaged_records.sound_files([path], CITYSCAPES, tmp_path / "x")
    told = capsys.readouterr().err
    assert bad == 2 and "record 0: " in told and "record 1: " in told
    assert told.count("cannot be decoded") == 2 and "kitti/" in told
    assert raw(copy) == whole[2:]


def test_nothing_sound(sound, tmp_path):
    path = tmp_path / "shard.tfrecord"
    path.write_bytes(sound.read_bytes()[:300])
    with pytest.raises(ValueError, match="shard.tfrecord: no record is sound"):
        damaged_records.sound_files([path], CITYSCAPES, tmp_path / "x")


def test_reading_raw_is_reading(sound):
    assert list(damaged_records._read_raw(str(sound))) == raw(sound)
    assert records.count([sound]) == len(starts(sound))
