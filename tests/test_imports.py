"""The floors of the house, held by reading the imports of `flowseg` and importing nothing."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flowseg"

# A module imports from its own floor or below. A new module is given its floor here.
FLOORS = (
    {"labels", "files", "records", "flow_io", "flow_ops"},
    {
        "page",
        "panels",
        "pictures",
        "frames",
        "layers",
        "flow_layers",
        "data",
        "augment",
        "backbones",
        "efficientnet_lite0",
        "decoder",
        "model",
        "losses",
        "unlabelled",
        "training_data",
        "metrics",
        "scoring",
        "answers",
        "predictions",
        "tally",
        "packed",
    },
    {
        "commands",
        "flags",
        "runs",
        "callbacks",
        "checkpoints",
        "devices",
        "on_ray",
        "record_sets",
        "salvage",
        "teaching",
        "guards",
        "tensorboard",
        "train",
        "evaluate",
        "predict",
        "visualize",
        "demo",
        "show",
        "report",
        "consistency",
        "restore",
        "convert_lite0",
    },
)
FLOOR = {module: number for number, modules in enumerate(FLOORS) for module in modules}
COMMAND_FLOOR = 2  # Flags are read here and nowhere below.
KERAS_ONLY = {
    "layers",
    "flow_layers",
    "backbones",
    "efficientnet_lite0",
    "decoder",
    "model",
    "packed",
    "losses",
    "unlabelled",
    "metrics",
    "flow_ops",
}
FORBIDDEN = {"data_prep", "export"}  # The package never looks at the rooms beside it.


def imports(source):
    """Yields (line, full dotted name) of every import in `source`, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = "flowseg" if node.level == 1 else None
            base = [part for part in (package, node.module) if part]
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            yield node.lineno, name


def violations(sources):
    """Returns one line for each breach of the floors in `sources`, a dict of module to text."""
    found = []
    graph = {}
    for module, source in sources.items():
        if module != "__init__" and module not in FLOOR:
            found.append(f"{module}: in no floor; place it in tests/test_imports.py")
            continue
        floor = FLOOR.get(module, 0)
        graph[module] = set()
        for line, name in imports(source):
            top, *rest = name.split(".")
            where = f"{module}:{line}"
            if module == "__init__":
                if top not in sys.stdlib_module_names:
                    found.append(f"{where}: imports {name}, not of the standard library")
                continue
            if top in FORBIDDEN:
                found.append(f"{where}: flowseg imports {top}")
            if top == "tensorflow" and module in KERAS_ONLY:
                found.append(f"{where}: imports tensorflow, but is written in keras alone")
            if top == "absl" and rest[:1] != ["logging"]:
                if floor < COMMAND_FLOOR:
                    found.append(f"{where}: imports {name} below the commands")
            if top == "flowseg" and rest and rest[0] in FLOOR:
                graph[module].add(rest[0])
                if FLOOR[rest[0]] > floor:
                    found.append(f"{where}: floor {floor} imports {rest[0]} of {FLOOR[rest[0]]}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("cycle: " + " <- ".join(error.args[1]))
    return found


def test_flowseg_keeps_its_floors():
    files = {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*.py"))}
    sources = {
        ".".join(name.with_suffix("").parts): path.read_text(encoding="utf-8")
        for name, path in files.items()
    }
    assert "__init__" in sources
    assert violations(sources) == []


SOUND = {
    "__init__": "import os\n",
    "labels": "import numpy\n",
    "records": "import tensorflow as tf\nfrom flowseg.data.labels import IGNORE_LABEL\n",
    "flow_ops": "from keras import ops\nfrom absl import logging\n",
    "data": "from flowseg import __version__, records\n",
    "model": "import keras\nfrom . import flow_ops\n",
    "flags": "from absl import flags\n",
    "train": "import flowseg.data.decoding\nfrom flowseg import flags, model\n",
}


def test_sound_sources_pass():
    assert violations(SOUND) == []


@pytest.mark.parametrize(
    "module, line, expected",
    [
        ("newcomer", "", "newcomer: in no floor"),
        ("sub.newcomer", "", "sub.newcomer: in no floor"),
        ("__init__", "import keras", "__init__:1: imports keras"),
        ("__init__", "from . import labels", "__init__:1: imports flowseg.data.labels"),
        ("labels", "import flowseg.training.losses", "labels:1: floor 0 imports losses of 1"),
        (
            "labels",
            "from flowseg.training.losses import total",
            "labels:1: floor 0 imports losses of 1",
        ),
        ("labels", "from flowseg import losses", "labels:1: floor 0 imports losses of 1"),
        ("labels", "from . import losses", "labels:1: floor 0 imports losses of 1"),
        ("labels", "from .losses import total", "labels:1: floor 0 imports losses of 1"),
        ("labels", "from .labels import CLASSES", "cycle: labels <- labels"),
        ("labels", "from flowseg import records", "cycle: "),
        ("labels", "def f():\n    from flowseg import records", "cycle: "),
        ("train", "from data_prep.kitti import main", "train:1: flowseg imports data_prep"),
        ("train", "def f():\n    import export.tflite", "train:2: flowseg imports export"),
        ("model", "import tensorflow as tf", "model:1: imports tensorflow"),
        ("model", "def f():\n    from tensorflow import nn", "model:2: imports tensorflow"),
        ("augment", "from absl import flags", "augment:1: imports absl.flags below"),
        ("augment", "def f():\n    import absl.flags", "augment:2: imports absl.flags below"),
        ("data", "from absl.flags import FLAGS", "data:1: imports absl.flags.FLAGS below"),
    ],
)
def test_planted_violation_is_caught(module, line, expected):
    found = violations({**SOUND, module: line})
    assert len(found) == 1 and found[0].startswith(expected), found
