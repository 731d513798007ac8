"""A FlowSeg TFLite file, read: its signatures, run by LiteRT, and what it tells of itself.

Nothing but NumPy and LiteRT is needed, so that an edge device can read it. What the file tells
(classes, palette, size, units) is a zip archive behind the model, as TFLite keeps associated
files: `unzip FILE.tflite` shows `flowseg.json` and `labels.txt`, and every runtime skips them.
"""

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowseg.console import no_stderr

SIGNATURES = ("predict", "encode", "decode")
_ABOUT, _LABELS = "flowseg.json", "labels.txt"


class LiteFile(NamedTuple):
    """An opened file.

    Attributes:
        about: dict: `height`, `width`, `quantize`, `label_set` (its dict), `units`, and what else
            `metadata.about` tells.
        signatures: each of `SIGNATURES` -> function of named arrays -> dict of arrays.
    """

    about: dict
    signatures: dict[str, Callable]

    def predict(self, image1: np.ndarray, image2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) uint8 train ids and (H, W, 2) float32 flow of two (H, W, 3) uint8 RGB frames."""
        return _answers(self.signatures["predict"](image1=image1[None], image2=image2[None]))

    def encode(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The features of one frame, by name, for `decode`."""
        return self.signatures["encode"](image=image[None])

    def decode(
        self, features1: dict[str, np.ndarray], features2: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `predict` answers, of the features of two frames."""
        both = {"frame1": features1, "frame2": features2}
        named = {f"{frame}_{name}": x for frame, each in both.items() for name, x in each.items()}
        return _answers(self.signatures["decode"](**named))


def _answers(answers):
    return answers["seg"][0], answers["flow"][0]


def open_file(data: bytes, name: Path | str, threads: int = 1) -> LiteFile:
    """The TFLite file of these bytes, opened by LiteRT.

    Args:
        data: bytes.
        name: the file, for messages.
        threads: how many cores it may use.

    Raises:
        ValueError: no such file of FlowSeg's, or LiteRT is not installed.
    """
    return LiteFile(_read_about(data, name), signatures(data, name, threads))


def signatures(data: bytes, name: Path | str, threads: int = 1) -> dict[str, Callable]:
    """Those of a file, which need not tell of itself yet; see `LiteFile`.

    Raises:
        ValueError: LiteRT is not installed, or cannot run the file.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ValueError("ai-edge-litert is missing: pip install -e '.[tflite]'") from error
    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        return {key: _copying(interpreter.get_signature_runner(key)) for key in SIGNATURES}
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: LiteRT cannot run it: {error}") from error


def _copying(runner):
    """The runner with answers of their own: LiteRT's may be written over by the next call."""
    # At the first call it says that it runs on the CPU.
    quiet = no_stderr

    def ask(**inputs):
        nonlocal quiet
        with quiet():
            answers = runner(**inputs)
        quiet = contextlib.nullcontext
        return {key: value.copy() for key, value in answers.items()}

    return ask


def _read_about(data, name):
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return json.loads(archive.read(_ABOUT))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"{name}: damaged, or no TFLite file of export.tflite: {_ABOUT} is not in it"
        ) from error


def read(path: Path | str, threads: int = 1) -> LiteFile:
    """The file at `path`; see `open_file`.

    Raises:
        ValueError: likewise.
        OSError: it cannot be read.
    """
    return open_file(Path(path).read_bytes(), path, threads)


def with_about(data: bytes, about: dict) -> bytes:
    """The bytes of a TFLite file, with what it tells of itself behind them."""
    buffer = io.BytesIO()
    buffer.write(data)
    labels = "".join(f"{name}\n" for name in about["label_set"]["names"])
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in ((_ABOUT, json.dumps(about, indent=1)), (_LABELS, labels)):
            # A date of its own would make each export another file.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()
