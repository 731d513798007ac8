"""Training batches: reproducible by seed, every record once per pass, sets mixed by weight."""

import time

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data_prep import kitti
from flowseg.data import decoding, records
from flowseg.data.augment import Augmentation
from flowseg.data.batches import Draw, InputClock, training_batches
from flowseg.data.labels import CITYSCAPES
from tests.data.test_decoding import assert_warp_helps, read_frames, write_shard
from tests.support.kitti_writer import write_kitti

PLAIN = Augmentation(flip=0.0)
STRONG = Augmentation(scale=0.3, stretch=0.2, flip=0.5, colour=1.0, erase=0.5)


def batches_of(
    file_sets, count, *, height=32, width=48, batch_size=2, steps_per_epoch=2, **options
):
    """The first `count` batches in NumPy."""
    drawn = {name: options.pop(name) for name in Draw._fields if name in options}
    dataset = training_batches(
        Draw(file_sets, batch_size, steps_per_epoch, **drawn),
        CITYSCAPES,
        height=height,
        width=width,
        **options,
    )
    return list(dataset.take(count).as_numpy_iterator())


def same(batch, other):
    """Whether two batches are bitwise equal."""
    pairs = [(a[key], b[key]) for a, b in zip(batch, other, strict=True) for key in a]
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def flow_files(kitti_records):
    return records.match_files(f"{kitti_records}/train-*")


@pytest.fixture(scope="module")
def tiny_sets(tmp_path_factory):
    """Two sets of one-colour frames without ground truth: 0..4 in two shards; 100..106 in one."""
    folder = tmp_path_factory.mktemp("tiny")

    def shard(name, colours):
        return write_shard(folder / f"{name}.tfrecord", *map(one_colour, colours))

    return shard("a", range(3)) + shard("b", (3, 4)), shard("c", range(100, 107))


def one_colour(colour, **truth):
    png = cv2.imencode(".png", np.full((8, 8, 3), colour, np.uint8))[1].tobytes()
    return records.make_example(image1=png, image1_format="png", height=8, width=8, **truth)


def colours(batches):
    return [int(colour) for inputs, _ in batches for colour in inputs["image1"][:, 4, 4, 0]]


def draw(file_sets, count, **options):
    """The colours of the first `count` batches of one-colour frames."""
    return colours(batches_of(file_sets, count, height=8, width=8, strength=PLAIN, **options))


def test_batches(flow_files):
    drawn = Draw([flow_files], batch_size=3, steps_per_epoch=2)
    dataset = training_batches(drawn, CITYSCAPES, height=32, width=48)
    inputs, targets = next(iter(dataset))
    assert set(inputs) == {"image1", "image2"} and set(targets) == {"seg", "flow"}
    image, flow, seg = (3, 32, 48, 3), (3, 32, 48, 3), (3, 32, 48)
    for spec in (dataset.element_spec[0], inputs):
        assert spec["image1"].shape == spec["image2"].shape == image
        assert spec["image1"].dtype == spec["image2"].dtype == "float32"
    for spec in (dataset.element_spec[1], targets):
        assert spec["flow"].shape == flow and spec["flow"].dtype == "float32"
        assert spec["seg"].shape == seg and spec["seg"].dtype == "int32"
    assert 50 < inputs["image1"].numpy().mean() < 200  # 0..255, not 0..1
    assert set(np.unique(targets["seg"])) <= {*range(19), 255}


def test_batches_depend_on_seed(flow_files):
    first, repeated, other = (
        batches_of([flow_files], 3, strength=STRONG, seed=seed) for seed in (5, 5, 6)
    )
    assert all(same(a, b) for a, b in zip(first, repeated, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True))
    assert not same(first[0], first[1])


def test_augmentation_depends_on_seed_and_epoch(tmp_path):
    # With a single frame only its augmentation can differ, visible in its synthetic motion.
    files = write_shard(tmp_path / "one.tfrecord", one_colour(50))

    def motions(count, **options):
        batches = batches_of([files], count, height=8, width=8, strength=PLAIN, **options)
        return [tuple(flow[0, 0]) for _, targets in batches for flow in targets["flow"]]

    first, other = (motions(6, seed=seed) for seed in (0, 1))
    assert len({*first, *other}) == 24
    # A longer epoch does not change the first draws of the next one.
    assert motions(2, first_step=5, steps_per_epoch=5) == first[4:8]


