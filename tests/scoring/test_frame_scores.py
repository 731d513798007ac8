"""`scoring.frame_scores`: counts by hand and by slow oracles; as `streaming` counts."""

import numpy as np
import pytest

from flowseg.data.labels import CITYSCAPES, CITYSCAPES_THING_SIZES, IGNORE_LABEL
from flowseg.scoring import frame_scores
from flowseg.scoring.streaming import FlowScores, SegScores

NAMES = ("sky", "road", "car")


def flow_truth(vectors, valid=None):
    """(1, n, 3) truth of n vectors."""
    valid = np.ones(len(vectors)) if valid is None else valid
    return np.concatenate([vectors, np.reshape(valid, (-1, 1))], -1)[None].astype(np.float32)


def test_flow_by_regions():
    # Magnitudes 5, 10, 50, 100; the last is not valid. Errors 4, 0.5, 2.6 (5.2 %), far off.
    truth = flow_truth([(3, 4), (0, 10), (-30, 40), (100, 0)], [1, 1, 1, 0])
    flow = np.array([[[7, 4], [0, 10.5], [-30, 42.6], [0, 0]]])
    noc = flow_truth([(3, 4), (0, 0), (-30, 40), (0, 0)], [1, 0, 1, 0])
    scores = frame_scores.scores(frame_scores.count_flow(truth, flow, noc))
    assert scores == pytest.approx(
        {
            "flow/aepe": 7.1 / 3,
            "flow/fl_all": 100 / 3,
            "flow/fl_all_per_image": 100 / 3,
            # 2.6 px is over 5 %, but not over 3 px.
            "flow/aepe_noc": 3.3,
            "flow/fl_all_noc": 50.0,
            "flow/fl_all_per_image_noc": 50.0,
            "flow/aepe_hidden": 0.5,
            "flow/fl_hidden": 0.0,
            "flow/aepe_0_10": 4.0,
            "flow/fl_0_10": 100.0,
            "flow/aepe_10_40": 0.5,
            "flow/fl_10_40": 0.0,
            "flow/aepe_40_up": 2.6,
            "flow/fl_40_up": 0.0,
        }
    )


def test_a_swap_of_u_and_v_is_seen():
    truth = flow_truth([(8, -3)])
    right, swapped = (
        frame_scores.scores(frame_scores.count_flow(truth, np.array([[vector]])))["flow/aepe"]
        for vector in ((8, -3), (-3, 8))
    )
    assert right == 0 and swapped == pytest.approx(11 * 2**0.5)


def test_what_has_no_truth_counts_nothing():
    void = np.full((2, 3), IGNORE_LABEL)
    assert frame_scores.count_seg(void, np.zeros((2, 3), int), 3) == {}
    nothing = flow_truth([(np.nan, 3)], [0])
    assert frame_scores.count_flow(nothing, np.zeros((1, 1, 2))) == {}
    assert frame_scores.scores({}, NAMES) == {}
    # Truth that says of nothing that it is seen twice is no such truth.
    known = flow_truth([(1, 2)])
    assert "flow/hidden" not in frame_scores.count_flow(known, np.zeros((1, 1, 2)), nothing)


def test_flow_that_is_no_number_is_wrong_and_seen():
    scores = frame_scores.scores(
        frame_scores.count_flow(flow_truth([(1, 2)]), np.full((1, 1, 2), np.nan))
    )
    assert scores["flow/fl_all"] == 100.0 and np.isnan(scores["flow/aepe"])


