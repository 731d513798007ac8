"""How the code hangs together: modules, imports, floors, long files and long functions.

python -m tests.support.structure [CHECKOUT]

prints them for `flowseg` with its packages as they are, and the longest files and functions of the
product code, so that a change of structure can be told in numbers.
"""

import ast
import graphlib
import sys
from pathlib import Path

from tests.test_imports import BESIDE, imports, module_of, sources_of

_LONG = 60


def place_of(module):
    """What a stranger looks for a module in: the package below flowseg, or the module itself."""
    return ".".join(module.split(".")[:2])


def edges(sources):
    """(importer, imported) of the places in flowseg."""
    packages = {name.rpartition(".")[0] for name in sources} - {""}
    own = {name: text for name, text in sources.items() if name.startswith("flowseg.")}
    found = set()
    for module, text in own.items():
        package = module if module in packages else module.rpartition(".")[0]
        for _, name in imports(text, package):
            target = module_of(name, own)
            if target and place_of(target) != place_of(module):
                found.add((place_of(module), place_of(target)))
    return found


def floors(places, found):
    """How many floors the places stand on, or None if there is a circle."""
    sorter = graphlib.TopologicalSorter({place: set() for place in places})
    for importer, imported in found:
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
    """(lines, module, name) of every function of more than 60 lines, longest first."""
    found = []
    for module, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > _LONG:
                    found.append((lines, module, node.name))
    return sorted(found, reverse=True)


def main():
    """Print."""
    sources = sources_of(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    own = [name for name in sources if name.startswith("flowseg.")]
    places = {place_of(name) for name in own}
    found = edges(sources)
    lengths = sorted(((len(text.splitlines()), name) for name, text in sources.items()))[::-1]
    print(f"modules of flowseg: {len(own)}, in {len(places)} packages and modules beside them")
    print(f"imports between these: {len(found)}; floors: {floors(places, found) or 'a circle'}")
    print(f"modules of {', '.join(BESIDE)}: {len(sources) - len(own) - 1}")
    print("longest files:", ", ".join(f"{name} {lines}" for lines, name in lengths[:3]))
    long = long_functions(sources)
    print(f"functions over {_LONG} lines: {len(long)}")
    for lines, module, name in long:
        print(f"  {lines} {module}.{name}")


if __name__ == "__main__":
    main()
