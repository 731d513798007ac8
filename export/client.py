"""Ask a server about two frames and draw its answer; needs no TensorFlow.

python -m export.client --image1 A --image2 B --output DIR

sends the two pictures to --server, TensorFlow Serving or `python -m export.serve`, by its REST
interface, and writes seg.png (train ids), flow.png (KITTI's 16 bits), seg_color.png and
flow_color.png, as `python -m flowseg.predict` does.
"""

import base64
import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from flowseg import files
from flowseg.cli import entry
from flowseg.data import labels
from flowseg.data.flow_io import decode_kitti_flow, flow_to_color
from flowseg.media import drawing
from flowseg.media.pairs import read_pair
from flowseg.scoring.prediction_files import summary

# A server of one's own is not asked by way of a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(
    server: str, signature: str, instances: list, name: str = "flowseg", timeout: float = 60
) -> list:
    """What a signature of the served network answers.

    Args:
        server: http://HOST:PORT.
        signature: its name.
        instances: one entry a row of the batch, as TensorFlow Serving's REST interface wants them.
        name: of the model.
        timeout: in seconds.

    Returns:
        The predictions, one a row.

    Raises:
        ValueError: no server there, or it refuses; in its own words.
    """
    url = f"{server}/v1/models/{name}:predict"
    body = json.dumps({"signature_name": signature, "instances": instances}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with _OPENER.open(request, timeout=timeout) as response:
            return json.loads(response.read())["predictions"]
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: answers {error.code}: {_reason(error.read())}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"{server}: no answer ({reason}); is a server running there?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{url}: no URL of a server that speaks TensorFlow Serving's") from error


def _reason(body):
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def predict(
    server: str, image1: np.ndarray, image2: np.ndarray, **where: str | float
) -> tuple[bytes, bytes]:
    """A server's answer to one pair.

    Args:
        server: see `ask`.
        image1: (H, W, 3) uint8 RGB, the earlier frame.
        image2: the later one.
        **where: see `ask`.

    Returns:
        Bytes of seg.png (8-bit train ids) and of flow.png (KITTI's 16 bits).

    Raises:
        ValueError: see `ask`.
    """
    sent = {
        f"image{n}_bytes": {"b64": base64.b64encode(_png(image)).decode()}
        for n, image in ((1, image1), (2, image2))
    }
    (answer,) = ask(server, "predict_png", [sent], **where)
    return tuple(base64.b64decode(answer[key]["b64"]) for key in ("labels_bytes", "flow_bytes"))


def _png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def label_set(server: str, **where: str | float) -> labels.LabelSet:
    """The served network's classes, a `labels.LabelSet`; see `ask`."""
    (told,) = ask(server, "metadata", ["label_set"], **where)
    return labels.from_dict(json.loads(told))


def write(output: str | Path, seg_png: bytes, flow_png: bytes, classes: labels.LabelSet) -> str:
    """Write an answer's two files and what they look like; one line about it.

    Args:
        output: folder; made where missing.
        seg_png: bytes; see `predict`.
        flow_png: likewise.
        classes: a `labels.LabelSet`.

    Raises:
        OSError: a file cannot be written.
    """
    seg = cv2.imdecode(np.frombuffer(seg_png, np.uint8), cv2.IMREAD_UNCHANGED)
    flow = decode_kitti_flow(flow_png, "the server's flow")
    known = flow[..., 2] > 0
    output = Path(output)
    files.write(output / "seg.png", seg_png)
    files.write(output / "flow.png", flow_png)
    drawing.write_png(output / "seg_color.png", drawing.color_labels(seg, classes))
    drawing.write_png(output / "flow_color.png", flow_to_color(flow[..., :2], valid=known))
    told = summary(seg, flow[..., :2], classes)
    lost = int((~known).sum())
    return told + (f"; {lost} px move too far for flow.png, unknown there" if lost else "")


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("server", "http://127.0.0.1:8501", "Where it is.")
    flags.DEFINE_string("name", "flowseg", "Of the model on the server.")
    flags.DEFINE_string("image1", None, "Earlier frame.", required=True)
    flags.DEFINE_string("image2", None, "Later frame, of the same size.", required=True)
    flags.DEFINE_string("output", None, "Folder to write into.", required=True)
    flags.DEFINE_float("timeout", 60, "Seconds to wait for an answer.", 0.001)


def main():
    """Read the frames, ask, draw."""
    args = flags.FLAGS
    pair = read_pair(args.image1, args.image2)
    where = {"name": args.name, "timeout": args.timeout}
    classes = label_set(args.server, **where)
    told = write(args.output, *predict(args.server, *pair, **where), classes)
    print(f"{args.output}: seg.png, flow.png, seg_color.png, flow_color.png; {told}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
