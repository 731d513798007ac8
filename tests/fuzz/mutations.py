"""Damages files: the same damage for the same random generator."""

import json
import shutil
from pathlib import Path

import numpy as np

# Values of the wrong type or size for any entry of a JSON file.
_VALUES = (None, True, -1, 0, 1e308, float("nan"), 10**30, "", "\ud800", "a/../b", [], [[]], {})
# 32-bit values that make a size in a header huge, negative or zero, in either byte order.
_SIZES = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\0\1\0\0")
_HEADER = 64  # bytes in which most formats store sizes


def damage(folder: Path, rng: np.random.Generator) -> str:
    """Damage one file of a folder, or exchange it, and return what was done."""
    # Hidden files (locks, journals) are not read again.
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    files.sort()
    path = files[rng.integers(len(files))]
    name = path.relative_to(folder)
    kind = rng.integers(16)
    if kind == 0 and len(files) > 1:
        path.unlink()
        return f"{name}: removed"
    if kind == 1:
        path.unlink()
        path.mkdir()
        return f"{name}: replaced by a folder"
    if kind in (2, 3) and len(files) > 1:
        other = files[rng.integers(len(files))]
        if other != path:
            shutil.copyfile(other, path)
        return f"{name}: content of {other.relative_to(folder)}"
    data = path.read_bytes()
    if path.suffix in (".json", ".body") and kind < 12:
        changed, text = _damage_json(data, rng)
    else:
        changed, text = damage_bytes(data, rng)
    path.write_bytes(changed)
    return f"{name}: {text}"


def damage_bytes(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return damaged bytes, and what was done."""
    length = len(data)
    start, end = sorted(int(n) for n in rng.integers(0, length + 1, 2))
    near = int(rng.integers(0, min(length, _HEADER) + 1))
    kind = rng.integers(8)
    if kind == 0:
        return data[:start], f"truncated to {start} of {length} bytes"
    if kind == 1:
        return b"", "empty"
    if kind == 2:
        return data[:start] + data[end:], f"bytes {start} to {end} removed"
    if kind == 3:
        return data[:end] + data[start:], f"bytes {start} to {end} repeated"
    if kind == 4:
        return data[:start] + bytes(end - start) + data[end:], f"bytes {start} to {end} zero"
    if kind == 5:
        value = _SIZES[rng.integers(len(_SIZES))]
        return data[:near] + value + data[near + 4 :], f"{value.hex()} at byte {near}"
    if kind == 6:
        return data[:near] + rng.bytes(8) + data[near:], f"8 bytes inserted at byte {near}"
    changed = np.frombuffer(data, np.uint8).copy()
    count = int(rng.choice([1, 10, 1000]))
    if length:
        changed[rng.integers(0, length, count)] ^= np.uint8(1) << rng.integers(8, dtype=np.uint8)
    return changed.tobytes(), f"{count} bits flipped"


def _damage_json(data, rng):
    """Replace, remove or rename an entry at any depth of a JSON file."""
    content = json.loads(data)
    places = list(_places(content))
    parent, key = places[rng.integers(len(places))]
    value = _VALUES[rng.integers(len(_VALUES))]
    kind = rng.integers(4)
    if kind == 0:
        del parent[key]
        text = f"entry {key!r} removed"
    elif kind == 1 and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
        text = f"entry {key!r} renamed"
    else:
        parent[key] = value
        text = f"entry {key!r} is {value!r}"
    return json.dumps(content).encode(), text


def _places(content):
    """Yield (container, key) of every entry of nested lists and objects."""
    keys = range(len(content)) if isinstance(content, list) else list(content)
    for key in keys:
        yield content, key
        if isinstance(content[key], (list, dict)):
            yield from _places(content[key])
