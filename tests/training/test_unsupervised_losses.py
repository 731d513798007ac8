"""What needs no truth: occlusion, census, smoothness, and the losses made of them; shares of truth.

Each loss is held to a case worked out by hand; whether they help: experiments/README.md.
"""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from flowseg.data import record_sets, records
from flowseg.data.batches import Draw, _drawn
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.network import model
from flowseg.training import unsupervised_losses
from tests.conftest import run_command
from tests.data.test_batches import batches_of
from tests.support.kitti_writer import write_kitti
from tests.support.trainings import parsed


def texture(height, width, seed=0):
    """(height, width, 3) of smooth noise, 0..255."""
    noise = np.random.default_rng(seed).uniform(0, 255, (1, height // 4, width // 4, 3))
    return np.asarray(tf.image.resize(noise, (height, width), "bicubic"))[0].clip(0, 255)


def constant(u, v, height=24, width=32):
    return np.broadcast_to(np.float32([u, v]), (1, height, width, 2))


def scene():
    """Everything moves 3 px to the right and 1 px down: (images, flow, back)."""
    whole = texture(64, 64)
    first, second = whole[10:34, 10:42], whole[9:33, 7:39]
    return np.float32([first]), np.float32([second]), constant(3, 1), constant(-3, -1)


def targets(first, second, known=0.0):
    height, width = first.shape[1:3]
    return np.concatenate(
        [first, second, np.full((1, height, width, 1), known)], -1, dtype="float32"
    )


def test_seen_are_pixels_whose_way_back_ends_where_it_began():
    _, _, flow, back = scene()
    seen = ops.convert_to_numpy(unsupervised_losses.both_seen(flow, back))[0]
    # What would leave the picture, to the right or below, is not seen.
    assert not seen[:, -3:].any() and not seen[-1:].any()
    assert seen[:23, :29].all()
    # Hidden behind something that stands still: there the way back differs.
    still = back.copy()
    still[0, 8:16, 10:20] = 0
    seen = ops.convert_to_numpy(unsupervised_losses.both_seen(flow, still))[0]
    assert not seen[7:15, 7:17].any() and seen[:6, :29].all() and seen[16:23, :29].all()
    # Where most do not fit, flow is too wrong to tell; picture by picture.
    both = np.concatenate([flow, flow]), np.concatenate([back, 0 * back])
    seen = ops.convert_to_numpy(unsupervised_losses.both_seen(*both))
    assert (seen[0] == seen[1]).all() and seen[0].sum() == 23 * 29


def test_census_sees_structure_and_not_light():
    first, second, _, _ = scene()
    # 24 neighbours; the one to the left of the middle is entry 11 and has v more than it.
    grey = np.zeros((1, 5, 5, 3), np.float32)
    grey[0, 2, 1] = 6
    told = ops.convert_to_numpy(unsupervised_losses.census(grey))
    assert told.shape == (1, 5, 5, 24)
    expected = np.zeros(24)
    expected[11] = 6 / np.sqrt(0.81 + 36)
    np.testing.assert_allclose(told[0, 2, 2], expected, rtol=1e-6)
    inner = np.s_[0, 2:-2, 2:-2]
    apart = ops.convert_to_numpy(unsupervised_losses.census_distance(first, first + 40))[inner]
    assert apart.max() < 1e-6
    assert (
        ops.convert_to_numpy(unsupervised_losses.census_distance(first, second))[inner].mean() > 0.2
    )


def test_roughness_is_of_bends_where_no_edge_is():
    flat = np.full((1, 6, 8, 3), 100, np.float32)
    x = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None], (1, 6, 8, 2))
    # A slope is smooth.
    assert float(unsupervised_losses.roughness(x, flat)) == pytest.approx(1e-3, rel=1e-3)
    # One step of 4 px in u: of 6 middles a row two bend by 4, in one of two components.
    step = constant(0, 0, 6, 8).copy()
    step[0, :, 4:, 0] = 4
    rough = float(unsupervised_losses.roughness(step, flat))
    assert rough == pytest.approx((2 / 6 * 4 / 2) / 2, abs=2e-3)
    edge = flat.copy()
    edge[0, :, 4:] = 0
    assert float(unsupervised_losses.roughness(step, edge)) < 0.01


