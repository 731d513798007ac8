"""What a network in training is fed: record sets mixed, shuffled, augmented, batched, without end.

An epoch's order and draws follow from the seed and the number of the epoch alone, so that a run
resumed at any step sees what it would have seen.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from flowseg.data import augment, records
from flowseg.data.decoding import frame_decoder
from flowseg.data.examples import training_example
from flowseg.data.labels import LabelSet

# Encoded frames held for shuffling: about 1.4 MB a KITTI pair.
_SHUFFLE = 256


class Draw(NamedTuple):
    """Which examples make which batch.

    Attributes:
        file_sets: list of record sets, each a list of files.
        batch_size: examples a batch.
        steps_per_epoch: batches after which order and draws begin anew.
        seed: of everything random.
        weights: how often each set is drawn from, relative; default: equally.
        truth_up_to: of each set the largest `truth_numbers` of a frame whose truth is used, None
            for all; default: all of all sets.
        without_truth: which of the others are drawn: "all", in turn with those whose truth is
            used; "stills", for the flow of their made second frames; or "none".
    """

    file_sets: list
    batch_size: int
    steps_per_epoch: int
    seed: int = 0
    weights: list | None = None
    truth_up_to: list | None = None
    without_truth: str = "all"


def training_batches(
    draw: Draw,
    label_set: LabelSet,
    *,
    height: int,
    width: int,
    first_step: int = 0,
    strength: augment.Augmentation | None = None,
    made_flow: bool = True,
    pair: bool = False,
    host: int = 0,
    hosts: int = 1,
) -> tf.data.Dataset:
    """Augmented batches without end, the same for the same seed.

    Args:
        draw: a :class:`Draw`.
        label_set: the run's classes.
        height: rows of a training crop.
        width: columns of a training crop.
        first_step: how many batches of the whole are left out.
        strength: an :class:`augment.Augmentation`; default: its defaults.
        made_flow: whether the exact flow of a made second frame (see
            `augment.make_second_frame`) is a target, or masked.
        pair: whether there is a target `pair`: (B, H, W, 7), both frames as they were before their
            colours were changed, and 1 where the flow's truth is known.
        host: which share of each batch this is, from 0; all in their order are the batch.
        hosts: how many shares, each of batch_size / hosts examples.

    Returns:
        tf.data.Dataset of (inputs, targets), see `flowseg.data.decoding`.
    """
    decode = frame_decoder(label_set)

    def prepare(index, record, has_truth):
        return training_example(
            decode(record),
            tf.stack([tf.cast(draw.seed, tf.int64), index]),
            height=height,
            width=width,
            strength=strength,
            has_truth=has_truth,
            made_flow=made_flow,
            pair=pair,
        )

    drawn = _drawn(draw, first_step)
    share = draw.batch_size // hosts

    def is_ours(index, *_):
        return index % 2**32 % draw.batch_size // share == host

    if hosts > 1:
        # The others' examples are read, as the order needs, but neither decoded nor augmented.
        drawn = drawn.filter(is_ours)
    dataset = drawn.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(share, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def batch_names(draw: Draw, step: int) -> list[str]:
    """Which frames batch `step` (from 0) of a `Draw` is made of: ["dataset/frame_id", ...]."""
    drawn = _drawn(draw, step).take(draw.batch_size)
    fields = (records.parse_example(record) for _, record, _ in drawn)
    return [f"{f['dataset'].numpy().decode()}/{f['frame_id'].numpy().decode()}" for f in fields]


def truth_numbers(files: list[str], seed: int) -> np.ndarray:
    """A number a frame, random and by its name: the frames of the lowest ones keep their truth.

    Args:
        files: of a record set.
        seed: other frames for another one.

    Returns:
        (N,) int64 array, sorted.
    """
    numbers = tf.data.TFRecordDataset(files).map(lambda record: _truth_number(record, seed))
    return np.sort(np.fromiter(numbers.as_numpy_iterator(), np.int64))


def _truth_number(record, seed):
    names = ("dataset", "frame_id")
    fields = tf.io.parse_single_example(record, {name: records.FEATURES[name] for name in names})
    name = tf.strings.join([str(seed), *fields.values()], "/")
    return tf.strings.to_hash_bucket_fast(name, 2**62)


class InputClock:
    """Counts the seconds that were spent waiting for batches.

    A batch is asked for between two looks at the clock, in the thread of whoever asks, so that what
    is counted is the wait that is left after all that works ahead.
    """

    def __init__(self):
        self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def timed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; what is waited for them is added to `seconds`."""
        clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        def note(asked, batch, given):
            with tf.control_dependencies([self._waited.assign_add(given - asked)]):
                return tf.nest.map_structure(tf.identity, batch)

        options = tf.data.Options()
        # A prefetch behind the clocks would ask ahead, and the clocks would tell its wait.
        options.experimental_optimization.inject_prefetch = False
        timed = tf.data.Dataset.zip((clock, batches, clock)).map(note)
        return timed.with_options(options)

    @property
    def seconds(self) -> float:
        """So far; it only grows."""
        return float(self._waited.numpy())


def _drawn(draw, first_step):
    """(number, serialised record, whether its truth is used) without end, from a batch on.

    An example's number decides its draws. There is room for 2^32 in an epoch, so that they do not
    depend on its length.
    """
    count = len(draw.file_sets)
    weights = [float(weight) for weight in draw.weights or [1.0] * count]
    limits = draw.truth_up_to or [None] * count
    first_epoch, left_out = divmod(first_step, draw.steps_per_epoch)

    def epoch(number):
        sets = zip(draw.file_sets, limits, strict=True)
        streams = [_shuffled(draw, files, limit, draw.seed + number) for files, limit in sets]
        if len(streams) == 1:
            mixed = streams[0]
        else:
            seed = draw.seed + number
            mixed = tf.data.Dataset.sample_from_datasets(streams, weights, seed=seed)
        numbered = mixed.take(draw.steps_per_epoch * draw.batch_size).enumerate()
        # What is left out is read, but neither decoded nor augmented.
        skipped = tf.where(number == first_epoch, left_out * draw.batch_size, 0)
        numbered = numbered.skip(tf.cast(skipped, tf.int64))
        return numbered.map(lambda index, example: (number * 2**32 + index, *example))

    return tf.data.Dataset.counter(tf.constant(first_epoch, tf.int64)).flat_map(epoch)


def _shuffled(draw, files, limit, seed):
    """One set's (serialised record, whether its truth is used), again and again, by `seed`."""
    names = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=seed)
    serialized = names.interleave(tf.data.TFRecordDataset, cycle_length=min(8, len(files)))

    def again(told):
        return told.shuffle(_SHUFFLE, seed=seed).repeat()

    if limit is None:
        return again(serialized.map(lambda record: (record, True)))
    told = serialized.map(lambda record: (record, _truth_number(record, draw.seed) <= limit))
    if draw.without_truth != "all":
        return again(told.filter(lambda record, used: used | _is_kept(record, draw)))
    others = again(told.filter(lambda record, used: ~used))
    if limit < 0:
        return others
    # In turn: of few frames with truth there would hardly ever be one.
    ours = again(told.filter(lambda record, used: used))
    return tf.data.Dataset.choose_from_datasets([ours, others], tf.data.Dataset.range(2).repeat())


def _is_kept(record, draw):
    if draw.without_truth == "none":
        return tf.constant(False)
    second = {"image2_format": records.FEATURES["image2_format"]}
    return tf.io.parse_single_example(record, second)["image2_format"] == ""
