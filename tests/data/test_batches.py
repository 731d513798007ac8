"""Batches: the same for the same seed, every record in its turn, sets mixed as asked."""

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


def batches_of(file_sets, count, *, height=32, width=48, batch_size=2, steps_per_epoch=2, **how):
    """The first `count` batches in NumPy."""
    drawn = {name: how.pop(name) for name in Draw._fields if name in how}
    dataset = training_batches(
        Draw(file_sets, batch_size, steps_per_epoch, **drawn),
        CITYSCAPES,
        height=height,
        width=width,
        **how,
    )
    return list(dataset.take(count).as_numpy_iterator())


def same(batch, other):
    """Whether two batches are equal to the bit."""
    pairs = [(a[key], b[key]) for a, b in zip(batch, other, strict=True) for key in a]
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def flow_files(kitti_records):
    return records.match_files(f"{kitti_records}/train-*")


@pytest.fixture(scope="module")
def tiny_sets(tmp_path_factory):
    """Two sets of one-colour frames without truth: 0..4 in two shards; 100..106 in one."""
    folder = tmp_path_factory.mktemp("tiny")

    def shard(name, colours):
        return write_shard(folder / f"{name}.tfrecord", *map(one_colour, colours))

    return shard("a", range(3)) + shard("b", (3, 4)), shard("c", range(100, 107))


def one_colour(colour, **truth):
    png = cv2.imencode(".png", np.full((8, 8, 3), colour, np.uint8))[1].tobytes()
    return records.make_example(image1=png, image1_format="png", height=8, width=8, **truth)


def colours(batches):
    return [int(colour) for inputs, _ in batches for colour in inputs["image1"][:, 4, 4, 0]]


def draw(file_sets, count, **how):
    """The colours of the first `count` batches of one-colour frames."""
    return colours(batches_of(file_sets, count, height=8, width=8, strength=PLAIN, **how))


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


def test_the_seed_decides(flow_files):
    first, again, other = (
        batches_of([flow_files], 3, strength=STRONG, seed=seed) for seed in (5, 5, 6)
    )
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True))
    assert not same(first[0], first[1])


def test_the_draws_follow_seed_and_epoch(tmp_path):
    # One frame alone, so that nothing but its draws can differ: its made motion tells them.
    files = write_shard(tmp_path / "one.tfrecord", one_colour(50))

    def motions(count, **how):
        batches = batches_of([files], count, height=8, width=8, strength=PLAIN, **how)
        return [tuple(flow[0, 0]) for _, targets in batches for flow in targets["flow"]]

    first, other = (motions(6, seed=seed) for seed in (0, 1))
    assert len({*first, *other}) == 24
    # Longer epochs leave each epoch's first draws alone.
    assert motions(2, first_step=5, steps_per_epoch=5) == first[4:8]


def test_a_resumed_run_sees_what_it_would_have_seen(flow_files, tiny_sets):
    # Sets mixed, several passes over each an epoch, frames with and without a second, all draws.
    how = {"strength": STRONG, "weights": [2, 1], "steps_per_epoch": 4, "batch_size": 3}
    whole = batches_of([flow_files, tiny_sets[0]], 12, seed=3, **how)
    # At an epoch's beginning, middle and last batch.
    for first_step in (4, 6, 11):
        left = 12 - first_step
        resumed = batches_of([flow_files, tiny_sets[0]], left, seed=3, first_step=first_step, **how)
        for a, b in zip(whole[-left:], resumed, strict=True):
            assert same(a, b)
    assert not any(same(a, b) for a, b in zip(whole[:4], whole[4:8], strict=True))


def test_every_record_once_a_pass(tiny_sets):
    # 5 records in two shards, batches of 5: each batch is one pass. 7 in one shard likewise.
    for files, whole in zip(tiny_sets, (range(5), range(100, 107)), strict=True):
        size = len(whole)
        passes = np.reshape(draw([files], 9, batch_size=size, steps_per_epoch=3), (9, size))
        assert (np.sort(passes) == whole).all()
        # In another order each time, in an epoch as from epoch to epoch.
        assert len({tuple(order) for order in passes}) >= 8
    # Epochs begin anew: one of 4 of 5 records leaves one out, not always the same.
    epochs = np.reshape(draw([tiny_sets[0]], 20, batch_size=4, steps_per_epoch=1), (20, 4))
    assert all(len(set(epoch)) == 4 for epoch in epochs)
    assert len({10 - sum(epoch) for epoch in epochs}) > 2


