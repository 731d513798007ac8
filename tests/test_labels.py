"""Class sets: the built-in one, and those of a user's JSON."""

import json

import numpy as np
import pytest

from flowseg import labels

GOOD = {
    "names": ["road", "thing"],
    "ids": [7, [24, 26]],
    "palette": [[128, 64, 128], [220, 20, 60]],
    "numbering": "cityscapes",
}


def test_cityscapes_against_its_owner():
    owner = pytest.importorskip("cityscapesscripts.helpers.labels")
    scored = sorted((label for label in owner.labels if 0 <= label.trainId < 255),
                    key=lambda label: label.trainId)  # fmt: skip
    ours = labels.CITYSCAPES
    assert ours.names == tuple(label.name for label in scored)
    assert ours.ids == tuple((label.id,) for label in scored)
    assert ours.palette == tuple(label.color for label in scored)
    known = {label.id for label in owner.labels if label.id >= 0} | {labels.IGNORE_LABEL}
    assert set(labels.KNOWN_IDS["cityscapes"]) == known


def test_tables():
    to_train = labels.train_id_table(labels.CITYSCAPES, "cityscapes")
    assert to_train.shape == (256,) and to_train.dtype == np.uint8
    # Road 7 -> 0, bicycle 33 -> 18; parking 9 and void 255 are not in the set.
    assert to_train[[7, 33, 9, 255]].tolist() == [0, 18, 255, 255]
    assert (to_train != 255).sum() == 19
    back = labels.owner_id_table(labels.CITYSCAPES)
    assert back[[0, 18, 19, 255]].tolist() == [7, 33, 255, 255]
    assert (to_train[back[:19]] == np.arange(19)).all()
    colours = labels.colour_table(labels.CITYSCAPES)
    assert colours[0].tolist() == [128, 64, 128] and colours[255].tolist() == [0, 0, 0]


def test_a_json_label_set(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD))
    mine = labels.load_label_set(str(path))
    assert mine.name == "mine" and mine.ids == ((7,), (24, 26))
    table = labels.train_id_table(mine, "cityscapes")
    assert table[[7, 24, 25, 26]].tolist() == [0, 1, 255, 1]
    assert labels.owner_id_table(mine)[1] == 24
    assert labels.from_dict(json.loads(json.dumps(mine._asdict()))) == mine


def test_numbering_is_the_name_unless_said():
    mine = labels.from_dict({"name": "mine", **GOOD, "numbering": "mine"})
    assert mine == labels.from_dict({k: v for k, v in {"name": "mine", **GOOD}.items()
                                     if k != "numbering"})  # fmt: skip
    with pytest.raises(ValueError, match="'mine' has no map for .*'cityscapes'.*--label_set"):
        labels.train_id_table(mine, "cityscapes")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"names": ["road"]}, "1 names, 2 ids and 2 colours"),
        ({"names": [], "ids": [], "palette": []}, "0 names"),
        ({"ids": [7, 7]}, "no id may stand in two"),
        ({"ids": [7, []]}, "every class needs ids"),
        ({"ids": [7, 255]}, "0..254"),
        ({"ids": [7, "x"]}, "invalid literal"),
        ({"ids": 7}, "not iterable"),
        ({"palette": [[0, 0, 0], [0, 0]]}, "three numbers"),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, "three numbers"),
        ({"names": [str(i) for i in range(255)], "ids": list(range(255)),
          "palette": [[0, 0, 0]] * 255}, "at most 254"),
    ],
)  # fmt: skip
def test_a_bad_json_label_set(tmp_path, change, match):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError, match=f"mine.json: not a label set: .*{match}"):
        labels.load_label_set(str(path))


def test_other_bad_label_sets(tmp_path):
    with pytest.raises(ValueError, match="nosuch: neither a built-in label set .*cityscapes"):
        labels.load_label_set("nosuch")
    path = tmp_path / "mine.json"
    for text in ("{", "[]", "7", json.dumps({k: GOOD[k] for k in ("names", "ids")})):
        path.write_text(text)
        with pytest.raises(ValueError, match="mine.json: not a label set"):
            labels.load_label_set(str(path))
    assert labels.load_label_set("cityscapes") is labels.CITYSCAPES
