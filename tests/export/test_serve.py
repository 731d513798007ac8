"""The Ray Serve server over real HTTP, started and stopped as by a user."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from export import client, serve
from export.serving.batching import Network
from flowseg import memory, runs
from flowseg.media.frames import read_image
from tests.conftest import ROOT, run_command
from tests.support import markdown
from tests.support.bad_bodies import bad_bodies

pytestmark = pytest.mark.ray
PREDICT = "/v1/models/flowseg:predict"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(served, *flags):
    """Start a server; return its process and port when it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "export.serve", "--model", str(served), "--port", str(port)]
    process = subprocess.Popen(
        [*command, *map(str, flags)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ray kills the process group of a dead server.
        start_new_session=True,
    )
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/v1/models/flowseg is ready" in line, line
    return process, port


def end(process):
    """Stop a server as a service manager does; return its output."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=120)[0]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def server(served):
    """Port of a server with small limits: bodies of 1 MB, batches of 2, a queue of 4."""
    process, port = start(served, "--max_request_mb", 1, "--max_batch", 2, "--queue", 4)
    yield port
    assert end(process) == "stopped: all accepted requests were answered\n"
    assert process.returncode == 0


def call(port, method, path, body=None, **more):
    """Send one request; return its status and its body as JSON or bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, **more)
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(data)
    except ValueError:
        return response.status, data


def labels_request(size, seed=0):
    frames = np.random.default_rng(seed).integers(0, 256, (2, *size, 3), np.uint8)
    row = dict(zip(("image1", "image2"), frames.tolist(), strict=True))
    return frames, json.dumps({"signature_name": "predict_labels", "instances": [row]})


def test_status_metadata_and_health(server, served):
    status, content = call(server, "GET", "/v1/models/flowseg")
    assert status == 200 and content["model_version_status"][0]["state"] == "AVAILABLE"
    assert call(server, "GET", "/v1/models/flowseg/versions/1")[0] == 200
    status, content = call(server, "GET", "/v1/models/flowseg/metadata")
    signatures = content["metadata"]["signature_def"]["signature_def"]
    image = signatures["serving_default"]["inputs"]["image1"]
    assert image["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "3"]
    assert set(signatures) == set(Network(served).signatures)
    assert call(server, "GET", "/-/healthz")[0] == 200


def test_wrong_paths_and_methods(server):
    for path in ("/", "/v1/models/other", "/v1/models/flowseg:classify", "/v1/models/flowseg/2"):
        status, content = call(server, "GET", path)
        assert status == 404 and "no such path" in content["error"]
    assert call(server, "GET", PREDICT)[0] == 405
    assert call(server, "POST", "/v1/models/flowseg", "{}")[0] == 405


def test_client_gets_the_predictions_of_the_network(server, trained_run, tmp_path):
    pair = [trained_run / name for name in runs.SAMPLE.values()]
    arguments = ("--image1", pair[0], "--image2", pair[1], "--output", tmp_path)
    run_command("export.client", "--server", f"http://127.0.0.1:{server}", *arguments)
    seg, _ = runs.load_run(trained_run).predict(*map(read_image, pair))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "seg.png"), -1), seg)


def test_concurrent_requests_get_their_own_results(server, served):
    network = Network(served)
    wrong = []

    def request(seed):
        frames, body = labels_request((32, 64), seed)
        while (reply := call(server, "POST", PREDICT, body))[0] == 503:
            time.sleep(0.05)
        inputs = {"image1": frames[:1], "image2": frames[1:]}
        expected = network.predict("predict_labels", inputs)["labels"][0]
        if reply[0] != 200 or np.mean(reply[1]["predictions"][0]["labels"] != expected) > 1e-3:
            wrong.append(seed)

    threads = [threading.Thread(target=request, args=(seed,)) for seed in range(12)]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_full_queue_rejects_requests_and_serves_the_rest(server):
    _, body = labels_request((96, 256))
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(call(server, "POST", PREDICT, body)[0]))
        for _ in range(30)
    ]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert len(statuses) == 30 and set(statuses) == {200, 503}
    assert call(server, "GET", "/v1/models/flowseg")[0] == 200


