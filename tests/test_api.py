"""The public API: `import flowseg`."""

import doctest
import subprocess
import sys

import pytest

import flowseg
from flowseg import files, runs
from tests.conftest import ROOT


def test_documented_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = doctest.DocTestFinder(recurse=False).find(flowseg.load, "flowseg.load")
    assert len(example.examples) >= 8
    printed = []
    results = doctest.DocTestRunner(verbose=False).run(example, out=printed.append)
    assert results.failed == 0, "".join(printed)
    assert results.attempted == len(example.examples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), 'source: None is neither "pretrained" nor the path'),
        ((7,), 'source: 7 is neither "pretrained" nor the path'),
        (("nowhere",), "nowhere: no such run folder"),
        (("pretrained", "first"), 'weights: \'first\' is neither "best" nor "last"'),
    ],
)
def test_invalid_sources(arguments, message):
    with pytest.raises(ValueError, match=message):
        flowseg.load(*arguments)


def test_load_run_folder(tmp_path):
    run = flowseg.load("pretrained")
    files.write_json(tmp_path / "label_set.json", run.label_set._asdict())
    runs.save_model(run.model, tmp_path / "best.keras")
    for source in (tmp_path, str(tmp_path)):
        loaded = flowseg.load(source)
        assert loaded.folder == tmp_path and loaded.classes == run.classes
        with pytest.raises(ValueError, match="model.keras: missing"):
            flowseg.load(source, "last")


def test_import_is_lightweight():
    program = "import sys; old = set(sys.modules); import flowseg; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "flowseg" in loaded and loaded <= {"flowseg", *sys.stdlib_module_names}
