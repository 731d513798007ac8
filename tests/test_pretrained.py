"""The weights in the box: written, read back, refused when damaged, and used by every command."""

import shutil

import numpy as np
import pytest

from flowseg import pretrained
from flowseg.model import build_flowseg
from tests.conftest import run_command

NETWORK = {"backbone": "efficientnet_lite0", "exchange": "both"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A network of random weights, and the folder that it was written to."""
    folder = tmp_path_factory.mktemp("packed")
    model = build_flowseg(5, **NETWORK)
    # Statistics as a trained network has them: some far below what float16 resolves.
    for layer in model.get_layer("decoder").layers:
        if layer.name == "seg_4_in_bn":
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1e-7))
    pretrained.write_network(folder, model, **NETWORK)
    return model, folder


def test_written_and_read_back(packed):
    model, folder = packed
    again = pretrained.read_network(folder, 5)
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        if ours.ndim > 1:
            assert np.abs(ours - theirs).max() <= 1e-3 * max(np.abs(ours).max(), 1e-3)
        else:
            assert (ours == theirs).all()
    # Half the bytes of float32, and a little.
    assert (folder / "weights.npz").stat().st_size < 2.2 * model.count_params()


@pytest.mark.parametrize("fault", ["bit", "gone", "short", "no json", "classes"])
def test_damage_is_told(packed, tmp_path, fault):
    folder = shutil.copytree(packed[1], tmp_path / "copy")
    weights, network = folder / "weights.npz", folder / "network.json"
    data = bytearray(weights.read_bytes())
    match = "weights.npz"
    if fault == "bit":
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    elif fault == "gone":
        weights.unlink()
    elif fault == "short":
        weights.write_bytes(data[:-1000])
    elif fault == "no json":
        network.write_text("{")
        match = "can be read"
    with pytest.raises(ValueError, match=match):
        pretrained.read_network(folder, 6 if fault == "classes" else 5)


def test_what_float16_cannot_hold_is_refused(packed, tmp_path):
    model, _ = packed
    with pytest.raises(ValueError, match="exchange none"):
        pretrained.write_network(tmp_path, model, "efficientnet_lite0", "none")
    kernel = model.get_layer("decoder").get_layer("seg_logits").kernel
    before = kernel.numpy()
    kernel.assign(before + 1e6)
    with pytest.raises(ValueError, match="seg_logits/kernel.*float16"):
        pretrained.write_network(tmp_path, model, **NETWORK)
    kernel.assign(before)
    assert not list(tmp_path.iterdir())


def test_one_of_run_and_pretrained(tmp_path):
    frames = ("--image1", "a.png", "--image2", "b.png", "--output", tmp_path)
    for chosen in ((), ("--run_dir", tmp_path, "--weights", "pretrained")):
        error = run_command("flowseg.predict", *frames, *chosen, ok=False).stderr
        assert "--run_dir" in error and "--weights pretrained" in error