def test_bad_bodies_get_4xx_and_the_server_survives(server, served):
    inputs = {name: tuple(specs) for name, specs in Network(served).signatures.items()}
    kinds = dict(bad_bodies(inputs))
    assert len(kinds) >= 200
    for kind, data in kinds.items():
        status, content = call(server, "POST", PREDICT, data)
        assert 400 <= status < 500 and content["error"], f"{kind}: {status} {content}"
    frames, body = labels_request((32, 32))
    assert call(server, "POST", PREDICT, body)[0] == 200


def test_load_test_gets_all_responses(server, served):
    small = ("--height", 32, "--width", 64, "--requests", 20, "--clients", 4)
    url = f"http://127.0.0.1:{server}"
    table = run_command(
        "experiments.exports.serve_load", "--model", served, "--server", url, *small
    ).stdout
    assert "not answered: none" in table
    assert ["server", "20"] in [row[:2] for row in markdown.rows(table)]
    table = run_command(
        "experiments.exports.serve_load", "--model", served, "--server", url, *small, "--pictures"
    ).stdout
    assert "not answered: none" in table
    assert ["the network alone", "20"] in [row[:2] for row in markdown.rows(table)]


def test_too_large_bodies_with_and_without_length(server):
    status, content = call(server, "POST", PREDICT, b"[" + b"0," * 2**19 + b"0]")
    assert status == 413 and "--max_request_mb" in content["error"]
    pieces = (b" " * 2**16 for _ in range(24))
    assert call(server, "POST", PREDICT, pieces, encode_chunked=True)[0] == 413


def test_broken_clients(server):
    for sent in (
        b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{",
        b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n{}",
        b"\x00\xff\x00\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"",
    ):
        with socket.create_connection(("127.0.0.1", server), timeout=60) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
    assert call(server, "GET", "/v1/models/flowseg")[0] == 200


def test_stopped_server_with_two_replicas_finishes_requests(served):
    replicas = min(2, os.cpu_count())
    process, port = start(served, "--replicas", replicas)
    _, body = labels_request((400, 1200))
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(call(port, "POST", PREDICT, body)[0]))
    thread.start()
    # The body has arrived, and the prediction takes seconds.
    time.sleep(1.5)
    assert not statuses
    assert "stopped: all accepted requests were answered" in end(process)
    thread.join(60)
    assert statuses == [200]
    with pytest.raises(ValueError, match="is a server running there"):
        client.call_signature(f"http://127.0.0.1:{port}", "metadata", [""])


def test_startup_errors_are_one_line(served, tmp_path):
    failed = run_command("export.serve", "--model", tmp_path, ok=False)
    assert "has no model; write one" in failed.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = run_command("export.serve", "--model", served, "--port", port, ok=False)
        assert f"127.0.0.1:{port} is not available" in failed.stderr
    many = ("--model", served, "--port", free_port(), "--replicas", 1000)
    assert "each needs a core" in run_command("export.serve", *many, ok=False).stderr
    (tmp_path / "1").mkdir()
    (tmp_path / "1/saved_model.pb").write_bytes(b"damaged")
    damaged = ("--model", tmp_path, "--port", free_port())
    assert "damaged, or not a SavedModel" in run_command("export.serve", *damaged, ok=False).stderr


def test_frames_larger_than_the_memory_are_answered_with_413(monkeypatch):
    image = np.zeros((1, 10, 20, 3), int).tolist()
    body = json.dumps({"inputs": {"image": image}}).encode()
    replica = object.__new__(serve.Replica)
    signatures = {"serving_default": {"image": (np.uint8, (None, None, None, 3))}}
    replica.network, replica.max_pixels = SimpleNamespace(signatures=signatures), 1000
    monkeypatch.setattr(memory, "available", lambda: 1e4)
    response = asyncio.run(replica._predict(body))
    assert response.status_code == 413
    assert "send smaller frames" in json.loads(response.body)["error"]
