"""Training without ground truth: occlusion, census, smoothness, losses, shares of ground truth.

Losses are compared with values computed by hand; their benefit is in docs/results/few-labels.md.
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
    """Return smooth noise, (height, width, 3), 0..255."""
    noise = np.random.default_rng(seed).uniform(0, 255, (1, height // 4, width // 4, 3))
    return np.asarray(tf.image.resize(noise, (height, width), "bicubic"))[0].clip(0, 255)


def constant(u, v, height=24, width=32):
    return np.broadcast_to(np.float32([u, v]), (1, height, width, 2))


def scene():
    """Return (frames, flow, backward flow) of uniform motion, 3 px to the right and 1 px down."""
    image = texture(64, 64)
    first, second = image[10:34, 10:42], image[9:33, 7:39]
    return np.float32([first]), np.float32([second]), constant(3, 1), constant(-3, -1)


def targets(first, second, known=0.0):
    height, width = first.shape[1:3]
    return np.concatenate(
        [first, second, np.full((1, height, width, 1), known)], -1, dtype="float32"
    )


def test_visible_in_both():
    _, _, flow, back = scene()
    visible = ops.convert_to_numpy(unsupervised_losses.visible_in_both(flow, back))[0]
    # Pixels that leave the image, to the right or below, are not visible.
    assert not visible[:, -3:].any() and not visible[-1:].any()
    assert visible[:23, :29].all()
    # Behind a static occluder the backward flow differs.
    occluded = back.copy()
    occluded[0, 8:16, 10:20] = 0
    visible = ops.convert_to_numpy(unsupervised_losses.visible_in_both(flow, occluded))[0]
    assert not visible[7:15, 7:17].any() and visible[:6, :29].all() and visible[16:23, :29].all()
    # If most pixels are inconsistent, all count; separately for each image.
    both = np.concatenate([flow, flow]), np.concatenate([back, 0 * back])
    visible = ops.convert_to_numpy(unsupervised_losses.visible_in_both(*both))
    assert (visible[0] == visible[1]).all() and visible[0].sum() == 23 * 29


def test_census():
    first, second, _, _ = scene()
    # 24 neighbours; entry 11 is the left neighbour of the centre, which is brighter by 6.
    grey = np.zeros((1, 5, 5, 3), np.float32)
    grey[0, 2, 1] = 6
    census = ops.convert_to_numpy(unsupervised_losses.census(grey))
    assert census.shape == (1, 5, 5, 24)
    expected = np.zeros(24)
    expected[11] = 6 / np.sqrt(0.81 + 36)
    np.testing.assert_allclose(census[0, 2, 2], expected, rtol=1e-6)
    inner = np.s_[0, 2:-2, 2:-2]
    distance = ops.convert_to_numpy(unsupervised_losses.census_distance(first, first + 40))[inner]
    assert distance.max() < 1e-6
    assert (
        ops.convert_to_numpy(unsupervised_losses.census_distance(first, second))[inner].mean() > 0.2
    )


def test_roughness():
    flat = np.full((1, 6, 8, 3), 100, np.float32)
    x = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None], (1, 6, 8, 2))
    # A linear ramp is smooth.
    assert float(unsupervised_losses.roughness(x, flat)) == pytest.approx(1e-3, rel=1e-3)
    # A step of 4 px in u: two of 6 second differences per row are 4, in one of two components.
    step = constant(0, 0, 6, 8).copy()
    step[0, :, 4:, 0] = 4
    roughness = float(unsupervised_losses.roughness(step, flat))
    assert roughness == pytest.approx((2 / 6 * 4 / 2) / 2, abs=2e-3)
    edge = flat.copy()
    edge[0, :, 4:] = 0
    assert float(unsupervised_losses.roughness(step, edge)) < 0.01


def test_photometric_loss_is_minimal_at_true_flow():
    first, second, flow, back = scene()
    loss = unsupervised_losses.PhotometricLoss()

    def value_of(flow, back, **known):
        return float(
            np.squeeze(loss(targets(first, second, **known), np.concatenate([flow, back], -1)))
        )

    true = value_of(flow, back)
    for u, v in ((2, 1), (3, 0), (0, 0), (-3, -1), (1, 3)):
        assert value_of(constant(u, v), constant(-u, -v)) > true + 0.1
    # Gradients point towards it; pixels with ground truth have only the gradient of roughness.
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


def test_consistency_loss():
    first, second, flow, back = scene()
    classes = 3
    image = np.random.default_rng(3).normal(0, 4, (64, 64, classes))
    ours, theirs = np.float32([image[10:34, 10:42]]), np.float32([image[9:33, 7:39]])
    loss = unsupervised_losses.ConsistencyLoss()

    def value_of(flow, back, theirs):
        predictions = np.concatenate([flow, back, ours, theirs], -1)
        return float(np.squeeze(loss(targets(first, second), predictions)))

    assert value_of(flow, back, theirs) < 1e-6
    assert value_of(constant(0, 0), constant(0, 0), theirs) > 0.1
    assert value_of(flow, back, theirs[:, ::-1]) > 0.1
    # One class against another, the same everywhere, by hand: (1 - 0)^2 + (0 - 1)^2.
    certain = np.zeros((1, 24, 32, 3), np.float32)
    certain[..., 0] = 50
    ours = certain
    assert value_of(flow, back, np.roll(certain, 1, -1)) == pytest.approx(2, rel=0.05)
    # No gradient reaches the flow, which could otherwise avoid disagreement.
    flows = tf.Variable(np.concatenate([flow, back], -1))
    logits = tf.Variable(np.concatenate([image[None, 10:34, 10:42], theirs], -1, dtype="float32"))
    with tf.GradientTape() as tape:
        value = loss(targets(first, second), tf.concat([flows, logits[:, ::-1]], -1))
    to_flow, to_logits = tape.gradient(value, [flows, logits])
    assert not to_flow.numpy().any() and to_logits.numpy().any()


def test_unlabelled_outputs_use_both_directions(small_encoder):
    keras.utils.set_random_seed(4)
    network = model.build_flowseg(5)
    training = model.training_model(network, ("photometric", "consistency"))
    assert set(training.output) == set(model.training_model(network).output) | {
        "photometric",
        "consistency",
    }
    rng = np.random.default_rng(0)
    one, two = np.float32(rng.uniform(0, 255, (2, 2, 40, 50, 3)))
    outputs = training.predict({"image1": one, "image2": two}, verbose=0)
    forward = network.predict({"image1": one, "image2": two}, verbose=0)
    back = network.predict({"image1": two, "image2": one}, verbose=0)
    flows = np.concatenate([forward["flow"], back["flow"]], -1)
    close = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(outputs["photometric"], flows, **close)
    logits = [forward["seg"], back["seg"]]
    np.testing.assert_allclose(
        outputs["consistency"], np.concatenate([flows, *logits], -1), **close
    )
    np.testing.assert_allclose(outputs["seg"], forward["seg"], **close)


def test_label_fraction(tmp_path):
    folder = write_kitti(tmp_path / "kitti", count=9, sizes=[(48, 64)])
    run_command(
        "data_prep.kitti", "--source", folder, "--output", tmp_path / "r", "--val_fraction", 0
    )
    files = records.match_files(tmp_path / "r/train-*")

    def has_truth(share, seed, unlabelled="all", **options):
        max_ranks = record_sets.max_truth_rank([files], (share,), seed)
        draw = Draw([files], 1, 9, seed, None, max_ranks, unlabelled)
        drawn = _drawn(draw, 0).take(9)
        names = [records.parse_example(r)["frame_id"].numpy().decode() for _, r, _ in drawn]
        batches = {"max_truth_rank": max_ranks, "unlabelled": unlabelled, "seed": seed, **options}
        batches = batches_of([files], 9, batch_size=1, steps_per_epoch=9, **batches)
        used = [(y["seg"] != 255).any() or (y["flow"][..., 2] > 0).any() for _, y in batches]
        return dict(zip(names, used, strict=True))

    chosen = {}
    for seed in (0, 1):
        used = has_truth(4 / 9, seed, "none")
        assert all(used.values()) and len(used) == 4
        chosen[seed] = set(used)
        # A larger share contains the smaller one.
        more = set(has_truth(6 / 9, seed, "none"))
        assert len(more) == 6 and chosen[seed] < more
    assert chosen[0] != chosen[1]
    assert set(has_truth(4 / 9, 0, "stills")) == chosen[0]
    # If unlabelled frames are drawn, they are every second frame.
    used = has_truth(4 / 9, 0)
    assert list(used.values()) == [True, False] * (len(used) // 2)
    assert {name for name, has in used.items() if has} == chosen[0]
    used = has_truth(0, 0)
    assert len(used) == 9 and not any(used.values())
    with pytest.raises(ValueError, match="0.01 of the 9 frames of .* is less than half a frame"):
        has_truth(0.01, 0)
    for shares in ((0.5, 0.5), (1.5,), (-1.0,), (math.nan,)):
        with pytest.raises(
            ArgumentError, match="^label_fraction=.*: give one number, or one per record"
        ):
            record_sets.max_truth_rank([files], shares, seed=0)
    with pytest.raises(ArgumentError, match="^label_fraction=x: not a list of numbers"):
        parsed("--label_fraction=x")


def test_pair_target(kitti_records):
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


def test_training_with_unlabelled_pairs(kitti_records, tmp_path):
    arguments = ("--train_records", kitti_records / "train-*", "--run_dir", tmp_path / "run")
    arguments += ("--val_records", kitti_records / "val-*")
    arguments += ("--backbone", "efficientnet_lite0", "--steps", 2, "--steps_per_epoch", 2)
    arguments += ("--batch_size", 2, "--height", 64, "--width", 96, "--pictures", 0)
    arguments += ("--label_fraction", 0.5, "--photometric", 1)
    assert (
        "ground truth is used for 2 of 4 frames"
        in run_command("tests.support.small_train", *arguments).stdout
    )
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert scores["validated"] and scores["photometric_loss"] > 0
    # Only the configured loss is used.
    assert "consistency_loss" not in scores
    # The saved network has no such outputs.
    network = keras.saving.load_model(tmp_path / "run/model.keras")
    assert sorted(network.output_names) == ["flow", "seg"]
    assert CITYSCAPES.name in (tmp_path / "run/label_set.json").read_text()
