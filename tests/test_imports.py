"""What may import what, held by reading the imports of every module and importing none.

A package imports from itself and from those below it, never from one above or beside it. Only
commands read flags (and `flowseg.cli` and `data_prep.conversion.options`, which define them for
many); the commands of flowseg and export are no libraries.
"""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest floor up. What stands on one floor does not import its neighbours.
FLOORS = (
    {"flowseg.errors"},
    {"flowseg.files", "flowseg.console", "flowseg.tables", "flowseg.ray_cluster"},
    {"flowseg.network", "flowseg.data"},
    {"flowseg.media"},
    {"flowseg.scoring", "flowseg.runs"},
    {"flowseg.training"},
    {"flowseg.cli"},
)
# Written in Keras alone, so that they train on any backend.
KERAS_ONLY = (
    "flowseg.network",
    "flowseg.scoring.flow_errors",
    "flowseg.scoring.streaming",
    "flowseg.training.losses",
    "flowseg.training.unsupervised_losses",
    "flowseg.training.optimizer",
)
# Beside the package: it never looks at these, and they take nothing from its commands.
BESIDE = ("data_prep", "export", "experiments")
# Whose commands no other module imports, but for one command of flowseg another.
CLOSED = ("flowseg", "export")
# Define flags for many commands.
SHARED_FLAGS = ("flowseg.cli", "data_prep.conversion.options")


def imports(source, package):
    """Yields (line, dotted name) of every import in a module, also inside functions.

    Args:
        source: its text.
        package: the package that it is in, for relative imports.
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
    """The longest beginning of a dotted name that is a module."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known:
            return ".".join(parts[:end])
    return None


def place_of(module):
    """The package, or module beside the packages, whose floor counts for a module of flowseg."""
    return ".".join(module.split(".")[:2])


def commands_of(sources):
    """The modules that are run."""
    return {
        name
        for name, source in sources.items()
        if '__name__ == "__main__"' in source or name.endswith(".__main__")
    }


def violations(sources):
    """Returns one line for each breach in `sources`, a dict of dotted module name to text."""
    packages = {name.rpartition(".")[0] for name in sources} - {""}
    commands = commands_of(sources)
    found, graph = [], {}
    for module, source in sources.items():
        package = module if module in packages else module.rpartition(".")[0]
        graph[module] = set()
        for line, name in imports(source, package):
            target = module_of(name, sources)
            if target and target != module and target not in packages:
                graph[module].add(target)
            breach = [*breaches(module, name, target, commands)]
            found += [f"{module}:{line}: {text}" for text in breach]
        if module.startswith("flowseg.") and not floor_of(module, commands):
            found.append(
                f"{module}: {place_of(module)} is on no floor; place it in test_imports.py"
            )
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("cycle: " + " <- ".join(error.args[1]))
    return found


def floor_of(module, commands):
    """The number of a module's floor, from 1; commands stand above all; None: on none."""
    for number, names in enumerate(FLOORS, 1):
        if place_of(module) in names:
            return number
    return len(FLOORS) + 1 if module in commands else None


def breaches(module, name, target, commands):
    """What is wrong with a module's import of a name, whose module is `target` if it is ours."""
    top, own = name.split(".")[0], module.split(".")[0]
    if target in commands and target.startswith(CLOSED) and own != "flowseg":
        yield f"imports the command {target}; take it from a package"
    if top == "absl" and module not in commands and not module.startswith(SHARED_FLAGS):
        yield f"imports {name}, but is no command"
    if own != "flowseg":
        return
    if module == "flowseg":
        if top not in {*sys.stdlib_module_names, "flowseg"}:
            yield f"imports {name}, not of the standard library"
        return
    if top in BESIDE:
        yield f"flowseg imports {top}"
    if top == "tensorflow" and module.startswith(KERAS_ONLY):
        yield "imports tensorflow, but is written in keras alone"
    if target and target.startswith("flowseg.") and place_of(target) != place_of(module):
        ours, theirs = (floor_of(each, commands) or 0 for each in (module, target))
        if theirs > ours:
            yield f"imports {place_of(target)} from above"
        elif theirs == ours <= len(FLOORS):
            yield f"imports {place_of(target)} from beside"


def sources_of(root):
    """Dotted name -> text of every module of the project."""
    found = {}
    for top in ("flowseg", *BESIDE):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return found


def test_every_import_goes_down():
    sources = sources_of(ROOT)
    assert len(sources) > 100 and "flowseg.training.loop" in sources
    assert violations(sources) == []


RUN = 'if __name__ == "__main__":\n    run()\n'
SOUND = {
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


def test_sound_sources_pass():
    assert violations(SOUND) == []


@pytest.mark.parametrize(
    "module, line, expected",
    [
        ("flowseg.newcomer", "", "flowseg.newcomer: flowseg.newcomer is on no floor"),
        ("flowseg.sub.newcomer", "", "flowseg.sub.newcomer: flowseg.sub is on no floor"),
        ("flowseg", "import keras", "flowseg:1: imports keras"),
        ("flowseg.errors", "from flowseg import runs", "flowseg.errors:1: imports flowseg.runs"),
        ("flowseg.data.labels", "import flowseg.training.loop", "flowseg.data.labels:1: imports"),
        ("flowseg.data.labels", "from ..training import loop", "flowseg.data.labels:1: imports"),
        (
            "flowseg.data.labels",
            "def f():\n    from flowseg.network.model import build",
            "flowseg.data.labels:2: imports flowseg.network from beside",
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
def test_planted_violation_is_caught(module, line, expected):
    # A command stays one.
    end = f"\n{RUN}" if RUN in SOUND.get(module, "") else ""
    found = violations({**SOUND, module: line + end})
    assert found[0].startswith(expected), found
    # What is imported from above may import from below, too: then there is a cycle besides.
    assert all(line.startswith("cycle: ") for line in found[1:]), found
