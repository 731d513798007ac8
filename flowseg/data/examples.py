"""Builds one training example: augments a decoded frame into network inputs and targets.

The frame may come from a record or from memory, so a network can also be trained on frames that
are not stored in records, such as the first frame of a video.
"""

from collections.abc import Sequence

import tensorflow as tf

from flowseg.data import augment, synthetic_frames
from flowseg.data.labels import IGNORE_LABEL


def training_example(
    frame: dict,
    seed: Sequence[int] | tf.Tensor,
    *,
    height: int,
    width: int,
    strength: augment.Augmentation | None = None,
    use_truth: bool | tf.Tensor = True,
    synthetic_flow: bool = True,
    pair: bool = False,
) -> tuple[dict, dict]:
    """Build the inputs and targets of one frame, without a batch axis, in graph or eager mode.

    Args:
        frame: dict of `image1` (H, W, 3), RGB 0..255, and optionally: `image2`
            (H, W, 3), default: synthetic, with exact flow (see `synthetic_frames`);
            `flow` (H, W, 3) (u, v, valid) in pixels; `seg` (H, W) train ids, 255 = ignore; and
            `has_image2`, a scalar bool: whether to use `image2`.
        seed: (2,) integers; the same seed gives the same example.
        height: rows of the crop.
        width: columns of the crop.
        strength: strength of the augmentation; default: the defaults of `augment.Augmentation`.
        use_truth: scalar bool: whether the frame's labels and flow are used as targets.
        synthetic_flow: whether the exact flow of a synthetic second frame is a target, or masked.
        pair: whether to add a target `pair` (height, width, 7): both frames before colour jitter
            and erasing, and 1 where the flow target is valid.

    Returns:
        ({"image1", "image2"}, {"seg", "flow"} and "pair" if requested), see `data.decoding`.
    """
    image1 = tf.convert_to_tensor(frame["image1"])
    shape = tf.shape(image1)[:2]
    known_flow = frame.get("flow", tf.zeros(tf.concat([shape, [3]], 0)))
    seg = frame.get("seg", tf.fill(shape, IGNORE_LABEL))
    image2 = frame.get("image2", image1)
    has_image2 = tf.convert_to_tensor(frame.get("has_image2", "image2" in frame))
    seeds = tf.unstack(tf.random.split(tf.cast(seed, tf.int64), 2))
    image2, flow = tf.cond(
        has_image2,
        lambda: (image2, known_flow),
        lambda: synthetic_frames.synthetic_second_frame(image1, seeds[0]),
    )
    use_flow = tf.where(has_image2, use_truth, synthetic_flow)
    example = {
        "image1": image1,
        "image2": image2,
        "flow": tf.where(use_flow, flow, 0.0),
        "seg": tf.where(use_truth, seg, IGNORE_LABEL),
    }
    strength = strength or augment.Augmentation()
    targets = augment.augment(example, seeds[1], height, width, strength)
    inputs = {key: targets.pop(key) for key in ("image1", "image2")}
    plain = [targets.pop(key) for key in ("plain1", "plain2")]
    if pair:
        targets["pair"] = tf.concat([*plain, targets["flow"][..., 2:]], -1)
    return inputs, targets
