"""Prints statistics of the code structure: modules, imports, layers, long files and functions.

python -m tests.support.structure [CHECKOUT]

prints them for the packages of `flowseg`, and the longest files and functions of the product code,
so that changes of the structure can be quantified.
"""

import ast
import graphlib
import sys
from pathlib import Path

from tests.test_imports import OTHER_PACKAGES, imports, module_of, sources_of

_LONG = 60


def package_of(module):
    """Return the package below flowseg that contains a module, or the module itself."""
    return ".".join(module.split(".")[:2])


def edges(sources):
    """Return the set of (importer, imported) between the packages of flowseg."""
    packages = {name.rpartition(".")[0] for name in sources} - {""}
    modules = {name: text for name, text in sources.items() if name.startswith("flowseg.")}
    pairs = set()
    for module, text in modules.items():
        package = module if module in packages else module.rpartition(".")[0]
        for _, name in imports(text, package):
            target = module_of(name, modules)
            if target and package_of(target) != package_of(module):
                pairs.add((package_of(module), package_of(target)))
    return pairs


def layer_count(packages, pairs):
    """Return the number of layers of the import graph, or None if it has a cycle."""
    sorter = graphlib.TopologicalSorter({package: set() for package in packages})
    for importer, imported in pairs:
        sorter.add(importer, imported)
    try:
        sorter.prepare()
    except graphlib.CycleError:
        return None
    count = 0
    while ready := sorter.get_ready():
        sorter.done(*ready)
        count += 1
    return count


def long_functions(sources):
    """Return (lines, module, name) of every function of more than 60 lines, longest first."""
    functions = []
    for module, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > _LONG:
                    functions.append((lines, module, node.name))
    return sorted(functions, reverse=True)


def main():
    """Print the statistics."""
    sources = sources_of(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    modules = [name for name in sources if name.startswith("flowseg.")]
    packages = {package_of(name) for name in modules}
    pairs = edges(sources)
    lengths = sorted(((len(text.splitlines()), name) for name, text in sources.items()))[::-1]
    print(f"modules of flowseg: {len(modules)}, in {len(packages)} packages and top-level modules")
    print(
        f"imports between these: {len(pairs)}; layers: {layer_count(packages, pairs) or 'a cycle'}"
    )
    print(f"modules of {', '.join(OTHER_PACKAGES)}: {len(sources) - len(modules) - 1}")
    print("longest files:", ", ".join(f"{name} {lines}" for lines, name in lengths[:3]))
    long = long_functions(sources)
    print(f"functions over {_LONG} lines: {len(long)}")
    for lines, module, name in long:
        print(f"  {lines} {module}.{name}")


if __name__ == "__main__":
    main()
