"""Serve an exported SavedModel with Ray Serve, under TensorFlow Serving's REST paths.

python -m export.serve --model out/served

serves until Ctrl-C or SIGTERM, to this machine only unless --host is given:

GET  /v1/models/flowseg            readiness and version
GET  /v1/models/flowseg/metadata   signatures
POST /v1/models/flowseg:predict    {"signature_name": ..., "instances": [...]} or "inputs"
GET  /-/healthz                    health check

Requests with frames of the same size run as one batch. If the queue is full, requests are rejected
with status 503, bodies over --max_request_mb with 413, and invalid ones with 400 and the reason. On
shutdown the server finishes the requests it has accepted. With --ray_address the replicas are
distributed over the machines of a Ray cluster; all machines need the folder and this package under
the same paths.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from export.metadata import NAME
from flowseg import ray_cluster
from flowseg.errors import ArgumentError

# Time limits in seconds: for a client to send its body, and for a stopped server to finish.
BODY_TIMEOUT, STOP_TIMEOUT = 30, 120
_BASE = f"/v1/models/{NAME}"


class Replica:
    """One copy of the network and its HTTP handlers; Ray creates the configured number of them."""

    def __init__(self, folder: str, threads: int, max_batch: int, max_bytes: int, max_pixels: int):
        import tensorflow as tf
        from ray import serve

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        from export.serving.batching import Network

        self.network = Network(folder)
        # Large lists of JSON numbers trigger garbage collections that scan all of TensorFlow's
        # objects, which made parsing take five times as long.
        gc.freeze()
        self.max_bytes = max_bytes
        self.max_pixels = max_pixels
        self.batched = serve.batch(max_batch_size=max_batch, batch_wait_timeout_s=0.005)(
            self.run_batch
        )

    async def run_batch(self, requests):
        """Return the outputs or the ValueError of each request in a list gathered by Ray."""
        return await asyncio.to_thread(self.network.run_batch, requests)

    async def check_health(self):
        """Run a request; Ray replaces a replica in which this raises or does not return."""
        await asyncio.to_thread(self.network.predict, "metadata", {"key": [b"name"]})

    async def __call__(self, request):
        """Handle one HTTP request."""
        path = request.url.path.replace(f"/versions/{self.network.version}", "")
        if path not in (_BASE, f"{_BASE}/metadata", f"{_BASE}:predict"):
            return _refuse(404, f"no such path; this server has {_BASE}[/metadata|:predict]")
        method = "POST" if path.endswith(":predict") else "GET"
        if request.method != method:
            return _refuse(405, f"{path} needs the method {method}", {"Allow": method})
        if method == "GET":
            content = self.network.metadata if path.endswith("metadata") else self.network.status
            return _respond(200, content)
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await self._body(request)
        except TimeoutError:
            return _refuse(408, f"the body did not arrive within {BODY_TIMEOUT} s")
        if body is None:
            return _refuse(413, f"the body is over {self.max_bytes} bytes; see --max_request_mb")
        return await self._predict(body)

    async def _body(self, request):
        """Return the bytes of a request's body; None if it is too large."""
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.max_bytes:
            return None
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.max_bytes:
                return None
            parts.append(part)
        return b"".join(parts)

    async def _predict(self, body):
        from export.serving import rest

        try:
            signatures = self.network.signatures
            request = await asyncio.to_thread(rest.read, body, signatures, self.max_pixels)
        except rest.TooLarge as error:
            return _refuse(413, error)
        except ValueError as error:
            return _refuse(400, error)
        result = await self.batched(request)
        if isinstance(result, ValueError):
            return _refuse(400, result)
        return _respond(200, await asyncio.to_thread(rest.write, result, request.rows))


def _respond(status, content, headers=None):
    from starlette.responses import JSONResponse, Response

    if isinstance(content, bytes):
        return Response(content, status, headers, "application/json")
    return JSONResponse(content, status, headers)


def _refuse(status, text, headers=None):
    from export.serving import rest

    return _respond(status, rest.error(text), headers)


