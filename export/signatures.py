"""Builds the signatures of the SavedModel, for servers and for video.

serving_default  image1, image2: (B, H, W, 3) float32 RGB 0..255, any B, H and W -> seg: (B, H, W,
                 classes) float32 logits; flow: (B, H, W, 2) float32 pixels
serving_uint8    the same for uint8 frames (each input of a signature has one type)
predict_labels   image1, image2: (B, H, W, 3) uint8 -> labels: (B, H, W) uint8 train ids; flow:
                 (B, H, W, 2) float16
predict_png      image1_bytes, image2_bytes: (B,) or one encoded image (PNG, JPEG) ->
                 labels_bytes: (B,) PNG, 8-bit train ids; flow_bytes: (B,) KITTI's 16-bit PNG.
                 Files that TensorFlow would read differently from `flowseg.predict` are refused:
                 an EXIF orientation, 16 bits per value, CMYK
encode           image: (B, H, W, 3) uint8 -> stride2 .. stride32: features; size: (B, 2), (H, W)
decode           frame1_stride2 .. frame2_stride32: features of two frames; size: (B, 2) -> seg,
                 flow as for serving_default, at that size
metadata         key: (N,) "label_set" or the like, "" for all -> value: (N,) JSON

All signatures use the same encoder and decoder with one copy of the weights, so that `decode` on
the features of two encoded frames returns exactly the predictions of that pair.
"""

import json
from collections.abc import Callable

import keras
import tensorflow as tf

from flowseg.data import graph_images
from flowseg.network.backbones import STRIDES
from flowseg.network.model import parts

_FRAMES = ("frame1", "frame2")


def signatures(model: keras.Model, metadata: dict) -> dict[str, Callable]:
    """Build all signatures of a network.

    Args:
        model: network of `model.build_flowseg`, on Keras's TensorFlow backend.
        metadata: JSON values by key, which the signature `metadata` returns.

    Returns:
        {name: tf.function}, each with its input signature.
    """
    encode, decode = _halves(model)

    def predict(image1, image2):
        same = "image1 and image2 must have the same batch, height and width"
        tf.debugging.assert_equal(tf.shape(image1), tf.shape(image2), same)
        return _crop(decode(encode(image1), encode(image2)), tf.shape(image1)[1:3])

    def predict_uint8(image1, image2):
        return predict(*(tf.cast(image, tf.float32) for image in (image1, image2)))

    def predict_labels(image1, image2):
        outputs = predict_uint8(image1, image2)
        labels = tf.argmax(outputs["seg"], -1, tf.int32)
        flow = tf.cast(outputs["flow"], tf.float16)
        return {"labels": tf.cast(labels, tf.uint8), "flow": flow}

    def predict_png(image1_bytes, image2_bytes):
        outputs = predict(_decode_images(image1_bytes), _decode_images(image2_bytes))
        labels = tf.cast(tf.argmax(outputs["seg"], -1, tf.int32), tf.uint8)[..., None]
        pixels = {"labels_bytes": labels, "flow_bytes": _kitti_pixels(outputs["flow"])}
        return {key: _encode_images(image) for key, image in pixels.items()}

    def encode_frame(image):
        size = tf.broadcast_to(tf.shape(image)[1:3], (tf.shape(image)[0], 2))
        return {**encode(tf.cast(image, tf.float32)), "size": size}

    names = [f"stride{stride}" for stride in STRIDES]

    def decode_frames(*inputs):
        *features, size = inputs
        frames = (dict(zip(names, part, strict=True)) for part in _split(features))
        stride = STRIDES[-1]
        message = "size must be equal across the batch and match the frames of the features"
        padded = tf.broadcast_to(tf.shape(features[-1])[1:3], tf.shape(size))
        tf.debugging.assert_equal((size + stride - 1) // stride, padded, message)
        tf.debugging.assert_equal(size, tf.broadcast_to(size[0], tf.shape(size)), message)
        return _crop(decode(*frames), size[0])

    keys = tf.constant(["", *metadata])
    values = tf.constant([json.dumps(value) for value in (metadata, *metadata.values())])

    def lookup(key):
        equal = tf.equal(tf.reshape(key, [-1, 1]), keys)
        message = "key: one of " + ", ".join(metadata) + ', or "" for all'
        tf.debugging.assert_equal(tf.reduce_any(equal, -1), True, message)
        return {"value": tf.gather(values, tf.argmax(tf.cast(equal, tf.int32), -1))}

    def images(dtype, names=("image1", "image2")):
        return [tf.TensorSpec((None, None, None, 3), dtype, name=name) for name in names]

    features = [
        tf.TensorSpec(parts(model).encoder.output[name].shape, name=f"{frame}_{name}")
        for frame in _FRAMES
        for name in names
    ]
    size = tf.TensorSpec((None, 2), tf.int32, name="size")
    encoded = [tf.TensorSpec(None, tf.string, name=f"image{n}_bytes") for n in (1, 2)]
    key = [tf.TensorSpec((None,), tf.string, name="key")]
    functions = {
        "serving_default": (predict, images(tf.float32)),
        "serving_uint8": (predict_uint8, images(tf.uint8)),
        "predict_labels": (predict_labels, images(tf.uint8)),
        "predict_png": (predict_png, encoded),
        "encode": (encode_frame, images(tf.uint8, ("image",))),
        "decode": (decode_frames, [*features, size]),
        "metadata": (lookup, key),
    }
    return {name: tf.function(f, input_signature=inputs) for name, (f, inputs) in functions.items()}


def _halves(model):
    """Return the encoder, with padding, and the decoder as functions that all signatures share."""
    encoder, decoder = parts(model)
    pad = model.get_layer("pad")
    # Without the outputs that only training needs.
    decoder = keras.Model(decoder.input, {key: decoder.output[key] for key in ("seg", "flow")})

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def encode(image):
        return encoder(pad(image), training=False)

    features = {name: tf.TensorSpec(tensor.shape) for name, tensor in encoder.output.items()}

    @tf.function(input_signature=[features, features])
    def decode(features1, features2):
        return decoder(dict(zip(_FRAMES, (features1, features2), strict=True)), training=False)

    return encode, decode


def _crop(outputs, size):
    """Remove the padding of `layers.PadToMultiple`, as `layers.CropLike` does."""

    def middle(x):
        top, left = tf.unstack((tf.shape(x)[1:3] - size) // 2)
        return x[:, top : top + size[0], left : left + size[1]]

    return {key: middle(x) for key, x in outputs.items()}


def _split(features):
    half = len(features) // 2
    return features[:half], features[half:]


def _decode_images(encoded):
    """(B,) or scalar bytes of PNG or JPEG -> (B, H, W, 3) float32 RGB, all of the same size."""
    spec = tf.TensorSpec((None, None, 3), tf.uint8)
    decode = graph_images.decode
    images = tf.map_fn(decode, tf.reshape(encoded, [-1]), fn_output_signature=spec)
    return tf.cast(images, tf.float32)


def _encode_images(images):
    return tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.TensorSpec((), tf.string))


def _kitti_pixels(flow):
    """(B, H, W, 2) flow -> (B, H, W, 3) uint16 RGB, encoded as in `flow_io.encode_kitti_flow`."""
    rounded = tf.round(flow * 64) + 2.0**15
    # Not < and >, so that NaN is unknown as well.
    valid = tf.reduce_all((rounded >= 0) & (rounded <= 65535), -1, keepdims=True)
    pixels = tf.concat([tf.where(valid, rounded, 0), tf.cast(valid, tf.float32)], -1)
    return tf.cast(pixels, tf.uint16)
