"""Decodes record shards into network inputs and targets, in pure TensorFlow (tf.data).

`evaluation_data` yields single frames at their original size, `validation_data` the same as batches
of one, and `batches.training_batches` endless augmented batches. Inputs are {"image1", "image2"},
targets {"seg": (B, H, W) int32 train ids, 255 = ignore, "flow": (B, H, W, 3) (u, v, valid)}.
Missing ground truth becomes a fully masked target, so sets with different labels can be mixed.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from flowseg.data import graph_images, records, videos
from flowseg.data.flow_io import FLO_UNKNOWN
from flowseg.data.labels import IGNORE_LABEL, LabelSet, train_id_table
from flowseg.errors import ArgumentError

# Fields of a record that are passed on as they are.
_IDENTITY = ("frame_id", "dataset", "video", "frame_index", "next_index")


def check_records(files: Iterable[str | Path], label_set: LabelSet) -> None:
    """Check the size and the first record of every shard before a long run.

    Raises:
        ValueError: a shard is damaged, has another schema version, or has labels that do not map to
            `label_set`; the message names the file.
    """
    for path in map(Path, files):
        index = records.read_index(path.parent)
        expected = index and index["files"].get(path.name, {}).get("bytes")
        if expected not in (None, path.stat().st_size):
            raise ValueError(
                f"{path}: {path.stat().st_size} bytes, but its index.json says {expected}: the "
                "shard is incomplete; copy or convert it again"
            )
        _, fields = next(records.read_shard(path), (0, None))
        if fields is None:
            raise ValueError(f"{path}: the shard has no records; convert this data again")
        if fields["labels"]:
            try:
                train_id_table(label_set, fields["label_set"].decode())
            except ArgumentError as error:
                raise ArgumentError(str(error), *error.arguments, path=path) from error


def has_targets(files: Sequence[str | Path], stream: str, synthetic_flow: bool = True) -> bool:
    """Whether a record set has targets for a stream, by its index.json; without one, True.

    Args:
        files: shards of the set.
        stream: "seg" or "flow".
        synthetic_flow: whether the flow of synthetic second frames of single images is a target.
    """
    index = records.read_index(Path(files[0]).parent)
    if not index or "truth" not in index:
        return True
    labels, flow, pairs = (
        sum(split[kind] for split in index["truth"].values())
        for kind in ("labels", "flow", "image2")
    )
    if stream == "seg":
        return labels > 0
    return flow > 0 or (synthetic_flow and pairs < sum(index["records"].values()))


def frame_decoder(
    label_set: LabelSet, maps: bool = False, second: bool = True
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function for `Dataset.map`: one serialised record -> one decoded frame.

    A frame is a dict: `image1`, `image2` (H, W, 3) uint8; `has_image2` bool (if false, image2 is
    image1); `flow`, `flow_noc`, `backward_flow` (H, W, 3) float32, the last from image2 to image1
    at the pixels of image2; `seg` (H, W) int32; `frame_id`, `dataset`,
    `video` string (empty: not of a video); `frame_index` and `next_index` int64, the numbers of
    image1 and image2 in the video. Without `second`, image2 is not decoded.
    With `maps` also `objects`, `things` (H, W) int32: ids of the moving objects in KITTI's object
    map, and of the instances in the instance map, 0 elsewhere; `has_objects`, `has_things` bool.
    """
    tables = {numbering: train_id_table(label_set, numbering) for numbering in label_set.ids}

    def decode(serialized):
        fields = records.parse_example(serialized)
        shape = tf.cast(tf.stack([fields["height"], fields["width"]]), tf.int32)
        has_image2 = fields["image2"] != ""
        image1 = _decode_image(fields["image1"], fields["image1_format"], shape, fields["frame_id"])
        frame = {
            "image1": image1,
            "has_image2": has_image2,
            "flow": _decode_flow(fields["flow"], fields["flow_format"], shape),
            "seg": _decode_labels(fields, shape, tables, label_set.name),
            "backward_flow": _decode_flow(fields["backward_flow"], fields["flow_format"], shape),
            **{key: fields[key] for key in _IDENTITY},
        }
        frame["flow_noc"] = _decode_flow_noc(fields, frame["flow"], shape)
        if second:
            arguments = fields["image2"], fields["image2_format"], shape, fields["frame_id"]
            frame["image2"] = tf.cond(has_image2, lambda: _decode_image(*arguments), lambda: image1)
        return frame | _decode_maps(fields, shape) if maps else frame

    return decode


def _decode_maps(fields, shape):
    # KITTI: class * 256 + number, 0 = none. Cityscapes: class * 1000 + number, or class only.
    instances = _decode_map(fields["instances"], tf.uint16, shape)
    is_cityscapes = fields["instances_format"] == "cityscapes"
    is_instance = tf.where(is_cityscapes, instances > 1000, instances % 256 > 0)
    return {
        "objects": _decode_map(fields["objects"], tf.uint8, shape),
        "has_objects": fields["objects"] != "",
        "things": tf.where(is_instance, instances, 0),
        "has_things": fields["instances"] != "",
    }


def _decode_map(data, dtype, shape):
    """Decode a single-channel PNG to (H, W) int32; all 0 if absent."""

    def decode():
        image = tf.io.decode_png(data, channels=1, dtype=dtype)
        return tf.cast(tf.reshape(image, shape), tf.int32)

    image_map = tf.cond(data == "", lambda: tf.zeros(shape, tf.int32), decode)
    return tf.ensure_shape(image_map, (None, None))


