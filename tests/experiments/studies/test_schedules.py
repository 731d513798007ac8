"""Trainings that differ in flags side by side: their flags, and the table."""

import pytest

from experiments.studies import schedules


def test_table_compares_with_the_first_variant_seed_by_seed():
    found = {
        "fixed": [{"seg/miou": 40.0, "flow/aepe": 2.0}, {"seg/miou": 42.0, "flow/aepe": 3.0}],
        "a": [{"seg/miou": 41.0, "flow/aepe": 1.5}, {"seg/miou": 43.0, "flow/aepe": 2.5}],
        "b": [{"seg/miou": 40.0, "flow/aepe": 3.0}, {"seg/miou": 40.0, "flow/aepe": 2.0}],
    }
    lines = schedules.table(found).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| fixed",
        "| a",
        "| ... more than fixed",
        "| b",
        "| ... more than fixed",
    ]
    assert lines[4].startswith("| ... more than fixed | +1.00 ± 0.00 |  | -0.50 ± 0.00")
    assert lines[6].startswith("| ... more than fixed | -1.00 ± 1.41 |  | +0.00 ± 1.41")


def test_variants():
    assert schedules.parse(["fixed:", "two: --a=1 --b='x y'"]) == {
        "fixed": [],
        "two": ["--a=1", "--b=x y"],
    }
    for texts in (["fixed"], [":--a"], ["a:", "a:--b"]):
        with pytest.raises(ValueError, match="NAME:FLAGS, each name once"):
            schedules.parse(texts)


def test_the_variants_own_flags_come_last():
    trained = schedules.training_flags(["--x=2"], "0", "r.flags", ["a", "b"], ["--steps=1"])
    expected = "--flagfile=r.flags --train_records=a,b --seed=0 --val_records= --steps=1 --x=2"
    assert trained == expected.split()
