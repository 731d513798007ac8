"""Finds files by glob. A path that exists is taken as it is, whatever characters it has."""

import glob
import os
from collections.abc import Sequence


def match(pattern: str | os.PathLike) -> list[str]:
    """Return the files that match a glob, sorted.

    An existing path matches itself. Otherwise, the leading folders that exist are taken as they
    are, so that `data[1]/train-*` finds the shards of the folder `data[1]`.
    """
    pattern = os.fspath(pattern)
    if os.path.lexists(pattern):
        return [pattern]
    folder, rest = _existing_folder(pattern)
    return sorted(glob.glob(os.path.join(glob.escape(folder), rest)))


def split(values: Sequence[str]) -> list[str]:
    """Join the parts of a comma-separated list that together name an existing file or folder.

    Args:
        values: the list, split at every comma.

    Returns:
        The list, in which paths that contain commas are whole.
    """
    values, joined = list(values), []
    while values:
        for end in range(len(values), 0, -1):
            text = ",".join(values[:end])
            if end == 1 or os.path.lexists(text) or _has_own_folder(text):
                break
        joined.append(text)
        del values[:end]
    return joined


def _has_own_folder(text):
    """Whether the commas of a glob are in the name of an existing folder."""
    folder, rest = _existing_folder(text)
    return "," in folder and "," not in rest


def _existing_folder(pattern):
    """Return the longest leading folder of a path that exists, and the rest."""
    parts = pattern.split(os.sep)
    for end in range(len(parts) - 1, 0, -1):
        folder = os.sep.join(parts[:end]) or os.sep
        if os.path.isdir(folder):
            return folder, os.sep.join(parts[end:])
    return "", pattern
