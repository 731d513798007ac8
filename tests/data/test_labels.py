"""Label sets: built-in ones, and those from a JSON file."""

import json

import numpy as np
import pytest

from flowseg.data import labels

GOOD = {
    "names": ["road", "thing"],
    "ids": {"cityscapes": [7, [24, 26]]},
    "palette": [[128, 64, 128], [220, 20, 60]],
}


def test_cityscapes_against_cityscapesscripts():
    reference = pytest.importorskip("cityscapesscripts.helpers.labels")
    scored = sorted((label for label in reference.labels if 0 <= label.trainId < 255),
                    key=lambda label: label.trainId)  # fmt: skip
    cityscapes = labels.CITYSCAPES
    assert cityscapes.names == tuple(label.name for label in scored)
    assert cityscapes.ids["cityscapes"] == tuple((label.id,) for label in scored)
    assert cityscapes.ids["cityscapes_train"] == tuple((label.trainId,) for label in scored)
    assert cityscapes.palette == tuple(label.color for label in scored)
    known = {label.id for label in reference.labels if label.id >= 0} | {labels.IGNORE_LABEL}
    assert set(labels.KNOWN_IDS["cityscapes"]) == known


def test_tables():
    to_train = labels.train_id_table(labels.CITYSCAPES, "cityscapes")
    assert to_train.shape == (256,) and to_train.dtype == np.uint8
    # Road 7 -> 0, bicycle 33 -> 18; parking 9 and void 255 are not in the set.
    assert to_train[[7, 33, 9, 255]].tolist() == [0, 18, 255, 255]
    assert (to_train != 255).sum() == 19
    to_label = labels.label_id_table(labels.CITYSCAPES)
    assert to_label[[0, 18, 19, 255]].tolist() == [7, 33, 255, 255]
    assert (to_train[to_label[:19]] == np.arange(19)).all()
    colours = labels.colour_table(labels.CITYSCAPES)
    assert colours[0].tolist() == [128, 64, 128] and colours[255].tolist() == [0, 0, 0]


def test_json_label_set(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD))
    mine = labels.load_label_set(str(path))
    assert mine.name == "mine" and mine.ids == {"cityscapes": ((7,), (24, 26))}
    table = labels.train_id_table(mine, "cityscapes")
    assert table[[7, 24, 25, 26]].tolist() == [0, 1, 255, 1]
    assert labels.label_id_table(mine)[1] == 24
    assert labels.from_dict(json.loads(json.dumps(mine._asdict()))) == mine


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_of_windows_editors(tmp_path, encoding):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**GOOD, "names": ["Straße", "thing"]}), encoding=encoding)
    assert labels.load_label_set(path).names == ("Straße", "thing")


def test_several_numberings(tmp_path):
    # In the second numbering road is 3, and there is no thing.
    mine = labels.from_dict({"name": "mine", **GOOD, "ids": {**GOOD["ids"], "other": [3, []]}})
    assert labels.train_id_table(mine, "other")[[3, 7, 24]].tolist() == [0, 255, 255]
    assert labels.label_id_table(mine)[:2].tolist() == [7, 24]
    with pytest.raises(
        ValueError, match="'mine' has no mapping for .*'third'.*choose another label_set"
    ):
        labels.train_id_table(mine, "third")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"names": ["road"]}, "1 names and 2 colours"),
        ({"names": [], "palette": []}, "0 names"),
        ({"ids": {"cityscapes": [7]}}, "cityscapes: 1 ids for 2 classes"),
        ({"ids": {"cityscapes": [7, 7]}}, "none may be in two"),
        ({"ids": {"cityscapes": [7, []]}}, "every class needs an id"),
        ({"ids": {"cityscapes": [7, 255]}}, "0..254"),
        ({"ids": {"cityscapes": [7, "x"]}}, "invalid literal"),
        ({"ids": {"cityscapes": 7}}, "not iterable"),
        ({"ids": {}}, "one list per numbering"),
        ({"ids": [7, 8]}, "one list per numbering"),
        ({"palette": [[0, 0, 0], [0, 0]]}, "three numbers"),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, "three numbers"),
        ({"names": [str(i) for i in range(255)], "ids": {"mine": list(range(255))},
          "palette": [[0, 0, 0]] * 255}, "at most 254"),
    ],
)  # fmt: skip
def test_bad_json_label_set(tmp_path, change, match):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError, match=f"mine.json: not a label set: .*{match}"):
        labels.load_label_set(str(path))


