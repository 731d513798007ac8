"""Checks the labels of a conversion for classes and frames that nothing can be trained on."""

from collections import Counter
from collections.abc import Iterable

from data_prep.conversion.frames import Frame
from flowseg import console
from flowseg.data.labels import IGNORE_LABEL, LABEL_SETS, LabelSet

# Share of void pixels in a data set above which a wrong label set is likely. The KITTI samples have
# at most 13 % in a frame, those of CamVid 32 %.
MAX_VOID = 0.5
# Maximum number of frames named in a line.
_MAX_NAMED = 3


def is_all_void(frame: Frame, class_pixels: dict[int, int], label_set: LabelSet) -> bool:
    """Whether a frame has labels, but no pixel of a class.

    Args:
        frame: its `label_set` is the numbering of the ids.
        class_pixels: label id -> pixels.
        label_set: the classes.
    """
    return bool(class_pixels) and not class_pixels.keys() & _class_ids(label_set, frame.label_set)


def _class_ids(label_set, numbering):
    return {i for ids in label_set.ids.get(numbering, ()) for i in ids}


def report(shards: dict[str, dict], label_set: LabelSet) -> None:
    """Print the results of `check`, warnings to stderr."""
    warnings, notes = check(shards, label_set)
    print("".join(f"{line}\n" for line in notes), end="")
    for line in warnings:
        console.warn(line)


def check(shards: dict[str, dict], label_set: LabelSet) -> tuple[list[str], list[str]]:
    """Describe labels of which little or nothing can be trained.

    The split `test` is ignored: its ground truth may be missing on purpose.

    Args:
        shards: shard name -> its journal entry, see `report`.
        label_set: the classes.

    Returns:
        (warnings, notes): lines of text. Classes that do not occur are a warning for the user's own
        label set, and a note for a built-in one, because a part of a public data set lacks rare
        classes.
    """
    entries = [entry for name, entry in shards.items() if not name.startswith("test-")]
    numberings = sorted({numbering for entry in entries for numbering in entry["class_pixels"]})
    warnings, notes = [], []
    for numbering in numberings:
        counts = Counter()
        for entry in entries:
            pixels = entry["class_pixels"].get(numbering, {})
            counts.update({int(i): count for i, count in pixels.items()})
        warnings += _check_void(entries, counts, _class_ids(label_set, numbering))
        if text := two_values(counts, label_set, numbering):
            warnings.append(text)
        elif text := absent_classes(counts, label_set, numbering):
            (notes if LABEL_SETS.get(label_set.name) == label_set else warnings).append(text)
    return warnings, notes


def _check_void(entries, counts, class_ids):
    frames = sum(entry["truth"].get("labels", 0) for entry in entries)
    empty = [name for entry in entries for name in entry.get("all_void", ())]
    void = 1 - sum(counts[i] for i in class_ids) / counts.total()
    if void > MAX_VOID:
        yield (
            f"{void:.0%} of the labelled frames' pixels are void, as their ids belong to no "
            "class: is this the right label set and numbering?"
        )
    if empty:
        more = f" and {len(empty) - _MAX_NAMED} more" if len(empty) > _MAX_NAMED else ""
        yield (
            f"{len(empty)} of {frames} labelled frames without a pixel of any class: "
            f"{', '.join(empty[:_MAX_NAMED])}{more}: correct or remove their masks"
        )


def two_values(ids: Iterable[int], label_set: LabelSet, numbering: str) -> str:
    """Describe masks of 0 and 255 for two classes with the ids 0 and 1; empty if they are not so.

    Args:
        ids: all label ids that occur.
        label_set: the classes.
        numbering: numbering of the ids.
    """
    if label_set.ids[numbering] != ((0,), (1,)) or not {IGNORE_LABEL} <= set(ids) <= {0, 255}:
        return ""
    return (
        f"the masks hold only the values 0 and 255, and 255 means void: class {label_set.names[1]} "
        "has no pixel; if 255 stands for it, convert again with --mask_values 0,255 --overwrite"
    )


def absent_classes(ids: Iterable[int], label_set: LabelSet, numbering: str) -> str:
    """Describe the classes without a pixel; empty if there is none, or if no class has one."""
    present = set(ids)
    names = [
        name
        for name, class_ids in zip(label_set.names, label_set.ids[numbering], strict=True)
        if not present & set(class_ids)
    ]
    if not 0 < len(names) < len(label_set.names):
        return ""
    return (
        f"{len(names)} of the {len(label_set.names)} classes of label set {label_set.name} have no "
        f"pixel: {', '.join(names)}"
    )