def test_resumed_run_gets_same_batches(flow_files, tiny_sets):
    # Mixed sets, several passes per epoch, frames with and without a second, all augmentations.
    options = {"strength": STRONG, "weights": [2, 1], "steps_per_epoch": 4, "batch_size": 3}
    complete = batches_of([flow_files, tiny_sets[0]], 12, seed=3, **options)
    # At the beginning, middle and last batch of an epoch.
    for first_step in (4, 6, 11):
        remaining = 12 - first_step
        resumed = batches_of(
            [flow_files, tiny_sets[0]], remaining, seed=3, first_step=first_step, **options
        )
        for a, b in zip(complete[-remaining:], resumed, strict=True):
            assert same(a, b)
    assert not any(same(a, b) for a, b in zip(complete[:4], complete[4:8], strict=True))


def test_every_record_once_per_pass(tiny_sets):
    # 5 records in two shards, batches of 5: each batch is one pass; the same for 7 in one shard.
    for files, colours_of_set in zip(tiny_sets, (range(5), range(100, 107)), strict=True):
        size = len(colours_of_set)
        passes = np.reshape(draw([files], 9, batch_size=size, steps_per_epoch=3), (9, size))
        assert (np.sort(passes) == colours_of_set).all()
        # The order differs between passes, within an epoch and between epochs.
        assert len({tuple(order) for order in passes}) >= 8
    # Each epoch restarts: one of 4 out of 5 records omits one, not always the same.
    epochs = np.reshape(draw([tiny_sets[0]], 20, batch_size=4, steps_per_epoch=1), (20, 4))
    assert all(len(set(epoch)) == 4 for epoch in epochs)
    assert len({10 - sum(epoch) for epoch in epochs}) > 2


def test_mixing_differs_between_epochs(tiny_sets):
    drawn = np.reshape(draw(list(tiny_sets), 6, batch_size=8, steps_per_epoch=2), (3, 16))
    assert len({tuple(epoch < 50) for epoch in drawn}) == 3


def test_sets_mixed_by_weight(tiny_sets):
    options = {"batch_size": 50, "steps_per_epoch": 8}
    # 400 draws: the standard deviation of the share is about 0.022 at 3/4 and 0.025 at 1/2.
    for weights, share in (([3, 1], 0.75), ([0.2, 0.6], 0.25), (None, 0.5)):
        drawn = np.array(draw(list(tiny_sets), 8, weights=weights, **options))
        assert abs((drawn < 50).mean() - share) < 0.08
        assert set(drawn) == {*range(5), *range(100, 107)}
        # Within a set, passes follow each other: counts differ by at most the last, partial pass.
        for part in (drawn[drawn < 50], drawn[drawn > 50]):
            counts = np.unique(part, return_counts=True)[1]
            assert np.ptp(counts) <= 1


@pytest.fixture(scope="module")
def still_files(kitti_folder, tmp_path_factory):
    """Records of the synthetic data_semantics only: no second frames."""
    output = tmp_path_factory.mktemp("stills")
    kitti.convert([kitti_folder / "data_semantics"], output, val_fraction=0, records_per_shard=2)
    return records.match_files(f"{output}/*.tfrecord")


@pytest.mark.parametrize("synthetic_flow", [True, False])
def test_synthetic_second_frames(still_files, synthetic_flow):
    options = {"height": 96, "width": 160, "strength": PLAIN, "batch_size": 5}
    [(inputs, targets)] = batches_of([still_files], 1, synthetic_flow=synthetic_flow, **options)
    assert (targets["seg"] != 255).any((1, 2)).all()
    moved = np.abs(inputs["image2"] - inputs["image1"]).mean((1, 2, 3))
    assert (moved > 1).all()  # the frames differ, whether or not the flow is a target
    if not synthetic_flow:
        assert not targets["flow"].any()
        return
    assert (targets["flow"][..., 2] == 1).all()
    for image1, image2, flow in zip(
        inputs["image1"], inputs["image2"], targets["flow"], strict=True
    ):
        assert_warp_helps({"image1": image1, "image2": image2}, flow)