def test_each_epoch_mixes_the_sets_anew(tiny_sets):
    drawn = np.reshape(draw(list(tiny_sets), 6, batch_size=8, steps_per_epoch=2), (3, 16))
    assert len({tuple(epoch < 50) for epoch in drawn}) == 3


def test_sets_are_mixed_by_weight(tiny_sets):
    how = {"batch_size": 50, "steps_per_epoch": 8}
    # 400 draws: the share's deviation is about 0.022 at 3/4 and 0.025 at 1/2.
    for weights, share in (([3, 1], 0.75), ([0.2, 0.6], 0.25), (None, 0.5)):
        drawn = np.array(draw(list(tiny_sets), 8, weights=weights, **how))
        assert abs((drawn < 50).mean() - share) < 0.08
        assert set(drawn) == {*range(5), *range(100, 107)}
        # Within a set, still one pass after the other: counts differ by one pass's rest.
        for part in (drawn[drawn < 50], drawn[drawn > 50]):
            counts = np.unique(part, return_counts=True)[1]
            assert np.ptp(counts) <= 1


@pytest.fixture(scope="module")
def still_files(kitti_folder, tmp_path_factory):
    """Records of the made-up data_semantics alone: no second frames."""
    output = tmp_path_factory.mktemp("stills")
    kitti.convert([kitti_folder / "data_semantics"], output, val_fraction=0, records_per_shard=2)
    return records.match_files(f"{output}/*.tfrecord")


@pytest.mark.parametrize("made_flow", [True, False])
def test_made_second_frames(still_files, made_flow):
    how = {"height": 96, "width": 160, "strength": PLAIN, "batch_size": 5}
    [(inputs, targets)] = batches_of([still_files], 1, made_flow=made_flow, **how)
    assert (targets["seg"] != 255).any((1, 2)).all()
    moved = np.abs(inputs["image2"] - inputs["image1"]).mean((1, 2, 3))
    assert (moved > 1).all()  # the frames differ, whether the motion is told or not
    if not made_flow:
        assert not targets["flow"].any()
        return
    assert (targets["flow"][..., 2] == 1).all()
    for image1, image2, flow in zip(
        inputs["image1"], inputs["image2"], targets["flow"], strict=True
    ):
        assert_warp_helps({"image1": image1, "image2": image2}, flow)


def test_true_flow_stays_without_made_flow(flow_files):
    how = {"height": 96, "width": 160, "strength": PLAIN, "batch_size": 4}
    [(inputs, targets)] = batches_of([flow_files], 1, made_flow=False, **how)
    # Frames of the crop's size come as they are, in another order; the others are enlarged.
    whole = [frame for frame in read_frames(flow_files) if frame["image1"].shape == (96, 160, 3)]
    unseen = {frame["frame_id"]: frame for frame in whole}
    assert len(unseen) > 1
    for i in range(4):
        found = [f for f in unseen.values() if (f["image1"] == inputs["image1"][i]).all()]
        if not found:
            continue
        frame = unseen.pop(found[0]["frame_id"])
        np.testing.assert_array_equal(targets["seg"][i], frame["seg"])
        np.testing.assert_array_equal(targets["flow"][i], frame["flow"])
        same_second = (inputs["image2"][i] == frame["image2"]).all()
        assert same_second == frame["has_image2"] == targets["flow"][i].any()
    assert not unseen


def test_frames_without_truth_are_masked(tiny_sets):
    how = {"strength": STRONG, "height": 16, "width": 16, "made_flow": False}
    for _, targets in batches_of([tiny_sets[0]], 2, **how):
        assert (targets["seg"] == 255).all() and not targets["flow"].any()


def test_the_augmented_batches_keep_their_flow(flow_files):
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


def test_waiting_is_counted_and_batches_pass_untouched():
    batches = tf.data.Dataset.range(6).map(lambda i: ({"a": i, "b": 2 * i}, [i]))
    clock = InputClock()
    timed = clock.timed(batches)
    assert clock.seconds == 0
    assert timed.element_spec == batches.element_spec
    seen = [(int(x["a"]), int(x["b"]), int(y[0])) for x, y in timed.as_numpy_iterator()]
    assert seen == [(i, 2 * i, i) for i in range(6)]
    assert clock.seconds > 0


def test_what_works_ahead_is_not_waited_for():
    """Of two consumers, the one that takes its time waits less for the same slow source."""

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
