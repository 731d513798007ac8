"""Builds batches of clips: consecutive frames of videos, each with its own ground truth.

The order and the augmentation of an epoch depend only on the seed and the epoch number, as those of
the pairs in `batches`. All frames of a clip are augmented alike, and their flow stays exact.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from flowseg.data import augment, videos
from flowseg.data.batches import keep_share, numbered_epochs
from flowseg.data.decoding import frame_decoder
from flowseg.data.labels import LabelSet
from flowseg.errors import ArgumentError


class ClipDraw(NamedTuple):
    """Selects the clips of each batch.

    Attributes:
        file_sets: list of record sets, each a list of files.
        length: frames of a clip.
        batch_size: clips per batch.
        steps_per_epoch: batches per epoch; each epoch has its own order and augmentation.
        stride: difference of the frame numbers of neighbouring frames of a clip.
        seed: random seed for order and augmentation.
        weights: relative sampling weight of each set; default: equal weights.
    """

    file_sets: list
    length: int
    batch_size: int
    steps_per_epoch: int
    stride: int = 1
    seed: int = 0
    weights: list | None = None


def find_clips(
    files: Sequence[str | Path], length: int, stride: int = 1
) -> list[list[videos.Position]]:
    """List every clip in record shards: one starts at each frame that has all its successors.

    Args:
        files: record shards.
        length: frames of a clip, 2 or more.
        stride: difference of the frame numbers of neighbouring frames of a clip.

    Returns:
        list of clips, each a list of `length` positions, sorted by video and frame number.

    Raises:
        ValueError: `length` or `stride` is too small, no video has a clip, or a shard is damaged.
    """
    for name, value, least in (("length", length, 2), ("stride", stride, 1)):
        if value < least:
            raise ArgumentError(f"{name}={value}: a clip needs {least} or more", name)
    clips = []
    longest = 0
    for (_, video), positions in videos.find_videos(files).items():
        if not video:
            continue
        by_index = {position.frame_index: position for position in positions}
        longest = max(longest, len(positions))
        for start in by_index:
            clip = [by_index.get(start + i * stride) for i in range(length)]
            if all(clip):
                clips.append(clip)
    if not clips:
        reason = (
            f"the longest video has {longest} frames" if longest else "its frames are not of videos"
        )
        raise ArgumentError(
            f"no clips of {length} frames with numbers {stride} apart here: {reason}",
            "length",
            "stride",
            path=Path(files[0]).parent,
        )
    return clips


def training_clips(
    draw: ClipDraw,
    label_set: LabelSet,
    *,
    height: int,
    width: int,
    first_step: int = 0,
    strength: augment.Augmentation | None = None,
    host: int = 0,
    hosts: int = 1,
) -> tf.data.Dataset:
    """Endless augmented batches of clips; the same seed gives the same batches.

    Args:
        draw: a :class:`ClipDraw`.
        label_set: the run's classes.
        height: rows of a training crop.
        width: columns of a training crop.
        first_step: number of batches to skip at the beginning.
        strength: an :class:`augment.Augmentation`; default: its defaults.
        host: index of the share of each batch to yield, from 0; the shares of all hosts, in order,
            are the batch.
        hosts: number of shares, each of batch_size / hosts clips.

    Returns:
        tf.data.Dataset of (inputs, targets): inputs {"images": (B, k, H, W, 3) float32 0..255};
        targets {"seg": (B, k, H, W) int32 train ids, 255 = ignore; "flow" and "backward_flow":
        (B, k - 1, H, W, 3) (u, v, valid), from frame i to i + 1 of the clip at the pixels of frame
        i, and from frame i + 1 to i at the pixels of frame i + 1}. Missing ground truth is fully
        masked; so is the flow of a stride that the records have no flow for.

    Raises:
        ValueError: see `find_clips`.
    """
    decode = _frames_decoder(draw.length, label_set)
    strength = strength or augment.Augmentation()

    def prepare(index, shards, offsets):
        positions = tf.data.Dataset.from_tensor_slices((shards, offsets))
        serialized = positions.flat_map(videos.read_at).batch(draw.length).get_single_element()
        seed = tf.stack([tf.cast(draw.seed, tf.int64), index])
        frames = decode(serialized)
        clip = augment.augment_clip(frames, seed, height, width, strength)
        clip = _mask_other_flow(clip, frames, draw.stride)
        return {"images": clip.pop("images")}, clip

    drawn = _drawn(draw, first_step, host, hosts)
    dataset = drawn.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    share = draw.batch_size // hosts
    return dataset.batch(share, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _frames_decoder(length, label_set):
    """A function: (k,) serialised records -> the decoded frames of the clip, a list of dicts."""
    decode = frame_decoder(label_set, second=False)
    keys = ("image1", "seg", "frame_index", "next_index")

    def decode_frames(serialized):
        frames = []
        for i in range(length):
            frame = decode(serialized[i])
            used = keys if i == length - 1 else (*keys, "flow", "backward_flow")
            frames.append({key: frame[key] for key in used})
        return frames

    return decode_frames


def _mask_other_flow(clip, frames, stride):
    """Mask the flow of records whose second frame is another one than the clip's next."""
    fits = [frame["next_index"] == frame["frame_index"] + stride for frame in frames[:-1]]
    fits = tf.reshape(tf.stack(fits), (-1, 1, 1, 1))
    return clip | {key: tf.where(fits, clip[key], 0.0) for key in ("flow", "backward_flow")}


def _drawn(draw, first_step, host, hosts):
    """Endless dataset of (number, (k,) shards, (k,) offsets) of one host."""
    shards = [str(path) for files in draw.file_sets for path in files]
    number_of = {shard: i for i, shard in enumerate(shards)}
    columns = []
    for files in draw.file_sets:
        clips = find_clips(files, draw.length, draw.stride)
        columns.append(
            (
                np.int32([[number_of[position.shard] for position in clip] for clip in clips]),
                np.int64([[position.offset for position in clip] for clip in clips]),
            )
        )

    def streams(seed):
        # A buffer that holds all clips, because neighbouring clips of a video are nearly the same.
        return [
            tf.data.Dataset.from_tensor_slices(column).shuffle(len(column[0]), seed=seed).repeat()
            for column in columns
        ]

    drawn = numbered_epochs(
        streams, draw.weights, draw.seed, draw.batch_size, draw.steps_per_epoch, first_step
    )
    drawn = keep_share(drawn, draw.batch_size, host, hosts)
    return drawn.map(lambda index, numbers, offsets: (index, tf.gather(shards, numbers), offsets))
