"""What each trial changes, and that it changes that."""

import keras
import numpy as np
import pytest

from flowseg import callbacks, checkpoints, train
from flowseg.labels import CAMVID
from flowseg.losses import SegLoss
from tests.test_schedules import batch, learnt, same, training
from tests.test_train import flags


def _logits(entropies):
    """Logits of two classes whose cross-entropy with class 0 is that."""
    p = np.exp(-np.float32(entropies))
    return np.stack([np.log(p), np.log1p(-p)], -1)[None, None]


def test_hard_examples_are_the_worst_quarter_of_the_valid_pixels():
    truth = np.int32([[[0, 0, 0, 0, 0, 0, 0, 0, 255, 255]]])
    logits = _logits([1, 8, 2, 3, 4, 5, 6, 7, 9, 9.5])
    assert float(SegLoss()(truth, logits)) == pytest.approx(4.5)
    # Of 8: at least the two worst, 8 and 7; the one at the border counts too.
    assert float(SegLoss("hard")(truth, logits)) == pytest.approx(7.0)
    nothing = np.full_like(truth, 255)
    assert float(SegLoss("hard")(nothing, logits)) == 0


def test_balanced_weighs_by_the_root_of_the_class_share():
    truth = np.int32([[[0, 0, 0, 0, 1, 255]]])
    logits = np.float32([[[[0, 0]] * 4 + [[2, 0]] + [[9, 0]]]])
    seg = np.log1p(np.exp(2.0))
    # Four of class 0 at 1/2, one of class 1 at 1.
    expected = (4 * 0.5 * np.log(2) + seg) / 3
    assert float(SegLoss("balanced")(truth, logits)) == pytest.approx(expected, rel=1e-5)
    assert float(SegLoss("balanced")(np.full_like(truth, 255), logits)) == 0


def test_uncertainty_learns_two_scalars_and_resumes(tmp_path):
    network = training(trial=["uncertainty"])
    assert not network.log_variances.numpy().any()
    plain = training()
    first = network.train_on_batch(*batch(0), return_dict=True)["loss"]
    # At log variances of 0 it is the fixed sum.
    assert first == pytest.approx(plain.train_on_batch(*batch(0), return_dict=True)["loss"], 1e-4)
    # Losses over 1 are weighed down.
    assert (network.log_variances.numpy() > 0).all()
    checkpoints.save(tmp_path, network, {"step": 1}, 1)
    resumed = training(trial=["uncertainty"])
    checkpoints.load(resumed, tmp_path / "step-00000001")
    for one in (network, resumed):
        one.train_on_batch(*batch(1))
    assert same(learnt(network), learnt(resumed))


def test_averages_go_to_the_public_network_and_not_into_training():
    args = flags(backbone="efficientnet_lite0", freeze="encoder", warmup_steps=0, trial=["ema"])
    public, trained = train.build_models(args, CAMVID)
    network = train.compile_model(trained, args, CAMVID)
    network.run_eagerly = True
    copying = callbacks.CopyWeights(trained, public)
    copying.set_model(network)
    head = [n.get_layer("decoder").get_layer("seg_logits") for n in (public, trained)]
    seen = []
    for seed in range(2):
        network.train_on_batch(*batch(seed))
        seen.append(head[1].kernel.numpy())
    network.optimizer.finalize_variable_values(network.trainable_variables)
    np.testing.assert_array_equal(head[1].kernel.numpy(), seen[1])
    copying.on_epoch_end(0)
    expected = 0.97 * seen[0] + 0.03 * seen[1]
    np.testing.assert_allclose(head[0].kernel.numpy(), expected, atol=1e-6)


def test_polynomial_rate():
    rate = training(trial=["polynomial"]).optimizer._learning_rate
    assert isinstance(rate, keras.optimizers.schedules.PolynomialDecay)
    assert float(rate(0)) == pytest.approx(1e-3) and float(rate(20)) == pytest.approx(1e-5)
    assert float(rate(10)) == pytest.approx(1e-5 + 0.99e-3 * 0.5**0.9)
