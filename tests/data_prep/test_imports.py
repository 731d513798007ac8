"""What `data_prep` may import: flags end at the commands, and commands are not libraries."""

import ast

from tests.conftest import ROOT

PACKAGE = ROOT / "data_prep"
# The readers, which are commands, and the flags that they share.
READ_FLAGS = {path.name for path in PACKAGE.glob("*.py")} | {
    "conversion/options.py",
    "doctor/__main__.py",
    "scenes/__main__.py",
}
COMMANDS = {"train", "evaluate", "predict", "visualize", "show", "consistency", "demo", "replay"}


def imported():
    """(file below the package, full dotted name) of every import, also inside functions."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                yield path.relative_to(PACKAGE).as_posix(), name


def test_only_commands_read_flags():
    found = {file for file, name in imported() if name.split(".")[0] == "absl"}
    assert "conversion/options.py" in found and found <= READ_FLAGS


def test_no_command_of_flowseg_is_a_library():
    used = {name.split(".")[1] for _, name in imported() if name.startswith("flowseg.")}
    assert "data" in used and not used & COMMANDS
