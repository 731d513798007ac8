"""Writes files and folders atomically, and locks folders."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from flowseg.errors import ArgumentError

# Longer names get a short temporary name. Any file system allows 128 bytes plus the prefix.
_LONGEST_NAME = 128


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` when the block succeeds.

    If the block fails, the temporary path is removed and an existing `path` is unchanged. An
    existing file is replaced by a file, an existing folder by a folder. A symbolic link is kept:
    its target is written, and created if it is missing. Into a device, FIFO or open descriptor
    (`/dev/stdout`) the finished file is copied.

    Args:
        path: file or folder to write; its parent folder is created if missing.

    Yields:
        A path with the same suffix, from which some writers infer the format.

    Raises:
        OSError: `path` cannot be written; the error names it.
    """
    named, path = path, Path(path)
    temporary = None
    try:
        if _is_stream(path):
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder) / _temporary_name(path)
                yield temporary
                _copy_into(temporary, path)
            return
        target = Path(os.path.realpath(path))
        temporary = target.with_name(_temporary_name(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        yield temporary
        if temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except OSError as error:
        if _names_a_file(error, temporary, str(named)):
            raise
        # A full disk is reported without a name, other errors with the temporary name.
        raise OSError(error.errno, error.strerror or str(error), str(named)) from error
    finally:
        if temporary:
            _remove(temporary)


def _names_a_file(error, temporary, path):
    """Whether an error of the block already names `path` or a file that the block read."""
    if error.errno is None:
        return path in str(error)
    name = "" if error.filename is None else os.fsdecode(error.filename)
    is_temporary = name.startswith(str(temporary)) or os.path.realpath(path).startswith(name)
    return not is_temporary


def _is_stream(path):
    """Whether a path is written as a stream: a device, a FIFO, or a descriptor of a process."""
    if _descriptor_folder(path):
        return True
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _descriptor_folder(path):
    """Return the path of an open descriptor that `path` links to (/proc/1234/fd/1), or None."""
    path = Path(os.path.abspath(path))
    for _ in range(40):  # the number of links that Linux follows
        folder = os.path.realpath(path.parent)
        if folder.startswith("/proc/") and folder.endswith("/fd"):
            return Path(folder, path.name)
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return None


def _copy_into(source, path):
    if source.is_dir():
        raise NotADirectoryError(20, "not a folder")
    descriptor = _descriptor_folder(path)
    if descriptor and descriptor.parent == Path(f"/proc/{os.getpid()}/fd"):
        # Opening the path again would overwrite what was printed there before.
        sys.stdout.flush()
        opened = os.fdopen(os.dup(int(descriptor.name)), "wb")
    else:
        opened = open(path, "wb")
    with opened as output, open(source, "rb") as content:
        shutil.copyfileobj(content, output)


def _temporary_name(path):
    # One fixed name per file, so that the next run replaces what a killed run left behind.
    if len(os.fsencode(path.name)) <= _LONGEST_NAME:
        return f".partial-{path.name}"
    suffix = path.suffix if len(os.fsencode(path.suffix)) < 32 else ""
    return f".partial-{hashlib.sha256(os.fsencode(path.name)).hexdigest()}{suffix}"


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike) -> Path:
    """Create a folder and its parents if they are missing; the target of a symbolic link, too.

    Raises:
        OSError: it cannot be created; for example, `path` is a file.
    """
    Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)
    return Path(path)


def write(path: str | os.PathLike, data: bytes | str) -> None:
    """Write bytes or text atomically; text in UTF-8.

    Characters of file names that are not valid UTF-8 are written as their original bytes; see
    `read_text`.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic(path) as temporary:
        if isinstance(data, str):
            data = data.encode(errors="surrogateescape")
        temporary.write_bytes(data)


def read_text(path: str | os.PathLike) -> str:
    """Read text of `write`.

    Raises:
        OSError: the file cannot be read.
    """
    return Path(path).read_text("utf-8", errors="surrogateescape")


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a flat JSON file atomically; NaN and Inf become null, since JSON has neither."""
    clean = {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in content.items()
    }
    write(path, json.dumps(clean, indent=2) + "\n")


def check_utf8(path: str | os.PathLike, argument: str | None = None) -> None:
    """Raise ArgumentError if a path is not valid UTF-8, for libraries that need it.

    Args:
        path: file or folder.
        argument: name of the argument that holds it, if another path can be given.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        advice = f"give another {argument}" if argument else "rename it"
        reason = f"TensorFlow needs a name that is valid UTF-8: {advice}"
        raise ArgumentError(reason, *filter(None, [argument]), path=path) from error


def lock(folder: str | os.PathLike, message: str, *arguments: str) -> TextIO:
    """Lock a folder until the returned file is closed or the process ends; create it if missing.

    On systems and network drives without locks nothing is locked.

    Args:
        folder: the folder, in which `.lock` is created.
        message: message of the error.
        *arguments: names of the arguments in the message, see `ArgumentError`.

    Raises:
        ValueError: another process has locked the folder.
        OSError: the folder is not writable.
    """
    lock_file = open(make_folder(folder) / ".lock", "w")
    try:
        import fcntl  # Windows lacks it.

        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock_file.close()
        raise ArgumentError(message, *arguments, path=folder) from error
    except (ImportError, OSError):
        pass
    return lock_file
