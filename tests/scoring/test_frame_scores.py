"""`scoring.frame_scores` against manual examples, slow oracles and the streaming metrics."""

import numpy as np
import pytest

from flowseg.data.labels import CITYSCAPES, CITYSCAPES_THING_SIZES, IGNORE_LABEL
from flowseg.scoring import frame_scores
from flowseg.scoring.streaming import FlowScores, SegScores

NAMES = ("sky", "road", "car")


def flow_truth(vectors, valid=None):
    """(1, n, 3) ground truth with n vectors."""
    valid = np.ones(len(vectors)) if valid is None else valid
    return np.concatenate([vectors, np.reshape(valid, (-1, 1))], -1)[None].astype(np.float32)


def test_flow_by_regions():
    # Magnitudes 5, 10, 50, 100; the last is invalid. Errors 4, 0.5, 2.6 (5.2 %), large.
    truth = flow_truth([(3, 4), (0, 10), (-30, 40), (100, 0)], [1, 1, 1, 0])
    flow = np.array([[[7, 4], [0, 10.5], [-30, 42.6], [0, 0]]])
    noc = flow_truth([(3, 4), (0, 0), (-30, 40), (0, 0)], [1, 0, 1, 0])
    scores = frame_scores.scores(frame_scores.count_flow(truth, flow, noc))
    assert scores == pytest.approx(
        {
            "flow/aepe": 7.1 / 3,
            "flow/fl_all": 100 / 3,
            "flow/fl_all_per_image": 100 / 3,
            # 2.6 px is above 5 %, but not above 3 px.
            "flow/aepe_noc": 3.3,
            "flow/fl_all_noc": 50.0,
            "flow/fl_all_per_image_noc": 50.0,
            "flow/aepe_occluded": 0.5,
            "flow/fl_occluded": 0.0,
            "flow/aepe_0_10": 4.0,
            "flow/fl_0_10": 100.0,
            "flow/aepe_10_40": 0.5,
            "flow/fl_10_40": 0.0,
            "flow/aepe_40_up": 2.6,
            "flow/fl_40_up": 0.0,
            "flow/aepe_40_100": 2.6,
            "flow/fl_40_100": 0.0,
        }
    )


def test_swap_of_u_and_v():
    truth = flow_truth([(8, -3)])
    correct, swapped = (
        frame_scores.scores(frame_scores.count_flow(truth, np.array([[vector]])))["flow/aepe"]
        for vector in ((8, -3), (-3, 8))
    )
    assert correct == 0 and swapped == pytest.approx(11 * 2**0.5)


def test_no_counts_without_truth():
    void = np.full((2, 3), IGNORE_LABEL)
    assert frame_scores.count_seg(void, np.zeros((2, 3), int), 3) == {}
    invalid = flow_truth([(np.nan, 3)], [0])
    assert frame_scores.count_flow(invalid, np.zeros((1, 1, 2))) == {}
    assert frame_scores.scores({}, NAMES) == {}
    # Non-occluded truth without any valid pixel counts as unknown.
    known = flow_truth([(1, 2)])
    assert "flow/occluded" not in frame_scores.count_flow(known, np.zeros((1, 1, 2)), invalid)


def test_nan_flow_is_outlier():
    scores = frame_scores.scores(
        frame_scores.count_flow(flow_truth([(1, 2)]), np.full((1, 1, 2), np.nan))
    )
    assert scores["flow/fl_all"] == 100.0 and np.isnan(scores["flow/aepe"])


def test_classes_example():
    truth = np.array([[0, 0, 1, IGNORE_LABEL], [0, 1, 1, 2]])
    prediction = np.array([[0, 1, 1, 2], [0, 1, 0, 2]])
    counts = frame_scores.count_seg(truth, prediction, 3)
    # Truth by row: sky 2 correct, 1 as road; road 2 correct, 1 as sky; car correct; void ignored.
    expected = [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(counts["seg/confusion"], expected)
    scores = frame_scores.scores(counts, NAMES)
    assert scores["seg/iou/sky"] == scores["seg/iou/road"] == 50.0
    assert scores["seg/iou/car"] == 100.0
    assert scores["seg/miou"] == pytest.approx(200 / 3)
    assert scores["seg/pixel_accuracy"] == pytest.approx(500 / 7)


def test_missing_prediction_is_false_negative():
    truth, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, IGNORE_LABEL, 1, IGNORE_LABEL]])
    counts = frame_scores.count_seg(truth, np.uint8(prediction), 3)
    np.testing.assert_array_equal(counts["seg/confusion"], np.eye(3, 4) * [1, 1, 0, 0] + (
        np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    ))  # fmt: skip
    scores = frame_scores.scores(counts, NAMES)
    assert scores["seg/iou/sky"] == scores["seg/pixel_accuracy"] == 50.0
    assert set(scores) & {"seg/iou/car"} == set()


