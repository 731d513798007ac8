"""From record shards to what the network is fed: tf.data, pure TensorFlow.

`training_data` gives augmented batches without end; `evaluation_data` single frames at their own
size; `validation_data` the same as batches of one. Inputs are {"image1", "image2"}, targets
{"seg": (B, H, W) int32 train ids, 255 = ignore, "flow": (B, H, W, 3) (u, v, valid)}; truth that a
frame lacks is a fully masked target, so that sets with one kind of label mix freely.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from flowseg import augment, records
from flowseg.flow_io import FLO_UNKNOWN
from flowseg.labels import IGNORE_LABEL, train_id_table

# Encoded frames held for shuffling: about 1.4 MB a KITTI pair.
_SHUFFLE = 256


def check_records(files, label_set):
    """Look at the size and the first record of every shard before a long run.

    Raises:
        ValueError: naming the file: damaged, of another schema, or labels without a map.
    """
    for path in map(Path, files):
        index = read_index(path.parent)
        expected = index and index["files"].get(path.name, {}).get("bytes")
        if expected not in (None, path.stat().st_size):
            raise ValueError(
                f"{path}: {path.stat().st_size} bytes, but its index.json says {expected}: not the "
                "whole shard; copy or convert it again"
            )
        _, fields = next(records.read_shard(path), (0, None))
        if fields is None:
            raise ValueError(f"{path}: a shard without records; convert this data again")
        if fields["labels"]:
            try:
                train_id_table(label_set, fields["label_set"].decode())
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error


def read_index(folder):
    """What a conversion wrote about itself: index.json of a folder of records; None where absent.

    Raises:
        ValueError: damaged, or missing though a conversion was begun here.
    """
    path = Path(folder) / "index.json"
    if not path.is_file():
        if path.with_name(".plan.json").is_file():
            raise ValueError(f"{folder}: this conversion is not finished: run it again first")
        return None
    try:
        index = json.loads(path.read_text())
        if isinstance(index["files"], dict) and isinstance(index["records"], dict):
            return index
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path}: damaged, or not of a conversion; convert this data again")


def teaches(files, stream, made_flow=True):
    """Whether a record set has truth for a stream, by the index.json beside it; without one: yes.

    Args:
        files: of the set.
        stream: "seg" or "flow".
        made_flow: whether stills, which get a made second frame, teach its flow.
    """
    index = read_index(Path(files[0]).parent)
    if not index or "truth" not in index:
        return True
    labels, flow, pairs = (
        sum(split[kind] for split in index["truth"].values())
        for kind in ("labels", "flow", "image2")
    )
    if stream == "seg":
        return labels > 0
    return flow > 0 or (made_flow and pairs < sum(index["records"].values()))


def frame_decoder(label_set, maps=False):
    """A function for `Dataset.map`: one serialised record -> one decoded frame.

    A frame is a dict: `image1`, `image2` (H, W, 3) uint8; `has_image2` bool (where it is false,
    image2 is image1); `flow`, `flow_noc` (H, W, 3) float32; `seg` (H, W) int32; `frame_id`,
    `dataset` string. With `maps` also `objects`, `things`: (H, W) int32, a number for each moving
    object of KITTI's object map, and for each thing of the instance map, 0 elsewhere;
    `has_objects`, `has_things` bool.
    """
    tables = {numbering: train_id_table(label_set, numbering) for numbering in label_set.ids}

    def decode(serialized):
        fields = records.parse_example(serialized)
        shape = tf.cast(tf.stack([fields["height"], fields["width"]]), tf.int32)
        has_image2 = fields["image2"] != ""
        image1 = _decode_image(fields["image1"], fields["image1_format"], shape)
        frame = {
            "image1": image1,
            "image2": tf.cond(
                has_image2,
                lambda: _decode_image(fields["image2"], fields["image2_format"], shape),
                lambda: image1,
            ),
            "has_image2": has_image2,
            "flow": _decode_flow(fields["flow"], fields["flow_format"], shape),
            "flow_noc": _decode_flow(fields["flow_noc"], fields["flow_format"], shape),
            "seg": _decode_labels(fields, shape, tables, label_set.name),
            "frame_id": fields["frame_id"],
            "dataset": fields["dataset"],
        }
        return frame | _decode_maps(fields, shape) if maps else frame

    return decode


def _decode_maps(fields, shape):
    # KITTI: class * 256 + number, 0 for none. Cityscapes: class * 1000 + number, or class alone.
    instances = _decode_map(fields["instances"], tf.uint16, shape)
    city = fields["instances_format"] == "cityscapes"
    told_apart = tf.where(city, instances > 1000, instances % 256 > 0)
    return {
        "objects": _decode_map(fields["objects"], tf.uint8, shape),
        "has_objects": fields["objects"] != "",
        "things": tf.where(told_apart, instances, 0),
        "has_things": fields["instances"] != "",
    }


def _decode_map(data, dtype, shape):
    """(H, W) int32 of a PNG of one channel; 0 where absent."""

    def decode():
        image = tf.io.decode_png(data, channels=1, dtype=dtype)
        return tf.cast(tf.reshape(image, shape), tf.int32)

    empty = tf.cond(data == "", lambda: tf.zeros(shape, tf.int32), decode)
    return tf.ensure_shape(empty, (None, None))


def _decode_image(data, image_format, shape):
    def ppm():
        # TensorFlow reads no PPM, but a binary PPM ends in its pixels.
        size = 3 * shape[0] * shape[1]
        return tf.io.decode_raw(tf.strings.substr(data, -size, size), tf.uint8)

    def jpeg():
        # The accurate transform is OpenCV's, which `predict` reads frames with.
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.reshape(image, [-1])

    def png():
        return tf.reshape(tf.io.decode_png(data, channels=3), [-1])

    flat = tf.case([(image_format == "ppm", ppm), (image_format == "jpeg", jpeg)], default=png)
    return tf.ensure_shape(tf.reshape(flat, tf.concat([shape, [3]], 0)), (None, None, 3))


def _decode_flow(data, flow_format, shape):
    """(H, W, 3) float32 (u, v, valid), the same as `flow_io` gives; all zero where absent."""

    def kitti():
        png = tf.cast(tf.io.decode_png(data, channels=3, dtype=tf.uint16), tf.float32)
        valid = tf.cast(png[..., 2:] > 0, tf.float32)
        return tf.concat([(png[..., :2] - 2.0**15) / 64.0 * valid, valid], -1)

    def flo():
        flow = tf.reshape(tf.io.decode_raw(data, tf.float32)[3:], tf.concat([shape, [2]], 0))
        # A NaN compares False, so it counts as unknown too.
        valid = tf.reduce_all(tf.abs(flow) < FLO_UNKNOWN, axis=-1, keepdims=True)
        return tf.concat([tf.where(valid, flow, 0.0), tf.cast(valid, tf.float32)], -1)

    flow = tf.case(
        [(data == "", lambda: tf.zeros(tf.concat([shape, [3]], 0))), (flow_format == "flo", flo)],
        default=kitti,
    )
    return tf.ensure_shape(flow, (None, None, 3))


def _decode_labels(fields, shape, tables, name):
    """(H, W) int32 train ids of the label set `name`; all 255 where absent."""
    numberings = tf.constant(list(tables))
    stacked = tf.constant(np.stack(list(tables.values())), tf.int32)

    def decode():
        matches = fields["label_set"] == numberings
        told = ("frame ", fields["frame_id"], ": labels numbered as ", fields["label_set"])
        told = tf.strings.join([*told, f" have no map into the label set {name}"])
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_any(matches), [told])]):
            labels = tf.io.decode_png(fields["labels"], channels=1)
        table = stacked[tf.argmax(tf.cast(matches, tf.int32))]
        return tf.gather(table, tf.cast(tf.reshape(labels, shape), tf.int32))

    absent = fields["labels"] == ""
    seg = tf.cond(absent, lambda: tf.fill(shape, IGNORE_LABEL), decode)
    return tf.ensure_shape(seg, (None, None))


def evaluation_data(files, label_set):
    """Every frame of `files` once, in order, with its maps (`frame_decoder`) and file, `shard`."""
    decode = frame_decoder(label_set, maps=True)
    shards = tf.data.Dataset.from_tensor_slices([str(path) for path in files])
    read = shards.flat_map(lambda path: tf.data.TFRecordDataset(path).map(lambda r: (r, path)))
    return read.map(lambda r, path: decode(r) | {"shard": path}, tf.data.AUTOTUNE).prefetch(2)


def validation_data(files, label_set):
    """`evaluation_data` as batches of one (inputs, targets), for `model.fit`."""
    batches = evaluation_data(files, label_set).map(_as_batch_of_one)
    # Keras takes a set of unknown length for one that broke off.
    return batches.apply(tf.data.experimental.assert_cardinality(records.count(files)))


def _as_batch_of_one(frame):
    inputs = {key: tf.cast(frame[key], tf.float32)[None] for key in ("image1", "image2")}
    return inputs, {key: frame[key][None] for key in ("seg", "flow")}


def training_data(
    file_sets,
    label_set,
    *,
    height,
    width,
    batch_size,
    steps_per_epoch,
    seed=0,
    first_step=0,
    strength=None,
    weights=None,
    made_flow=True,
    host=0,
    hosts=1,
):
    """Augmented batches without end, the same for the same seed.

    An epoch's order and draws follow from the seed and the number of the epoch alone, so that a
    run resumed at any step sees what it would have seen.

    Args:
        file_sets: list of record sets, each a list of files.
        label_set: the run's classes.
        height: rows of a training crop.
        width: columns of a training crop.
        batch_size: examples a batch.
        steps_per_epoch: batches after which order and draws begin anew.
        seed: of everything random.
        first_step: how many batches of the whole are left out.
        strength: an :class:`augment.Augmentation`; default: its defaults.
        weights: how often each set is drawn from, relative; default: equally.
        made_flow: whether the exact flow of a made second frame (see
            `augment.make_second_frame`) is a target, or masked.
        host: which share of each batch this is, from 0; all in their order are the batch.
        hosts: how many shares, each of batch_size / hosts examples.

    Returns:
        tf.data.Dataset of (inputs, targets).
    """
    decode = frame_decoder(label_set)
    strength = strength or augment.Augmentation()

    def prepare(index, record):
        seeds = tf.unstack(tf.random.split(tf.stack([tf.cast(seed, tf.int64), index]), 2))
        frame = decode(record)
        image2, flow = tf.cond(
            frame["has_image2"],
            lambda: (frame["image2"], frame["flow"]),
            lambda: augment.make_second_frame(frame["image1"], seeds[0]),
        )
        if not made_flow:
            flow = tf.where(frame["has_image2"], flow, 0.0)
        example = {"image1": frame["image1"], "image2": image2, "flow": flow, "seg": frame["seg"]}
        example = augment.augment(example, seeds[1], height, width, strength)
        inputs = {key: example.pop(key) for key in ("image1", "image2")}
        return inputs, example

    drawn = _drawn(file_sets, batch_size, steps_per_epoch, seed, first_step, weights)
    share = batch_size // hosts

    def is_ours(index, record):
        return index % 2**32 % batch_size // share == host

    if hosts > 1:
        # The others' examples are read, as the order needs, but neither decoded nor augmented.
        drawn = drawn.filter(is_ours)
    dataset = drawn.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(share, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def batch_names(file_sets, step, *, batch_size, steps_per_epoch, seed=0, weights=None, **_):
    """Which frames batch `step` of `training_data` is made of: ["dataset/frame_id", ...].

    Args:
        file_sets: see `training_data`, as for the others.
        step: counted from 0.
        batch_size: likewise.
        steps_per_epoch: likewise.
        seed: likewise.
        weights: likewise.
    """
    drawn = _drawn(file_sets, batch_size, steps_per_epoch, seed, step, weights).take(batch_size)
    fields = (records.parse_example(record) for _, record in drawn)
    return [f"{f['dataset'].numpy().decode()}/{f['frame_id'].numpy().decode()}" for f in fields]


def _drawn(file_sets, batch_size, steps_per_epoch, seed, first_step, weights):
    """(number, serialised record) without end, `first_step` batches left out; see `training_data`.

    An example's number decides its draws. There is room for 2^32 in an epoch, so that they do not
    depend on its length.
    """
    weights = [float(weight) for weight in weights or [1.0] * len(file_sets)]
    first_epoch, left_out = divmod(first_step, steps_per_epoch)

    def epoch(number):
        streams = [_shuffled(files, seed + number) for files in file_sets]
        if len(streams) == 1:
            mixed = streams[0]
        else:
            mixed = tf.data.Dataset.sample_from_datasets(streams, weights, seed=seed + number)
        numbered = mixed.take(steps_per_epoch * batch_size).enumerate()
        # What is left out is read, but neither decoded nor augmented.
        skipped = tf.where(number == first_epoch, left_out * batch_size, 0)
        numbered = numbered.skip(tf.cast(skipped, tf.int64))
        return numbered.map(lambda index, record: (number * 2**32 + index, record))

    return tf.data.Dataset.counter(tf.constant(first_epoch, tf.int64)).flat_map(epoch)


def clocked(batches):
    """`batches`, and how many seconds were spent waiting for them so far: a tf.Variable.

    A batch is asked for between two looks at the clock, in the thread of whoever asks, so that what
    is counted is the wait that is left after all that works ahead. The variable goes up only.
    """
    waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
    clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

    def note(asked, batch, given):
        with tf.control_dependencies([waited.assign_add(given - asked)]):
            return tf.nest.map_structure(tf.identity, batch)

    options = tf.data.Options()
    # A prefetch behind the clocks would ask ahead, and the clocks would tell its wait.
    options.experimental_optimization.inject_prefetch = False
    timed = tf.data.Dataset.zip((clock, batches, clock)).map(note)
    return timed.with_options(options), waited


def _shuffled(files, seed):
    """The serialised records of one set, again and again, in an order that `seed` decides."""
    names = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=seed)
    serialized = names.interleave(tf.data.TFRecordDataset, cycle_length=min(8, len(files)))
    return serialized.shuffle(_SHUFFLE, seed=seed).repeat()
