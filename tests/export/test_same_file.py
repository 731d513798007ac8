"""One JPEG file gives the same labels in predict, records, the SavedModel and the server."""

import base64
import json

import cv2
import numpy as np
import pytest

from data_prep.conversion.frames import Frame, read_frame
from export import client, saved_model
from export.serving import rest
from export.serving.batching import Network
from flowseg import runs
from flowseg.data import decoding, images
from flowseg.data.labels import CITYSCAPES
from flowseg.data.records import make_example
from flowseg.media.pairs import read_pair
from flowseg.network.decoder import SEG_HEAD
from flowseg.network.model import parts
from tests.support.image_files import blobs, encode, marked_jpeg
from tests.support.made_files import save

PIXELS = 1_000_000


@pytest.fixture(scope="module")
def run(tiny_run):
    """The tiny network, whose biases are changed so that it predicts several classes."""
    run = runs.load_run(tiny_run)
    logits, _ = run.predict_logits(blobs(3, 96, 160), blobs(3, 96, 160, seed=1))
    layer = parts(run.model).decoder.get_layer(SEG_HEAD)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias - logits.mean((0, 1))])
    return run


@pytest.fixture(scope="module")
def network(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    saved_model.export(run, folder / "model")
    return Network(folder / "model")


@pytest.fixture
def pair(tmp_path):
    """Two JPEG files with subsampled colours."""
    half = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
    scenes = (blobs(3, 96, 160, seed=seed) for seed in (0, 1))
    noise = np.random.default_rng(0).integers(0, 40, (96, 160, 3), np.uint8)
    scenes = (np.clip(scene.astype(int) + noise, 0, 255).astype(np.uint8) for scene in scenes)
    return [save(tmp_path / f"{k}.jpg", encode(".jpg", x, *half)) for k, x in enumerate(scenes)]


def served_labels(network, contents):
    """Send the files to the REST API and return the labels."""
    inputs = {
        f"image{n}_bytes": {"b64": base64.b64encode(data).decode()}
        for n, data in enumerate(contents, 1)
    }
    body = json.dumps({"signature_name": "predict_png", "inputs": inputs}).encode()
    (result,) = network.run_batch([rest.read(body, network.signatures, PIXELS)])
    data = np.frombuffer(result["labels_bytes"][0], np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def test_same_labels(run, network, pair):
    contents = [path.read_bytes() for path in pair]
    predicted = run.predict(*pair)[0]
    fields, _ = read_frame(Frame("a", {"image1": pair[0], "image2": pair[1]}))
    assert [fields["image1"], fields["image2"]] == contents, "records keep the bytes"
    frame = decoding.frame_decoder(CITYSCAPES)(make_example(**fields, dataset="d"))
    recorded = [frame[key].numpy() for key in ("image1", "image2")]
    for image, path in zip(recorded, pair, strict=True):
        np.testing.assert_array_equal(image, images.read_image(path))
    encoded = {f"image{n}_bytes": [data] for n, data in enumerate(contents, 1)}
    exported = network.predict("predict_png", encoded)["labels_bytes"][0]
    others = {
        "records": run.predict(*recorded)[0],
        "SavedModel": cv2.imdecode(np.frombuffer(exported, np.uint8), cv2.IMREAD_UNCHANGED),
        "server": served_labels(network, contents),
    }
    assert len(np.unique(predicted)) > 1
    for name, labels in others.items():
        assert labels.shape == predicted.shape
        assert (labels == predicted).mean() >= 0.9999, name


def test_marked_files_are_refused_before_and_in_the_graph(run, network, pair):
    contents = [marked_jpeg(path.read_bytes(), 6) for path in pair]
    with pytest.raises(ValueError, match="image[12]_bytes: the image has EXIF orientation 6"):
        served_labels(network, contents)
    encoded = {f"image{n}_bytes": [data] for n, data in enumerate(contents, 1)}
    with pytest.raises(ValueError, match="image has an EXIF orientation, which TensorFlow ignores"):
        network.predict("predict_png", encoded)
    # The client rotates the pixels before it sends them.
    for path, data in zip(pair, contents, strict=True):
        path.write_bytes(data)
    sent = [client._png(image) for image in read_pair(*pair)]
    labels = served_labels(network, sent)
    expected = run.predict(*pair)[0]
    assert labels.shape == expected.shape == (160, 96)
    assert (labels == expected).mean() >= 0.9999


def test_16_bits_are_refused(network):
    sent = [encode(".png", blobs(3, high=4096, dtype=np.uint16))] * 2
    with pytest.raises(ValueError, match="image[12]_bytes: the image has 16 bits per value"):
        served_labels(network, sent)
    with pytest.raises(ValueError, match="image has 16 bits per value: convert it to 8 bits"):
        network.predict("predict_png", {f"image{n}_bytes": [x] for n, x in enumerate(sent, 1)})
