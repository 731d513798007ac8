"""Lists the files below a folder by their names without suffix."""

import os
from collections.abc import Sequence
from pathlib import Path

from flowseg import system_files


def scan(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Map names below `folder`, without suffix, to files, sorted by folder and name.

    A missing folder has no files.

    Raises:
        ValueError: a file with another suffix, or two files with the same name.
        OSError: a folder cannot be read.
    """
    files = {}
    # Links to folders are followed: data sets are large and often stored elsewhere.
    for parent, folders, names in os.walk(folder, onerror=_raise_unless_missing, followlinks=True):
        folders[:] = sorted(name for name in folders if not system_files.is_system_file(name))
        for path in (Path(parent, name) for name in sorted(names)):
            if system_files.is_system_file(path):
                continue
            if path.suffix.lower() not in suffixes:
                is_jpeg = folder.name == "masks" and path.suffix.lower() in (".jpg", ".jpeg")
                raise ValueError(
                    f"{path}: unexpected file type (expected {', '.join(suffixes)})"
                    + (": save masks as PNG, because JPEG changes their ids" if is_jpeg else "")
                )
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in files:
                raise ValueError(f"{path}: same name as {files[name].name}: keep one of the two")
            files[name] = path
    return files


def _raise_unless_missing(error):
    # Masks and flow are optional, so their folders may be missing.
    if not isinstance(error, FileNotFoundError):
        raise error
