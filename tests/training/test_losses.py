"""The masked losses, against values computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from flowseg.scoring.flow_errors import end_point_error, is_outlier
from flowseg.training.losses import ConfidenceLoss, FlowLoss, SegLoss, masked_mean


def seg_loss(labels, logits):
    return float(SegLoss()(np.int32(labels), np.float32(logits)))


def flow_loss(truth, flow, form="epe"):
    return float(FlowLoss(form)(np.float32(truth), np.float32(flow)))


def with_gradient(loss, truth, prediction):
    """Return the loss and its gradient with respect to the prediction."""
    prediction = tf.constant(prediction, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = loss(truth, prediction)
    return float(value), tape.gradient(value, prediction).numpy()


def test_cross_entropy_by_hand():
    # Logits ln(weight) give probabilities weight / sum: (1, 1, 2) / 4 and (6, 1, 1) / 8. Those of
    # the true classes are 2/4 and 1/8, so the mean entropy is (ln 2 + ln 8) / 2 = 2 ln 2.
    logits = np.log([[[[1, 1, 2], [6, 1, 1]]]])
    assert seg_loss([[[2, 1]]], logits) == pytest.approx(2 * np.log(2), rel=1e-5)
    # With the first pixel void: ln 8.
    assert seg_loss([[[255, 1]]], logits) == pytest.approx(3 * np.log(2), rel=1e-5)


def test_balanced_cross_entropy_by_hand():
    # Four pixels of class 0 weigh 1/2 each, one of class 1 weighs 1; void pixels do not count.
    # Probabilities are 1/2, except 1/8 at the pixel of class 1: (4/2 ln 2 + ln 8) / 3.
    logits = np.zeros((1, 1, 8, 2))
    logits[0, 0, 4] = np.log([7, 1])
    truth = np.array([[[0, 0, 0, 0, 1, 255, 255, 255]]])
    loss = SegLoss("balanced")
    value, gradient = with_gradient(loss, truth, logits)
    assert value == pytest.approx((2 * np.log(2) + np.log(8)) / 3, rel=1e-5)
    # By hand: weight times (probability - one hot), over 3.
    np.testing.assert_allclose(gradient[0, 0, 0], [-0.25 / 3, 0.25 / 3], rtol=1e-5)
    np.testing.assert_allclose(gradient[0, 0, 4], [7 / 8 / 3, -7 / 8 / 3], rtol=1e-5)
    assert not gradient[0, 0, 5:].any()
    # Repeating the pixels changes nothing; with balanced classes it is the plain mean.
    assert with_gradient(loss, np.tile(truth, 2), np.tile(logits, (1, 1, 2, 1)))[0] == value
    even = np.random.default_rng(1).normal(size=(1, 2, 4, 2))
    labels = np.array([[[0, 1, 0, 1], [1, 1, 0, 0]]])
    assert with_gradient(loss, labels, even)[0] == pytest.approx(seg_loss(labels, even), rel=1e-5)
    assert with_gradient(loss, np.full((1, 1, 8), 255), logits)[0] == 0


def test_cross_entropy_of_window():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 4, (2, 6, 8)), rng.normal(size=(2, 6, 8, 4))
    window = np.s_[:, 1:4, 2:7]
    masked = np.full_like(labels, 255)
    masked[window] = labels[window]
    expected = seg_loss(labels[window], logits[window])
    assert seg_loss(masked, logits) == pytest.approx(expected, rel=1e-5)
    assert seg_loss(labels, logits) != pytest.approx(expected, rel=1e-3)


def test_void_pixels_have_no_gradient():
    rng = np.random.default_rng(0)
    labels = np.int32([[[0, 255], [255, 1]]])
    _, gradient = with_gradient(SegLoss(), labels, rng.normal(size=(1, 2, 2, 3)))
    assert (gradient[labels == 255] == 0).all() and (gradient[labels != 255] != 0).all()


def test_cross_entropy_gradient_by_hand():
    # d/dlogits = (softmax - one hot) / valid pixels: two of three here, all logits equal.
    labels = np.int32([[[1, 255, 0]]])
    _, gradient = with_gradient(SegLoss(), labels, np.zeros((1, 1, 3, 2)))
    expected = np.float32([[0.25, -0.25], [0, 0], [-0.25, 0.25]])
    np.testing.assert_allclose(gradient[0, 0], expected, atol=1e-6)


def test_cross_entropy_of_shifted_logits():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 4, (2, 3, 3)), rng.normal(size=(2, 3, 3, 4))
    shifted = logits + rng.normal(scale=50, size=(2, 3, 3, 1))
    assert seg_loss(labels, shifted) == pytest.approx(seg_loss(labels, logits), rel=1e-4)


def test_cross_entropy_of_large_logits():
    # Wrong by a logit of 300: the entropy is 300, not infinite.
    assert seg_loss([[[1]]], [[[[300, 0]]]]) == pytest.approx(300, rel=1e-5)


TRUTH = np.float32([[[[1, 2, 1], [0, 0, 1], [9, 9, 0]]]])
FLOW = np.float32([[[[4, 6], [0, -2], [0, 0]]]])


def test_end_point_error_by_hand():
    # (3, 4) is 5 px, (0, -2) is 2 px, the third pixel is invalid.
    error, valid = end_point_error(TRUTH, FLOW)
    np.testing.assert_allclose(error, [[[5, 2, 0]]], atol=1e-5)
    assert np.asarray(valid).tolist() == [[[True, True, False]]]
    assert flow_loss(TRUTH, FLOW) == pytest.approx(3.5, rel=1e-5)


def test_log_form_by_hand():
    # 3 ln(1 + 5/2) and 3 ln(1 + 2/2), their mean.
    expected = 3 * (np.log(3.5) + np.log(2)) / 2
    assert flow_loss(TRUTH, FLOW, "log") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", ["epe", "log"])
def test_flow_loss_of_window(form):
    rng = np.random.default_rng(0)
    truth, flow = rng.normal(size=(2, 6, 8, 3)), rng.normal(size=(2, 6, 8, 2))
    truth[..., 2] = 1
    window = np.s_[:, 1:4, 2:7]
    masked = truth * [1, 1, 0]
    masked[window] = truth[window]
    expected = flow_loss(truth[window], flow[window], form)
    assert flow_loss(masked, flow, form) == pytest.approx(expected, rel=1e-5)
    assert flow_loss(truth, flow, form) != pytest.approx(expected, rel=1e-3)


def test_masked_mean_over_batch():
    # One image has 1 valid pixel with an error of 8 px, one 3 without error: 8 / 4, not 8 / 2.
    truth = np.zeros((2, 1, 3, 3))
    truth[0, 0, 0, 2] = truth[1, ..., 2] = 1
    flow = np.zeros((2, 1, 3, 2))
    flow[0, ..., 0] = 8
    assert flow_loss(truth, flow) == pytest.approx(2, rel=1e-5)
    # The same for cross-entropy: 1 pixel of ln 8, 3 pixels of ln 2: 6/4 ln 2, not 4/2 ln 2.
    labels = np.int32([[[0, 255, 255]], [[0, 0, 0]]])
    logits = np.log([[[[1, 7]] * 3], [[[1, 1]] * 3]])
    assert seg_loss(labels, logits) == pytest.approx(1.5 * np.log(2), rel=1e-5)
    mean = masked_mean(tf.constant([1.0, 5.0, 7.0]), tf.constant([True, False, True]))
    assert float(mean[0]) == 4


@pytest.mark.parametrize("form", ["epe", "log"])
@pytest.mark.parametrize("unknown", [np.nan, np.inf, 1e30])
def test_unknown_truth_does_not_leak(form, unknown):
    truth = TRUTH.copy()
    truth[0, 0, 2, :2] = unknown
    clean = with_gradient(FlowLoss(form), TRUTH, FLOW)
    value, gradient = with_gradient(FlowLoss(form), truth, FLOW)
    assert np.isfinite(value) and value == clean[0]
    np.testing.assert_array_equal(gradient, clean[1])
    assert np.isfinite(gradient).all() and (gradient[0, 0, 2] == 0).all()


def test_end_point_error_gradient_by_hand():
    # The slope of |d| is d / |d|, over two valid pixels: (3/5, 4/5) / 2 and (0, -1) / 2.
    _, gradient = with_gradient(FlowLoss("epe"), TRUTH, FLOW)
    expected = [[0.3, 0.4], [0, -0.5], [0, 0]]
    np.testing.assert_allclose(gradient[0, 0], expected, atol=1e-6)


def test_log_form_gradient_by_hand():
    # 3 ln(1 + e/2) has the slope 3 / (2 + e): 3/7 at 5 px and 3/4 at 2 px.
    _, gradient = with_gradient(FlowLoss("log"), TRUTH, FLOW)
    expected = np.float64([[0.3, 0.4], [0, -0.5], [0, 0]]) * [[3 / 7], [3 / 4], [1]]
    np.testing.assert_allclose(gradient[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "truth", "prediction"),
    [
        (SegLoss(), np.full((1, 2, 2), 255), np.ones((1, 2, 2, 3))),
        (FlowLoss("epe"), np.zeros((1, 2, 2, 3)), np.ones((1, 2, 2, 2))),
        (FlowLoss("log"), np.full((1, 2, 2, 3), [np.nan, np.nan, 0]), np.ones((1, 2, 2, 2))),
    ],
)
def test_no_valid_pixels(loss, truth, prediction):
    value, gradient = with_gradient(loss, truth, prediction)
    assert value == 0 and (gradient == 0).all()


@pytest.mark.parametrize("form", ["epe", "log"])
def test_perfect_flow(form):
    value, gradient = with_gradient(FlowLoss(form), TRUTH, TRUTH[..., :2])
    assert 0 <= value < 1e-5
    assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e-5


def test_half_precision_predictions():
    # float16 overflows at 300^2, and cannot count 300 x 300 pixels: `call` must use float32.
    flow = np.float16([[[[300, 400], [0, -2], [0, 0]]]])
    truth = np.float32(TRUTH) * [0, 0, 1]
    assert float(FlowLoss("epe").call(truth, flow)[0]) == pytest.approx(251, rel=1e-5)
    labels, logits = np.zeros((1, 300, 300), np.int32), np.zeros((1, 300, 300, 2), np.float16)
    assert float(SegLoss().call(labels, logits)[0]) == pytest.approx(np.log(2), rel=1e-5)


def test_round_trip():
    for loss in (SegLoss(), FlowLoss("epe"), FlowLoss("log", name="other")):
        config = keras.saving.serialize_keras_object(loss)
        restored = keras.saving.deserialize_keras_object(config)
        assert type(restored) is type(loss) and restored.get_config() == loss.get_config()
        assert restored.name == loss.name
    assert FlowLoss.from_config(FlowLoss("epe").get_config()).form == "epe"
    assert FlowLoss().form == "log"


def test_unknown_form():
    with pytest.raises(ValueError, match="flow loss 'l2': not one of epe, log"):
        FlowLoss("l2")


def test_outliers_by_hand():
    # An error of 4 px is an outlier at 0 px of motion, but not at 100 px (under 5 %); 3 px is not;
    # NaN is one; an invalid pixel is not.
    truth = np.float32([[[[0, 0, 1], [100, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]]]])
    flow = np.float32([[[[0, 4], [96, 0], [3, 0], [np.nan, 0], [50, 0]]]])
    outliers = is_outlier(truth, *end_point_error(truth, flow))
    assert np.asarray(outliers).tolist() == [[[True, False, False, True, False]]]
    outliers = is_outlier(truth, *end_point_error(truth, flow), tolerance=4.0)
    assert np.asarray(outliers).tolist() == [[[False, False, False, True, False]]]


def test_confidence_loss_by_hand():
    # Correct with probability 3/4, wrong with 1/2, invalid: -(ln 3/4 + ln 1/2) / 2.
    truth = np.float32([[[[1, 2, 1], [9, 0, 1], [0, 0, 0]]]])
    prediction = np.float32([[[[1, 3, np.log(3)], [0, 0, 0], [0, 0, 9]]]])
    loss, gradient = with_gradient(ConfidenceLoss(), truth, prediction)
    assert loss == pytest.approx(-(np.log(3 / 4) + np.log(1 / 2)) / 2, rel=1e-5)
    # Only the logit has a gradient, not the flow: up where it is correct, down where it is wrong.
    assert (gradient[..., :2] == 0).all()
    np.testing.assert_allclose(gradient[0, 0, :, 2], [-1 / 8, 1 / 4, 0], atol=1e-6)


def test_confidence_loss_without_valid_pixels():
    truth = np.full((1, 2, 2, 3), np.nan, np.float32)
    truth[..., 2] = 0
    loss, gradient = with_gradient(ConfidenceLoss(), truth, np.ones((1, 2, 2, 3)))
    assert loss == 0 and (gradient == 0).all()
