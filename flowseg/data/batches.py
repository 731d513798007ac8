"""Builds the endless stream of training batches: mixes, shuffles, augments and batches record sets.

The order and the augmentation of an epoch depend only on the seed and the epoch number, so a run
resumed at any step gets the same batches as an uninterrupted one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from flowseg.data import augment, records
from flowseg.data.decoding import frame_decoder
from flowseg.data.examples import training_example
from flowseg.data.labels import LabelSet

# Encoded frames in the shuffle buffer; a KITTI pair takes about 1.4 MB.
_SHUFFLE = 256


class Draw(NamedTuple):
    """Selects the examples of each batch.

    Attributes:
        file_sets: list of record sets, each a list of files.
        batch_size: examples per batch.
        steps_per_epoch: batches per epoch; each epoch has its own order and augmentation.
        seed: random seed for order and augmentation.
        weights: relative sampling weight of each set; default: equal weights.
        max_truth_rank: for each set, the largest rank (see `truth_ranks`) of a frame whose ground
            truth is used, or None to use all; default: None for every set.
        unlabelled: which of the other frames are drawn: "all", alternating with frames whose
            ground truth is used; "stills", for the flow of their synthetic second frames; or
            "none".
    """

    file_sets: list
    batch_size: int
    steps_per_epoch: int
    seed: int = 0
    weights: list | None = None
    max_truth_rank: list | None = None
    unlabelled: str = "all"


def training_batches(
    draw: Draw,
    label_set: LabelSet,
    *,
    height: int,
    width: int,
    first_step: int = 0,
    strength: augment.Augmentation | None = None,
    synthetic_flow: bool = True,
    pair: bool = False,
    host: int = 0,
    hosts: int = 1,
) -> tf.data.Dataset:
    """Endless augmented batches; the same seed gives the same batches.

    Args:
        draw: a :class:`Draw`.
        label_set: the run's classes.
        height: rows of a training crop.
        width: columns of a training crop.
        first_step: number of batches to skip at the beginning.
        strength: an :class:`augment.Augmentation`; default: its defaults.
        synthetic_flow: whether the exact flow of a synthetic second frame (see
            `synthetic_frames.synthetic_second_frame`) is a target, or masked.
        pair: whether to add a target `pair` (B, H, W, 7): both frames before colour jitter and
            erasing, and 1 where the flow target is valid.
        host: index of the share of each batch to yield, from 0; the shares of all hosts, in order,
            are the batch.
        hosts: number of shares, each of batch_size / hosts examples.

    Returns:
        tf.data.Dataset of (inputs, targets), see `flowseg.data.decoding`.
    """
    decode = frame_decoder(label_set)

    def prepare(index, record, use_truth):
        return training_example(
            decode(record),
            tf.stack([tf.cast(draw.seed, tf.int64), index]),
            height=height,
            width=width,
            strength=strength,
            use_truth=use_truth,
            synthetic_flow=synthetic_flow,
            pair=pair,
        )

    drawn = keep_share(_drawn(draw, first_step), draw.batch_size, host, hosts)
    dataset = drawn.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    share = draw.batch_size // hosts
    return dataset.batch(share, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def batch_names(draw: Draw, step: int) -> list[str]:
    """Names of the frames in batch `step` (from 0) of a `Draw`: ["dataset/frame_id", ...]."""
    drawn = _drawn(draw, step).take(draw.batch_size)
    fields = (records.parse_example(record) for _, record, _ in drawn)
    return [f"{f['dataset'].numpy().decode()}/{f['frame_id'].numpy().decode()}" for f in fields]


def truth_ranks(files: list[str], seed: int) -> np.ndarray:
    """Pseudo-random rank of each frame, a hash of its name; see `Draw.max_truth_rank`.

    Args:
        files: shards of a record set.
        seed: a different seed selects different frames.

    Returns:
        (N,) int64 array, sorted.
    """
    ranks = tf.data.TFRecordDataset(files).map(lambda record: _truth_rank(record, seed))
    return np.sort(np.fromiter(ranks.as_numpy_iterator(), np.int64))


def _truth_rank(record, seed):
    names = ("dataset", "frame_id")
    fields = tf.io.parse_single_example(record, {name: records.FEATURES[name] for name in names})
    name = tf.strings.join([str(seed), *fields.values()], "/")
    return tf.strings.to_hash_bucket_fast(name, 2**62)


class InputClock:
    """Measures the seconds spent waiting for batches.

    Each batch is fetched between two timestamps in the consumer's thread, so only the wait that
    remains after prefetching is counted.
    """

    def __init__(self):
        self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def timed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; the time spent waiting for them is added to `seconds`."""
        clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        def add_wait(start, batch, end):
            with tf.control_dependencies([self._waited.assign_add(end - start)]):
                return tf.nest.map_structure(tf.identity, batch)

        options = tf.data.Options()
        # With a prefetch after the timestamps, they would measure the prefetch thread's wait.
        options.experimental_optimization.inject_prefetch = False
        timed = tf.data.Dataset.zip((clock, batches, clock)).map(add_wait)
        return timed.with_options(options)

    @property
    def seconds(self) -> float:
        """Total seconds so far; never decreases."""
        return float(self._waited.numpy())


