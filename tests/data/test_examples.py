"""Examples from memory equal those from records for the same frame and seed."""

import numpy as np
import pytest
import tensorflow as tf

from flowseg.data import decoding, records
from flowseg.data.augment import Augmentation
from flowseg.data.examples import training_example
from flowseg.data.labels import CITYSCAPES
from tests.data.test_batches import batches_of
from tests.data.test_decoding import assert_warp_helps

STRONG = Augmentation(scale=0.3, stretch=0.2, flip=0.5, colour=1.0, erase=0.5)
SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def files(kitti_records):
    return records.match_files(f"{kitti_records}/train-*")


@pytest.fixture(scope="module")
def frames(files):
    """Frame id -> decoded frame in NumPy."""
    data = decoding.evaluation_data(files, CITYSCAPES).as_numpy_iterator()
    return {frame["frame_id"].decode(): frame for frame in data}


def in_numpy(example):
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), example)


def same(one, other):
    return all(np.array_equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


def test_batch_of_records_equals_examples(files, frames):
    options = {"strength": STRONG, "pair": True, **SIZE}
    [batch] = batches_of([files], 1, batch_size=1, steps_per_epoch=1, seed=5, **options)
    # The number of the first example of the first epoch is 0.
    examples = [in_numpy(training_example(frame, [5, 0], **options)) for frame in frames.values()]
    equal = [same(batch, tf.nest.map_structure(lambda x: x[None], one)) for one in examples]
    assert sum(equal) == 1


def test_single_image_gets_synthetic_second_frame(frames):
    image = next(iter(frames.values()))["image1"]
    strength = Augmentation(scale=0.0, stretch=0.0, flip=0.0, colour=0.0, erase=0.0)
    options = {"strength": strength, "height": 90, "width": 160}
    inputs, targets = in_numpy(training_example({"image1": image}, [1, 2], **options))
    assert (targets["seg"] == 255).all() and (targets["flow"][..., 2] == 1).all()
    assert_warp_helps(inputs, targets["flow"])
    masked = in_numpy(training_example({"image1": image}, [1, 2], synthetic_flow=False, **options))
    assert np.array_equal(masked[0]["image2"], inputs["image2"]) and not masked[1]["flow"].any()


def test_single_image_with_labels(frames):
    frame = next(iter(frames.values()))
    labelled = {key: frame[key] for key in ("image1", "seg")}
    _, targets = in_numpy(training_example(labelled, [3, 4], **SIZE))
    assert targets["seg"].shape == (64, 96) and (targets["seg"] != 255).any()
    _, masked = in_numpy(training_example(labelled, [3, 4], use_truth=False, **SIZE))
    assert (masked["seg"] == 255).all()


def test_examples_depend_on_seed(frames):
    frame = next(iter(frames.values()))
    first, repeated, other = (
        in_numpy(training_example(frame, seed, strength=STRONG, **SIZE))
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert same(first, repeated) and not same(first, other)
