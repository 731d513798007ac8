"""Videos in record shards: found, read in order and at their positions."""

import json
import re

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data_prep.conversion import writer
from data_prep.conversion.frames import Frame
from flowseg.data import decoding, records, videos
from flowseg.data.labels import CITYSCAPES


def write_frames(folder, video, numbers, size=(8, 12)):
    """Frames of one colour, the frame number, each paired with the next; no ground truth."""
    folder = folder / video
    folder.mkdir(parents=True)
    paths = {n: folder / f"{n:05d}.png" for n in numbers}
    for n, path in paths.items():
        cv2.imwrite(str(path), np.full((*size, 3), n, np.uint8))
    return [
        Frame(
            frame_id=f"{video}_{n:05d}",
            files={"image1": path} | ({"image2": paths[n + 1]} if n + 1 in paths else {}),
            video=video,
            frame_index=n,
        )
        for n, path in paths.items()
    ]


def convert(frames, output, **options):
    writer.write(
        "videos", {"train": frames}, output, [output.parent], {}, records_per_shard=3, **options
    )
    return records.match_files(f"{output}/*.tfrecord")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two videos in one folder, 5 and 4 frames, shuffled over three shards."""
    folder = tmp_path_factory.mktemp("videos")
    frames = write_frames(folder, "b", range(5)) + write_frames(folder, "a", (10, 11, 13, 14))
    return convert(shuffled(frames), folder / "out")


def shuffled(frames):
    return [frames[i] for i in np.random.default_rng(0).permutation(len(frames))]


def numbers(dataset):
    return [
        (frame["video"].decode(), int(frame["frame_index"]), int(frame["image1"][0, 0, 0]))
        for frame in dataset.as_numpy_iterator()
    ]


EXPECTED = [("a", n, n) for n in (10, 11, 13, 14)] + [("b", n, n) for n in range(5)]


def test_evaluation_walks_each_video_in_order(shards):
    assert numbers(decoding.evaluation_data(shards, CITYSCAPES)) == EXPECTED


def test_same_order_without_index(shards, tmp_path):
    copies = []
    for path in shards:
        copies.append(str(tmp_path / path.rpartition("/")[2]))
        (tmp_path / copies[-1]).write_bytes(open(path, "rb").read())
    assert numbers(decoding.evaluation_data(copies, CITYSCAPES)) == EXPECTED
    [copied, reference] = [
        [[p._replace(shard="") for p in positions] for positions in videos.find_videos(f).values()]
        for f in (copies, shards)
    ]
    assert copied == reference


def test_index_lists_positions(shards):
    index = json.loads(open(shards[0].rpartition("/")[0] + "/index.json").read())
    assert index["videos"] == {"train": 2}
    listed = [n for f in index["files"].values() for frames in f["videos"].values() for n in frames]
    assert sorted(n for n, _ in listed) == sorted(n for _, n, _ in EXPECTED)


def test_read_at(shards):
    for (_, video), positions in videos.find_videos(shards).items():
        for position in positions:
            one = tf.data.Dataset.from_tensors((position.shard, position.offset))
            [record] = one.flat_map(videos.read_at).as_numpy_iterator()
            fields = records.parse_example(record)
            assert fields["video"] == video.encode()
            assert int(fields["frame_index"]) == position.frame_index


def test_shards_without_videos_keep_their_order(shards, tmp_path):
    frames = [f._replace(video="", frame_index=0) for f in write_frames(tmp_path, "c", range(4))]
    stills = convert(frames, tmp_path / "out")
    # Round-robin over two shards.
    expected = [("", 0, n) for n in (0, 2, 1, 3)]
    assert numbers(decoding.evaluation_data(stills, CITYSCAPES)) == expected
    mixed = numbers(decoding.evaluation_data([*shards, *stills], CITYSCAPES))
    assert mixed == expected + EXPECTED


def test_frame_given_twice(shards):
    with pytest.raises(ValueError, match="frame 1[01] of video a is also in .*: give each"):
        videos.find_videos([*shards, *shards])


def test_frame_of_another_size(tmp_path, capsys):
    frames = write_frames(tmp_path, "v", range(4)) + write_frames(tmp_path, "w", (0, 1), (10, 12))
    cv2.imwrite(str(frames[1].files["image1"]), np.zeros((10, 12, 3), np.uint8))
    message = "00001.png: is 10x12, but most frames of video v are 8x12: a frame of another video?"
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(frames[1:], tmp_path / "other")
    shards = convert(frames, tmp_path / "out", on_error="skip")
    # Frame 0 has the bad frame as its second.
    assert [n for v, n, _ in numbers(decoding.evaluation_data(shards, CITYSCAPES)) if v == "v"] == [
        2,
        3,
    ]
    output = capsys.readouterr().out
    assert "skipped: 2" in output and message in output
