"""Packed networks: writing, reading, detection of damage, and use by the commands."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest

from data_prep import kitti
from data_prep.scenes import store
from experiments import demo
from export import packed
from flowseg import packaged, runs
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.network import packed_weights
from flowseg.network.model import build_flowseg, parts
from flowseg.scoring import frame_scores
from flowseg.scoring.evaluation import count, evaluate
from flowseg.training import resume
from tests.conftest import run_command

NETWORK = {"backbone": "efficientnet_lite0", "exchange": "both", "coarsest": 64}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A network with random weights, and the folder to which it was written."""
    folder = tmp_path_factory.mktemp("packed")
    model = build_flowseg(5, **NETWORK)
    # Trained networks have such statistics: some are far below float16's resolution.
    for layer in parts(model).decoder.layers:
        if layer.name == "seg_4_in_bn":
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1e-7))
    packed_weights.write_network(folder, model, **NETWORK)
    return model, folder


def test_write_and_read(written):
    model, folder = written
    loaded = packed_weights.read_network(folder, 5)
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        if ours.ndim > 1:
            assert np.abs(ours - theirs).max() <= 1e-3 * max(np.abs(ours).max(), 1e-3)
        else:
            assert (ours == theirs).all()
    # A little over half the size of float32.
    assert (folder / "weights.npz").stat().st_size < 2.2 * model.count_params()


def test_networks_of_earlier_versions_start_at_stride_16(tmp_path):
    model = build_flowseg(3, "none", "efficientnet_lite0")
    packed_weights.write_network(tmp_path, model, "efficientnet_lite0", "none")
    description = json.loads((tmp_path / "network.json").read_text())
    assert description.pop("coarsest") == 16
    (tmp_path / "network.json").write_text(json.dumps(description))
    loaded = packed_weights.read_network(tmp_path, 3)
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]


@pytest.mark.parametrize("fault", ["bit", "gone", "short", "no json", "classes"])
def test_damaged_files(written, tmp_path, fault):
    folder = shutil.copytree(written[1], tmp_path / "copy")
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
        match = "packed weights cannot be read"
    with pytest.raises(ValueError, match=match):
        packed_weights.read_network(folder, 6 if fault == "classes" else 5)


def test_invalid_networks(written, tmp_path):
    model, _ = written
    for changed in ({"exchange": "none"}, {"coarsest": 32}):
        (setting,) = (f"{key} {value}" for key, value in changed.items())
        with pytest.raises(ValueError, match=setting):
            packed_weights.write_network(tmp_path, model, **{**NETWORK, **changed})
    kernel = parts(model).decoder.get_layer("seg_logits").kernel
    before = kernel.numpy()
    kernel.assign(before + 1e6)
    with pytest.raises(ValueError, match="seg_logits/kernel.*float16"):
        packed_weights.write_network(tmp_path, model, **NETWORK)
    kernel.assign(before)
    assert not list(tmp_path.iterdir())


