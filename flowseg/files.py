"""Files and folders written whole or not at all, and a library's chatter kept off stderr."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowseg import files


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there gets the name at the end.

    When the block fails nothing is left, and what stood under `path` stays. An existing file is
    replaced; a folder is replaced by a folder.

    Args:
        path: file or folder to write; its parent folder is made where missing.

    Yields:
        Path in the same folder, with the same suffix (some writers choose the format by it).

    Raises:
        OSError: naming `path`: it cannot be written.
    """
    path = Path(path)
    # One name a file, so that what a killed run left is overwritten by the next.
    temporary = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        # A full disk is told without a name, other errors with the temporary one.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        _remove(temporary)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write(path: str | os.PathLike, data: bytes | str) -> None:
    """Write bytes, or text, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with whole(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a flat JSON file whole or not at all; not-a-number becomes null, as JSON wants."""
    clean = {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in content.items()
    }
    files.write(path, json.dumps(clean, indent=2) + "\n")