def _decode_image(data, image_format, shape, frame_id):
    # Records of earlier versions can hold images that the graph refuses.
    name = tf.strings.join(["frame ", frame_id, ": convert this data again, its image"])

    def ppm():
        # TensorFlow cannot read PPM, but a binary PPM ends with its pixels.
        size = 3 * shape[0] * shape[1]
        return tf.io.decode_raw(tf.strings.substr(data, -size, size), tf.uint8)

    def jpeg():
        return tf.reshape(graph_images.decode_jpeg(data, name), [-1])

    def png():
        return tf.reshape(graph_images.decode_png(data, name), [-1])

    flat = tf.case([(image_format == "ppm", ppm), (image_format == "jpeg", jpeg)], default=png)
    return tf.ensure_shape(tf.reshape(flat, tf.concat([shape, [3]], 0)), (None, None, 3))


def _decode_flow(data, flow_format, shape):
    """(H, W, 3) float32 (u, v, valid), identical to `flow_io`; all 0 if absent."""

    def kitti():
        png = tf.cast(tf.io.decode_png(data, channels=3, dtype=tf.uint16), tf.float32)
        valid = tf.cast(png[..., 2:] > 0, tf.float32)
        return tf.concat([(png[..., :2] - 2.0**15) / 64.0 * valid, valid], -1)

    def vkitti2():
        png = tf.cast(tf.io.decode_png(data, channels=3, dtype=tf.uint16), tf.float32)
        valid = tf.cast(png[..., 2:] > 0, tf.float32)
        size = tf.cast(tf.stack([shape[1], shape[0]]), tf.float32)
        return tf.concat([(2.0 * png[..., :2] / 65535.0 - 1.0) * (size - 1.0) * valid, valid], -1)

    def flo():
        flow = tf.reshape(tf.io.decode_raw(data, tf.float32)[3:], tf.concat([shape, [2]], 0))
        # NaN compares False, so it counts as unknown too.
        valid = tf.reduce_all(tf.abs(flow) < FLO_UNKNOWN, axis=-1, keepdims=True)
        return tf.concat([tf.where(valid, flow, 0.0), tf.cast(valid, tf.float32)], -1)

    branches = [
        (data == "", lambda: tf.zeros(tf.concat([shape, [3]], 0))),
        (flow_format == "flo", flo),
        (flow_format == "vkitti2", vkitti2),
    ]
    return tf.ensure_shape(tf.case(branches, default=kitti), (None, None, 3))


def _decode_flow_noc(fields, flow, shape):
    """Flow of the pixels that image2 shows, from either field; all 0 if neither is given."""

    def visible():
        occluded = tf.io.decode_png(fields["occlusion"], channels=1)
        return tf.where(tf.reshape(occluded, shape)[..., None] > 0, 0.0, flow)

    def stored():
        return _decode_flow(fields["flow_noc"], fields["flow_format"], shape)

    flow_noc = tf.cond(fields["occlusion"] != "", visible, stored)
    return tf.ensure_shape(flow_noc, (None, None, 3))


def _decode_labels(fields, shape, tables, name):
    """(H, W) int32 train ids of the label set `name`; all 255 if absent."""
    numberings = tf.constant(list(tables))
    stacked = tf.constant(np.stack(list(tables.values())), tf.int32)

    def decode():
        matches = fields["label_set"] == numberings
        message = ("frame ", fields["frame_id"], ": labels numbered as ", fields["label_set"])
        message = tf.strings.join([*message, f" have no mapping to the label set {name}"])
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_any(matches), [message])]):
            labels = tf.io.decode_png(fields["labels"], channels=1)
        table = stacked[tf.argmax(tf.cast(matches, tf.int32))]
        return tf.gather(table, tf.cast(tf.reshape(labels, shape), tf.int32))

    absent = fields["labels"] == ""
    seg = tf.cond(absent, lambda: tf.fill(shape, IGNORE_LABEL), decode)
    return tf.ensure_shape(seg, (None, None))


def evaluation_data(files: Iterable[str | Path], label_set: LabelSet) -> tf.data.Dataset:
    """Every frame of `files`, with maps (see `frame_decoder`) and its file, `shard`.

    Each video's frames are in their order; frames that are not of a video are in that of the files.
    """
    decode = frame_decoder(label_set, maps=True)
    read = videos.in_order(files)
    return read.map(lambda r, path: decode(r) | {"shard": path}, tf.data.AUTOTUNE).prefetch(2)


def validation_data(
    files: Sequence[str | Path], label_set: LabelSet, pair: bool = False
) -> tf.data.Dataset:
    """`evaluation_data` as batches of one (inputs, targets), for `model.fit`.

    `pair`: see `batches.training_batches`.
    """

    def as_batch_of_one(frame):
        inputs = {key: tf.cast(frame[key], tf.float32)[None] for key in ("image1", "image2")}
        targets = {key: frame[key][None] for key in ("seg", "flow")}
        if pair:
            targets["pair"] = tf.concat([*inputs.values(), targets["flow"][..., 2:]], -1)
        return inputs, targets

    batches = evaluation_data(files, label_set).map(as_batch_of_one)
    # Without a known length, Keras would warn that the dataset ended too early.
    return batches.apply(tf.data.experimental.assert_cardinality(records.count(files)))
