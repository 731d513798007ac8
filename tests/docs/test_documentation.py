"""The documentation: its links, its size, its diagram, and that it builds as a site."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from docs import draw_network
from flowseg.network.model import build_flowseg, parts
from flowseg.training.config import TrainingConfig
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "experiments/README.md",
    ROOT / "flowseg/weights/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGES = [page for page in PAGES if "_build" not in page.parts]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def broken_links(page):
    """The relative links of a page that lead to no file or to no heading."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n[a](page.md#one-heading) [b](#two) [c](gone.md) [d](https://e.org)"
        " `[code](no.md)`\n```\n[code](no.md)\n```\n"
    )
    assert broken_links(page) == ["#two", "gone.md"]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_every_page_is_listed_in_the_index():
    for folder in (ROOT / "docs", ROOT / "docs/results"):
        index = (folder / "index.md").read_text(encoding="utf-8")
        pages = {page.name for page in folder.glob("*.md")} - {"index.md"}
        assert {page for page in pages if f"({page}" not in index} == set()


def test_diagram_shows_the_channels_of_the_network():
    encoder, decoder = parts(build_flowseg(19, backbone="efficientnet_lite0"))
    drawn = draw_network.draw("efficientnet_lite0")
    # Arrows are annotations without a text.
    texts = {text.get_text() for axes in drawn.axes for text in axes.texts} - {""}
    for stride in (2, 4, 8, 16, 32):
        channels = encoder.output[f"stride{stride}"].shape[-1]
        assert f"stride {stride}: {channels} ch." in texts
    assert any(f"decoders {decoder.count_params() / 1e6:.1f} M" in text for text in texts)
    # The file in the repository is of the same network: Matplotlib writes texts as comments, too.
    committed = (ROOT / "docs/network.svg").read_text(encoding="utf-8")
    missing = {text for text in texts if f"<!-- {text} -->" not in committed}
    assert missing == set(), "run python -m docs.draw_network"


def test_site_builds_without_warnings(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
        + ["-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    html = tmp_path / "html"
    assert (html / "searchindex.js").is_file() and (html / "search.html").is_file()
    reference = (html / "reference.html").read_text(encoding="utf-8")
    for name in ("flowseg.load", "flowseg.runs.Run.stream", "export.tflite.export"):
        assert f'id="{name}"' in reference
    # Pages link to each other as HTML, and to the diagram as a copied file.
    architecture = (html / "architecture.html").read_text(encoding="utf-8")
    assert "_images/network.svg" in architecture


def test_training_flags_are_all_in_the_table():
    table = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `--(\w+)` \|", table, re.M))
    assert {field.name for field in dataclasses.fields(TrainingConfig)} - listed == set()
