"""The notebook runs from its first cell to its last, with a training of a few steps."""

import re
import shutil

import nbformat
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "experiments/first_look.ipynb"


def test_notebook_runs(tmp_path, monkeypatch):
    # Its own folder, so that the checkout is not written to.
    for name in ("flowseg", "data_prep", "export", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sources = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "STEPS = 60" in sources and '"--count", 60' in sources
    for cell in notebook.cells:
        cell.source = cell.source.replace("STEPS = 60", "STEPS = 2")
        cell.source = cell.source.replace('"--count", 60', '"--count", 12')
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "seg (193, 640) uint8, flow (193, 640, 2) float32" in printed
    assert re.search(r"held-out pairs: mIoU [\d.]+ %, end-point error [\d.]+ px", printed)
    assert float(re.search(r"equal labels: ([\d.]+)%", printed)[1]) > 99.9
    difference = re.search(r"largest difference of the flow: ([\d.]+) px", printed)[1]
    assert float(difference) < 0.01
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 2
    shutil.rmtree(tmp_path / "out")
