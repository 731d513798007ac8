"""Reads masks: the ids that a PNG stores at any bit depth, or the classes that its colours mean.

OpenCV and TensorFlow scale grey values of 1, 2 and 4 bits to 0..255 and replace the indices of a
palette by its colours. Both change ids.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from flowseg.data.flow_io import check_png
from flowseg.data.image_headers import JPEG_MAGIC, PNG_MAGIC, png_chunks
from flowseg.data.labels import IGNORE_LABEL, KNOWN_IDS, LabelSet

# Colour types of the PNG header.
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_CHANNEL_WEIGHTS = np.array([1 << 16, 1 << 8, 1])

# (R, G, B) -> ids of the class with that colour; no ids if several classes have it.
Palette = dict[tuple[int, int, int], tuple[int, ...]]


def palette(label_set: LabelSet, numbering: str | None = None) -> Palette:
    """Return the colours of a label set and the ids that they stand for.

    Black stands for void, as in the images that FlowSeg draws, unless a class is black.

    Args:
        label_set: the classes; those without an id in the numbering are omitted.
        numbering: numbering of the ids; default: train ids.
    """
    count = len(label_set.names)
    groups = [(i,) for i in range(count)] if numbering is None else label_set.ids[numbering]
    ids_of = {}
    for colour, ids in zip(label_set.palette, groups, strict=True):
        if ids:
            ids_of[colour] = () if colour in ids_of else ids
    known = KNOWN_IDS.get(numbering, (IGNORE_LABEL,))
    void = set(known) - {i for ids in groups for i in ids}
    return {(0, 0, 0): (max(void),)} | ids_of if void else ids_of


def decode(
    data: bytes,
    name: str | Path,
    colours: Mapping[tuple[int, int, int], tuple[int, ...]] | None = None,
    values: Mapping[int, int] | None = None,
) -> np.ndarray:
    """Decode a mask to (H, W) uint8 ids.

    A grey PNG holds the ids as its values, at 1, 2, 4, 8 or 16 bits; a palette PNG holds them as
    its indices. The colours of an RGB PNG must be exactly those of `colours`. An alpha channel is
    ignored.

    Args:
        data: content of the file.
        name: name of the file for messages.
        colours: see `palette`; without it, an RGB PNG is an error.
        values: grey value or index -> id, for masks that do not hold the ids; default: equal.

    Raises:
        ValueError: not an undamaged PNG, or a value or colour stands for no id.
    """
    if data.startswith(JPEG_MAGIC):
        raise ValueError(
            f"{name}: a JPEG file cannot hold a mask, because its compression changes the ids: "
            "save masks as PNG"
        )
    check_png(data, name)
    chunks = _chunks(data)
    depth, colour_type = _header(chunks)
    if not depth:
        raise ValueError(f"{name}: not a readable PNG (its header is damaged)")
    pixels = _decode_stored(chunks, name)
    if colour_type in (_RGB, _RGBA):
        return _ids_of_colours(pixels, name, colours)
    stored = pixels if pixels.ndim == 2 else pixels[..., 0]
    if depth < 8:
        stored //= 255 // (2**depth - 1)  # OpenCV has scaled the values to 0..255
    if stored.max() > 255:
        raise ValueError(
            f"{name}: the largest value is {stored.max()}, but class ids are at most 255 (a mask "
            "of depth, or of instances? data_prep.folder --instance_divisor N reads ids of the "
            "form class * N + number)"
        )
    if values is not None:
        return _map_values(stored, name, values)
    if colour_type == _PALETTE and colours:
        _check_index_colours(stored, dict(chunks).get(b"PLTE", b""), colours, name)
    return np.uint8(stored)


def holds_plain_ids(data: bytes) -> bool:
    """Whether a PNG is 8-bit grey, which every decoder reads as the same ids."""
    return _header(_chunks(data)) == (8, _GREY)


def _chunks(data):
    """Return (kind, content) of the chunks of a PNG."""
    return [(kind, data[start:end]) for kind, start, end in png_chunks(data)]


def _header(chunks):
    """Return the bit depth and the colour type of a PNG, (0, 0) if its header is damaged."""
    kind, content = chunks[0]
    return tuple(content[8:10]) if kind == b"IHDR" and len(content) == 13 else (0, 0)


def _decode_stored(chunks, name):
    """Decode the pixels as stored, (H, W) or RGB (H, W, 3), without palette or transparency."""
    kept = []
    for kind, content in chunks:
        # A palette image is stored like a grey image, which OpenCV reads without expanding it.
        if kind == b"IHDR" and content[9:10] == bytes([_PALETTE]):
            content = content[:9] + bytes([_GREY]) + content[10:]
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            kept.append(_chunk(kind, content))
    data = np.frombuffer(PNG_MAGIC + b"".join(kept), np.uint8)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"{name}: OpenCV cannot read this PNG: {error.err}") from error
    if pixels is None:
        raise ValueError(f"{name}: not a readable PNG (damaged)")
    return pixels if pixels.ndim == 2 else pixels[..., 2::-1]


def _chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)


def _ids_of_colours(rgb, name, colours):
    if not colours:
        raise ValueError(
            f"{name}: holds colours, and no label set says which classes they mean: save the ids "
            "as an 8-bit grey PNG"
        )
    if rgb.dtype != np.uint8:
        raise ValueError(f"{name}: a mask of colours has 8 bits per channel, but this one has 16")
    known = np.array(sorted(colours))
    codes, known_codes = (image.astype(int) @ _CHANNEL_WEIGHTS for image in (rgb, known))
    place = np.minimum(np.searchsorted(known_codes, codes), len(known_codes) - 1)
    unknown, counts = np.unique(codes[known_codes[place] != codes], return_counts=True)
    if unknown.size:
        raise ValueError(f"{name}: {_describe_unknown(unknown, counts, rgb)}")
    ids = np.zeros(len(known), np.uint8)
    for i in np.flatnonzero(np.bincount(place.ravel())):
        if not colours[tuple(known[i].tolist())]:
            raise ValueError(
                f"{name}: several classes of the label set have the colour {_text(known[i])}: save "
                "the ids as an 8-bit grey PNG"
            )
        ids[i] = colours[tuple(known[i].tolist())][0]
    return ids[place]


def _describe_unknown(codes, counts, rgb):
    """Describe colours without a class: the most frequent one, its pixels, and the others."""
    most = counts.argmax()
    code = int(codes[most])
    text = (
        f"the colour {_text((code >> 16, code >> 8 & 255, code & 255))}, at {counts[most]} pixels"
    )
    if len(codes) > 1:
        text += f" ({len(codes) - 1} more colours at {counts.sum() - counts[most]} pixels)"
    advice = "correct the palette, or save the ids as an 8-bit grey PNG"
    if (rgb[..., :1] == rgb).all():
        advice = "if each of its three equal channels holds the ids, save only one"
    return f"{text}, is not in the palette of the label set: {advice}"


def _text(colour):
    return f"({', '.join(str(int(value)) for value in colour)})"


def _map_values(stored, name, values):
    present = np.flatnonzero(np.bincount(stored.ravel())).tolist()
    unlisted = [str(value) for value in present if value not in values]
    if unlisted:
        shown = ", ".join(unlisted[:10]) + (", ..." if unlisted[10:] else "")
        raise ValueError(f"{name}: holds values that are not in mask_values: {shown}")
    table = np.zeros(256, np.uint8)
    table[list(values)] = list(values.values())
    return table[stored]


def _check_index_colours(stored, entries, colours, name):
    """Refuse indices that contradict the classes' colours.

    A program that compresses PNG files turns a mask of colours into a palette image whose indices
    are arbitrary. All its colours are then in the label set, but with other ids.
    """
    entries = np.frombuffer(entries[: len(entries) // 3 * 3], np.uint8).reshape(-1, 3)
    present = np.flatnonzero(np.bincount(stored.ravel())).tolist()
    used = {i: tuple(entries[i].tolist()) for i in present if i < len(entries)}
    if len(used) < len(present) or not all(colours.get(colour) for colour in used.values()):
        return
    for index, colour in used.items():
        if index not in colours[colour] and colour != (0, 0, 0):
            raise ValueError(
                f"{name}: index {index} of its palette has the colour {_text(colour)}, which is "
                f"that of id {colours[colour][0]} in the label set: save the mask as RGB, or "
                "correct the colours of the label set"
            )
