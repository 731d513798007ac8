"""The server of Ray Serve, driven by real HTTP as a user starts and stops it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from export import client
from export.serving.batching import Network
from flowseg import runs
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
    """(process, port) of a server that answers."""
    port = free_port()
    command = [sys.executable, "-m", "export.serve", "--model", str(served), "--port", str(port)]
    process = subprocess.Popen(
        [*command, *map(str, flags)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ray ends a dead server's whole group.
        start_new_session=True,
    )
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/v1/models/flowseg answers" in line, line
    return process, port


def end(process):
    """Stop a server as a service manager does; what it said."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=120)[0]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def server(served):
    """Port of a small server: a body of 1 MB, a batch of 2, 4 in the queue."""
    process, port = start(served, "--max_request_mb", 1, "--max_batch", 2, "--queue", 4)
    yield port
    assert end(process) == "stopped: all that was begun is answered\n"
    assert process.returncode == 0


def call(port, method, path, body=None, **more):
    """(status, body as JSON or bytes) of one request."""
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
    status, told = call(server, "GET", "/v1/models/flowseg")
    assert status == 200 and told["model_version_status"][0]["state"] == "AVAILABLE"
    assert call(server, "GET", "/v1/models/flowseg/versions/1")[0] == 200
    status, told = call(server, "GET", "/v1/models/flowseg/metadata")
    signatures = told["metadata"]["signature_def"]["signature_def"]
    image = signatures["serving_default"]["inputs"]["image1"]
    assert image["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "3"]
    assert set(signatures) == set(Network(served).signatures)
    assert call(server, "GET", "/-/healthz")[0] == 200


def test_wrong_paths_and_methods(server):
    for path in ("/", "/v1/models/other", "/v1/models/flowseg:classify", "/v1/models/flowseg/2"):
        status, told = call(server, "GET", path)
        assert status == 404 and "no such path" in told["error"]
    assert call(server, "GET", PREDICT)[0] == 405
    assert call(server, "POST", "/v1/models/flowseg", "{}")[0] == 405


def test_client_gets_what_the_network_answers(server, trained_run, tmp_path):
    pair = [trained_run / name for name in runs.SAMPLE.values()]
    given = ("--image1", pair[0], "--image2", pair[1], "--output", tmp_path)
    run_command("export.client", "--server", f"http://127.0.0.1:{server}", *given)
    seg, _ = runs.load_run(trained_run).predict(*map(read_image, pair))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "seg.png"), -1), seg)


def test_many_at_once_each_get_their_own_answer(server, served):
    network = Network(served)
    wrong = []

    def ask(seed):
        frames, body = labels_request((32, 64), seed)
        while (answer := call(server, "POST", PREDICT, body))[0] == 503:
            time.sleep(0.05)
        inputs = {"image1": frames[:1], "image2": frames[1:]}
        expected = network.answer("predict_labels", inputs)["labels"][0]
        if answer[0] != 200 or np.mean(answer[1]["predictions"][0]["labels"] != expected) > 1e-3:
            wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_full_queue_refuses_and_the_rest_is_answered(server):
    _, body = labels_request((96, 256))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(call(server, "POST", PREDICT, body)[0]))
        for _ in range(30)
    ]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert len(found) == 30 and set(found) == {200, 503}
    assert call(server, "GET", "/v1/models/flowseg")[0] == 200


def test_every_bad_body_gets_a_4xx_and_the_server_lives(server, served):
    inputs = {name: tuple(specs) for name, specs in Network(served).signatures.items()}
    kinds = dict(bad_bodies(inputs))
    assert len(kinds) >= 200
    for kind, data in kinds.items():
        status, told = call(server, "POST", PREDICT, data)
        assert 400 <= status < 500 and told["error"], f"{kind}: {status} {told}"
    frames, body = labels_request((32, 32))
    assert call(server, "POST", PREDICT, body)[0] == 200


def test_load_is_all_answered(server, served):
    small = ("--height", 32, "--width", 64, "--requests", 20, "--clients", 4)
    url = f"http://127.0.0.1:{server}"
    told = run_command(
        "experiments.exports.serve_load", "--model", served, "--server", url, *small
    ).stdout
    assert "not answered: none" in told
    assert ["server", "20"] in [row[:2] for row in markdown.rows(told)]
    told = run_command(
        "experiments.exports.serve_load", "--model", served, "--server", url, *small, "--pictures"
    ).stdout
    assert "not answered: none" in told
    assert ["the network alone", "20"] in [row[:2] for row in markdown.rows(told)]


def test_bodies_too_large_with_and_without_a_length(server):
    status, told = call(server, "POST", PREDICT, b"[" + b"0," * 2**19 + b"0]")
    assert status == 413 and "--max_request_mb" in told["error"]
    pieces = (b" " * 2**16 for _ in range(24))
    assert call(server, "POST", PREDICT, pieces, encode_chunked=True)[0] == 413


def test_clients_that_break_off_or_talk_nonsense(server):
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


def test_a_stopped_server_finishes_what_it_has_begun_with_two_replicas(served):
    replicas = min(2, os.cpu_count())
    process, port = start(served, "--replicas", replicas)
    _, body = labels_request((400, 1200))
    found = []
    thread = threading.Thread(target=lambda: found.append(call(port, "POST", PREDICT, body)[0]))
    thread.start()
    # The body has arrived, its answer takes seconds.
    time.sleep(1.5)
    assert not found
    assert "stopped: all that was begun is answered" in end(process)
    thread.join(60)
    assert found == [200]
    with pytest.raises(ValueError, match="is a server running there"):
        client.ask(f"http://127.0.0.1:{port}", "metadata", [""])


def test_what_cannot_be_served_is_told_in_one_line(served, tmp_path):
    refused = run_command("export.serve", "--model", tmp_path, ok=False)
    assert "no model here; write one" in refused.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_command("export.serve", "--model", served, "--port", port, ok=False)
        assert f"127.0.0.1:{port} cannot be had" in refused.stderr
    many = ("--model", served, "--port", free_port(), "--replicas", 1000)
    assert "one a replica at least" in run_command("export.serve", *many, ok=False).stderr
    (tmp_path / "1").mkdir()
    (tmp_path / "1/saved_model.pb").write_bytes(b"damaged")
    damaged = ("--model", tmp_path, "--port", free_port())
    assert "damaged, or no SavedModel" in run_command("export.serve", *damaged, ok=False).stderr
