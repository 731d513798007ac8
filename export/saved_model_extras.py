"""Writes the metadata, warm-up requests and configuration of a folder for TensorFlow Serving.

DIR/models.config                                for tensorflow_model_server --model_config_file
DIR/batching.config                              for --batching_parameters_file
DIR/1/assets.extra/metadata.json                 content of the signature `metadata`
DIR/1/assets.extra/tf_serving_warmup_requests    requests that are run before the server is ready
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from export.metadata import FLOW, IMAGES, LABELS, LOGITS, NAME, export_metadata
from flowseg import files
from flowseg.runs import Run

MODELS_CONFIG = "models.config"
_WARMUP = "tf_serving_warmup_requests"
# The base path is where the container of TensorFlow Serving mounts the folder; see docs/serving.md.
_MODELS = f"""\
model_config_list {{
  config {{
    name: "{NAME}"
    base_path: "/models/{NAME}"
    model_platform: "tensorflow"
  }}
}}
"""
_BATCHING = """\
# Requests can only share a batch if their frames have the same size: TensorFlow Serving rejects
# batches of mixed sizes. Omit --enable_batching if the frames of your users differ in size.
max_batch_size { value: 8 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 64 }
"""
# Height and width of the frames in warm-up requests with unencoded pixels, to keep them small.
_CORNER = (64, 128)


def metadata(run: Run, version: int) -> dict:
    """Return the metadata for users of the served network, as JSON values.

    Args:
        run: a `runs.Run`.
        version: version number of the folder, for TensorFlow Serving.
    """
    units = {
        "images": IMAGES,
        "seg": LOGITS,
        "labels": LABELS,
        "flow": FLOW,
        "labels_bytes": "8-bit PNG of labels",
        "flow_bytes": "KITTI's 16-bit PNG: flow = (R - 32768, G - 32768) / 64, known if B is 1",
    }
    size = "any height and width, equal for both frames"
    return export_metadata(run, units, model_version=version, size=size)


def write_extras(
    folder: Path | str,
    metadata: dict,
    signatures: Mapping[str, Callable],
    pair: dict[str, np.ndarray],
) -> None:
    """Write metadata and warm-up requests into the folder of a SavedModel.

    Args:
        folder: folder of one version.
        metadata: the values of the function `metadata`.
        signatures: signatures of the loaded SavedModel.
        pair: a real pair from `check.sample_pair`.

    Raises:
        ValueError: the package with TensorFlow Serving's messages is not installed.
    """
    extra = Path(folder) / "assets.extra"
    files.write(extra / "metadata.json", json.dumps(metadata, indent=2) + "\n")
    message = _prediction_log()
    with tf.io.TFRecordWriter(str(extra / _WARMUP)) as writer:
        for name, inputs in requests(signatures, pair).items():
            log = message()
            log.predict_log.request.model_spec.name = NAME
            log.predict_log.request.model_spec.signature_name = name
            for key, value in inputs.items():
                log.predict_log.request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def read_requests(folder: Path | str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield (signature, {input: array}) of each warm-up request in a version's folder."""
    message = _prediction_log()
    records = tf.data.TFRecordDataset(str(Path(folder) / "assets.extra" / _WARMUP))
    for record in records.as_numpy_iterator():
        request = message.FromString(record).predict_log.request
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        yield request.model_spec.signature_name, inputs


def _prediction_log():
    try:
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
    except ImportError as error:
        raise ValueError(
            "tensorflow-serving-api is missing: pip install -e '.[saved_model]'"
        ) from error
    return PredictionLog


def requests(signatures: Mapping[str, Callable], pair: dict[str, np.ndarray]) -> dict[str, dict]:
    """Build one request per signature from a real pair: {signature: {input: array}}."""
    rows, columns = _CORNER
    corner = {key: image[:, :rows, :columns] for key, image in pair.items()}
    uint8 = {key: image.astype("uint8") for key, image in corner.items()}
    return {
        "serving_default": corner,
        "serving_uint8": uint8,
        "predict_labels": uint8,
        "predict_png": {f"{key}_bytes": [png(image[0])] for key, image in pair.items()},
        "encode": {"image": uint8["image1"]},
        "decode": decode_inputs(signatures["encode"], uint8),
        "metadata": {"key": [""]},
    }


def png(image: np.ndarray) -> bytes:
    """Encode an image, (H, W, 3) RGB 0..255, as PNG."""
    return cv2.imencode(".png", image[..., ::-1].astype("uint8"))[1].tobytes()


def decode_inputs(encode: Callable, pair: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Build the inputs of `decode` by encoding each frame of a uint8 pair separately."""
    inputs = {}
    for frame, image in zip(("frame1", "frame2"), pair.values(), strict=True):
        features = {key: value.numpy() for key, value in encode(image=tf.constant(image)).items()}
        size = features.pop("size")
        inputs |= {f"{frame}_{key}": value for key, value in features.items()}
    return {**inputs, "size": size}


def write_configs(folder: Path | str) -> None:
    """Write the configuration files of TensorFlow Serving into the folder of all versions."""
    files.write(Path(folder) / MODELS_CONFIG, _MODELS)
    files.write(Path(folder) / "batching.config", _BATCHING)
