"""What lies beside the network in a folder that is served: metadata, warm-up, configuration.

DIR/models.config                                for tensorflow_model_server --model_config_file
DIR/batching.config                              for --batching_parameters_file
DIR/1/assets.extra/metadata.json                 what the signature `metadata` tells
DIR/1/assets.extra/tf_serving_warmup_requests    what TensorFlow Serving asks before it takes users
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from export.metadata import FLOW, IMAGES, LABELS, LOGITS, NAME, about
from flowseg import files
from flowseg.runs import Run

MODELS_CONFIG = "models.config"
_WARMUP = "tf_serving_warmup_requests"
# Under which the container of TensorFlow Serving sees the folder; see README.
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
# Requests join a batch only if their frames have one size: TensorFlow Serving refuses a batch of
# several. Leave --enable_batching out if your users' frames differ.
max_batch_size { value: 8 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 64 }
"""
# Rows and columns of the frames of warm-up requests that carry plain numbers, to keep them small.
_CORNER = (64, 128)


def metadata(run: Run, version: int) -> dict:
    """What a user of the served network must know, as plain JSON values.

    Args:
        run: a `runs.Run`.
        version: of the folder, as TensorFlow Serving counts.
    """
    units = {
        "images": IMAGES,
        "seg": LOGITS,
        "labels": LABELS,
        "flow": FLOW,
        "labels_bytes": "8-bit PNG of labels",
        "flow_bytes": "KITTI's 16-bit PNG: flow = (R - 32768, G - 32768) / 64, known if B is 1",
    }
    size = "any height and width; both frames alike"
    return about(run, units, model_version=version, size=size)


def write_extras(
    folder: Path | str,
    told: dict,
    signatures: Mapping[str, Callable],
    pair: dict[str, np.ndarray],
) -> None:
    """Write metadata and warm-up requests into the folder of a SavedModel.

    Args:
        folder: of one version.
        told: of `metadata`.
        signatures: of the loaded SavedModel.
        pair: a real pair, as `check.sample_pair` gives it.

    Raises:
        ValueError: the package of TensorFlow Serving's messages is missing.
    """
    extra = Path(folder) / "assets.extra"
    files.write(extra / "metadata.json", json.dumps(told, indent=2) + "\n")
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
    """Yields (signature, {input: array}) of each warm-up request in the folder of a version."""
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
    """One request a signature, of a real pair: {signature: {input: array}}."""
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
    """(H, W, 3) RGB 0..255 as the bytes of a PNG."""
    return cv2.imencode(".png", image[..., ::-1].astype("uint8"))[1].tobytes()


def decode_inputs(encode: Callable, pair: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `decode` takes, made by encoding each frame of a uint8 pair on its own."""
    inputs = {}
    for frame, image in zip(("frame1", "frame2"), pair.values(), strict=True):
        features = {key: value.numpy() for key, value in encode(image=tf.constant(image)).items()}
        size = features.pop("size")
        inputs |= {f"{frame}_{key}": value for key, value in features.items()}
    return {**inputs, "size": size}


def write_configs(folder: Path | str) -> None:
    """Write what TensorFlow Serving is started with into the folder of all versions."""
    files.write(Path(folder) / MODELS_CONFIG, _MODELS)
    files.write(Path(folder) / "batching.config", _BATCHING)
