"""Checks the import rules by parsing the imports of every module, without importing any.

A package imports only from itself and from lower layers. Only commands read flags (and
`flowseg.cli` and `data_prep.conversion.options`, which define them for many commands); other
packages do not import the commands of flowseg and export.
"""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest layer up. Packages of the same layer do not import each other.
LAYERS = (
    {"flowseg.errors"},
    {
        "flowseg.files",
        "flowseg.system_files",
        "flowseg.globs",
        "flowseg.memory",
        "flowseg.packaged",
        "flowseg.console",
        "flowseg.tables",
        "flowseg.ray_cluster",
    },
    {"flowseg.network", "flowseg.data"},
    {"flowseg.media"},
    {"flowseg.scoring", "flowseg.runs"},
    {"flowseg.training"},
    {"flowseg.cli"},
)
# Written only in Keras, so that they train on any backend.
KERAS_ONLY = (
    "flowseg.network",
    "flowseg.scoring.flow_errors",
    "flowseg.scoring.streaming",
    "flowseg.training.losses",
    "flowseg.training.unsupervised_losses",
    "flowseg.training.optimizer",
)
# Packages outside flowseg: it never imports them, and they do not import its commands.
OTHER_PACKAGES = ("data_prep", "export", "experiments")
# Their commands are not imported, except by other commands of flowseg.
CLOSED = ("flowseg", "export")
# Define flags for many commands.
SHARED_FLAGS = ("flowseg.cli", "data_prep.conversion.options")


def imports(source, package):
    """Yield (line, dotted name) of every import in a module, also inside functions.

    Args:
        source: text of the module.
        package: package of the module, to resolve relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def module_of(name, known):
    """Return the longest prefix of a dotted name that is a module."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known:
            return ".".join(parts[:end])
    return None


def package_of(module):
    """Return the package of flowseg that contains a module, or the top-level module itself."""
    return ".".join(module.split(".")[:2])


def commands_of(sources):
    """Return the modules that are commands."""
    return {
        name
        for name, source in sources.items()
        if '__name__ == "__main__"' in source or name.endswith(".__main__")
    }


def violations(sources):
    """Return one line per violation in `sources`, a dict of dotted module name to text."""
    packages = {name.rpartition(".")[0] for name in sources} - {""}
    commands = commands_of(sources)
    lines, graph = [], {}
    for module, source in sources.items():
        package = module if module in packages else module.rpartition(".")[0]
        graph[module] = set()
        for line, name in imports(source, package):
            target = module_of(name, sources)
            if target and target != module and target not in packages:
                graph[module].add(target)
            messages = [*import_violations(module, name, target, commands)]
            lines += [f"{module}:{line}: {text}" for text in messages]
        if module.startswith("flowseg.") and not layer_of(module, commands):
            lines.append(
                f"{module}: {package_of(module)} is in no layer; add it in test_imports.py"
            )
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        lines.append("cycle: " + " <- ".join(error.args[1]))
    return lines


def layer_of(module, commands):
    """Return the number of a module's layer, from 1; commands are above all; None if in none."""
    for number, names in enumerate(LAYERS, 1):
        if package_of(module) in names:
            return number
    return len(LAYERS) + 1 if module in commands else None


def import_violations(module, name, target, commands):
    """Yield what is wrong with a module's import of a name from `target`, if in this project."""
    imported, importer = name.split(".")[0], module.split(".")[0]
    if target in commands and target.startswith(CLOSED) and importer != "flowseg":
        yield f"imports the command {target}; import it from a package instead"
    if imported == "absl" and module not in commands and not module.startswith(SHARED_FLAGS):
        yield f"imports {name}, but is not a command"
    if importer != "flowseg":
        return
    if module == "flowseg":
        if imported not in {*sys.stdlib_module_names, "flowseg"}:
            yield f"imports {name}, which is not in the standard library"
        return
    if imported in OTHER_PACKAGES:
        yield f"flowseg imports {imported}"
    if imported == "tensorflow" and module.startswith(KERAS_ONLY):
        yield "imports tensorflow, but must use only keras"
    if target and target.startswith("flowseg.") and package_of(target) != package_of(module):
        ours, theirs = (layer_of(each, commands) or 0 for each in (module, target))
        if theirs > ours:
            yield f"imports {package_of(target)} from a higher layer"
        elif theirs == ours <= len(LAYERS):
            yield f"imports {package_of(target)} from the same layer"


