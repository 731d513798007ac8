"""Writes files and folders atomically."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` when the block succeeds.

    If the block fails, the temporary path is removed and an existing `path` is unchanged. An
    existing file is replaced by a file, an existing folder by a folder.

    Args:
        path: file or folder to write; its parent folder is created if missing.

    Yields:
        A path in the same folder with the same suffix, from which some writers infer the format.

    Raises:
        OSError: `path` cannot be written; the error names it.
    """
    path = Path(path)
    # One fixed name per file, so that the next run replaces what a killed run left behind.
    temporary = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        # A full disk is reported without a name, other errors with the temporary name.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        _remove(temporary)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write(path: str | os.PathLike, data: bytes | str) -> None:
    """Write bytes or text atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a flat JSON file atomically; NaN and Inf become null, since JSON has neither."""
    clean = {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in content.items()
    }
    write(path, json.dumps(clean, indent=2) + "\n")
