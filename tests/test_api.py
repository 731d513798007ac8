"""`import flowseg`, and what it offers."""

import doctest
import subprocess
import sys

import pytest

import flowseg
from tests.conftest import ROOT


def test_the_documented_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = doctest.DocTestFinder(recurse=False).find(flowseg.load, "flowseg.load")
    assert len(example.examples) >= 8
    said = []
    found = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert found.failed == 0, "".join(said)
    assert found.attempted == len(example.examples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), 'source: None is neither "pretrained" nor the path'),
        ((7,), 'source: 7 is neither "pretrained" nor the path'),
        (("nowhere",), "nowhere: no such run folder"),
        (("pretrained", "first"), 'weights: \'first\' is neither "best" nor "last"'),
    ],
)
def test_what_cannot_be_loaded(arguments, message):
    with pytest.raises(ValueError, match=message):
        flowseg.load(*arguments)


def test_a_run_folder(trained_run):
    for source in (trained_run, str(trained_run)):
        for weights in ("best", "last"):
            assert flowseg.load(source, weights).folder == trained_run
    with pytest.raises(ValueError, match="label_set.json|missing|no such"):
        flowseg.load(trained_run / "checkpoints")


def test_importing_is_light():
    program = "import sys; old = set(sys.modules); import flowseg; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "flowseg" in loaded and loaded <= {"flowseg", *sys.stdlib_module_names}