def _drawn(draw, first_step):
    """Endless dataset of (number, serialised record, whether its ground truth is used)."""
    limits = draw.max_truth_rank or [None] * len(draw.file_sets)

    def streams(seed):
        sets = zip(draw.file_sets, limits, strict=True)
        return [_shuffled(draw, files, limit, seed) for files, limit in sets]

    return numbered_epochs(
        streams, draw.weights, draw.seed, draw.batch_size, draw.steps_per_epoch, first_step
    )


def numbered_epochs(
    streams: Callable[[tf.Tensor], list[tf.data.Dataset]],
    weights: Sequence[float] | None,
    seed: int,
    batch_size: int,
    steps_per_epoch: int,
    first_step: int,
) -> tf.data.Dataset:
    """Mix the streams of each epoch by weight, and number their examples.

    Args:
        streams: seed of an epoch -> endless datasets of tuples, one for each set, in an order that
            depends on the seed only.
        weights: sampling weight of each stream; default: equal weights.
        seed: seed of the first epoch.
        batch_size: examples per step.
        steps_per_epoch: steps after which the next epoch begins.
        first_step: step to begin at.

    Returns:
        Endless dataset of tuples: the number of an example, and its parts. The number seeds the
        augmentation. Each epoch reserves 2^32 numbers, so that they do not depend on its length.
    """
    first_epoch, skipped_steps = divmod(first_step, steps_per_epoch)

    def epoch(number):
        parts = streams(seed + number)
        if len(parts) == 1:
            mixed = parts[0]
        else:
            shares = [float(weight) for weight in weights or [1.0] * len(parts)]
            mixed = tf.data.Dataset.sample_from_datasets(parts, shares, seed=seed + number)
        numbered = mixed.take(steps_per_epoch * batch_size).enumerate()
        # Skipped examples are read, but neither decoded nor augmented.
        skipped_examples = tf.where(number == first_epoch, skipped_steps * batch_size, 0)
        numbered = numbered.skip(tf.cast(skipped_examples, tf.int64))
        return numbered.map(lambda index, example: (number * 2**32 + index, *example))

    return tf.data.Dataset.counter(tf.constant(first_epoch, tf.int64)).flat_map(epoch)


def keep_share(
    examples: tf.data.Dataset, batch_size: int, host: int, hosts: int
) -> tf.data.Dataset:
    """Keep one host's share of each batch of (number, ...) from `numbered_epochs`.

    Examples of other hosts are read to keep the order, but neither decoded nor augmented.
    """
    share = batch_size // hosts
    if hosts == 1:
        return examples
    return examples.filter(lambda index, *_: index % 2**32 % batch_size // share == host)


def _shuffled(draw, files, limit, seed):
    """Endless dataset of (record, whether its ground truth is used): a set shuffled by `seed`."""
    shards = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=seed)
    serialized = shards.interleave(tf.data.TFRecordDataset, cycle_length=min(8, len(files)))

    def endless(examples):
        return examples.shuffle(_SHUFFLE, seed=seed).repeat()

    if limit is None:
        return endless(serialized.map(lambda record: (record, True)))
    examples = serialized.map(lambda record: (record, _truth_rank(record, draw.seed) <= limit))
    if draw.unlabelled != "all":
        return endless(examples.filter(lambda record, used: used | _is_drawn(record, draw)))
    unlabelled = endless(examples.filter(lambda record, used: ~used))
    if limit < 0:
        return unlabelled
    # Alternate: if the ground truth of few frames is used, they would otherwise rarely be drawn.
    labelled = endless(examples.filter(lambda record, used: used))
    return tf.data.Dataset.choose_from_datasets(
        [labelled, unlabelled], tf.data.Dataset.range(2).repeat()
    )


def _is_drawn(record, draw):
    """Whether a frame whose ground truth is not used is drawn: only single images can be."""
    if draw.unlabelled == "none":
        return tf.constant(False)
    second = {"image2_format": records.FEATURES["image2_format"]}
    return tf.io.parse_single_example(record, second)["image2_format"] == ""
