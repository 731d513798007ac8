"""SavedModel export: outputs of each signature, the other files in the folder, and errors."""

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
    # The signatures are valid only while the loaded object exists.
    loaded = tf.saved_model.load(str(served / "1"))
    yield loaded.signatures


def frames(shape=(3, 50, 81, 3), seed=0):
    """A uint8 pair that differs in size and batch from the one that the export was checked on."""
    rng = np.random.default_rng(seed)
    return {key: rng.integers(0, 256, shape, np.uint8) for key in ("image1", "image2")}


def test_default_signature_takes_any_batch_and_size(run, signatures):
    inputs = signatures["serving_default"].structured_input_signature[1]
    assert {k: (tuple(v.shape), v.dtype) for k, v in inputs.items()} == dict.fromkeys(
        ("image1", "image2"), ((None, None, None, 3), tf.float32)
    )
    pair = frames()
    floats = {key: np.float32(image) for key, image in pair.items()}
    expected = run.model.predict_on_batch(floats)
    outputs = saved_model.call_signature(signatures["serving_default"], floats)
    for key in ("seg", "flow"):
        np.testing.assert_allclose(outputs[key], expected[key], atol=2e-3)
    from_uint8 = saved_model.call_signature(signatures["serving_uint8"], pair)
    for key in ("seg", "flow"):
        np.testing.assert_array_equal(from_uint8[key], outputs[key])
    swapped = saved_model.call_signature(
        signatures["serving_uint8"], {"image1": pair["image2"], "image2": pair["image1"]}
    )
    assert np.abs(swapped["flow"] - outputs["flow"]).max() > 0.05


@pytest.mark.parametrize("shape", [(1, 64, 96, 3), (2, 50, 81, 3)])
def test_encode_and_decode_equal_the_pair(signatures, shape):
    pair = frames(shape)
    expected = saved_model.call_signature(signatures["serving_uint8"], pair)
    inputs = saved_model_extras.decode_inputs(signatures["encode"], pair)
    assert inputs["size"].tolist() == [list(shape[1:3])] * shape[0]
    outputs = saved_model.call_signature(signatures["decode"], inputs)
    for key in ("seg", "flow"):
        assert outputs[key].shape[:3] == shape[:3]
        np.testing.assert_array_equal(outputs[key], expected[key])
    # The frames of these features are 32 rows smaller.
    wrong = {**inputs, "size": inputs["size"] + np.int32([32, 0])}
    with pytest.raises(tf.errors.InvalidArgumentError, match="size must be equal across the batch"):
        saved_model.call_signature(signatures["decode"], wrong)


def test_labels_and_half_precision_flow(signatures):
    pair = frames()
    expected = saved_model.call_signature(signatures["serving_uint8"], pair)
    outputs = saved_model.call_signature(signatures["predict_labels"], pair)
    assert outputs["labels"].dtype == np.uint8 and outputs["flow"].dtype == np.float16
    np.testing.assert_array_equal(outputs["labels"], expected["seg"].argmax(-1))
    np.testing.assert_array_equal(outputs["flow"], expected["flow"].astype(np.float16))
    pair["image2"] = pair["image2"][:, 1:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same batch, height"):
        saved_model.call_signature(signatures["predict_labels"], pair)


def test_predict_png(signatures):
    pair = frames()
    expected = saved_model.call_signature(signatures["serving_uint8"], pair)
    signature = signatures["predict_png"]
    encoded = {
        f"{key}_bytes": [saved_model_extras.png(x) for x in images] for key, images in pair.items()
    }
    outputs = saved_model.call_signature(signature, encoded)
    for k in range(3):
        data = np.frombuffer(outputs["labels_bytes"][k], np.uint8)
        labels_of_k = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels_of_k, expected["seg"][k].argmax(-1))
        expected_bytes = encode_kitti_flow(expected["flow"][k])
        flows = (decode_kitti_flow(data) for data in (outputs["flow_bytes"][k], expected_bytes))
        np.testing.assert_array_equal(*flows)
    single = saved_model.call_signature(
        signature, {key: pictures[0] for key, pictures in encoded.items()}
    )
    assert single["labels_bytes"].shape == (1,)
    jpeg = {
        f"{key}_bytes": cv2.imencode(".jpg", images[0])[1].tobytes() for key, images in pair.items()
    }
    assert saved_model.call_signature(signature, jpeg)["flow_bytes"].shape == (1,)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image is neither PNG nor JPEG"):
        saved_model.call_signature(signature, {**encoded, "image1_bytes": [b"no picture"] * 3})


