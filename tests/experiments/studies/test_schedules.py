"""Comparison of trainings that differ in flags: the flags and the table."""

import pytest

from experiments.studies import schedules
from tests.support import markdown


def test_table_compares_each_seed_with_the_first_variant():
    scores = {
        "fixed": [{"seg/miou": 40.0, "flow/aepe": 2.0}, {"seg/miou": 42.0, "flow/aepe": 3.0}],
        "a": [{"seg/miou": 41.0, "flow/aepe": 1.5}, {"seg/miou": 43.0, "flow/aepe": 2.5}],
        "b": [{"seg/miou": 40.0, "flow/aepe": 3.0}, {"seg/miou": 40.0, "flow/aepe": 2.0}],
    }
    rows = markdown.rows(schedules.table(scores))[1:]
    difference = "... minus fixed"
    assert [row[0] for row in rows] == ["fixed", "a", difference, "b", difference]
    assert rows[2] == [difference, "+1.00 ± 0.00", "", "-0.50 ± 0.00", "", ""]
    assert rows[4] == [difference, "-1.00 ± 1.41", "", "+0.00 ± 1.41", "", ""]


def test_variants():
    assert schedules.parse(["fixed:", "two: --a=1 --b='x y'"]) == {
        "fixed": [],
        "two": ["--a=1", "--b=x y"],
    }
    for texts in (["fixed"], [":--a"], ["a:", "a:--b"]):
        with pytest.raises(ValueError, match="NAME:FLAGS, each name once"):
            schedules.parse(texts)


def test_flags_of_the_variant_come_last():
    flags = schedules.training_flags(["--x=2"], "0", "r.flags", ["a", "b"], ["--steps=1"])
    expected = "--flagfile=r.flags --train_records=a,b --seed=0 --val_records= --steps=1 --x=2"
    assert flags == expected.split()
