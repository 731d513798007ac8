"""Serve the folder of `export.saved_model` by Ray Serve, on TensorFlow Serving's REST paths.

python -m export.serve --model out/served

answers, to this machine alone unless --host says otherwise, until Ctrl-C or SIGTERM:

GET  /v1/models/flowseg            whether it is ready; the version
GET  /v1/models/flowseg/metadata   the signatures
POST /v1/models/flowseg:predict    {"signature_name": ..., "instances": [...]} or "inputs"
GET  /-/healthz                    whether the server lives

Requests whose frames are alike run as one batch. What does not fit into the queue is refused with
503, a body over --max_request_mb with 413, a bad one with 400 and a line that says why. A stopped
server finishes what it has begun. With --ray_address replicas spread over the machines of a Ray
cluster, on all of which the folder and this package lie in the same place.
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

# Seconds that a client may take to send its body, and a stopped server to finish.
BODY_TIMEOUT, STOP_TIMEOUT = 30, 120
_BASE = f"/v1/models/{NAME}"


class Replica:
    """One copy of the network, and the paths that it answers; Ray makes as many as it is told."""

    def __init__(self, folder: str, threads: int, max_batch: int, max_bytes: int, max_pixels: int):
        import tensorflow as tf
        from ray import serve

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        from export.serving.batching import Network

        self.network = Network(folder)
        # Lists of JSON's numbers make the collector look, again and again, at all of TensorFlow:
        # five times the time of reading them.
        gc.freeze()
        self.max_bytes = max_bytes
        self.max_pixels = max_pixels
        self.together = serve.batch(max_batch_size=max_batch, batch_wait_timeout_s=0.005)(
            self.answer_all
        )

    async def answer_all(self, requests):
        """Answers, or the ValueErrors, to a list of requests. Ray gathers the list."""
        return await asyncio.to_thread(self.network.answer_all, requests)

    async def check_health(self):
        """Ray replaces a replica in which this raises, or does not come back."""
        await asyncio.to_thread(self.network.answer, "metadata", {"key": [b"name"]})

    async def __call__(self, request):
        """One HTTP request."""
        path = request.url.path.replace(f"/versions/{self.network.version}", "")
        if path not in (_BASE, f"{_BASE}/metadata", f"{_BASE}:predict"):
            return _refuse(404, f"no such path; this server has {_BASE}[/metadata|:predict]")
        method = "POST" if path.endswith(":predict") else "GET"
        if request.method != method:
            return _refuse(405, f"{path} is asked by {method}", {"Allow": method})
        if method == "GET":
            told = self.network.metadata if path.endswith("metadata") else self.network.status
            return _respond(200, told)
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await self._body(request)
        except TimeoutError:
            return _refuse(408, f"the body did not arrive within {BODY_TIMEOUT} s")
        if body is None:
            return _refuse(413, f"the body is over {self.max_bytes} bytes; see --max_request_mb")
        return await self._predict(body)

    async def _body(self, request):
        """The bytes of a request's body; None if they are too many."""
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
        except ValueError as error:
            return _refuse(400, error)
        answer = await self.together(request)
        if isinstance(answer, ValueError):
            return _refuse(400, answer)
        return _respond(200, await asyncio.to_thread(rest.write, answer, request.rows))


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
    """Start serving; returns when the first request can be answered.

    Args:
        folder: of `export.saved_model`.
        host: of the machine itself that is listened at; 0.0.0.0 is all.
        port: likewise.
        replicas: copies of the network.
        max_batch: requests that run together.
        queue: requests that may wait beside those that run.
        max_mb: of a body.
        max_pixels: of one input's frames.
        address: of a running Ray cluster; None starts one of this machine alone.

    Raises:
        ValueError: Ray is missing, the port is taken, the folder holds no model, or there are not
            so many cores.
    """
    from export.serving.batching import newest

    newest(folder)
    _check_port(host, port)
    ray = ray_cluster.connect(address, "ray.serve", "serve")
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # Its import sets another one.
    cores = int(ray.cluster_resources().get("CPU", 0))
    if replicas > cores:
        raise ArgumentError(
            f"replicas {replicas}: there are {cores} cores, one a replica at least", "replicas"
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
        told = [d.message for d in status.deployments.values()] or [str(error)]
        raise ValueError(
            f"{folder}: cannot be served: {told[0].strip().splitlines()[-1]}"
        ) from error


def _deployment(replicas, max_batch, queue):
    """Copies of `Replica` as Ray Serve takes them."""
    from ray import serve

    return serve.deployment(
        Replica,
        name=NAME,
        num_replicas=replicas,
        # As many as run and as many as wait to join them.
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
                f"{host}:{port} cannot be had ({error}); name another: port", "port"
            ) from error


def check() -> None:
    """Raises ValueError if Ray has died, and with it the server."""
    from ray import serve

    try:
        serve.status()
    except Exception as error:  # Ray raises many, by which of its processes is gone.
        raise ValueError(f"Ray has died under the server ({error}); start it again") from error


def finish() -> None:
    """Answer what was begun, take nothing new."""
    from ray import serve

    serve.delete(NAME)


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("model", None, "Folder of export.saved_model.", required=True)
    flags.DEFINE_string("host", "127.0.0.1", "Where to listen; 0.0.0.0: wherever it is reached.")
    flags.DEFINE_integer(
        "port", 8501, "Likewise; TensorFlow Serving's own is the default.", 1, 65535
    )
    flags.DEFINE_integer("replicas", 1, "Copies of the network; they share the cores.", 1)
    flags.DEFINE_integer("max_batch", 8, "Requests that run as one batch, at most.", 1)
    flags.DEFINE_integer("queue", 64, "Requests that may wait; those beyond get 503.", 1)
    flags.DEFINE_integer("max_request_mb", 32, "Of a body; larger ones get 413.", 1)
    flags.DEFINE_float("max_megapixels", 8, "Of a request's first frames together.", 0.001)
    flags.DEFINE_string("ray_address", None, "Of a Ray cluster to run on; default: none.")


def main():
    """Serve until a signal."""
    args = flags.FLAGS
    begun = time.monotonic()
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
        ended = threading.Event()
        # Not before, as Ray has a handler of its own, which prints a stack.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        took = time.monotonic() - begun
        where = f"http://{args.host}:{args.port}{_BASE}"
        print(f"{where} answers (after {took:.0f} s); Ctrl-C ends it", flush=True)
        while not ended.wait(5):
            check()
        finish()
    finally:
        ray = sys.modules.get("ray")
        if ray:
            ray.shutdown()
    print("stopped: all that was begun is answered", flush=True)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
