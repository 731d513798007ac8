"""Reads a FlowSeg TFLite file: its signatures, run by LiteRT, and its embedded metadata.

This needs only NumPy and LiteRT, so that it runs on edge devices. The metadata (classes, palette,
size, units) is a zip archive appended to the model, as TFLite stores associated files:
`unzip FILE.tflite` extracts `flowseg.json` and `labels.txt`, and runtimes ignore them.
"""

import contextlib
import io
import json
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowseg import memory
from flowseg.console import no_stderr

SIGNATURES = ("predict", "encode", "decode")
_METADATA, _LABELS = "flowseg.json", "labels.txt"


class LiteFile(NamedTuple):
    """An opened file.

    Attributes:
        metadata: dict with `height`, `width`, `quantize`, `label_set` (a dict), `units`, and the
            entries that `metadata.export_metadata` adds.
        signatures: maps each of `SIGNATURES` to a function of named arrays that returns a dict of
            arrays.
    """

    metadata: dict
    signatures: dict[str, Callable]

    def predict(self, image1: np.ndarray, image2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict (H, W) uint8 train ids and (H, W, 2) float32 flow of (H, W, 3) uint8 frames."""
        return _first(self.signatures["predict"](image1=image1[None], image2=image2[None]))

    def encode(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features of one frame, by name, for `decode`."""
        return self.signatures["encode"](image=image[None])

    def decode(
        self, features1: dict[str, np.ndarray], features2: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the predictions of `predict`, from the features of two frames."""
        both = {"frame1": features1, "frame2": features2}
        named = {f"{frame}_{name}": x for frame, each in both.items() for name, x in each.items()}
        return _first(self.signatures["decode"](**named))


def _first(outputs):
    return outputs["seg"][0], outputs["flow"][0]


def open_file(data: bytes, name: Path | str, threads: int = 1) -> LiteFile:
    """Open a TFLite file, given as bytes, with LiteRT.

    Args:
        data: content of the file.
        name: name of the file, for messages.
        threads: number of threads for inference.

    Raises:
        ValueError: this is not a TFLite file of FlowSeg, LiteRT is not installed, or there is too
            little memory.
    """
    metadata = _read_metadata(data, name)
    size = metadata["height"], metadata["width"]
    memory.require_for_lite_file(*size, f"export {name} for smaller frames")
    return LiteFile(metadata, signatures(data, name, threads))


def signatures(data: bytes, name: Path | str, threads: int = 1) -> dict[str, Callable]:
    """Return the signatures of a file, which may lack metadata; see `LiteFile`.

    Raises:
        ValueError: LiteRT is not installed, or cannot run the file; the latter also when a
            signature is called.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ValueError("ai-edge-litert is missing: pip install -e '.[tflite]'") from error
    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        runners = {key: interpreter.get_signature_runner(key) for key in SIGNATURES}
    except (ValueError, RuntimeError) as error:
        raise _cannot_run(name, error) from error
    return {key: _copying(runner, name) for key, runner in runners.items()}


def _cannot_run(name, error):
    # LiteRT repeats a message for every operator that it concerns.
    return ValueError(f"{name}: LiteRT cannot run it: {textwrap.shorten(str(error), 300)}")


def _copying(runner, name):
    """Wrap a runner to copy its outputs, which LiteRT may overwrite in the next call."""
    # The first call prints that it runs on the CPU.
    quiet = no_stderr

    def run(**inputs):
        nonlocal quiet
        try:
            with quiet():
                outputs = runner(**inputs)
        except (ValueError, RuntimeError) as error:
            # LiteRT checks the operators of a signature in its first call.
            raise _cannot_run(name, error) from error
        quiet = contextlib.nullcontext
        return {key: value.copy() for key, value in outputs.items()}

    return run


def _read_metadata(data, name):
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            metadata = json.loads(archive.read(_METADATA))
        if not all(isinstance(metadata[key], int) for key in ("height", "width")):
            raise ValueError("the size is not a number")
        if "label_set" not in metadata:
            raise KeyError("label_set")
        return metadata
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: damaged, or not a TFLite file of export.tflite: it lacks {_METADATA}"
        ) from error


def read(path: Path | str, threads: int = 1) -> LiteFile:
    """Open the file at `path`; see `open_file`.

    Raises:
        ValueError: see `open_file`.
        OSError: the file cannot be read.
    """
    return open_file(Path(path).read_bytes(), path, threads)


def with_metadata(data: bytes, metadata: dict) -> bytes:
    """Return the bytes of a TFLite file with the metadata appended."""
    buffer = io.BytesIO()
    buffer.write(data)
    labels = "".join(f"{name}\n" for name in metadata["label_set"]["names"])
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in ((_METADATA, json.dumps(metadata, indent=1)), (_LABELS, labels)):
            # A fixed date keeps exports reproducible, byte for byte.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()
