"""Text tables: alignment of columns, and unchanged cells."""

import pytest

from flowseg import tables


def test_plain_columns():
    rows = [["", "all", "b"], ["a long name", "1.50", ""], ["x", 10, "-3"]]
    assert tables.plain(rows).splitlines() == [
        "              all   b",
        "a long name  1.50",
        "x              10  -3",
    ]
    assert tables.plain(rows, left=2).splitlines()[1:] == [
        "a long name  1.50",
        "x            10    -3",
    ]


def test_plain_empty():
    assert tables.plain([]) == ""


def test_markdown_alignment():
    heading, rule, row = tables.markdown(["", "n", "m"], [["a", "1.10", ""]], left=2).splitlines()
    assert [cell.strip() for cell in heading.split("|")] == ["", "", "n", "m", ""]
    assert [cell.strip("-") for cell in rule.split("|")] == ["", ":", ":", ":", ""]
    assert rule.split("|")[3].endswith(":") and rule.split("|")[2].startswith(":")
    assert [cell.strip() for cell in row.split("|")] == ["", "a", "1.10", "", ""]


def test_markdown_without_rows():
    heading, rule = tables.markdown(["a", "b"], []).splitlines()
    assert [cell.strip() for cell in heading.split("|")] == ["", "a", "b", ""]
    assert set(rule) == {"|", "-"} and rule.count("|") == 3


@pytest.mark.parametrize("cell", ["1.10", "1e5", "007", "+0.00", "inf", "1,000", "-", "± 2"])
def test_cells_are_not_parsed_as_numbers(cell):
    assert tables.plain([[cell, cell]]) == f"{cell}  {cell}"
    assert f" {cell} |" in tables.markdown(["a", "b"], [["x", cell]])