def sources_of(root):
    """Return dotted name -> text of every module of the project."""
    sources = {}
    for top in ("flowseg", *OTHER_PACKAGES):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[name] = path.read_text(encoding="utf-8")
    return sources


def test_imports():
    sources = sources_of(ROOT)
    assert len(sources) > 100 and "flowseg.training.loop" in sources
    assert violations(sources) == []


RUN = 'if __name__ == "__main__":\n    run()\n'
VALID = {
    "flowseg": "import os\ndef load():\n    from flowseg import runs\n",
    "flowseg.errors": "import re\n",
    "flowseg.runs": "from flowseg.network.model import build\nfrom flowseg.media import frames\n",
    "flowseg.data": "",
    "flowseg.data.labels": "import numpy\n",
    "flowseg.data.records": "import tensorflow as tf\nfrom flowseg.data.labels import IGNORE\n",
    "flowseg.network": "",
    "flowseg.network.flow_ops": "from keras import ops\n",
    "flowseg.network.model": "import keras\nfrom . import flow_ops\n",
    "flowseg.media": "",
    "flowseg.media.frames": "from ..data import labels\n",
    "flowseg.training": "",
    "flowseg.training.loop": "from flowseg import runs\nfrom flowseg.data import records\n",
    "flowseg.cli": "",
    "flowseg.cli.flags": "from absl import flags\nfrom flowseg.errors import ArgumentError\n",
    "flowseg.train": f"from absl import flags\nfrom flowseg.training import loop\n{RUN}",
    "flowseg.train_on_ray": f"from flowseg import train\n{RUN}",
    "data_prep": "",
    "data_prep.kitti": "from flowseg.data import records\n",
    "data_prep.doctor": "",
    "data_prep.doctor.__main__": "from absl import flags\n",
    "export": "",
    "export.tflite": RUN,
}


def test_valid_sources():
    assert violations(VALID) == []


@pytest.mark.parametrize(
    "module, line, expected",
    [
        ("flowseg.newcomer", "", "flowseg.newcomer: flowseg.newcomer is in no layer"),
        ("flowseg.sub.newcomer", "", "flowseg.sub.newcomer: flowseg.sub is in no layer"),
        ("flowseg", "import keras", "flowseg:1: imports keras"),
        ("flowseg.errors", "from flowseg import runs", "flowseg.errors:1: imports flowseg.runs"),
        ("flowseg.data.labels", "import flowseg.training.loop", "flowseg.data.labels:1: imports"),
        ("flowseg.data.labels", "from ..training import loop", "flowseg.data.labels:1: imports"),
        (
            "flowseg.data.labels",
            "def f():\n    from flowseg.network.model import build",
            "flowseg.data.labels:2: imports flowseg.network from the same layer",
        ),
        ("flowseg.data.labels", "from .records import read", "cycle: "),
        ("flowseg.data.labels", "from flowseg.data import records", "cycle: "),
        ("flowseg.train", "from data_prep.kitti import main", "flowseg.train:1: flowseg imports"),
        ("flowseg.train", "def f():\n    import export.tflite", "flowseg.train:2: flowseg imports"),
        (
            "flowseg.network.model",
            "def f():\n    from tensorflow import nn",
            "flowseg.network.model:2: imports tensorflow",
        ),
        (
            "flowseg.training.loop",
            "from absl import flags",
            "flowseg.training.loop:1: imports absl",
        ),
        ("flowseg.media.frames", "import absl.flags", "flowseg.media.frames:1: imports absl.flags"),
        ("flowseg.training.loop", "from flowseg import train", "flowseg.training.loop:1: imports"),
        (
            "data_prep.kitti",
            "from flowseg.train import main",
            "data_prep.kitti:1: imports the command flowseg.train",
        ),
        (
            "data_prep.kitti",
            "def f():\n    from export import tflite",
            "data_prep.kitti:2: imports the command export.tflite",
        ),
        ("data_prep.kitti", "from absl import flags", "data_prep.kitti:1: imports absl.flags, but"),
    ],
)
def test_violations(module, line, expected):
    # Commands remain commands.
    end = f"\n{RUN}" if RUN in VALID.get(module, "") else ""
    lines = violations({**VALID, module: line + end})
    assert lines[0].startswith(expected), lines
    # An import from a higher layer may also create a cycle.
    assert all(line.startswith("cycle: ") for line in lines[1:]), lines
