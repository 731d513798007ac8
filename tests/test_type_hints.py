"""Public functions of the product code have type hints."""

import ast

import pytest

from tests.test_imports import ROOT, sources_of

# Methods of Keras layers and callbacks have Keras's signatures and need no hints.
_METHODS = ("call", "build", "get_config", "compute_output_shape", "update_state", "result", "on_")


def missing(source):
    """Yield (line, what has no hint) of the public functions and methods in a module's text."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            yield from _missing(node, node.name)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith(_METHODS):
                    yield from _missing(method, f"{node.name}.{method.name}")


def _missing(node, name):
    if node.name.startswith("_"):
        return
    arguments = node.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if argument.annotation is None and argument.arg not in ("self", "cls"):
            yield node.lineno, f"{name}: {argument.arg}"
    if node.returns is None and _returns_value(node):
        yield node.lineno, f"{name}: return value"


def _returns_value(node):
    """Return whether a function returns or yields a value."""
    inner = {
        id(part)
        for child in ast.walk(node)
        if isinstance(child, ast.FunctionDef | ast.Lambda) and child is not node
        for part in ast.walk(child)
    }
    outer = [part for part in ast.walk(node) if id(part) not in inner]
    return any(
        isinstance(part, ast.Yield | ast.YieldFrom)
        or (isinstance(part, ast.Return) and part.value is not None)
        for part in outer
    )


def test_type_hints():
    violations = [
        f"{module}:{line}: {what}"
        for module, source in sources_of(ROOT).items()
        for line, what in missing(source)
    ]
    assert violations == []


@pytest.mark.parametrize(
    "source, expected",
    [
        ("def f(a: int) -> int:\n    return a", []),
        ("def f(a):\n    print(a)", ["f: a"]),
        ("def f():\n    return 1", ["f: return value"]),
        ("def f():\n    yield 1", ["f: return value"]),
        ("def f():\n    def g():\n        return 1\n    g()", []),
        ("def _f(a):\n    return a", []),
        (
            "class A:\n    def f(self, a):\n        pass\n    def call(self, x):\n        pass",
            ["A.f: a"],
        ),
        ("class _A:\n    def f(self, a):\n        pass", []),
    ],
)
def test_missing(source, expected):
    assert [what for _, what in missing(source)] == expected
