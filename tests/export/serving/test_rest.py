"""TensorFlow Serving's REST API on the exported folder, without a server."""

import base64
import contextlib
import http.server
import json
import threading

import cv2
import numpy as np
import pytest

from export import client, saved_model_extras
from export.serving import rest
from export.serving.batching import Network, newest
from flowseg import memory, runs
from flowseg.data.flow_io import decode_kitti_flow
from flowseg.media import drawing
from flowseg.media.frames import read_image
from tests.conftest import run_command
from tests.support.bad_bodies import bad_bodies

PIXELS = 100_000


@pytest.fixture(scope="module")
def network(served):
    return Network(served)


def frames(count=1, size=(40, 56), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (2, count, *size, 3), np.uint8)


def body(signature, **given):
    return json.dumps({"signature_name": signature, **given}).encode()


def respond(network, data):
    """Handle a request as a server does: return the JSON of the response, or raise."""
    request = rest.read(data, network.signatures, PIXELS)
    (result,) = network.run_batch([request])
    if isinstance(result, ValueError):
        raise result
    return json.loads(rest.write(result, request.rows))


def b64(image):
    return {"b64": base64.b64encode(saved_model_extras.png(image)).decode()}


def test_rows_and_columns(network):
    image1, image2 = frames(2)
    expected = network.predict("predict_labels", {"image1": image1, "image2": image2})
    rows = [
        {"image1": a.tolist(), "image2": b.tolist()} for a, b in zip(image1, image2, strict=True)
    ]
    predictions = respond(network, body("predict_labels", instances=rows))["predictions"]
    columns = {"image1": image1.tolist(), "image2": image2.tolist()}
    outputs = respond(network, body("predict_labels", inputs=columns))["outputs"]
    for key, kind in (("labels", np.uint8), ("flow", np.float16)):
        np.testing.assert_array_equal(kind([row[key] for row in predictions]), expected[key])
        np.testing.assert_array_equal(kind(outputs[key]), expected[key])
    default = respond(network, json.dumps({"inputs": columns}).encode())["outputs"]
    assert np.shape(default["seg"]) == (2, 40, 56, 19)


def test_every_float16_round_trips():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = np.append(halves[~np.isnan(halves)], np.float16("nan"))
    values = json.loads(rest.write({"flow": halves}, rows=False))["outputs"]
    np.testing.assert_array_equal(np.float16(values), halves)


def test_single_input_or_output_needs_no_name(network):
    expected = {"predictions": ['"flowseg"']}
    assert respond(network, body("metadata", instances=["name"])) == expected
    assert respond(network, body("metadata", instances=[{"key": "name"}])) == expected
    key = {"b64": base64.b64encode(b"name").decode()}
    assert respond(network, body("metadata", inputs=[key])) == {"outputs": ['"flowseg"']}
    image = frames()[0].tolist()
    assert respond(network, body("encode", inputs=image))["outputs"]["size"] == [[40, 56]]


def test_encode_and_decode_over_json(network):
    image1, image2 = frames()
    inputs = {}
    for frame, image in (("frame1", image1), ("frame2", image2)):
        features = respond(network, body("encode", instances=image.tolist()))["predictions"][0]
        size = features.pop("size")
        inputs |= {f"{frame}_{key}": value for key, value in features.items()}
    row = respond(network, body("decode", instances=[{**inputs, "size": size}]))["predictions"][0]
    expected = network.predict("serving_uint8", {"image1": image1, "image2": image2})
    np.testing.assert_array_equal(np.float32(row["flow"]), expected["flow"][0])


def test_images_as_scalar_or_list(network):
    image1, image2 = frames(2)
    expected = network.predict("predict_labels", {"image1": image1, "image2": image2})["labels"]
    many = {"image1_bytes": [*map(b64, image1)], "image2_bytes": [*map(b64, image2)]}
    pngs = respond(network, body("predict_png", inputs=many))["outputs"]["labels_bytes"]
    row = {key: values[0] for key, values in many.items()}
    pngs += respond(network, body("predict_png", instances=[row]))["predictions"][0].popitem()[1:]
    single = respond(network, body("predict_png", inputs=row))["outputs"]["labels_bytes"]
    decoded = [
        cv2.imdecode(np.frombuffer(base64.b64decode(x["b64"]), np.uint8), cv2.IMREAD_UNCHANGED)
        for x in (*pngs[:2], *single)
    ]
    for decoded_labels, labels in zip(decoded, (*expected, expected[0]), strict=True):
        np.testing.assert_array_equal(decoded_labels, labels)


