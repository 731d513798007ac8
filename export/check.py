"""What every export must pass: it replaces nothing unasked, and answers as Keras does."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import keras
import numpy as np

from flowseg.data.flow_io import decode_kitti_flow, encode_kitti_flow
from flowseg.errors import ArgumentError
from flowseg.media.frames import read_image
from flowseg.runs import SAMPLE

# Float32 files differ from Keras by rounding alone; at a motion boundary rounding may decide
# which of two answers a pixel takes, so flow is held on average and labels by share.
MAX_FLOW_DIFFERENCE = 1e-3
MIN_EQUAL_LABELS = 99.99


def ready(output: Path | str, overwrite: bool) -> None:
    """Whether an export may begin.

    Args:
        output: path to write.
        overwrite: whether what stands there may be replaced.

    Raises:
        ValueError: it exists, or Keras runs on another backend than TensorFlow.
    """
    if Path(output).exists() and not overwrite:
        raise ArgumentError(f"{output}: exists already; overwrite replaces it", "overwrite")
    if keras.backend.backend() != "tensorflow":
        raise ValueError("exports need KERAS_BACKEND=tensorflow; weights of any backend load there")


def sample_pair(
    run_dir: Path | str, height: int | None = None, width: int | None = None
) -> dict[str, np.ndarray]:
    """The run's own sample pair as a batch of one, at its own size or the one asked for.

    Returns:
        {"image1", "image2"}: (1, H, W, 3) float32 RGB 0..255.

    Raises:
        ValueError: the run folder holds no readable pair.
    """
    pair = {}
    for key, name in SAMPLE.items():
        image = read_image(Path(run_dir) / name)
        if height and image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        pair[key] = np.float32(image)[None]
    return pair


def compare(
    expected: dict[str, np.ndarray], answers: dict[str, np.ndarray], name: Path | str
) -> str:
    """Hold an export's answers to Keras's.

    Args:
        expected: {"seg": (1, H, W, C), "flow": (1, H, W, 2)} of the Keras network.
        answers: the same of the exported file.
        name: the export, for the message.

    Returns:
        One line that says how near they are.

    Raises:
        ValueError: they differ by more than rounding explains.
    """
    told = ((each["seg"].argmax(-1), each["flow"]) for each in (expected, answers))
    return compare_answers(*told, name)


def compare_answers(
    expected: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    name: Path | str,
    strict: bool = True,
) -> str:
    """The same of answers that are train ids and flow.

    Args:
        expected: class ids and flow, (..., 2), of the Keras network.
        answers: the same of the exported file.
        name: the export, for the message.
        strict: whether more than rounding is an error.
    """
    labels = np.mean(expected[0] == answers[0]) * 100
    difference = np.subtract(expected[1], answers[1], dtype=np.float32)
    distance = np.sqrt(np.square(difference).sum(-1))
    told = (
        f"against Keras on the run's sample pair: {labels:.3f} % of labels equal, flow differs by "
        f"{distance.mean():.1e} px on average, {distance.max():.1e} at most"
    )
    # Not >, so that NaN fails.
    if strict and not (labels >= MIN_EQUAL_LABELS and distance.mean() <= MAX_FLOW_DIFFERENCE):
        raise ValueError(f"{name}: the export does not answer as the network does: {told}")
    return told


def compare_signatures(
    expected: dict[str, np.ndarray],
    answers: dict[str, dict[str, np.ndarray]],
    name: Path | str,
) -> str:
    """Hold what each signature of a SavedModel answers to one pair to Keras's answers.

    Args:
        expected: {"seg", "flow"} of the Keras network, a batch of one.
        answers: {signature: {output: array}} of the SavedModel.
        name: the export, for the message.

    Returns:
        One line that says how near `serving_default` is.

    Raises:
        ValueError: naming the signature: it differs by more than rounding explains.
    """
    labels, flow = expected["seg"].argmax(-1), expected["flow"]
    png = answers["predict_png"]
    written = cv2.imdecode(np.frombuffer(png["labels_bytes"][0], np.uint8), cv2.IMREAD_UNCHANGED)
    # The same rounding on both sides, as the file's is no fault of the network.
    rounded = [decode_kitti_flow(x) for x in (encode_kitti_flow(flow[0]), png["flow_bytes"][0])]
    compare_answers((labels[0], rounded[0]), (written, rounded[1]), f"{name}, predict_png")
    small = answers["predict_labels"]
    given = (small["labels"], small["flow"])
    compare_answers((labels, np.float16(flow)), given, f"{name}, predict_labels")
    for signature in ("serving_uint8", "decode"):
        compare(expected, answers[signature], f"{name}, {signature}")
    return compare(expected, answers["serving_default"], name)
