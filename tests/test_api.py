"""`import flowseg`, and what it offers."""

import doctest
import subprocess
import sys

import pytest

import flowseg
from flowseg import files, runs
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


def test_a_run_folder(tmp_path):
    run = flowseg.load("pretrained")
    files.write_json(tmp_path / "label_set.json", run.label_set._asdict())
    runs.save_model(run.model, tmp_path / "best.keras")
    for source in (tmp_path, str(tmp_path)):
        loaded = flowseg.load(source)
        assert loaded.folder == tmp_path and loaded.classes == run.classes
        with pytest.raises(ValueError, match="model.keras: missing"):
            flowseg.load(source, "last")


def test_importing_is_light():
    program = "import sys; old = set(sys.modules); import flowseg; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "flowseg" in loaded and loaded <= {"flowseg", *sys.stdlib_module_names}