def test_equal_sizes_share_a_batch_and_bad_requests_fail_alone(network, monkeypatch):
    batches = []
    predict = network.predict

    def counted(signature, inputs):
        batches.append(len(next(iter(inputs.values()))))
        return predict(signature, inputs)

    pairs = [frames(1, (40, 56), 1), frames(2, (40, 56), 2), frames(1, (32, 32), 3)]
    requests = [rest.Request("predict_labels", True, {"image1": a, "image2": b}) for a, b in pairs]
    expected = [predict(request.signature, request.inputs) for request in requests]
    monkeypatch.setattr(network, "predict", counted)
    results = network.run_batch(requests)
    assert batches == [3, 1]
    for result, expected_result in zip(results, expected, strict=True):
        assert (result["labels"] == expected_result["labels"]).mean() > 0.999
        np.testing.assert_allclose(result["flow"], expected_result["flow"], atol=0.02)
    # Damaged after its header, the only part that is checked on arrival.
    good, bad = (
        saved_model_extras.png(pairs[0][0][0]),
        saved_model_extras.png(pairs[0][1][0])[:-2000],
    )
    texts = [{k: {"b64": base64.b64encode(x).decode()} for k in ("image1_bytes", "image2_bytes")}
             for x in (good, bad, good)]  # fmt: skip
    read = [
        rest.read(body("predict_png", instances=[text]), network.signatures, PIXELS)
        for text in texts
    ]
    first, second, third = network.run_batch(read)
    assert isinstance(second, ValueError)
    assert first["labels_bytes"][0] == third["labels_bytes"][0]


def test_too_many_pixels_raise_before_decoding(network):
    large = b64(np.zeros((400, 400, 3), np.uint8))
    with pytest.raises(ValueError, match="160000 pixels; this server accepts 100000"):
        respond(network, body("predict_png", inputs={"image1_bytes": large, "image2_bytes": large}))


def test_frames_larger_than_the_memory_raise(monkeypatch):
    signatures = {"predict_labels": {key: (np.uint8, (None, None, None, 3)) for key in ("a", "b")}}
    images = {key: np.zeros((2, 10, 20, 3), int).tolist() for key in ("a", "b")}
    request = body("predict_labels", inputs=images)
    monkeypatch.setattr(memory, "available", lambda: 1e5)
    with pytest.raises(rest.TooLarge) as caught:
        rest.read(request, signatures, PIXELS)
    assert str(caught.value) == (
        "a: a prediction of 400 pixels needs about 0.0 GB of memory, but 0.0 GB is available: "
        "send smaller frames"
    )
    monkeypatch.setattr(memory, "available", lambda: 2e5)
    assert rest.read(request, signatures, PIXELS).batch == 2


def test_bad_bodies_raise_with_a_one_line_message(network):
    inputs = {name: tuple(specs) for name, specs in network.signatures.items()}
    kinds = dict(bad_bodies(inputs))
    assert len(kinds) >= 200
    for kind, data in kinds.items():
        with pytest.raises(ValueError) as error:
            pytest.fail(f"{kind}: accepted {respond(network, data)}")
        message = json.loads(rest.error(error.value))["error"]
        assert message and "\n" not in message and len(message) < 500, kind


@contextlib.contextmanager
def small_server(network):
    """Run a single-threaded HTTP server with the same functions; yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                code, content = 200, json.dumps(respond(network, data)).encode()
            except ValueError as error:
                code, content = 400, rest.error(error)
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_client_command_draws_the_predictions(network, trained_run, tmp_path):
    pair = [trained_run / name for name in runs.SAMPLE.values()]
    arguments = ("--image1", pair[0], "--image2", pair[1], "--output", tmp_path / "out")
    with small_server(network) as url:
        stdout = run_command("export.client", "--server", url, *arguments).stdout
        with pytest.raises(ValueError, match="HTTP status 400: signature_name: one of decode"):
            client.call_signature(url, "none", [1])
    assert "median motion" in stdout
    run = runs.load_run(trained_run)
    seg, flow = run.predict(*map(read_image, pair))
    written = cv2.imread(str(tmp_path / "out/seg.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, seg)
    written_flow = decode_kitti_flow((tmp_path / "out/flow.png").read_bytes())
    np.testing.assert_allclose(written_flow[..., :2], flow, atol=1 / 64)
    color = read_image(tmp_path / "out/seg_color.png")
    np.testing.assert_array_equal(color, drawing.color_labels(seg, run.label_set))
    assert read_image(tmp_path / "out/flow_color.png").shape == color.shape


def test_client_needs_no_tensorflow(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, export.client; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_client_without_a_server(trained_run, tmp_path):
    pair = [trained_run / name for name in runs.SAMPLE.values()]
    arguments = ("--image1", pair[0], "--image2", pair[1], "--output", tmp_path / "out")
    failed = run_command("export.client", "--server", "http://127.0.0.1:9", *arguments, ok=False)
    assert "is a server running there?" in failed.stderr
    assert not (tmp_path / "out").exists()


def test_folders_without_a_model(tmp_path):
    with pytest.raises(ValueError, match="has no model; write one"):
        newest(tmp_path)
    (tmp_path / "3").mkdir()
    (tmp_path / "3/saved_model.pb").write_bytes(b"damaged")
    assert newest(tmp_path) == 3
    with pytest.raises(ValueError, match="3: damaged, or not a SavedModel"):
        Network(tmp_path)
