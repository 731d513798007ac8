"""Creates second frames with exact flow for single images, in pure TensorFlow."""

import tensorflow as tf

# Synthetic second frame: zoom up to 6 %, rotation up to 1 degree, shift up to 2 % of the size.
_SYNTHETIC_ZOOM, _SYNTHETIC_ROTATION, _SYNTHETIC_SHIFT = 0.06, 0.0175, 0.02


def synthetic_second_frame(image: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Create a second frame, image1 under a small random affine motion, and its exact flow.

    A copy of image1 would train the network to predict zero motion.

    Args:
        image: (H, W, 3) uint8.
        seed: (2,) int tensor.

    Returns:
        image2 (H, W, 3) uint8, with replicated borders, and flow (H, W, 3) float32
        (u, v, valid), valid everywhere.
    """
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    draw = tf.random.stateless_uniform((4,), seed, -1.0, 1.0)
    zoom, angle = 1.0 + _SYNTHETIC_ZOOM * draw[0], _SYNTHETIC_ROTATION * draw[1]
    cosine, sine = zoom * tf.cos(angle), zoom * tf.sin(angle)
    shift_x, shift_y = _SYNTHETIC_SHIFT * width * draw[2], _SYNTHETIC_SHIFT * height * draw[3]
    x, y = tf.meshgrid(tf.range(width) - (width - 1) / 2, tf.range(height) - (height - 1) / 2)
    # p -> M p + s about the centre, M = [[cosine, -sine], [sine, cosine]].
    u = cosine * x - sine * y + shift_x - x
    v = sine * x + cosine * y + shift_y - y
    # The sampler takes the inverse map, q -> M^-1 (q - s), in pixels from the corner.
    back_cos, back_sin = cosine / zoom**2, sine / zoom**2
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    from_x, from_y = centre_x + shift_x, centre_y + shift_y
    transform = tf.stack(
        [
            back_cos,
            back_sin,
            centre_x - back_cos * from_x - back_sin * from_y,
            -back_sin,
            back_cos,
            centre_y + back_sin * from_x - back_cos * from_y,
            0.0,
            0.0,
        ]
    )
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=transform[None],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    image2 = tf.cast(tf.clip_by_value(tf.round(moved), 0.0, 255.0), tf.uint8)
    return image2, tf.stack([u, v, tf.ones_like(u)], -1)
