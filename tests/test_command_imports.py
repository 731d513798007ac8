"""Commands are not libraries: who imports them, and who reads flags, held by reading the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Commands that no other module may import.
CLOSED = ("flowseg", "export")


def imported(source):
    """The full dotted names of all imports in a module's source, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def modules(package):
    """Dotted name -> source of every module of a package."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in paths
    }


def is_command(source):
    return '__name__ == "__main__"' in source


COMMANDS = {
    name for package in CLOSED for name, source in modules(package).items() if is_command(source)
}


def test_commands_are_found():
    assert {"flowseg.train", "flowseg.evaluate", "export.tflite", "export.serve"} <= COMMANDS
    assert "flowseg.runs" not in COMMANDS and "export.parity" not in COMMANDS
    source = "from flowseg import train\ndef f():\n    import export.tflite as lite"
    assert imported(source) == {"flowseg", "flowseg.train", "export.tflite"}


@pytest.mark.parametrize("package", ["data_prep", "experiments", "export"])
def test_no_command_is_imported(package):
    found = {name: imported(source) & COMMANDS for name, source in modules(package).items()}
    assert {name: commands for name, commands in found.items() if commands} == {}


@pytest.mark.parametrize("package", ["experiments", "export"])
def test_only_commands_read_flags(package):
    sources = modules(package)
    assert sum(is_command(source) for source in sources.values()) > 5
    reading = [
        name
        for name, source in sources.items()
        if not is_command(source) and {"absl", "absl.flags"} & imported(source)
    ]
    assert reading == []