def test_true_flow_kept_without_synthetic_flow(flow_files):
    options = {"height": 96, "width": 160, "strength": PLAIN, "batch_size": 4}
    [(inputs, targets)] = batches_of([flow_files], 1, synthetic_flow=False, **options)
    # Frames of the crop's size are unchanged, in another order; the others are enlarged.
    unscaled = [frame for frame in read_frames(flow_files) if frame["image1"].shape == (96, 160, 3)]
    remaining = {frame["frame_id"]: frame for frame in unscaled}
    assert len(remaining) > 1
    for i in range(4):
        matches = [f for f in remaining.values() if (f["image1"] == inputs["image1"][i]).all()]
        if not matches:
            continue
        frame = remaining.pop(matches[0]["frame_id"])
        np.testing.assert_array_equal(targets["seg"][i], frame["seg"])
        np.testing.assert_array_equal(targets["flow"][i], frame["flow"])
        same_second = (inputs["image2"][i] == frame["image2"]).all()
        assert same_second == frame["has_image2"] == targets["flow"][i].any()
    assert not remaining


def test_frames_without_truth_are_masked(tiny_sets):
    options = {"strength": STRONG, "height": 16, "width": 16, "synthetic_flow": False}
    for _, targets in batches_of([tiny_sets[0]], 2, **options):
        assert (targets["seg"] == 255).all() and not targets["flow"].any()


def test_augmented_batches_keep_flow(flow_files):
    strength = Augmentation(scale=0.3, stretch=0.2, flip=0.5)
    for inputs, targets in batches_of([flow_files], 3, height=64, width=96, strength=strength):
        for i in range(2):
            frame = {key: inputs[key][i] for key in inputs}
            assert_warp_helps(frame, targets["flow"][i])


def test_validation_data(tmp_path):
    sizes = [(48, 64), (32, 80)]
    folder = write_kitti(tmp_path / "kitti", count=2, semantics_only=1, sizes=sizes)
    kitti.convert([folder], tmp_path / "records", val_fraction=0)
    files = records.match_files(f"{tmp_path}/records/*.tfrecord")
    batches = decoding.validation_data(files, CITYSCAPES)
    assert batches.cardinality() == len(batches) == 3
    frames = read_frames(files)
    shapes = set()
    for frame, (inputs, targets) in zip(frames, batches.as_numpy_iterator(), strict=True):
        assert set(inputs) == {"image1", "image2"} and set(targets) == {"seg", "flow"}
        for key, value in (inputs | targets).items():
            np.testing.assert_array_equal(value, frame[key][None])
        assert inputs["image1"].dtype == inputs["image2"].dtype == np.float32
        shapes.add(inputs["image1"].shape)
    assert shapes == {(1, *size, 3) for size in sizes}


def test_input_clock_measures_wait():
    batches = tf.data.Dataset.range(6).map(lambda i: ({"a": i, "b": 2 * i}, [i]))
    clock = InputClock()
    timed = clock.timed(batches)
    assert clock.seconds == 0
    assert timed.element_spec == batches.element_spec
    values = [(int(x["a"]), int(x["b"]), int(y[0])) for x, y in timed.as_numpy_iterator()]
    assert values == [(i, 2 * i, i) for i in range(6)]
    assert clock.seconds > 0


def test_input_clock_excludes_prefetched_time():
    """A slow consumer waits less than a fast one for the same slow source."""

    def slow(i):
        time.sleep(0.05)
        return i

    waits = []
    for pause in (0, 0.2):
        source = tf.data.Dataset.range(8).map(lambda i: tf.py_function(slow, [i], tf.int64))
        clock = InputClock()
        for _ in clock.timed(source.prefetch(4)):
            time.sleep(pause)
        waits.append(clock.seconds)
    assert waits[1] < waits[0]
