"""Measure the requests per second of a server, compared with the bare network.

python -m export.serve --model out/served &
python -m experiments.exports.serve_load --model out/served

sends --requests of `predict_labels`, each a pair of --height x --width as JSON numbers, from
--clients concurrent clients, each with a separate connection. It prints how many requests were
answered, the median and the 99th percentile of the response time, and responses per second. Then,
while the server is idle, it runs the same model in this process, one pair after the other. Request
bodies are built before the clock starts; responses are parsed, as a user must. --pictures uses
`predict_png` instead, which takes and returns PNG files.
"""

import base64
import gc
import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from flowseg.cli import entry

# isort: split
from export.saved_model_extras import NAME, png
from export.serving.batching import Network
from flowseg import packaged, runs, tables
from flowseg.media.frames import read_image

# Different pairs, so that no response can come from a cache.
_PAIRS = 4


def pairs(height: int, width: int) -> list[list[np.ndarray]]:
    """Crops of the package's real frame pair, repeated where it is smaller: uint8 arrays."""
    frames = [read_image(packaged.NETWORKS["pretrained"] / name) for name in runs.SAMPLE.values()]
    crops = []
    for k in range(_PAIRS):
        rolled = [np.roll(frame, (-7 * k, -31 * k), (0, 1)) for frame in frames]
        rows, columns = (np.arange(n) for n in (height, width))
        crops.append([f.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap") for f in rolled])
    return crops


def body(pair: Sequence[np.ndarray], pictures: bool) -> bytes:
    """Body of a request, in bytes."""
    if pictures:
        row = {
            f"image{n}_bytes": {"b64": base64.b64encode(png(image)).decode()}
            for n, image in enumerate(pair, 1)
        }
    else:
        row = {f"image{n}": image.tolist() for n, image in enumerate(pair, 1)}
    name = "predict_png" if pictures else "predict_labels"
    return json.dumps({"signature_name": name, "instances": [row]}).encode()


def load(
    server: str, bodies: Sequence[bytes], requests: int, clients: int
) -> tuple[list[float], dict[int | str, int], float, list[int]]:
    """Send requests to a server.

    Args:
        server: http://HOST:PORT.
        bodies: request bodies in bytes, sent in turn.
        requests: number of requests.
        clients: number of threads that send them.

    Returns:
        (seconds of each answered request, {status: count} of the others, total seconds, bytes of
        a response).
    """
    host = urllib.parse.urlsplit(server).netloc
    waiting = iter(range(requests))
    lock = threading.Lock()
    times, failures, sizes = [], {}, []

    def client():
        connection = http.client.HTTPConnection(host, timeout=300)
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            start = time.perf_counter()
            try:
                path = f"/v1/models/{NAME}:predict"
                connection.request("POST", path, bodies[number % len(bodies)])
                response = connection.getresponse()
                data = response.read()
                status = response.status if "predictions" in json.loads(data) else "no predictions"
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                status = type(error).__name__
            with lock:
                if status == 200:
                    times.append(time.perf_counter() - start)
                    sizes.append(len(data))
                else:
                    failures[status] = failures.get(status, 0) + 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, failures, time.perf_counter() - start, sizes[:1]


def bare(
    folder: Path | str, frames: Sequence[list[np.ndarray]], requests: int, pictures: bool
) -> list[float]:
    """Seconds of each of `requests` pairs in this process, without HTTP and JSON."""
    network = Network(folder)
    inputs = []
    for pair in frames:
        if pictures:
            files = enumerate(map(png, pair), 1)
            inputs.append({f"image{n}_bytes": np.array([data], object) for n, data in files})
        else:
            inputs.append({f"image{n}": image[None] for n, image in enumerate(pair, 1)})
    signature = "predict_png" if pictures else "predict_labels"
    # The first call at this size is a warm-up.
    network.predict(signature, inputs[0])
    times = []
    for k in range(requests):
        start = time.perf_counter()
        network.predict(signature, inputs[k % len(inputs)])
        times.append(time.perf_counter() - start)
    return times


def row(name: str, times: Sequence[float], seconds: float) -> list[str | int]:
    """Cells of one row of the table."""
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    return [name, len(times), f"{p50:.0f}", f"{p99:.0f}", f"{len(times) / seconds:.1f}"]


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("server", "http://127.0.0.1:8501", "Address of the server.")
    flags.DEFINE_string("model", None, "The folder that the server serves.", required=True)
    flags.DEFINE_integer("requests", 500, "Number of requests.", 1)
    flags.DEFINE_integer("clients", 16, "Number of concurrent clients.", 1)
    flags.DEFINE_integer("height", 128, "Rows of a frame.", 1)
    flags.DEFINE_integer("width", 416, "Columns of a frame.", 1)
    flags.DEFINE_bool("pictures", False, "Use predict_png.")


def main():
    """Measure the server, then the network, and print both."""
    args = flags.FLAGS
    frames = pairs(args.height, args.width)
    bodies = [body(pair, args.pictures) for pair in frames]
    # The clients share the server's cores: this reduces the time they spend on parsing responses.
    gc.freeze()
    # Warm-up: the network's first pass at this size is not counted, here and in `bare`.
    load(args.server, bodies, args.clients, args.clients)
    times, failures, seconds, size = load(args.server, bodies, args.requests, args.clients)
    if not times:
        raise ValueError(
            f"{args.server}: no request was answered ({failures}); is the server running?"
        )
    alone = bare(args.model, frames, min(args.requests, 100), args.pictures)
    print(f"{args.requests} requests of {args.height}x{args.width}, {args.clients} clients; "
          f"{len(bodies[0]) / 1e6:.2f} MB per request, "
          f"{size[0] / 1e6:.2f} MB per response; not answered: {failures or 'none'}")  # fmt: skip
    rows = [row("server", times, seconds), row("the network alone", alone, sum(alone))]
    print(tables.markdown(["", "responses", "p50 ms", "p99 ms", "per second"], rows))
    if failures:
        raise ValueError(f"{sum(failures.values())} requests were not answered")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