def test_other_bad_label_sets(tmp_path):
    with pytest.raises(ValueError, match="nosuch: neither a built-in label set .*cityscapes"):
        labels.load_label_set("nosuch")
    path = tmp_path / "mine.json"
    deep, huge = "[" * 100_000, json.dumps(GOOD).replace("128", "1e999")
    for text in (
        "{",
        "[]",
        "7",
        "",
        "\ufeff",
        deep,
        huge,
        json.dumps({k: GOOD[k] for k in ("names", "ids")}),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match="mine.json: not a label set") as error:
            labels.load_label_set(str(path))
        assert "\n" not in str(error.value)
    path.write_bytes(b'{"names": ["Stra\xdfe"]}')
    with pytest.raises(ValueError, match="mine.json: not a label set: 'utf-8' codec can't decode"):
        labels.load_label_set(path)
    assert labels.load_label_set("cityscapes") is labels.CITYSCAPES


def test_things_are_persons_and_vehicles():
    table = labels.thing_table(labels.CITYSCAPES)
    named = {name for i, name in enumerate(labels.CITYSCAPES.names) if table[i] == 1}
    assert named == set(labels.CITYSCAPES_THING_SIZES)
    assert (table[:19] < 2).all() and (table[19:] == 255).all()
    # Classes are undecided if they mix both, or have ids in another numbering only.
    mixed = labels.from_dict(
        {
            "name": "mixed",
            "names": ["road or car", "rider", "wall", "cloud"],
            "ids": {"mine": [1, 2, 3, 4], "cityscapes": [[7, 26], 25, 12, []]},
            "palette": [[1, 2, 3]] * 4,
        }
    )
    assert labels.thing_table(mixed)[:4].tolist() == [255, 1, 0, 255]


def test_categories_contain_every_class_once():
    names = [name for group in labels.CITYSCAPES_CATEGORIES.values() for name in group]
    assert sorted(names) == sorted(labels.CITYSCAPES.names)


def test_numberings_of_vkitti2():
    # Car 13 and van 14 are cars of Cityscapes, tree 3 and vegetation 4 its vegetation; guard rail 7
    # and misc 11 are void.
    table = labels.train_id_table(labels.CITYSCAPES, "vkitti2")
    names = [labels.CITYSCAPES.names[i] for i in table[[13, 14, 3, 4, 12]]]
    assert names == ["car", "car", "vegetation", "vegetation", "truck"]
    assert table[[0, 7, 11]].tolist() == [255, 255, 255]
    back = labels.train_id_table(labels.VKITTI2, "cityscapes")
    # Guard rail 14 has a class of its own; vegetation 21 and sidewalk 8 have none.
    assert labels.VKITTI2.names[back[14]] == "guard rail"
    assert back[[21, 8]].tolist() == [255, 255] and back[[7, 26]].tolist() == [5, 12]


def test_stored_label_sets_gain_new_numberings():
    cityscapes = labels.CITYSCAPES
    stored = cityscapes._replace(ids={"cityscapes": cityscapes.ids["cityscapes"]})
    assert labels.with_new_numberings(stored) == cityscapes
    mine = labels.from_dict({"name": "mine", **GOOD})
    other = stored._replace(palette=((1, 2, 3), *stored.palette[1:]))
    # A numbering of its own, and one that differs, are kept.
    own = cityscapes._replace(ids={**cityscapes.ids, "own": cityscapes.ids["cityscapes"]})
    renumbered = stored._replace(ids={"cityscapes": cityscapes.ids["cityscapes_train"]})
    for unchanged in (mine, other, own, renumbered):
        assert labels.with_new_numberings(unchanged) is unchanged
