"""How many requests a second a server answers, beside the bare network in one process.

python -m export.serve --model out/served &
python -m experiments.exports.serve_load --model out/served

sends --requests of `predict_labels`, each a pair of --height x --width as JSON numbers, by
--clients at once, each over a connection of its own, and says how many were answered, the median
and the 99th percentile of the time of an answer, and answers a second. Then, while the server
rests, it asks the same folder in this process, one pair after the other. Bodies are made before
the clock starts; answers are parsed, as a user must. --pictures asks `predict_png` instead, which
takes and gives PNG files.
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
from flowseg import runs, tables
from flowseg.media.frames import read_image
from flowseg.network.packed_weights import BOX

# Of different pairs, so that no answer could be a stored one.
_PAIRS = 4


def pairs(height: int, width: int) -> list[list[np.ndarray]]:
    """Crops of the real pair of the package, repeated where it is smaller: uint8 arrays."""
    frames = [read_image(BOX / name) for name in runs.SAMPLE.values()]
    made = []
    for k in range(_PAIRS):
        rolled = [np.roll(frame, (-7 * k, -31 * k), (0, 1)) for frame in frames]
        rows, columns = (np.arange(n) for n in (height, width))
        made.append([f.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap") for f in rolled])
    return made


def body(pair: Sequence[np.ndarray], pictures: bool) -> bytes:
    """A request's bytes."""
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
    """Ask a server.

    Args:
        server: http://HOST:PORT.
        bodies: bytes of requests, sent in turn.
        requests: how many.
        clients: threads that send them.

    Returns:
        (seconds of each answered request, {status: count} of the others, seconds in all, bytes of
        an answer).
    """
    host = urllib.parse.urlsplit(server).netloc
    waiting = iter(range(requests))
    lock = threading.Lock()
    took, refused, sizes = [], {}, []

    def client():
        connection = http.client.HTTPConnection(host, timeout=300)
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            begun = time.perf_counter()
            try:
                path = f"/v1/models/{NAME}:predict"
                connection.request("POST", path, bodies[number % len(bodies)])
                response = connection.getresponse()
                data = response.read()
                status = response.status if "predictions" in json.loads(data) else "no answer"
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                status = type(error).__name__
            with lock:
                if status == 200:
                    took.append(time.perf_counter() - begun)
                    sizes.append(len(data))
                else:
                    refused[status] = refused.get(status, 0) + 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, refused, time.perf_counter() - begun, sizes[:1]


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
    # The first at this size is no measure.
    network.answer(signature, inputs[0])
    took = []
    for k in range(requests):
        begun = time.perf_counter()
        network.answer(signature, inputs[k % len(inputs)])
        took.append(time.perf_counter() - begun)
    return took


def row(name: str, took: Sequence[float], seconds: float) -> list[str | int]:
    """A row of the table: cells."""
    p50, p99 = np.percentile(took, (50, 99)) * 1000
    return [name, len(took), f"{p50:.0f}", f"{p99:.0f}", f"{len(took) / seconds:.1f}"]


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("server", "http://127.0.0.1:8501", "Where it is.")
    flags.DEFINE_string("model", None, "The folder that it serves.", required=True)
    flags.DEFINE_integer("requests", 500, "To send.", 1)
    flags.DEFINE_integer("clients", 16, "At once.", 1)
    flags.DEFINE_integer("height", 128, "Rows of a frame.", 1)
    flags.DEFINE_integer("width", 416, "Columns.", 1)
    flags.DEFINE_bool("pictures", False, "Ask predict_png.")


def main():
    """Load the server, then the network; print both."""
    args = flags.FLAGS
    frames = pairs(args.height, args.width)
    bodies = [body(pair, args.pictures) for pair in frames]
    # The clients share the server's cores: what they spend on reading answers is kept small.
    gc.freeze()
    # So that the network's first pass at this size is not counted, here as below.
    load(args.server, bodies, args.clients, args.clients)
    took, refused, seconds, size = load(args.server, bodies, args.requests, args.clients)
    if not took:
        raise ValueError(f"{args.server}: nothing was answered ({refused}); is a server there?")
    alone = bare(args.model, frames, min(args.requests, 100), args.pictures)
    print(f"{args.requests} requests of {args.height}x{args.width}, {args.clients} clients; "
          f"{len(bodies[0]) / 1e6:.2f} MB there, {size[0] / 1e6:.2f} MB back; not answered: "
          f"{refused or 'none'}")  # fmt: skip
    rows = [row("server", took, seconds), row("the network alone", alone, sum(alone))]
    print(tables.markdown(["", "answers", "p50 ms", "p99 ms", "a second"], rows))
    if refused:
        raise ValueError(f"{sum(refused.values())} requests were not answered")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
