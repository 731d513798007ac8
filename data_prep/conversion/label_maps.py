"""Reads label files for records, and chooses which ids the masks of a custom data set may hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from flowseg.data import labels, masks
from flowseg.errors import ArgumentError


class MaskIds(NamedTuple):
    """How label files give ids; see `frames.Frame`, which has these fields too.

    Attributes:
        label_set: name of the numbering, stored in the records.
        known_ids: every id that a file may contain; default: `flowseg.data.labels.KNOWN_IDS`.
        palette: ids of the colours.
        mask_values: stored value -> id; empty: the masks hold the ids.
    """

    label_set: str
    known_ids: tuple[int, ...]
    palette: masks.Palette
    mask_values: dict[int, int]


def decode(data: bytes, name: str | Path, mask_ids: MaskIds) -> tuple[np.ndarray, bytes]:
    """Decode a label file.

    Args:
        data: content of the file.
        name: name of the file for messages.
        mask_ids: how it gives ids; without a palette, that of the built-in label set is used.

    Returns:
        (ids, png): (H, W) uint8; 8-bit grey PNG of them, unchanged if `data` is one already.

    Raises:
        ValueError: see `flowseg.data.masks.decode`.
    """
    palette, numbering = mask_ids.palette, mask_ids.label_set
    if not palette and numbering in labels.LABEL_SETS:
        palette = masks.palette(labels.LABEL_SETS[numbering], numbering)
    ids = masks.decode(data, name, palette, mask_ids.mask_values or None)
    if masks.holds_plain_ids(data) and not mask_ids.mask_values:
        return ids, data
    return ids, cv2.imencode(".png", ids)[1].tobytes()


def count(ids: np.ndarray, name: str | Path, mask_ids: MaskIds) -> dict[int, int]:
    """Count the pixels of each id, {id: pixels}.

    Raises:
        ValueError: an id is unknown to the numbering; the message names the file by `name`.
    """
    counts = np.bincount(ids.ravel(), minlength=256)
    present = np.flatnonzero(counts).tolist()
    known = mask_ids.known_ids or labels.KNOWN_IDS[mask_ids.label_set]
    unknown = [i for i in present if i not in known]
    if unknown:
        shown = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        raise ValueError(f"{name}: label ids that {mask_ids.label_set} does not have: {shown}")
    return {i: int(counts[i]) for i in present}


def choose_ids(
    label_set: labels.LabelSet,
    numbering: str | None = None,
    void_ids: Sequence[int] = (),
    mask_values: Sequence[int] = (),
) -> MaskIds:
    """Choose the numbering of the masks and the ids that they may contain.

    Args:
        label_set: the classes.
        numbering: one of its numberings; default: its first.
        void_ids: further ids to treat as void, in addition to those of the numbering; with
            `mask_values`, stored values.
        mask_values: the stored value of each class, in the order of the label set.

    Raises:
        ValueError: unknown numbering; a void id or a value is out of range, or is a class.
    """
    numbering = numbering or next(iter(label_set.ids))
    if numbering not in label_set.ids:
        known = ", ".join(label_set.ids)
        raise ArgumentError(
            f"numbering={numbering}: label set {label_set.name} has {known}", "numbering"
        )
    groups = label_set.ids[numbering]
    names = {i: name for ids, name in zip(groups, label_set.names, strict=True) for i in ids}
    official_ids = labels.KNOWN_IDS.get(numbering, (labels.IGNORE_LABEL,))
    palette = masks.palette(label_set, numbering)
    if mask_values:
        values = _map_values(label_set, groups, mask_values)
        class_of_value = dict(zip(mask_values, label_set.names, strict=True))
        _check_void(void_ids, class_of_value, _flag_text(mask_values))
        void = max(set(official_ids) - set(names), default=labels.IGNORE_LABEL)
        values = {**dict.fromkeys([labels.IGNORE_LABEL, *void_ids], void), **values}
        return MaskIds(numbering, tuple(sorted({*official_ids, *names, void})), palette, values)
    _check_void(void_ids, names, f"label set {label_set.name}")
    known_ids = tuple(sorted({*official_ids, *names, *void_ids}))
    return MaskIds(numbering, known_ids, palette, {})


def _check_void(void_ids, names, where):
    for i in void_ids:
        if not 0 <= i <= 255:
            raise ArgumentError(f"void_ids={i}: ids are in 0..255", "void_ids")
        if i in names:
            raise ArgumentError(
                f"void_ids={i}: is {names[i]} in {where}", "void_ids", "mask_values"
            )


def _map_values(label_set, groups, mask_values):
    """Map the stored value of each class to its first id in the numbering."""
    text = _flag_text(mask_values)
    if len(mask_values) != len(groups):
        raise ArgumentError(
            f"{text}: label set {label_set.name} has {len(groups)} classes: give one value per "
            "class, in the order of the label set",
            "mask_values",
        )
    if len(set(mask_values)) < len(mask_values) or not all(0 <= v <= 255 for v in mask_values):
        raise ArgumentError(f"{text}: values are in 0..255, and all different", "mask_values")
    if not all(groups):
        raise ArgumentError(
            f"{text}: each class of label set {label_set.name} needs an id in the numbering of the "
            "masks (numbering)",
            "mask_values",
            "numbering",
        )
    return {value: ids[0] for value, ids in zip(mask_values, groups, strict=True)}


def _flag_text(mask_values):
    return f"mask_values={','.join(map(str, mask_values))}"
