"""Globs: existing paths with brackets and commas are found, and patterns still match."""

import os

import pytest

from flowseg import globs
from tests.support.trainings import parsed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder with shards in folders whose names have special characters; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("data[1]", "a,b", "plain", "a"):
        os.mkdir(name)
        for k in range(2):
            (tmp_path / name / f"train-{k}").touch()
    (tmp_path / "plain/val-[0],x").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data[1]/train-*", ["data[1]/train-0", "data[1]/train-1"]),
        ("data[1]/train-0", ["data[1]/train-0"]),
        ("plain/val-[0],x", ["plain/val-[0],x"]),
        ("p*/train-[1]", ["plain/train-1"]),
        ("*/train-0", ["a,b/train-0", "a/train-0", "data[1]/train-0", "plain/train-0"]),
        ("data[2]/train-*", []),
    ],
)
def test_match(folder, pattern, expected):
    assert globs.match(pattern) == expected
    absolute = [str(folder / path) for path in expected]
    assert globs.match(folder / pattern) == absolute


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b/train-*", ["a,b/train-*"]),
        ("a,b/train-*,plain/train-*", ["a,b/train-*", "plain/train-*"]),
        ("plain/train-*,a,b/train-0", ["plain/train-*", "a,b/train-0"]),
        ("plain/val-[0],x", ["plain/val-[0],x"]),
        ("a/train-*,plain/train-*", ["a/train-*", "plain/train-*"]),
        ("nowhere-*,b/train-*", ["nowhere-*", "b/train-*"]),
    ],
)
def test_flags_split_at_commas_between_paths(folder, text, expected):
    assert globs.split(text.split(",")) == expected
    assert parsed(f"--train_records={text}").train_records == tuple(expected)


def test_name_that_is_not_utf8_matches(folder):
    name = os.fsdecode(b"caf\xe9")
    (folder / name).mkdir()
    (folder / name / "train-0").touch()
    assert globs.match(f"{name}/train-*") == [f"{name}/train-0"]
    assert globs.match("caf*/train-0") == [f"{name}/train-0"]