def city(*names):
    return np.array([[CITYSCAPES.names.index(name) for name in names]])


def test_instances_example():
    # A car of four pixels, one of two; road; a person without instance id, as in a crowd.
    truth = city("car", "car", "car", "car", "car", "car", "road", "person")
    things = np.array([[26001] * 4 + [26002] * 2 + [0, 0]])
    prediction = city("car", "car", "car", "truck", "car", "road", "car", "person")
    scores = frame_scores.scores(
        frame_scores.count_seg(truth, prediction, 19, things), CITYSCAPES.names
    )
    size = CITYSCAPES_THING_SIZES["car"]
    hit, missed = size * (3 / 4 + 1 / 2), size * (1 / 4 + 1 / 2)
    # One false positive pixel each: of car, on road, and of truck, which has no instance.
    car = 100 * hit / (hit + missed + 1)
    assert scores["seg/iiou/car"] == pytest.approx(car)
    assert scores["seg/iiou/truck"] == 0
    # The person is correct, but not an instance: no TP, FN or FP.
    assert {k for k in scores if k.startswith("seg/iiou/")} == {"seg/iiou/car", "seg/iiou/truck"}
    assert scores["seg/iiou"] == pytest.approx(car / 2)
    # Car and truck are both vehicles.
    hit, missed = size * (4 / 4 + 1 / 2), size * (1 / 2)
    vehicle = 100 * hit / (hit + missed + 1)
    assert scores["seg/category_iiou/vehicle"] == pytest.approx(vehicle)
    assert scores["seg/category_iiou"] == pytest.approx(vehicle)
    assert scores["seg/category_iou/vehicle"] == pytest.approx(100 * 5 / 7)
    assert scores["seg/category_iou/human"] == 100
    assert scores["seg/category_miou"] == pytest.approx((500 / 7 + 100 + 0) / 3)


def test_void_is_not_part_of_instance():
    truth = np.where([[0, 0, 0, 1]], IGNORE_LABEL, city("car", "car", "car", "car"))
    things, prediction = np.full((1, 4), 26001), city("car", "car", "road", "road")
    scores = frame_scores.scores(
        frame_scores.count_seg(truth, prediction, 19, things), CITYSCAPES.names
    )
    assert scores["seg/iiou/car"] == pytest.approx(200 / 3)


def test_no_iiou_without_instance_map():
    scores = frame_scores.scores(
        frame_scores.count_seg(city("car"), city("car"), 19), CITYSCAPES.names
    )
    assert not [name for name in scores if "iiou" in name] and "seg/category_miou" in scores


def test_foreground_example():
    truth = flow_truth([(1, 0), (2, 0), (3, 0), (4, 0)], [1, 1, 1, 0])
    flow = np.array([[[6, 0], [2, 0], [3, 1], [0, 0]]])
    foreground = np.array([[1, 0, IGNORE_LABEL, 1]])
    noc = truth * [[[1], [0], [1], [0]]]
    scores = frame_scores.scores(frame_scores.count_flow(truth, flow, noc, foreground))
    assert scores["flow/aepe_fg"] == 5 and scores["flow/fl_fg"] == 100
    assert scores["flow/aepe_bg"] == 0 and scores["flow/fl_bg"] == 0
    assert scores["flow/fl_fg_noc"] == 100 and "flow/fl_bg_noc" not in scores
    assert scores["flow/aepe"] == 2


def test_class_absent_in_truth():
    scores = frame_scores.scores(
        frame_scores.count_seg(np.zeros((2, 2), int), np.eye(2, dtype=int), 3), NAMES
    )
    assert scores["seg/iou/road"] == 0 and "seg/iou/car" not in scores
    assert scores["seg/miou"] == pytest.approx(25.0)