def test_the_true_flow_is_what_the_photometric_loss_wants():
    first, second, flow, back = scene()
    loss = unsupervised_losses.PhotometricLoss()

    def told(flow, back, **known):
        return float(
            np.squeeze(loss(targets(first, second, **known), np.concatenate([flow, back], -1)))
        )

    true = told(flow, back)
    for u, v in ((2, 1), (3, 0), (0, 0), (-3, -1), (1, 3)):
        assert told(constant(u, v), constant(-u, -v)) > true + 0.1
    # Gradients lead there, and where truth is known, there is none but of roughness.
    for known, moves in ((0.0, True), (1.0, False)):
        near = tf.Variable(constant(2.6, 1.3))
        with tf.GradientTape() as tape:
            both = tf.concat([near, -near], -1)
            value = loss(targets(first, second, known), both)
        gradient = tape.gradient(value, near).numpy().sum((0, 1, 2))
        if moves:
            assert gradient[0] < -1e-3 and gradient[1] > 1e-3
        else:
            np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_classes_are_held_to_those_that_they_move_to():
    first, second, flow, back = scene()
    classes = 3
    whole = np.random.default_rng(3).normal(0, 4, (64, 64, classes))
    ours, theirs = np.float32([whole[10:34, 10:42]]), np.float32([whole[9:33, 7:39]])
    loss = unsupervised_losses.ConsistencyLoss()

    def told(flow, back, theirs):
        answers = np.concatenate([flow, back, ours, theirs], -1)
        return float(np.squeeze(loss(targets(first, second), answers)))

    assert told(flow, back, theirs) < 1e-6
    assert told(constant(0, 0), constant(0, 0), theirs) > 0.1
    assert told(flow, back, theirs[:, ::-1]) > 0.1
    # One class against another, everywhere alike, by hand: (1 - 0)^2 + (0 - 1)^2.
    certain = np.zeros((1, 24, 32, 3), np.float32)
    certain[..., 0] = 50
    ours = certain
    assert told(flow, back, np.roll(certain, 1, -1)) == pytest.approx(2, rel=0.05)
    # No gradient to flow, which could hide what does not agree.
    moving = tf.Variable(np.concatenate([flow, back], -1))
    logits = tf.Variable(np.concatenate([whole[None, 10:34, 10:42], theirs], -1, dtype="float32"))
    with tf.GradientTape() as tape:
        value = loss(targets(first, second), tf.concat([moving, logits[:, ::-1]], -1))
    to_flow, to_logits = tape.gradient(value, [moving, logits])
    assert not to_flow.numpy().any() and to_logits.numpy().any()


def test_the_network_sees_each_pair_both_ways():
    keras.utils.set_random_seed(4)
    network = model.build_flowseg(5, backbone="efficientnet_lite0")
    both_ways = model.training_model(network, ("photometric", "consistency"))
    assert set(both_ways.output) == set(model.training_model(network).output) | {
        "photometric",
        "consistency",
    }
    rng = np.random.default_rng(0)
    one, two = np.float32(rng.uniform(0, 255, (2, 2, 40, 50, 3)))
    found = both_ways.predict({"image1": one, "image2": two}, verbose=0)
    there = network.predict({"image1": one, "image2": two}, verbose=0)
    back = network.predict({"image1": two, "image2": one}, verbose=0)
    flows = np.concatenate([there["flow"], back["flow"]], -1)
    close = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(found["photometric"], flows, **close)
    classes = [there["seg"], back["seg"]]
    np.testing.assert_allclose(found["consistency"], np.concatenate([flows, *classes], -1), **close)
    np.testing.assert_allclose(found["seg"], there["seg"], **close)


