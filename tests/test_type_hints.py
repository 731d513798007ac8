"""Public functions of the product code say what they take and give."""

import ast

import pytest

from tests.test_imports import ROOT, sources_of

# A Keras layer's or callback's own methods have Keras's signatures, and need no words of ours.
_METHODS = ("call", "build", "get_config", "compute_output_shape", "update_state", "result", "on_")


def missing(source):
    """Yields (line, what has no hint) of the public functions and methods in a module's text."""
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
    given = node.args
    for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]:
        if argument.annotation is None and argument.arg not in ("self", "cls"):
            yield node.lineno, f"{name}: {argument.arg}"
    if node.returns is None and _gives(node):
        yield node.lineno, f"{name}: what it returns"


def _gives(node):
    """Whether a function returns a value, or yields."""
    inner = {
        id(part)
        for child in ast.walk(node)
        if isinstance(child, ast.FunctionDef | ast.Lambda) and child is not node
        for part in ast.walk(child)
    }
    own = [part for part in ast.walk(node) if id(part) not in inner]
    return any(
        isinstance(part, ast.Yield | ast.YieldFrom)
        or (isinstance(part, ast.Return) and part.value is not None)
        for part in own
    )


def test_every_public_function_has_type_hints():
    found = [
        f"{module}:{line}: {what}"
        for module, source in sources_of(ROOT).items()
        for line, what in missing(source)
    ]
    assert found == []


@pytest.mark.parametrize(
    "source, expected",
    [
        ("def f(a: int) -> int:\n    return a", []),
        ("def f(a):\n    print(a)", ["f: a"]),
        ("def f():\n    return 1", ["f: what it returns"]),
        ("def f():\n    yield 1", ["f: what it returns"]),
        ("def f():\n    def g():\n        return 1\n    g()", []),
        ("def _f(a):\n    return a", []),
        (
            "class A:\n    def f(self, a):\n        pass\n    def call(self, x):\n        pass",
            ["A.f: a"],
        ),
        ("class _A:\n    def f(self, a):\n        pass", []),
    ],
)
def test_what_is_missing_is_found(source, expected):
    assert [what for _, what in missing(source)] == expected