def start(
    folder: Path | str,
    host: str,
    port: int,
    replicas: int = 1,
    max_batch: int = 8,
    queue: int = 64,
    max_mb: int = 32,
    max_pixels: int = 8_000_000,
    address: str | None = None,
) -> None:
    """Start serving; returns when the server is ready for requests.

    Args:
        folder: folder written by `export.saved_model`.
        host: address to listen on; 0.0.0.0 listens on all.
        port: port to listen on.
        replicas: number of copies of the network.
        max_batch: maximum number of requests per batch.
        queue: maximum number of requests that wait, in addition to the running ones.
        max_mb: maximum size of a body.
        max_pixels: maximum number of pixels of all frames of one input.
        address: address of a running Ray cluster; None starts one on this machine only.

    Raises:
        ValueError: Ray is not installed, the port is taken, the folder has no model, or there are
            fewer cores than replicas.
    """
    from export.serving.batching import newest

    newest(folder)
    _check_port(host, port)
    ray = ray_cluster.connect(address, "ray.serve", "serve")
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # The import sets another level.
    cores = int(ray.cluster_resources().get("CPU", 0))
    if replicas > cores:
        raise ArgumentError(
            f"replicas {replicas}: each needs a core, and there are {cores}", "replicas"
        )
    options = {"host": host, "port": port, "request_timeout_s": 300}
    serve.start(http_options=options, logging_config={"log_level": "ERROR"})
    arguments = (os.path.abspath(folder), max(1, cores // replicas), max_batch)
    try:
        serve.run(
            _deployment(replicas, max_batch, queue).bind(*arguments, max_mb * 2**20, max_pixels),
            name=NAME,
        )
    except RuntimeError as error:
        status = serve.status().applications[NAME]
        messages = [d.message for d in status.deployments.values()] or [str(error)]
        raise ValueError(
            f"{folder}: cannot be served: {messages[0].strip().splitlines()[-1]}"
        ) from error


def _deployment(replicas, max_batch, queue):
    """Build the Ray Serve deployment of `Replica`."""
    from ray import serve

    return serve.deployment(
        Replica,
        name=NAME,
        num_replicas=replicas,
        # One running batch and one batch that is being collected.
        max_ongoing_requests=2 * max_batch,
        max_queued_requests=queue,
        graceful_shutdown_timeout_s=STOP_TIMEOUT,
        graceful_shutdown_wait_loop_s=0.2,
        max_constructor_retry_count=1,
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )


def _check_port(host, port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ArgumentError(
                f"{host}:{port} is not available ({error}); choose another: port", "port"
            ) from error


def check() -> None:
    """Raise ValueError if Ray, and with it the server, has died."""
    from ray import serve

    try:
        serve.status()
    except Exception as error:  # The type depends on which of Ray's processes died.
        raise ValueError(
            f"Ray has died ({error}), and the server with it; start it again"
        ) from error


def finish() -> None:
    """Finish the accepted requests and reject new ones."""
    from ray import serve

    serve.delete(NAME)


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("model", None, "Folder written by export.saved_model.", required=True)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all addresses.")
    flags.DEFINE_integer(
        "port", 8501, "Port to listen on; default: that of TensorFlow Serving.", 1, 65535
    )
    flags.DEFINE_integer("replicas", 1, "Copies of the network; they share the cores.", 1)
    flags.DEFINE_integer("max_batch", 8, "Maximum number of requests per batch.", 1)
    flags.DEFINE_integer("queue", 64, "Maximum number of waiting requests; others get 503.", 1)
    flags.DEFINE_integer("max_request_mb", 32, "Maximum size of a body; larger ones get 413.", 1)
    flags.DEFINE_float(
        "max_megapixels", 8, "Maximum total size of a request's first frames.", 0.001
    )
    flags.DEFINE_string("ray_address", None, "Address of a Ray cluster; default: none.")


def main():
    """Serve until a signal arrives."""
    args = flags.FLAGS
    begin = time.monotonic()
    try:
        start(
            args.model,
            args.host,
            args.port,
            replicas=args.replicas,
            max_batch=args.max_batch,
            queue=args.queue,
            max_mb=args.max_request_mb,
            max_pixels=int(args.max_megapixels * 1e6),
            address=args.ray_address,
        )
        stopping = threading.Event()
        # Set after Ray has started, because Ray installs a handler that prints a stack trace.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        seconds = time.monotonic() - begin
        url = f"http://{args.host}:{args.port}{_BASE}"
        print(f"{url} is ready (after {seconds:.0f} s); Ctrl-C stops it", flush=True)
        while not stopping.wait(5):
            check()
        finish()
    finally:
        ray = sys.modules.get("ray")
        if ray:
            ray.shutdown()
    print("stopped: all accepted requests were answered", flush=True)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
