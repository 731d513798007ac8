"""Decodes PNG and JPEG files in TensorFlow graphs to the pixels of `images.decode`.

TensorFlow ignores the EXIF orientation, reduces 16-bit values to their upper 8 bits, and converts
CMYK differently from OpenCV. A graph refuses such files by the rules of
`image_headers.graph_obstacle`, because it would return other pixels.
"""

import tensorflow as tf

from flowseg.data.image_headers import EXIF_MAGIC, JPEG_MAGIC, ORIENTATION, PNG_MAGIC

_MESSAGES = {
    "mark": "has an EXIF orientation, which TensorFlow ignores: rotate its pixels and remove the "
    "mark; orientation",
    "bits": "has 16 bits per value: convert it to 8 bits; bits",
    "components": "is a CMYK JPEG: convert it to RGB; components",
    "form": "is neither PNG nor JPEG; size in bytes",
}


def decode(data: tf.Tensor, name: tf.Tensor | str = "image") -> tf.Tensor:
    """Decode a PNG or JPEG file to (H, W, 3) uint8 RGB, in a graph.

    Args:
        data: scalar string, content of the file.
        name: subject of the error messages.

    Raises:
        InvalidArgumentError: when it runs: damaged, or an image that TensorFlow would decode to
            other pixels than `images.decode`; the message says why.
    """
    is_jpeg = tf.strings.substr(data, 0, len(JPEG_MAGIC)) == JPEG_MAGIC
    is_png = tf.strings.substr(data, 0, len(PNG_MAGIC)) == PNG_MAGIC
    # Not the bytes themselves: Python cannot read an error message that is not UTF-8.
    known = _require(is_jpeg | is_png, name, "form", tf.strings.length(data))
    with tf.control_dependencies([known]):
        image = tf.cond(is_jpeg, lambda: decode_jpeg(data, name), lambda: decode_png(data, name))
    return tf.ensure_shape(image, (None, None, 3))


def decode_jpeg(data: tf.Tensor, name: tf.Tensor | str = "image") -> tf.Tensor:
    """Decode a JPEG file; see `decode`."""
    components = tf.io.extract_jpeg_shape(data)[2]
    usable = (components == 1) | (components == 3)
    mark = tf.cond(_contains(data, "Exif"), lambda: _jpeg_mark(data), lambda: _int(1))
    checks = [
        _require(usable, name, "components", components),
        _require(mark == 1, name, "mark", mark),
    ]
    with tf.control_dependencies(checks):
        # The accurate DCT is the one that OpenCV uses.
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def decode_png(data: tf.Tensor, name: tf.Tensor | str = "image") -> tf.Tensor:
    """Decode a PNG file; see `decode`."""
    bits = _number(data, 24, 1)
    mark = tf.cond(_contains(data, "eXIf"), lambda: _png_mark(data), lambda: _int(1))
    checks = [_require(mark == 1, name, "mark", mark), _require(bits <= 8, name, "bits", bits)]
    with tf.control_dependencies(checks):
        return tf.io.decode_png(data, channels=3)


def _int(number):
    return tf.constant(number, tf.int64)


def _contains(data, text):
    """Whether the bytes `text` occur in the data: fast, so that most files are not searched."""
    without = tf.strings.regex_replace(data, text, "", replace_global=False)
    return tf.strings.length(without) != tf.strings.length(data)


def _require(condition, name, problem, value):
    message = tf.strings.join([name, " ", _MESSAGES[problem]])
    return tf.debugging.Assert(condition, [message, value])


def _bytes(data, start, size):
    """`size` bytes from `start` as int64; those after the end of the data are 0."""
    part = tf.strings.substr(data, tf.minimum(start, _length(data)), size) + b"\0" * size
    return tf.cast(tf.io.decode_raw(tf.strings.substr(part, 0, size), tf.uint8), tf.int64)


def _number(data, start, size, little=False):
    """Unsigned integer of `size` bytes at `start`, as int64."""
    return tf.reduce_sum(_bytes(data, tf.cast(start, tf.int64), size) * _weights(size, little))


def _weights(size, little):
    """Values of the bytes of an integer; `little`: whether the first byte is the lowest."""
    # Not reversed in the graph: TensorFlow's layout optimizer fails on a negative stride.
    lowest_first = [256**i for i in range(size)]
    return tf.where(
        little, tf.constant(lowest_first, tf.int64), tf.constant(lowest_first[::-1], tf.int64)
    )


def _length(data):
    return tf.cast(tf.strings.length(data), tf.int64)


def _jpeg_mark(data):
    """Return the orientation of a JPEG file, by the segments before its first scan."""
    length = _length(data)

    def unfinished(position, ended, _):
        return (position + 4 <= length) & ~ended

    def step(position, _, mark):
        # 0xFF, marker, size (2 bytes), content.
        head = _bytes(data, position, 10)
        marker, size = head[1], 256 * head[2] + head[3]
        is_exif = (head[0] == 0xFF) & (marker == 0xE1)
        magic = tf.constant(list(EXIF_MAGIC), tf.int64)
        has_mark = is_exif & tf.reduce_all(head[4:] == magic)
        mark = tf.cond(
            has_mark, lambda: _orientation(_part(data, position + 10, size - 8)), lambda: mark
        )
        padding = marker == 0xFF
        empty = (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        skipped = tf.where(padding, _int(1), tf.where(empty, _int(2), size + 2))
        ended = has_mark | (head[0] != 0xFF) | (marker == 0xDA) | (marker == 0xD9)
        return position + skipped, ended, mark

    return tf.while_loop(unfinished, step, _begin(2))[2]


def _png_mark(data):
    """Return the orientation in the chunk eXIf of a PNG file; 1 without that chunk."""
    length = _length(data)

    def unfinished(position, ended, _):
        return (position + 12 <= length) & ~ended

    def step(position, _, mark):
        size, kind = _number(data, position, 4), tf.strings.substr(data, position + 4, 4)
        is_mark = kind == b"eXIf"
        mark = tf.cond(is_mark, lambda: _orientation(_part(data, position + 8, size)), lambda: mark)
        return position + 12 + size, is_mark | (kind == b"IEND"), mark

    return tf.while_loop(unfinished, step, _begin(8))[2]


def _begin(position):
    return _int(position), tf.constant(False), _int(1)


def _part(data, start, size):
    """`size` bytes from `start`, as far as there are any."""
    start = tf.minimum(start, _length(data))
    return tf.strings.substr(data, start, tf.maximum(size, 0))


def _orientation(exif):
    """Orientation in EXIF data, as `image_headers._exif_orientation` reads it, as int64."""
    little = tf.strings.substr(exif, 0, 2) == b"II"
    known = little | (tf.strings.substr(exif, 0, 2) == b"MM")
    entries = _number(exif, 4, 4, little) + 2
    complete = tf.maximum((_length(exif) - entries) // 12, 0)
    listed = _number(exif, entries - 2, 2, little)
    count = tf.where(known, tf.minimum(listed, complete), 0)

    def read():
        table = tf.io.decode_raw(_part(exif, entries, 12 * count), tf.uint8)
        rows = tf.cast(tf.reshape(table, (-1, 12)), tf.int64)
        tags, values = (
            tf.reduce_sum(rows[:, first : first + 2] * _weights(2, little), -1) for first in (0, 8)
        )
        marks = tf.boolean_mask(values, tags == ORIENTATION)
        value = tf.concat([marks, [_int(1)]], 0)[0]
        return tf.where((value >= 1) & (value <= 8), value, _int(1))

    return tf.cond(count > 0, read, lambda: _int(1))
