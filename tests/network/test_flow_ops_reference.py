"""flow_ops against stored results of tensorflow-addons 0.23.

`reference/make_tfa_answers.py` computed the results and explains how to reproduce them.
"""

from pathlib import Path

import numpy as np
import pytest
from keras import ops

from flowseg.network import flow_ops

REFERENCE = Path(__file__).parents[1] / "reference" / "tfa_answers.npz"


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as file:
        return {key: file[key] for key in file.files}


def assert_warp_agrees(reference, case, flow):
    inside = reference[f"warp/{case}/inside"]
    warped = ops.convert_to_numpy(flow_ops.backward_warp(reference["warp/image"], flow))
    expected = reference[f"warp/{case}/warped"]
    assert warped.shape == expected.shape
    np.testing.assert_allclose(warped[inside], expected[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["inside", "leaving", "zero", "integer"])
def test_backward_warp(reference, case):
    inside = reference[f"warp/{case}/inside"]
    # Only "leaving" leaves the image; there, dense_image_warp clamps and backward_warp gives 0.
    assert inside.any() and inside.all() == (case != "leaving")
    assert_warp_agrees(reference, case, reference[f"warp/{case}/flow"])


@pytest.mark.parametrize("case", ["inside", "leaving", "integer"])
def test_backward_warp_order_of_uv(reference, case):
    swapped = reference[f"warp/{case}/flow"][..., ::-1].copy()
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_warp_agrees(reference, case, swapped)


def assert_cost_volume_agrees(reference, channels, radius, expected):
    cost = ops.convert_to_numpy(
        flow_ops.cost_volume(
            reference[f"cost/c{channels}/features1"],
            reference[f"cost/c{channels}/features2"],
            radius=radius,
        )
    )
    assert cost.shape == expected.shape
    np.testing.assert_allclose(cost, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [8, 32])
@pytest.mark.parametrize("radius", [1, 3, 4])
def test_cost_volume(reference, channels, radius):
    expected = reference[f"cost/c{channels}/r{radius}"]
    assert expected.shape[-1] == (2 * radius + 1) ** 2
    assert_cost_volume_agrees(reference, channels, radius, expected)


def test_cost_volume_order_of_shifts(reference):
    expected = reference["cost/c8/r3"]
    by_shift = expected.reshape(*expected.shape[:3], 7, 7)
    dx_outer = by_shift.swapaxes(3, 4).reshape(expected.shape)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_cost_volume_agrees(reference, 8, 3, dx_outer)
