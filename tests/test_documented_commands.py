"""Every `python -m` command in the documentation is a module with the documented flags."""

import ast
import functools
import importlib.util
import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from absl import app, flags

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_prep", "experiments", "export", "flowseg", "tests")
# Flags of Absl, which every command has.
COMMON_FLAGS = {"flagfile", "help", "helpfull"}


def documents():
    """Yield (file, text) of the documentation: Markdown, flagfiles, and strings in the code."""
    folders = [ROOT / name for name in (*PACKAGES, "docs")]
    paths = [*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*"))]
    for path in sorted(paths):
        if path.suffix in (".md", ".flags"):
            yield path, path.read_text(encoding="utf-8")
        elif path.suffix == ".py" and path != Path(__file__):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            strings = (node.value for node in nodes if isinstance(node, ast.Constant))
            for text in strings:
                if isinstance(text, str):
                    yield path, text


def commands(text):
    """Yield (module, flags) of each command of this project in a text."""
    # Blocks that check out an earlier commit show commands of that version.
    blocks = text.split("```")
    blocks[1::2] = ["" if "git checkout" in block else block for block in blocks[1::2]]
    text = re.sub(r"\\\n[# ]*", " ", "\n\n".join(blocks))
    names = "|".join(PACKAGES)
    for match in re.finditer(rf"\bpython -m\s+((?:{names})(?:\.\w+)*)", text):
        paragraph = text[: match.start()].rpartition("\n\n")[2]
        # In inline code a command ends at the closing backtick, else at the end of the line.
        end = "`" if paragraph.count("`") % 2 else "\n"
        arguments = text[match.end() :].partition(end)[0]
        # Excludes flags of other commands: --train_flag=--steps=5, --variant 'A:--steps=5', "the
        # file written by python -m flowseg.convert_lite0 as --backbone_weights".
        arguments = re.sub(r"'[^']*'", "''", arguments)
        yield match[1], re.findall(r"(?<![\w=-])(?<!\bas )--(\w+)", arguments)


def test_commands_in_text():
    text = """Look: `python -m flowseg.train --flagfile
    F --steps 5`, then --this. Or `pip install`:
    python -m data_prep.kitti --source A \\
    #   --output B
    python -m experiments.studies.joint --train_flag=--steps=5 --variant 'A: --x=1'
```
git checkout 4ce0911
python -m flowseg.gone --away
```
    python -m pip --version"""
    assert list(commands(text)) == [
        ("flowseg.train", ["flagfile", "steps"]),
        ("data_prep.kitti", ["source", "output"]),
        ("experiments.studies.joint", ["train_flag", "variant"]),
    ]


@functools.cache
def documented_flags():
    """Return module -> {flag: a file that mentions it}."""
    modules = {}
    for path, text in documents():
        for module, names in commands(text):
            modules.setdefault(module, {"": path}).update(dict.fromkeys(names, path))
    return modules


def flags_of(path, monkeypatch):
    """Return the flags that the command in a file defines, by running its --help."""
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    app.define_help_flags()
    before = set(flags.FLAGS)
    try:
        with redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as exited:
            runpy.run_path(path, run_name="__main__")
        assert exited.value.code == 0
        return set(flags.FLAGS) - before
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)


@pytest.mark.parametrize("module", sorted(documented_flags()))
def test_documented_flags_exist(module, monkeypatch):
    used = documented_flags()[module]
    spec = importlib.util.find_spec(module)
    if spec and spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec, f"{used['']}: python -m {module}: no such module"
    names = {name: path for name, path in used.items() if name and name not in COMMON_FLAGS}
    if not names:
        return
    known = flags_of(spec.origin, monkeypatch)
    missing = {name: path for name, path in names.items() if name not in known}
    missing = {name: path for name, path in missing.items() if name.removeprefix("no") not in known}
    assert not missing, f"python -m {module} has no such flags: {missing}"