def test_shares_of_truth_are_exact_by_seed_and_the_same_everywhere(tmp_path):
    folder = write_kitti(tmp_path / "kitti", count=9, sizes=[(48, 64)])
    run_command(
        "data_prep.kitti", "--source", folder, "--output", tmp_path / "r", "--val_fraction", 0
    )
    files = records.match_files(tmp_path / "r/train-*")

    def with_truth(share, seed, without_truth="all", **how):
        limits = record_sets.truth_up_to([files], (share,), seed)
        draw = Draw([files], 1, 9, seed, None, limits, without_truth)
        drawn = _drawn(draw, 0).take(9)
        names = [records.parse_example(r)["frame_id"].numpy().decode() for _, r, _ in drawn]
        found = {"truth_up_to": limits, "without_truth": without_truth, "seed": seed, **how}
        found = batches_of([files], 9, batch_size=1, steps_per_epoch=9, **found)
        used = [(y["seg"] != 255).any() or (y["flow"][..., 2] > 0).any() for _, y in found]
        return dict(zip(names, used, strict=True))

    chosen = {}
    for seed in (0, 1):
        used = with_truth(4 / 9, seed, "none")
        assert all(used.values()) and len(used) == 4
        chosen[seed] = set(used)
        # More truth is what there was, and more.
        more = set(with_truth(6 / 9, seed, "none"))
        assert len(more) == 6 and chosen[seed] < more
    assert chosen[0] != chosen[1]
    assert set(with_truth(4 / 9, 0, "stills")) == chosen[0]
    # Where others teach too, every second frame is one of them.
    used = with_truth(4 / 9, 0)
    assert list(used.values()) == [True, False] * (len(used) // 2)
    assert {name for name, has in used.items() if has} == chosen[0]
    used = with_truth(0, 0)
    assert len(used) == 9 and not any(used.values())
    with pytest.raises(ValueError, match="0.01 of the 9 frames of .* is less than half a frame"):
        with_truth(0.01, 0)
    for shares in ((0.5, 0.5), (1.5,), (-1.0,), (math.nan,)):
        with pytest.raises(ArgumentError, match="^label_fraction=.*: one number, or one a record"):
            record_sets.truth_up_to([files], shares, seed=0)
    with pytest.raises(ArgumentError, match="^label_fraction=x: not a list of numbers"):
        parsed("--label_fraction=x")


def test_a_pair_is_as_it_was_before_colours_and_blots_and_fits_the_flow(kitti_records):
    from flowseg.data.augment import Augmentation
    from tests.data.test_decoding import assert_warp_helps

    files = [records.match_files(str(kitti_records / "train-*"))]
    strong = Augmentation(scale=0.2, stretch=0.1, flip=0.5, colour=1.0, erase=1.0)
    for inputs, target in batches_of(files, 3, height=64, width=96, strength=strong, pair=True):
        pair = target["pair"]
        assert pair.shape == (2, 64, 96, 7) and np.array_equal(pair[..., 6], target["flow"][..., 2])
        assert not np.allclose(pair[..., 3:6], inputs["image2"], atol=2)
        for i in range(2):
            frame = {"image1": pair[i, ..., :3], "image2": pair[i, ..., 3:6]}
            assert_warp_helps(frame, target["flow"][i])


def test_a_training_learns_from_pairs_without_truth(kitti_records, tmp_path):
    asked = ("--train_records", kitti_records / "train-*", "--run_dir", tmp_path / "run")
    asked += ("--val_records", kitti_records / "val-*")
    asked += ("--backbone", "efficientnet_lite0", "--steps", 2, "--steps_per_epoch", 2)
    asked += ("--batch_size", 2, "--height", 64, "--width", 96, "--pictures", 0)
    asked += ("--label_fraction", 0.5, "--photometric", 1)
    assert (
        "truth of 2 of 4 frames is used" in run_command("tests.support.eager_train", *asked).stdout
    )
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert scores["validated"] and scores["photometric_loss"] > 0
    # One of them alone.
    assert "consistency_loss" not in scores
    # For use there is no trace of it.
    network = keras.saving.load_model(tmp_path / "run/model.keras")
    assert sorted(network.output_names) == ["flow", "seg"]
    assert CITYSCAPES.name in (tmp_path / "run/label_set.json").read_text()
