"""Writes the files of a conversion so that each is complete once it has its final name."""

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; {} if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    unfinished = partial(path)
    unfinished.write_text(json.dumps(value, indent=1) + "\n")
    finish(unfinished, path)


def partial(path: Path) -> Path:
    """Name of this process's unfinished version of a file."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def finish(unfinished: Path, path: Path) -> None:
    """Give a complete file its final name once it is safely on disk."""
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
