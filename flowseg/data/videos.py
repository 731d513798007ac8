"""Finds the videos in record shards, and reads their frames in any order.

Converters shuffle the records of a set, so the frames of a video lie in several shards. A record
can be read on its own by its position, the offset of its first byte in its shard. `index.json`
lists the positions of sets with videos; without it, all shards are read once to find them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from flowseg.data import records

# Larger than most records, so that one of them takes one or two reads.
_READ_BUFFER = 2**21


class Position(NamedTuple):
    """Where a frame of a video is stored.

    Attributes:
        frame_index: number of the frame in the video.
        shard: file.
        offset: first byte of the record in the file.
    """

    frame_index: int
    shard: str
    offset: int


def find_videos(files: Iterable[str | Path]) -> dict[tuple[str, str], list[Position]]:
    """Find the frames of each video in record shards.

    Args:
        files: record shards.

    Returns:
        (folder of the shards, name of the video) -> list of :class:`Position`, sorted by frame
        index; videos are sorted by folder, in the order of `files`, and by name. Frames that are
        not of a video, in a shard that has videos, have the name "" and the order of the records.

    Raises:
        ValueError: a shard is damaged, or a video has two frames with the same number.
    """
    videos = {}
    for path in map(str, files):
        folder = str(Path(path).parent)
        videos.setdefault((folder, ""), [])
        for name, frames in _positions(path).items():
            positions = videos.setdefault((folder, name), [])
            positions += [Position(index, path, offset) for index, offset in frames]
    order = {folder: i for i, (folder, _) in enumerate(videos)}
    ordered = sorted(videos.items(), key=lambda item: (order[item[0][0]], item[0][1]))
    return {key: _sorted(key[1], positions) for key, positions in ordered if positions}


def _sorted(name, positions):
    if not name:
        return positions
    positions = sorted(positions)
    for one, other in zip(positions, positions[1:], strict=False):
        if one.frame_index == other.frame_index:
            raise ValueError(
                f"{other.shard}: frame {other.frame_index} of video {name} is also in "
                f"{one.shard}: give each record set once"
            )
    return positions


def _positions(path):
    """Return {name of a video: [[frame index, offset], ...]} of one shard."""
    index = records.read_index(Path(path).parent) if "://" not in path else None
    entry = index["files"].get(Path(path).name, {}) if index else {}
    listed = entry.get("videos")
    if listed and entry["bytes"] == Path(path).stat().st_size:
        return listed
    # A conversion lists the positions of every shard that has videos.
    return {} if index and entry and not listed else _scan(path)


def _scan(path):
    """Find the positions by reading a whole shard."""
    names = {key: records.FEATURES[key] for key in ("video", "frame_index")}
    frames_of, offset = {}, 0
    with records.named_errors([path]):
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
            fields = tf.io.parse_single_example(record, names)
            name, frame_index = fields["video"].numpy().decode(), int(fields["frame_index"])
            frames_of.setdefault(name, []).append([frame_index, offset])
            offset += len(record) + records.FRAMING
    return frames_of if any(frames_of) else {}


def read_at(shard: str | tf.Tensor, offset: int | tf.Tensor) -> tf.data.Dataset:
    """Dataset of the single serialised record at a position, for `Dataset.flat_map`.

    A damaged record raises DataLossError. TensorFlow 2.21 cannot iterate over this dataset itself.
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[shard],
        compression_type="",
        buffer_size=_READ_BUFFER,
        byte_offsets=tf.reshape(tf.cast(offset, tf.int64), [1]),
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(1)


def in_order(files: Sequence[str | Path]) -> tf.data.Dataset:
    """Dataset of (serialised record, shard) of all records, each video's frames in their order.

    Shards without videos are read from the first record to the last.

    Raises:
        ValueError: see `find_videos`.
    """
    positions = [position for video in find_videos(files).values() for position in video]
    with_videos = {position.shard for position in positions}
    plain = [str(path) for path in files if str(path) not in with_videos]
    parts = []
    if plain or not positions:
        shards = tf.data.Dataset.from_tensor_slices(plain or tf.constant([], tf.string))
        parts.append(
            shards.flat_map(lambda path: tf.data.TFRecordDataset(path).map(lambda r: (r, path)))
        )
    if positions:
        columns = [p.shard for p in positions], [p.offset for p in positions]
        read = tf.data.Dataset.from_tensor_slices(columns).flat_map(
            lambda shard, offset: read_at(shard, offset).map(lambda record: (record, shard))
        )
        parts.append(read)
    return parts[0] if len(parts) == 1 else parts[0].concatenate(parts[1])
