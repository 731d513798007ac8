"""Send a frame pair to a server and draw its predictions; does not need TensorFlow.

python -m export.client --image1 A --image2 B --output DIR

The command sends both images to the REST API of --server, which is TensorFlow Serving or
`python -m export.serve`. It writes seg.png (train ids), flow.png (KITTI's 16-bit PNG),
seg_color.png and flow_color.png, as `python -m flowseg.predict` does.
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
from flowseg.cli import flags as shared_flags
from flowseg.data import labels
from flowseg.data.flow_io import decode_kitti_flow, flow_to_color
from flowseg.media import drawing
from flowseg.media.pairs import read_pair
from flowseg.scoring.prediction_files import summary

# Requests to the user's own server must not go through a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call_signature(
    server: str, signature: str, instances: list, name: str = "flowseg", timeout: float = 60
) -> list:
    """Call a signature of the served network.

    Args:
        server: http://HOST:PORT.
        signature: name of the signature.
        instances: one entry per row of the batch, in the format of TensorFlow Serving's REST API.
        name: name of the model.
        timeout: timeout in seconds.

    Returns:
        The predictions, one per row.

    Raises:
        ValueError: there is no server, or it rejects the request; the message contains its reason.
    """
    url = f"{server}/v1/models/{name}:predict"
    body = json.dumps({"signature_name": signature, "instances": instances}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with _OPENER.open(request, timeout=timeout) as response:
            return json.loads(response.read())["predictions"]
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: HTTP status {error.code}: {_reason(error.read())}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"{server}: no response ({reason}); is a server running there?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{url}: not the REST API of TensorFlow Serving") from error


def _reason(body):
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def predict(
    server: str, image1: np.ndarray, image2: np.ndarray, **options: str | float
) -> tuple[bytes, bytes]:
    """Request the predictions for one pair.

    Args:
        server: see `call_signature`.
        image1: (H, W, 3) uint8 RGB, the earlier frame.
        image2: (H, W, 3) uint8 RGB, the later frame.
        **options: `name` and `timeout` of `call_signature`.

    Returns:
        Bytes of seg.png (8-bit train ids) and of flow.png (KITTI's 16-bit PNG).

    Raises:
        ValueError: see `call_signature`.
    """
    instance = {
        f"image{n}_bytes": {"b64": base64.b64encode(_png(image)).decode()}
        for n, image in ((1, image1), (2, image2))
    }
    (prediction,) = call_signature(server, "predict_png", [instance], **options)
    return tuple(base64.b64decode(prediction[key]["b64"]) for key in ("labels_bytes", "flow_bytes"))


def _png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def label_set(server: str, **options: str | float) -> labels.LabelSet:
    """Request the classes of the served network; see `call_signature`."""
    (content,) = call_signature(server, "metadata", ["label_set"], **options)
    return labels.from_dict(json.loads(content))


def write(output: str | Path, seg_png: bytes, flow_png: bytes, classes: labels.LabelSet) -> str:
    """Write the predictions as files and as colour images, and return a one-line summary.

    Args:
        output: folder; created if missing.
        seg_png: bytes of seg.png; see `predict`.
        flow_png: bytes of flow.png.
        classes: classes of the network.

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
    text = summary(seg, flow[..., :2], classes)
    lost = int((~known).sum())
    return text + (f"; {lost} px move too far for flow.png: stored as unknown" if lost else "")


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("server", "http://127.0.0.1:8501", "Address of the server.")
    flags.DEFINE_string("name", "flowseg", "Name of the model on the server.")
    flags.DEFINE_string("image1", None, "Earlier frame.", required=True)
    flags.DEFINE_string("image2", None, "Later frame, of the same size.", required=True)
    flags.DEFINE_string("output", None, "Folder to write into.", required=True)
    flags.DEFINE_float("timeout", 60, "Seconds to wait for the response.", 0.001)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_bit_depth()


def main():
    """Read the frames, request the predictions and write them."""
    args = flags.FLAGS
    pair = read_pair(args.image1, args.image2, args.bit_depth)
    options = {"name": args.name, "timeout": args.timeout}
    classes = label_set(args.server, **options)
    text = write(args.output, *predict(args.server, *pair, **options), classes)
    print(f"{args.output}: seg.png, flow.png, seg_color.png, flow_color.png; {text}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