def test_flow_out_of_range_is_unknown_as_in_written_files():
    from export.signatures import _kitti_pixels

    rng = np.random.default_rng(0)
    flow = rng.uniform(-600, 600, (1, 40, 50, 2)).astype(np.float32)
    edges = [np.nan, np.inf, -512, -512.01, 511.98, 511.99, 511.995, 1 / 128, 3 / 128, -1 / 128]
    flow[0, 0, :10, 0] = edges
    flow[0, 0, :10, 1] = 0
    pixels = _kitti_pixels(tf.constant(flow)).numpy()[0]
    png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    expected_bytes = encode_kitti_flow(flow[0])
    np.testing.assert_array_equal(decode_kitti_flow(png), decode_kitti_flow(expected_bytes))
    assert 0 < decode_kitti_flow(png)[..., 2].mean() < 1


def test_metadata_in_file_and_signature(trained_run, run, served, signatures):
    metadata = json.loads((served / "1/assets.extra/metadata.json").read_text())
    assert labels.from_dict(metadata["label_set"]) == run.label_set
    assert metadata["training_flags"] == (trained_run / "flags.txt").read_text().splitlines()
    assert metadata["model_version"] == 1 and metadata["units"]["flow"].startswith("(right, down)")
    keys = tf.constant(["units", "", "label_set"])
    values = [json.loads(x) for x in signatures["metadata"](key=keys)["value"].numpy()]
    assert values == [metadata["units"], metadata, metadata["label_set"]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="key: one of name, flowseg"):
        signatures["metadata"](key=tf.constant(["colour"]))


def test_every_weight_is_written_once(run, served):
    data = next((served / "1/variables").glob("*.data-*"))
    assert 4 * run.model.count_params() <= data.stat().st_size < 4.1 * run.model.count_params()


def test_warmup_covers_every_signature(served, signatures):
    results = {
        name: saved_model.call_signature(signatures[name], inputs)
        for name, inputs in saved_model_extras.read_requests(served / "1")
    }
    assert set(results) == set(signatures)
    assert results["decode"]["seg"].shape[:3] == results["predict_labels"]["labels"].shape


def test_tensorflow_serving_parses_the_configuration(served):
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    text = (served / "models.config").read_text()
    model = text_format.Parse(text, ModelServerConfig()).model_config_list.config[0]
    assert (model.name, model.base_path) == ("flowseg", "/models/flowseg")


def test_existing_folders_are_not_replaced(run, served, tmp_path):
    with pytest.raises(ValueError, match="served/1: exists already; overwrite"):
        saved_model.export(run, served)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="mine: exists, and is not a folder of served models"):
        saved_model.export(run, tmp_path / "mine", overwrite=True)


def test_export_with_wrong_outputs_leaves_nothing(tiny_run, tmp_path, monkeypatch):
    def differs(expected, outputs, name):
        return check.compare(expected, {**expected, "flow": expected["flow"] + 0.01}, name)

    monkeypatch.setattr(saved_model, "compare_signatures", differs)
    with pytest.raises(ValueError, match="served/1: the export's outputs differ"):
        saved_model.export(runs.load_run(tiny_run), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_each_signature_is_compared_with_the_network(run, trained_run, signatures):
    pair = check.sample_pair(trained_run)
    expected = run.model.predict_on_batch(pair)
    results = saved_model.run_signatures(signatures, pair)
    assert "100.000 %" in check.compare_signatures(expected, results, "served")
    for name in results:
        outputs = dict(results[name])
        if name == "predict_png":
            wrong = encode_kitti_flow(expected["flow"][0] + 0.1)
            outputs["flow_bytes"] = np.array([wrong], object)
        else:
            outputs["flow"] = outputs["flow"] + np.float16(0.1)
        message = "served:" if name == "serving_default" else f"served, {name}:"
        with pytest.raises(ValueError, match=message):
            check.compare_signatures(expected, {**results, name: outputs}, "served")


def test_new_version_of_the_pretrained_network(served, tmp_path):
    folder = tmp_path / "served"
    shutil.copytree(served, folder)
    (folder / "2").mkdir()
    (folder / "2/old").touch()
    summary = saved_model.export(
        runs.load_run(None, "pretrained"), folder, overwrite=True, version=2
    )
    assert "of labels equal" in summary
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["1", "2", "batching.config", "models.config"]
    assert not (folder / "2/old").exists()
    metadata = json.loads((folder / "2/assets.extra/metadata.json").read_text())
    assert metadata["training_flags"] == [] and len(metadata["label_set"]["names"]) == 19
    assert metadata["model_version"] == 2
