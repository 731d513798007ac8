"""Checks exports: that the output path is free, and that predictions match those of Keras."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import keras
import numpy as np

from flowseg.data.flow_io import decode_kitti_flow, encode_kitti_flow
from flowseg.errors import ArgumentError
from flowseg.media.frames import read_image
from flowseg.runs import SAMPLE

# Float32 files differ from Keras only by rounding. At a motion boundary, rounding may decide which
# of two motions a pixel gets, so flow is compared on average and labels by their share.
MAX_FLOW_DIFFERENCE = 1e-3
MIN_EQUAL_LABELS = 99.99


def check_output(output: Path | str, overwrite: bool) -> None:
    """Check that an export can start.

    Args:
        output: path to write.
        overwrite: whether an existing file or folder may be replaced.

    Raises:
        ValueError: the path exists, or the Keras backend is not TensorFlow.
    """
    if Path(output).exists() and not overwrite:
        raise ArgumentError(f"{output}: exists already; overwrite replaces it", "overwrite")
    if keras.backend.backend() != "tensorflow":
        raise ValueError("exports need KERAS_BACKEND=tensorflow; it loads weights of all backends")


def sample_pair(
    run_dir: Path | str, height: int | None = None, width: int | None = None
) -> dict[str, np.ndarray]:
    """Load the run's sample pair as a batch of one, at its original or the requested size.

    Returns:
        {"image1", "image2"}: (1, H, W, 3) float32 RGB 0..255.

    Raises:
        ValueError: the run folder has no readable sample pair.
    """
    pair = {}
    for key, name in SAMPLE.items():
        image = read_image(Path(run_dir) / name)
        if height and image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        pair[key] = np.float32(image)[None]
    return pair


def compare(
    expected: dict[str, np.ndarray], outputs: dict[str, np.ndarray], name: Path | str
) -> str:
    """Compare an export's outputs with those of Keras.

    Args:
        expected: {"seg": (1, H, W, C), "flow": (1, H, W, 2)} of the Keras network.
        outputs: outputs of the exported file, in the same form.
        name: name of the export, for the message.

    Returns:
        One-line summary of the differences.

    Raises:
        ValueError: the outputs differ by more than rounding error.
    """
    predictions = ((each["seg"].argmax(-1), each["flow"]) for each in (expected, outputs))
    return compare_predictions(*predictions, name)


def compare_predictions(
    expected: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    name: Path | str,
    strict: bool = True,
) -> str:
    """Compare train ids and flow; see `compare`.

    Args:
        expected: train ids and flow, (..., 2), of the Keras network.
        predicted: predictions of the exported file, in the same form.
        name: name of the export, for the message.
        strict: whether to raise an error if they differ by more than rounding.
    """
    labels = np.mean(expected[0] == predicted[0]) * 100
    difference = np.subtract(expected[1], predicted[1], dtype=np.float32)
    distance = np.sqrt(np.square(difference).sum(-1))
    text = (
        f"against Keras on the run's sample pair: {labels:.3f} % of labels equal, flow differs by "
        f"{distance.mean():.1e} px on average, {distance.max():.1e} at most"
    )
    # Not >, so that NaN also fails.
    if strict and not (labels >= MIN_EQUAL_LABELS and distance.mean() <= MAX_FLOW_DIFFERENCE):
        raise ValueError(f"{name}: the export's outputs differ from the network's: {text}")
    return text


def compare_signatures(
    expected: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    name: Path | str,
) -> str:
    """Compare the outputs of each signature of a SavedModel with those of Keras, for one pair.

    Args:
        expected: {"seg", "flow"} of the Keras network, a batch of one.
        outputs: {signature: {output: array}} of the SavedModel.
        name: name of the export, for the message.

    Returns:
        One-line summary of the differences of `serving_default`.

    Raises:
        ValueError: a signature, named in the message, differs by more than rounding error.
    """
    labels, flow = expected["seg"].argmax(-1), expected["flow"]
    png = outputs["predict_png"]
    written = cv2.imdecode(np.frombuffer(png["labels_bytes"][0], np.uint8), cv2.IMREAD_UNCHANGED)
    # Both are rounded to the PNG format, because this rounding is not an error of the export.
    rounded = [decode_kitti_flow(x) for x in (encode_kitti_flow(flow[0]), png["flow_bytes"][0])]
    compare_predictions((labels[0], rounded[0]), (written, rounded[1]), f"{name}, predict_png")
    small = outputs["predict_labels"]
    predicted = (small["labels"], small["flow"])
    compare_predictions((labels, np.float16(flow)), predicted, f"{name}, predict_labels")
    for signature in ("serving_uint8", "decode"):
        compare(expected, outputs[signature], f"{name}, {signature}")
    return compare(expected, outputs["serving_default"], name)
