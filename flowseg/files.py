"""Files and folders written whole or not at all."""

import contextlib
import os
import shutil
from pathlib import Path


@contextlib.contextmanager
def whole(path):
    """Yield a temporary path beside `path`; what is written there gets the name at the end.

    When the block fails nothing is left, and what stood under `path` stays. An existing file is
    replaced; a folder is replaced by a folder.

    Args:
        path: file or folder to write; its parent folder is made where missing.

    Yields:
        Path in the same folder, with the same suffix (some writers choose the format by it).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write(path, data):
    """Write bytes, or text, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with whole(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