def test_classes_by_hand():
    truth = np.array([[0, 0, 1, IGNORE_LABEL], [0, 1, 1, 2]])
    answer = np.array([[0, 1, 1, 2], [0, 1, 0, 2]])
    counts = frame_scores.count_seg(truth, answer, 3)
    # Truth by row: sky 2 right, 1 as road; road 2 right, 1 as sky; car right; void counts nowhere.
    expected = [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(counts["seg/confusion"], expected)
    scores = frame_scores.scores(counts, NAMES)
    assert scores["seg/iou/sky"] == scores["seg/iou/road"] == 50.0
    assert scores["seg/iou/car"] == 100.0
    assert scores["seg/miou"] == pytest.approx(200 / 3)
    assert scores["seg/pixel_accuracy"] == pytest.approx(500 / 7)


def test_nothing_said_is_a_miss_and_no_class_of_its_own():
    truth, answer = np.array([[0, 0, 1, 1]]), np.array([[0, IGNORE_LABEL, 1, IGNORE_LABEL]])
    counts = frame_scores.count_seg(truth, np.uint8(answer), 3)
    np.testing.assert_array_equal(counts["seg/confusion"], np.eye(3, 4) * [1, 1, 0, 0] + (
        np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    ))  # fmt: skip
    scores = frame_scores.scores(counts, NAMES)
    assert scores["seg/iou/sky"] == scores["seg/pixel_accuracy"] == 50.0
    assert set(scores) & {"seg/iou/car"} == set()


def city(*names):
    return np.array([[CITYSCAPES.names.index(name) for name in names]])


def test_things_by_hand():
    # A car of four pixels, one of two; a road; a person without a number, as in a crowd.
    truth = city("car", "car", "car", "car", "car", "car", "road", "person")
    things = np.array([[26001] * 4 + [26002] * 2 + [0, 0]])
    answer = city("car", "car", "car", "truck", "car", "road", "car", "person")
    scores = frame_scores.scores(
        frame_scores.count_seg(truth, answer, 19, things), CITYSCAPES.names
    )
    size = CITYSCAPES_THING_SIZES["car"]
    found, missed = size * (3 / 4 + 1 / 2), size * (1 / 4 + 1 / 2)
    # A pixel of road is falsely a car; the truck's one falsely a truck, which has no things.
    car = 100 * found / (found + missed + 1)
    assert scores["seg/iiou/car"] == pytest.approx(car)
    assert scores["seg/iiou/truck"] == 0
    # The person is right, but has no number: nothing found, missed or false.
    assert {k for k in scores if k.startswith("seg/iiou/")} == {"seg/iiou/car", "seg/iiou/truck"}
    assert scores["seg/iiou"] == pytest.approx(car / 2)
    # As vehicles, car and truck are one.
    found, missed = size * (4 / 4 + 1 / 2), size * (1 / 2)
    vehicle = 100 * found / (found + missed + 1)
    assert scores["seg/category_iiou/vehicle"] == pytest.approx(vehicle)
    assert scores["seg/category_iiou"] == pytest.approx(vehicle)
    assert scores["seg/category_iou/vehicle"] == pytest.approx(100 * 5 / 7)
    assert scores["seg/category_iou/human"] == 100
    assert scores["seg/category_miou"] == pytest.approx((500 / 7 + 100 + 0) / 3)


def test_void_on_a_thing_is_no_part_of_it():
    truth = np.where([[0, 0, 0, 1]], IGNORE_LABEL, city("car", "car", "car", "car"))
    things, answer = np.full((1, 4), 26001), city("car", "car", "road", "road")
    scores = frame_scores.scores(
        frame_scores.count_seg(truth, answer, 19, things), CITYSCAPES.names
    )
    assert scores["seg/iiou/car"] == pytest.approx(200 / 3)


def test_no_things_are_no_score_where_their_map_is_not_known():
    scores = frame_scores.scores(
        frame_scores.count_seg(city("car"), city("car"), 19), CITYSCAPES.names
    )
    assert not [name for name in scores if "iiou" in name] and "seg/category_miou" in scores


def test_foreground_by_hand():
    truth = flow_truth([(1, 0), (2, 0), (3, 0), (4, 0)], [1, 1, 1, 0])
    flow = np.array([[[6, 0], [2, 0], [3, 1], [0, 0]]])
    foreground = np.array([[1, 0, IGNORE_LABEL, 1]])
    noc = truth * [[[1], [0], [1], [0]]]
    scores = frame_scores.scores(frame_scores.count_flow(truth, flow, noc, foreground))
    assert scores["flow/aepe_fg"] == 5 and scores["flow/fl_fg"] == 100
    assert scores["flow/aepe_bg"] == 0 and scores["flow/fl_bg"] == 0
    assert scores["flow/fl_fg_noc"] == 100 and "flow/fl_bg_noc" not in scores
    assert scores["flow/aepe"] == 2


def test_a_class_in_the_answer_alone_scores_0_and_one_in_neither_is_none():
    scores = frame_scores.scores(
        frame_scores.count_seg(np.zeros((2, 2), int), np.eye(2, dtype=int), 3), NAMES
    )
    assert scores["seg/iou/road"] == 0 and "seg/iou/car" not in scores
    assert scores["seg/miou"] == pytest.approx(25.0)


def f_by_hand(truth, answer, label):
    """F of one class's boundary, pixel by pixel."""
    height, width = truth.shape
    tolerance = max(1, 0.0075 * (height**2 + width**2) ** 0.5)

    def boundary(labels):
        found = []
        for y in range(height):
            for x in range(width):
                around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
                around = [(a, b) for a, b in around if 0 <= a < height and 0 <= b < width]
                around = [labels[p] for p in around if truth[p] != IGNORE_LABEL]
                known = truth[y, x] != IGNORE_LABEL and labels[y, x] == label
                if known and any(other != label for other in around):
                    found.append((y, x))
        return found

    def share(some, others):
        near = [min(np.hypot(a - y, b - x) for a, b in others) <= tolerance for y, x in some]
        return np.mean(near)

    drawn, told = boundary(truth), boundary(answer)
    if not drawn and not told:
        return None
    if not drawn or not told:
        return 0.0
    precision, recall = share(told, drawn), share(drawn, told)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_equal_a_slow_oracle(seed):
    rng = np.random.default_rng(seed)
    # Blocks, so that there are insides; shifted and spotted, so that some boundaries are missed.
    size = (24, 30) if seed < 3 else (30, 200)  # The last has a tolerance of 1.5 px.
    truth = np.kron(rng.integers(0, 3, (6, 10)), np.ones((10, 23), int))[: size[0], : size[1]]
    answer = np.roll(truth, (2, 1), (0, 1))
    answer[rng.random(size) < 0.02] = 1
    truth[rng.random(size) < 0.02] = IGNORE_LABEL
    expected = [f_by_hand(truth, answer, label) for label in range(3)]
    found = frame_scores.count_seg(truth, answer, 3)["seg/boundary"]
    assert [None if not n else pytest.approx(f) for f, n in found] == expected
    assert any(f and f < 1 for f in expected)


def test_boundaries_forgive_what_is_near_and_nothing_else():
    truth = np.zeros((100, 300), int)  # 0.75 % of the diagonal: 2.37 px.
    truth[:, 150:] = 1
    for shift, expected in ((0, 100.0), (2, 100.0), (3, 0.0)):
        answer = np.zeros_like(truth)
        answer[:, 150 + shift :] = 1
        scores = frame_scores.scores(frame_scores.count_seg(truth, answer, 2), NAMES[:2])
        assert scores["seg/boundary_f"] == pytest.approx(expected)
    assert "seg/boundary_f" not in frame_scores.scores(
        frame_scores.count_seg(truth * 0, truth * 0, 2), NAMES[:2]
    )


def random_frame(rng, size):
    """Truth and answers of one frame."""
    seg = rng.integers(0, 3, size)
    seg[rng.random(size) < 0.2] = IGNORE_LABEL
    flow = rng.normal(0, 30, (*size, 3))
    flow[..., 2] = rng.random(size) < 0.6
    noc = flow * (rng.random((*size, 1)) < 0.7)
    answer = flow[..., :2] + rng.normal(0, 3, (*size, 2))
    return [x.astype(np.float32) for x in (flow, noc, answer)] + [seg, rng.integers(0, 3, size)]


def test_counts_add_up_and_agree_with_the_streaming_metrics():
    rng = np.random.default_rng(1)
    frames = [random_frame(rng, size) for size in ((5, 7), (20, 11), (16, 16))]
    frames.append([*(x * 0 for x in frames[0][:3]), *frames[0][3:]])  # Labels alone.
    metrics = [FlowScores(), FlowScores("_noc"), SegScores(NAMES, per_class=True)]
    counts = {}
    for flow, noc, moved, seg, told in frames:
        own = frame_scores.count_seg(seg, told, 3) | frame_scores.count_flow(flow, moved, noc)
        counts = frame_scores.add(counts, own)
        for metric, truth in zip(metrics[:2], (flow, noc), strict=True):
            metric.update_state(truth[None], moved[None])
        metrics[2].update_state(seg[None], np.eye(3)[told][None])
    scores = frame_scores.scores(counts, NAMES)
    expected = {k: float(v) for metric in metrics for k, v in metric.result().items()}
    assert {k: scores[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    # The regions share out all pixels.
    for parts in (("0_10", "10_40", "40_up"), ("noc", "hidden")):
        total = sum(counts[f"flow/{part}"][:3] for part in parts)
        np.testing.assert_allclose(total, counts["flow/all"][:3])


def test_adding_leaves_both_as_they_were():
    first, second = {"a": np.array([1, 2])}, {"a": np.array([3, 4]), "b": np.array([5])}
    both = frame_scores.add(first, second)
    np.testing.assert_array_equal(both["a"], [4, 6])
    np.testing.assert_array_equal(both["b"], [5])
    assert list(first) == ["a"] and first["a"].tolist() == [1, 2] and second["a"].tolist() == [3, 4]
