"""The folder for servers: what each signature answers, what lies beside the network, refusals."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from export import check, saved_model, saved_model_extras
from flowseg import runs
from flowseg.data import labels
from flowseg.data.flow_io import decode_kitti_flow, encode_kitti_flow


@pytest.fixture(scope="module")
def run(trained_run):
    return runs.load_run(trained_run)


@pytest.fixture(scope="module")
def signatures(served):
    # The signatures live as long as what they were loaded with.
    loaded = tf.saved_model.load(str(served / "1"))
    yield loaded.signatures


def frames(shape=(3, 50, 81, 3), seed=0):
    """A uint8 pair of another size and batch than the export was checked with."""
    rng = np.random.default_rng(seed)
    return {key: rng.integers(0, 256, shape, np.uint8) for key in ("image1", "image2")}


def test_default_takes_any_batch_and_size_and_keeps_the_frames_apart(run, signatures):
    inputs = signatures["serving_default"].structured_input_signature[1]
    assert {k: (tuple(v.shape), v.dtype) for k, v in inputs.items()} == dict.fromkeys(
        ("image1", "image2"), ((None, None, None, 3), tf.float32)
    )
    pair = frames()
    floats = {key: np.float32(image) for key, image in pair.items()}
    expected = run.model.predict_on_batch(floats)
    answers = saved_model.ask(signatures["serving_default"], floats)
    for key in ("seg", "flow"):
        np.testing.assert_allclose(answers[key], expected[key], atol=2e-3)
    whole = saved_model.ask(signatures["serving_uint8"], pair)
    for key in ("seg", "flow"):
        np.testing.assert_array_equal(whole[key], answers[key])
    swapped = saved_model.ask(
        signatures["serving_uint8"], {"image1": pair["image2"], "image2": pair["image1"]}
    )
    assert np.abs(swapped["flow"] - answers["flow"]).max() > 0.05


@pytest.mark.parametrize("shape", [(1, 64, 96, 3), (2, 50, 81, 3)])
def test_frames_encoded_one_by_one_give_exactly_the_answers_of_a_pair(signatures, shape):
    pair = frames(shape)
    expected = saved_model.ask(signatures["serving_uint8"], pair)
    inputs = saved_model_extras.decode_inputs(signatures["encode"], pair)
    assert inputs["size"].tolist() == [list(shape[1:3])] * shape[0]
    answers = saved_model.ask(signatures["decode"], inputs)
    for key in ("seg", "flow"):
        assert answers[key].shape[:3] == shape[:3]
        np.testing.assert_array_equal(answers[key], expected[key])
    # The frame whose features these are is 32 rows smaller.
    wrong = {**inputs, "size": inputs["size"] + np.int32([32, 0])}
    with pytest.raises(tf.errors.InvalidArgumentError, match="size must be one for all"):
        saved_model.ask(signatures["decode"], wrong)


def test_labels_and_half_precision_flow(signatures):
    pair = frames()
    expected = saved_model.ask(signatures["serving_uint8"], pair)
    answers = saved_model.ask(signatures["predict_labels"], pair)
    assert answers["labels"].dtype == np.uint8 and answers["flow"].dtype == np.float16
    np.testing.assert_array_equal(answers["labels"], expected["seg"].argmax(-1))
    np.testing.assert_array_equal(answers["flow"], expected["flow"].astype(np.float16))
    pair["image2"] = pair["image2"][:, 1:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same batch, height"):
        saved_model.ask(signatures["predict_labels"], pair)


def test_pictures_in_and_pictures_out(signatures):
    pair = frames()
    expected = saved_model.ask(signatures["serving_uint8"], pair)
    ask = signatures["predict_png"]
    encoded = {
        f"{key}_bytes": [saved_model_extras.png(x) for x in images] for key, images in pair.items()
    }
    answers = saved_model.ask(ask, encoded)
    for k in range(3):
        data = np.frombuffer(answers["labels_bytes"][k], np.uint8)
        labels_of_k = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels_of_k, expected["seg"][k].argmax(-1))
        ours = encode_kitti_flow(expected["flow"][k])
        flows = (decode_kitti_flow(data) for data in (answers["flow_bytes"][k], ours))
        np.testing.assert_array_equal(*flows)
    one = saved_model.ask(ask, {key: pictures[0] for key, pictures in encoded.items()})
    assert one["labels_bytes"].shape == (1,)
    jpeg = {
        f"{key}_bytes": cv2.imencode(".jpg", images[0])[1].tobytes() for key, images in pair.items()
    }
    assert saved_model.ask(ask, jpeg)["flow_bytes"].shape == (1,)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        saved_model.ask(ask, {**encoded, "image1_bytes": [b"no picture"] * 3})


def test_flow_beyond_the_file_is_unknown_as_in_our_own_files():
    from export.signatures import _kitti_pixels

    rng = np.random.default_rng(0)
    flow = rng.uniform(-600, 600, (1, 40, 50, 2)).astype(np.float32)
    edges = [np.nan, np.inf, -512, -512.01, 511.98, 511.99, 511.995, 1 / 128, 3 / 128, -1 / 128]
    flow[0, 0, :10, 0] = edges
    flow[0, 0, :10, 1] = 0
    pixels = _kitti_pixels(tf.constant(flow)).numpy()[0]
    png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    ours = encode_kitti_flow(flow[0])
    np.testing.assert_array_equal(decode_kitti_flow(png), decode_kitti_flow(ours))
    assert 0 < decode_kitti_flow(png)[..., 2].mean() < 1


def test_metadata_in_the_file_and_by_its_signature(trained_run, run, served, signatures):
    told = json.loads((served / "1/assets.extra/metadata.json").read_text())
    assert labels.from_dict(told["label_set"]) == run.label_set
    assert told["training_flags"] == (trained_run / "flags.txt").read_text().splitlines()
    assert told["model_version"] == 1 and told["units"]["flow"].startswith("(right, down)")
    keys = tf.constant(["units", "", "label_set"])
    values = [json.loads(x) for x in signatures["metadata"](key=keys)["value"].numpy()]
    assert values == [told["units"], told, told["label_set"]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="key: one of name, flowseg"):
        signatures["metadata"](key=tf.constant(["colour"]))


def test_every_weight_is_written_once(run, served):
    data = next((served / "1/variables").glob("*.data-*"))
    assert 4 * run.model.count_params() <= data.stat().st_size < 4.1 * run.model.count_params()


def test_warmup_asks_every_signature(served, signatures):
    asked = {
        name: saved_model.ask(signatures[name], inputs)
        for name, inputs in saved_model_extras.read_requests(served / "1")
    }
    assert set(asked) == set(signatures)
    assert asked["decode"]["seg"].shape[:3] == asked["predict_labels"]["labels"].shape


def test_tensorflow_serving_reads_its_configuration(served):
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    text = (served / "models.config").read_text()
    model = text_format.Parse(text, ModelServerConfig()).model_config_list.config[0]
    assert (model.name, model.base_path) == ("flowseg", "/models/flowseg")


def test_nothing_is_replaced_unasked(run, served, tmp_path):
    with pytest.raises(ValueError, match="served/1: exists already; overwrite"):
        saved_model.export(run, served)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine: exists, and is no folder of served models"):
        saved_model.export(run, tmp_path / "mine", overwrite=True)


def test_an_export_that_answers_otherwise_leaves_nothing(tiny_run, tmp_path, monkeypatch):
    def differs(expected, answers, name):
        return check.compare(expected, {**expected, "flow": expected["flow"] + 0.01}, name)

    monkeypatch.setattr(saved_model, "compare_signatures", differs)
    with pytest.raises(ValueError, match="served/1: the export does not answer"):
        saved_model.export(runs.load_run(tiny_run), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_each_signature_is_held_to_the_network(run, trained_run, signatures):
    pair = check.sample_pair(trained_run)
    expected = run.model.predict_on_batch(pair)
    answers = saved_model.ask_signatures(signatures, pair)
    assert "100.000 %" in check.compare_signatures(expected, answers, "served")
    for name in answers:
        outputs = dict(answers[name])
        if name == "predict_png":
            wrong = encode_kitti_flow(expected["flow"][0] + 0.1)
            outputs["flow_bytes"] = np.array([wrong], object)
        else:
            outputs["flow"] = outputs["flow"] + np.float16(0.1)
        named = "served:" if name == "serving_default" else f"served, {name}:"
        with pytest.raises(ValueError, match=named):
            check.compare_signatures(expected, {**answers, name: outputs}, "served")


def test_a_new_version_of_the_network_of_the_package_on_its_real_pair(served, tmp_path):
    folder = tmp_path / "served"
    shutil.copytree(served, folder)
    (folder / "2").mkdir()
    (folder / "2/old").touch()
    told = saved_model.export(runs.load_run(None, "pretrained"), folder, overwrite=True, version=2)
    assert "of labels equal" in told
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["1", "2", "batching.config", "models.config"]
    assert not (folder / "2/old").exists()
    extra = json.loads((folder / "2/assets.extra/metadata.json").read_text())
    assert extra["training_flags"] == [] and len(extra["label_set"]["names"]) == 19
    assert extra["model_version"] == 2