def boundary_f_by_pixel(truth, prediction, label):
    """Boundary F-measure of one class, pixel by pixel."""
    height, width = truth.shape
    tolerance = max(1, 0.0075 * (height**2 + width**2) ** 0.5)

    def boundary(labels):
        pixels = []
        for y in range(height):
            for x in range(width):
                neighbours = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
                neighbours = [(a, b) for a, b in neighbours if 0 <= a < height and 0 <= b < width]
                neighbours = [labels[p] for p in neighbours if truth[p] != IGNORE_LABEL]
                known = truth[y, x] != IGNORE_LABEL and labels[y, x] == label
                if known and any(other != label for other in neighbours):
                    pixels.append((y, x))
        return pixels

    def share(some, others):
        matched = [min(np.hypot(a - y, b - x) for a, b in others) <= tolerance for y, x in some]
        return np.mean(matched)

    true_boundary, predicted_boundary = boundary(truth), boundary(prediction)
    if not true_boundary and not predicted_boundary:
        return None
    if not true_boundary or not predicted_boundary:
        return 0.0
    precision, recall = (
        share(predicted_boundary, true_boundary),
        share(true_boundary, predicted_boundary),
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_equal_slow_oracle(seed):
    rng = np.random.default_rng(seed)
    # Blocks, shifted and with random pixels, so that some boundaries are missed.
    size = (24, 30) if seed < 3 else (30, 200)  # The last has a tolerance of 1.5 px.
    truth = np.kron(rng.integers(0, 3, (6, 10)), np.ones((10, 23), int))[: size[0], : size[1]]
    prediction = np.roll(truth, (2, 1), (0, 1))
    prediction[rng.random(size) < 0.02] = 1
    truth[rng.random(size) < 0.02] = IGNORE_LABEL
    expected = [boundary_f_by_pixel(truth, prediction, label) for label in range(3)]
    boundary = frame_scores.count_seg(truth, prediction, 3)["seg/boundary"]
    assert [None if not n else pytest.approx(f) for f, n in boundary] == expected
    assert any(f and f < 1 for f in expected)


def test_boundary_tolerance():
    truth = np.zeros((100, 300), int)  # 0.75 % of the diagonal: 2.37 px.
    truth[:, 150:] = 1
    for shift, expected in ((0, 100.0), (2, 100.0), (3, 0.0)):
        prediction = np.zeros_like(truth)
        prediction[:, 150 + shift :] = 1
        scores = frame_scores.scores(frame_scores.count_seg(truth, prediction, 2), NAMES[:2])
        assert scores["seg/boundary_f"] == pytest.approx(expected)
    assert "seg/boundary_f" not in frame_scores.scores(
        frame_scores.count_seg(truth * 0, truth * 0, 2), NAMES[:2]
    )


def random_frame(rng, size):
    """Ground truth and predictions of one frame."""
    seg = rng.integers(0, 3, size)
    seg[rng.random(size) < 0.2] = IGNORE_LABEL
    flow = rng.normal(0, 30, (*size, 3))
    flow[..., 2] = rng.random(size) < 0.6
    noc = flow * (rng.random((*size, 1)) < 0.7)
    prediction = flow[..., :2] + rng.normal(0, 3, (*size, 2))
    return [x.astype(np.float32) for x in (flow, noc, prediction)] + [seg, rng.integers(0, 3, size)]


def test_sums_equal_streaming_metrics():
    rng = np.random.default_rng(1)
    frames = [random_frame(rng, size) for size in ((5, 7), (20, 11), (16, 16))]
    frames.append([*(x * 0 for x in frames[0][:3]), *frames[0][3:]])  # Only labels.
    metrics = [FlowScores(), FlowScores("_noc"), SegScores(NAMES, per_class=True)]
    counts = {}
    for flow, noc, predicted_flow, seg, predicted in frames:
        frame_counts = frame_scores.count_seg(seg, predicted, 3) | frame_scores.count_flow(
            flow, predicted_flow, noc
        )
        counts = frame_scores.add(counts, frame_counts)
        for metric, truth in zip(metrics[:2], (flow, noc), strict=True):
            metric.update_state(truth[None], predicted_flow[None])
        metrics[2].update_state(seg[None], np.eye(3)[predicted][None])
    scores = frame_scores.scores(counts, NAMES)
    expected = {k: float(v) for metric in metrics for k, v in metric.result().items()}
    assert {k: scores[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    # The regions partition all pixels.
    for parts in (
        ("0_10", "10_40", "40_up"),
        ("0_10", "10_40", "40_100", "100_up"),
        ("noc", "occluded"),
    ):
        total = sum(counts[f"flow/{part}"][:3] for part in parts)
        np.testing.assert_allclose(total, counts["flow/all"][:3])


def test_add_does_not_modify_inputs():
    first, second = {"a": np.array([1, 2])}, {"a": np.array([3, 4]), "b": np.array([5])}
    both = frame_scores.add(first, second)
    np.testing.assert_array_equal(both["a"], [4, 6])
    np.testing.assert_array_equal(both["b"], [5])
    assert list(first) == ["a"] and first["a"].tolist() == [1, 2] and second["a"].tolist() == [3, 4]