def test_pack_run(trained_run, tmp_path):
    # A packed network is rebuilt by the name of its backbone, which a small encoder has not.
    trained_run = shutil.copytree(trained_run, tmp_path / "run")
    runs.save_model(build_flowseg(19, **NETWORK), trained_run / "best.keras")
    settings = (trained_run / "flags.txt").read_text()
    assert "--coarsest=16" in settings
    (trained_run / "flags.txt").write_text(settings.replace("--coarsest=16", "--coarsest=64"))
    done = run_command("export.packed", "--run_dir", trained_run, "--output", tmp_path / "packed")
    assert "efficientnet_lite0" in done.stdout and "of labels equal" in done.stdout
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    assert names == {
        "weights.npz",
        "network.json",
        "label_set.json",
        "sample_image1.png",
        "sample_image2.png",
    }
    original, packed_run = runs.load_run(trained_run), runs.load_run(tmp_path / "packed")
    assert packed_run.label_set == original.label_set
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.float32)
    ours, theirs = (run.predict_logits(image, image[::-1]) for run in (original, packed_run))
    assert np.abs(ours[1] - theirs[1]).max() < 0.1
    # A packed folder is also valid for --init_from.
    network, label_set = resume._start_weights(tmp_path / "packed")
    assert label_set == original.label_set
    for a, b in zip(network.get_weights(), packed_run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    packed_again = ("--run_dir", tmp_path / "packed", "--output", tmp_path / "twice")
    error = run_command("export.packed", *packed_again, ok=False).stderr
    assert "is already packed" in error
    # If flags.txt and the file have different backbones, nothing is written.
    other = shutil.copytree(trained_run, tmp_path / "other")
    text = (other / "flags.txt").read_text()
    (other / "flags.txt").write_text(text.replace("efficientnet_lite0", "resnet50"))
    with pytest.raises(ValueError, match="resnet50"):
        packed.pack(runs.load_run(other), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_pretrained_on_synthetic_streets(tmp_path):
    # A seed and size not used in any training. The error of zero flow is the mean speed.
    store.write_pairs(tmp_path / "synthetic", "street", 3, seed=77, height=192, width=640)
    kitti.convert([tmp_path / "synthetic"], tmp_path / "records", val_fraction=0)
    run = runs.load_run(None, "pretrained")
    scores, counts = evaluate(run, records.match_files(str(tmp_path / "records/train-*")))
    zero, _ = count(
        records.match_files(str(tmp_path / "records/train-*")),
        run.label_set,
        lambda frame: (None, np.zeros((*frame["seg"].shape, 2), np.float32)),
    )
    zero = frame_scores.scores(zero, run.label_set.names)
    assert counts["frames"] == 3
    assert scores["flow/aepe"] < 0.3 * zero["flow/aepe"]
    assert scores["seg/iou/road"] > 60 and scores["seg/pixel_accuracy"] > 60


def test_pretrained_matches_model_card(samples, tmp_path):
    kitti.convert([samples / "kitti"], tmp_path, val_fraction=0)
    run = runs.load_run(None, "pretrained")
    scores, _ = evaluate(run, records.match_files(str(tmp_path / "train-*")))
    card = (packaged.NETWORKS["pretrained"] / "README.md").read_text()
    reported = re.search(r"KITTI pairs 000002, 000003.*AEPE ([\d.]+) px, Fl-all ([\d.]+) %", card)
    aepe, fl_all = map(float, reported.groups())
    assert scores["flow/aepe"] == pytest.approx(aepe, abs=0.011)
    assert scores["flow/fl_all"] == pytest.approx(fl_all, abs=0.11)


@pytest.mark.parametrize("module", ["flowseg.predict", "experiments.studies.figure"])
def test_commands_with_pretrained(module, tmp_path):
    output = tmp_path / ("predictions" if module == "flowseg.predict" else "figure.png")
    done = run_command(
        module,
        "--weights",
        "pretrained",
        "--output",
        output,
        "--image1",
        demo.PAIR[0],
        "--image2",
        demo.PAIR[1],
    )
    assert str(output) in done.stdout
    written = cv2.imread(str(output / "seg.png" if output.is_dir() else output))
    assert written.shape[1] >= 600 and written.std() > 0


@pytest.mark.long
def test_export_pretrained(tmp_path):
    run_command(
        "export.tflite",
        "--weights",
        "pretrained",
        "--output",
        tmp_path / "roads.tflite",
        "--height",
        64,
        "--width",
        96,
    )
    assert (tmp_path / "roads.tflite").stat().st_size > 1e7


def test_run_dir_or_weights(tmp_path):
    frames = ("--image1", "a.png", "--image2", "b.png", "--output", tmp_path)
    for arguments in ((), ("--run_dir", tmp_path, "--weights", "pretrained")):
        error = run_command("flowseg.predict", *frames, *arguments, ok=False).stderr
        assert "--run_dir" in error and "--weights pretrained" in error


def test_pretrained_size_and_checksum():
    # Every clone and wheel contains it; reading checks the checksum (see above).
    assert sum(path.stat().st_size for path in packaged.NETWORKS["pretrained"].iterdir()) < 15e6
    packed_weights.read_network(packaged.NETWORKS["pretrained"], len(CITYSCAPES.names))


def test_init_from_pretrained():
    network, label_set = resume._start_weights("pretrained")
    assert label_set == CITYSCAPES
    expected = packed_weights.read_network(packaged.NETWORKS["pretrained"], len(CITYSCAPES.names))
    for a, b in zip(network.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
