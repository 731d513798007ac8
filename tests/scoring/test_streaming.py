"""Streaming scores against manual examples and a pooled NumPy computation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flowseg.scoring import streaming
from flowseg.scoring.streaming import FlowScores, SegScores

NAMES = ["road", "car", "sky"]


def logits_of(predicted, classes=3):
    """Logits whose largest is at the predicted class."""
    return np.eye(classes, dtype=np.float32)[np.asarray(predicted)] * 4 - 1


def scores_of(metric):
    return {name: float(score) for name, score in metric.result().items()}


def seg_scores(truth, predicted, **options):
    metric = SegScores(NAMES, **options)
    metric.update_state(np.int32(truth), logits_of(predicted))
    return scores_of(metric)


def test_miou_example():
    # Ground truth by row, prediction by column; the two void pixels are not counted.
    #         road car sky
    #   road   3    1   0     road: 3 / (3 + 1 + 0) = 75 %
    #   car    0    2   2     car:  2 / (2 + 1 + 2) = 40 %
    #   sky    0    0   0     sky:  0 / (0 + 2 + 0) =  0 %, absent in truth but predicted
    truth = [[[0, 0, 0, 0, 255], [1, 1, 1, 1, 255]]]
    predicted = [[[0, 0, 0, 1, 0], [1, 1, 2, 2, 2]]]
    metric = SegScores(NAMES, per_class=True)
    metric.update_state(np.int32(truth), logits_of(predicted))
    assert np.asarray(metric.confusion()).tolist() == [[3, 1, 0], [0, 2, 2], [0, 0, 0]]
    assert scores_of(metric) == pytest.approx(
        {
            "seg/miou": (75 + 40 + 0) / 3,
            "seg/pixel_accuracy": 100 * 5 / 8,
            "seg/iou/road": 75,
            "seg/iou/car": 40,
            "seg/iou/sky": 0,
        }
    )


def test_absent_class_is_ignored():
    # As above, with the two sky pixels correct: road 3/4, car 4/5, no sky except on void.
    truth, predicted = (
        [[[0, 0, 0, 0, 255], [1, 1, 1, 1, 255]]],
        [[[0, 0, 0, 1, 2], [1, 1, 1, 1, 2]]],
    )
    scores = seg_scores(truth, predicted, per_class=True)
    assert scores["seg/miou"] == pytest.approx((75 + 80) / 2)
    assert np.isnan(scores["seg/iou/sky"])
    assert scores["seg/pixel_accuracy"] == pytest.approx(700 / 8)
    assert set(seg_scores(truth, predicted)) == {"seg/miou", "seg/pixel_accuracy"}


def test_no_labelled_pixels():
    assert all(np.isnan(score) for score in seg_scores([[[255, 255]]], [[[0, 1]]]).values())
    assert all(np.isnan(score) for score in scores_of(SegScores(NAMES)).values())


def test_seg_scores_equal_pooled_computation():
    rng = np.random.default_rng(0)
    metric, pooled = SegScores(NAMES), np.zeros((3, 3), int)
    for shape in ((1, 4, 6), (3, 5, 5), (2, 1, 9), (1, 7, 2)):
        truth = rng.choice([0, 1, 2, 255], shape, p=[0.5, 0.3, 0.1, 0.1])
        predicted = rng.integers(0, 3, shape)
        metric.update_state(truth, logits_of(predicted))
        known = truth != 255
        np.add.at(pooled, (truth[known], predicted[known]), 1)
    assert (np.asarray(metric.confusion()) == pooled).all()
    hits = pooled.diagonal()
    iou = hits / (pooled.sum(0) + pooled.sum(1) - hits)
    expected = {"seg/miou": 100 * iou.mean(), "seg/pixel_accuracy": 100 * hits.sum() / pooled.sum()}
    assert scores_of(metric) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    assert np.asarray(metric.confusion()).sum() == 0


def flow_truth(pixels):
    """[(u, v, valid), ...] as one image of one row."""
    return np.float32(pixels)[None, None]


def flow_scores(pixels, flow, **options):
    metric = FlowScores(**options)
    metric.update_state(flow_truth(pixels), np.float32(flow)[None, None])
    return scores_of(metric)


def test_aepe_example():
    # Errors of (3, 4), 5 px, and (0, 1), 1 px; the third is invalid. One of two is above 3 px.
    scores = flow_scores([(0, 0, 1), (1, 1, 1), (9, 9, 0)], [(3, 4), (1, 2), (0, 0)])
    expected = {"flow/aepe": 3, "flow/fl_all": 50, "flow/fl_all_per_image": 50}
    assert scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("magnitude", "error", "outlier"),
    [
        (10, 2.99, False),  # 29.9 %, but not above 3 px
        (10, 3, False),  # exactly at the limit
        (10, 3.01, True),
        (100, 4.99, False),  # above 3 px, but 4.99 %
        (100, 5, False),
        (100, 5.01, True),
        (60, 3, False),  # both limits at once
        (60, 3.01, True),
        (0, 2.99, False),  # no division by a magnitude of 0
        (0, 3.01, True),
    ],
)
def test_outlier_definition(magnitude, error, outlier):
    scores = flow_scores([(0, magnitude, 1)], [(0, magnitude + error)])
    assert scores["flow/fl_all"] == scores["flow/fl_all_per_image"] == 100 * outlier
    assert scores["flow/aepe"] == pytest.approx(error, abs=1e-4)


def test_fl_all_pooled_and_per_image():
    # Image 1: 1 of 1 valid pixels is off by 4 px; image 2: 1 of 4; image 3 has no truth.
    # Pooled 2 / 5 = 40 %; per image (100 + 25) / 2 = 62.5 %, as image 3 is not counted.
    truth, flow = np.zeros((3, 1, 4, 3), np.float32), np.zeros((3, 1, 4, 2), np.float32)
    truth[0, 0, 2, 2] = truth[1, ..., 2] = 1
    flow[0, ..., 1] = flow[1, 0, 3, 0] = flow[2] = 4
    expected = {"flow/aepe": 8 / 5, "flow/fl_all": 40, "flow/fl_all_per_image": 62.5}
    together, one_by_one = FlowScores(), FlowScores()
    together.update_state(truth, flow)
    for i in range(3):
        one_by_one.update_state(truth[i : i + 1], flow[i : i + 1])
    assert scores_of(together) == pytest.approx(expected, rel=1e-5)
    assert scores_of(one_by_one) == pytest.approx(expected, rel=1e-5)


def test_flow_scores_equal_pooled_computation():
    rng = np.random.default_rng(0)
    metric, errors, outliers, shares = FlowScores(suffix="_noc"), [], [], []
    for shape in ((1, 4, 6), (3, 5, 5), (2, 1, 9)):
        truth = np.concatenate([rng.normal(scale=60, size=(*shape, 2)), np.ones((*shape, 1))], -1)
        truth[..., 2] = rng.random(shape) < 0.6
        flow = truth[..., :2] + rng.normal(scale=3, size=(*shape, 2))
        metric.update_state(np.float32(truth), np.float32(flow))
        for t, f in zip(truth, flow, strict=True):
            known = t[..., 2] > 0
            error = np.linalg.norm(f - t[..., :2], axis=-1)[known]
            outlier = (error > 3) & (error > 0.05 * np.linalg.norm(t[..., :2], axis=-1)[known])
            errors, outliers, shares = (
                [*errors, *error],
                [*outliers, *outlier],
                [*shares, outlier.mean()],
            )
    assert 0 < sum(outliers) < sum(np.array(errors) > 3)
    expected = {
        "flow/aepe_noc": np.mean(errors),
        "flow/fl_all_noc": 100 * np.mean(outliers),
        "flow/fl_all_per_image_noc": 100 * np.mean(shares),
    }
    assert scores_of(metric) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unknown", [np.nan, np.inf, 1e30])
def test_unknown_truth_does_not_leak(unknown):
    scores = flow_scores([(1, 0, 1), (unknown, unknown, 0)], [(2, 0), (5, 5)])
    assert scores == pytest.approx(
        {"flow/aepe": 1, "flow/fl_all": 0, "flow/fl_all_per_image": 0}, rel=1e-5
    )


def test_nan_prediction_is_outlier():
    # Of three valid pixels two are correct and one is NaN. Invalid pixels are ignored.
    truth = [(1, 0, 1), (0, 0, 1), (0, 9, 1), (0, 0, 0)]
    nan = float("nan")
    scores = flow_scores(truth, [(1, 0), (nan, 0), (0, 9), (nan, nan)])
    assert scores["flow/fl_all"] == pytest.approx(100 / 3) and np.isnan(scores["flow/aepe"])
    scores = flow_scores(truth, [(1, 0), (0, 0), (0, 9), (nan, nan)])
    assert scores["flow/fl_all"] == 0 and scores["flow/aepe"] < 1e-5


def test_no_valid_pixels():
    assert all(np.isnan(s) for s in flow_scores([(np.nan, 0, 0)], [(2, 0)]).values())
    assert all(np.isnan(score) for score in scores_of(FlowScores()).values())


def test_counts_are_exact_beyond_float32():
    # float32 cannot represent odd integers above 2^24: one more pixel would be lost.
    metric = FlowScores()
    metric._count(metric._valid, 2**24)
    for _ in range(3):
        metric._count(metric._valid, 1)
    assert [int(part) for part in metric._valid] == [2**24 + 3, 0]


def test_counts_carry_beyond_int32():
    # 5 * (2^30 - 1) + 7 = 5 * 2^30 + 2, far above 2^31 - 1.
    metric = SegScores(["one"])
    for number in [2**30 - 1] * 5 + [7]:
        metric._count(metric._confusion, np.int32([[number]]))
    assert [part.numpy().item() for part in metric._confusion] == [2, 5]
    assert float(metric.confusion()[0, 0]) == np.float32(5 * 2**30 + 2)


def test_carry_does_not_change_scores(monkeypatch):
    monkeypatch.setattr(streaming, "_CARRY", 7)
    rng = np.random.default_rng(0)
    metric, pooled = SegScores(NAMES), np.zeros((3, 3), int)
    for _ in range(6):
        truth, predicted = rng.integers(0, 3, (1, 9, 9)), rng.integers(0, 3, (1, 9, 9))
        metric.update_state(truth, logits_of(predicted))
        np.add.at(pooled, (truth, predicted), 1)
    assert (metric._confusion[0].numpy() < 7).all() and (metric._confusion[1].numpy() > 0).all()
    assert (np.asarray(metric.confusion()) == pooled).all()


def test_error_sum_beyond_float32():
    # A sum of 2^20 px, then 20,000 errors of 0.03 px: each is below half a float32 step (1/16)
    # there and would be lost; together they are 600 px.
    metric = FlowScores()
    metric.update_state(flow_truth([(0, 0, 1)]), np.float32([[[[2**20, 0]]]]))
    truth, flow = tf.constant(flow_truth([(0, 0, 1)])), tf.constant([[[[0.03, 0.0]]]])

    @tf.function
    def many():
        for _ in tf.range(20000):
            metric.update_state(truth, flow)

    many()
    naive = np.float32(2**20)
    for _ in range(20000):
        naive += np.float32(0.03)
    assert naive == 2**20
    expected = (2**20 + 600) / 20001
    assert scores_of(metric)["flow/aepe"] == pytest.approx(expected, rel=1e-6)


def test_reset_state():
    metric = FlowScores()
    metric.update_state(flow_truth([(0, 0, 1)]), np.float32([[[[2**20, 0]]]]))
    metric.update_state(flow_truth([(0, 0, 1)]), np.float32([[[[0.03, 0]]]]))
    metric.reset_state()
    assert all(not np.any(variable.numpy()) for variable in metric.variables)
    metric.update_state(flow_truth([(0, 0, 1)]), np.float32([[[[2, 0]]]]))
    expected = {"flow/aepe": 2, "flow/fl_all": 0, "flow/fl_all_per_image": 0}
    assert scores_of(metric) == pytest.approx(expected, rel=1e-5)


def test_round_trip():
    for metric in (SegScores(NAMES, per_class=True), FlowScores(suffix="_noc", name="noc")):
        restored = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(metric)
        )
        assert restored.get_config() == metric.get_config()
        assert set(restored.result()) == set(metric.result())
