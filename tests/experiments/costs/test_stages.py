"""Time by stage: cuts follow the network, and stages are differences of cuts."""

import numpy as np
import pytest

from experiments.costs import stages
from experiments.exports import litert
from flowseg.network.model import build_flowseg
from tests.support import markdown


def test_cuts_are_nested_and_end_with_the_network():
    model = build_flowseg(5, backbone="efficientnet_lite0")
    cuts = stages.cuts(model)
    assert list(cuts)[0] == "encoder, both frames" and len(cuts) == 13
    ends = [set(cut.output) for cut in list(cuts.values())[1:]]
    assert all(before < after for before, after in zip(ends, ends[1:], strict=False))
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 64, 3)).astype(np.float32)
    pair = {"image1": image, "image2": image[:, :, ::-1].copy()}
    last, outputs = list(cuts.values())[-1].predict_on_batch(pair), model.predict_on_batch(pair)
    for key, expected in outputs.items():
        np.testing.assert_allclose(last[key], expected, atol=1e-4)


def test_stages_are_differences_within_a_round(monkeypatch):
    # FLOPs and milliseconds of three files, in two rounds of which the second is twice as slow.
    flops = {b"a": 1_000_000_000, b"b": 1_500_000_000, b"w": 1_500_000_000}
    times = {"first": [10, 20], "second": [16, 32], "whole": [18, 36]}
    monkeypatch.setattr(stages, "cuts", lambda model: {"first": b"a", "second": b"b"})
    monkeypatch.setattr(litert, "convert_pair", lambda cut, height, width: cut)
    monkeypatch.setattr(litert, "latencies", lambda files, frame, threads, rounds: times)
    monkeypatch.setattr(litert, "operators", lambda data: data)
    monkeypatch.setattr(litert, "flops", flops.__getitem__)
    results = stages.measure(b"w", 32, 32, 1, 2)
    assert results["first"] == {"gflops": 1.0, "ms": 15}
    assert results["second"] == {"gflops": 0.5, "ms": pytest.approx(9)}
    assert results["whole"] == {"gflops": 1.5, "ms": 27}
    assert ["second", "0.50", "9.0", "33"] in markdown.rows(stages.table(results))
