"""Settings of the documentation site: `make docs` builds it with Sphinx into docs/_build/html."""

import os
import re
import sys
from pathlib import Path

# The API reference is made from docstrings, which means importing the package.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parent.parent
# The code beside these pages is documented, wherever Sphinx was started.
sys.path.insert(0, str(ROOT))
_INIT = (ROOT / "flowseg/__init__.py").read_text(encoding="utf-8")

project = "FlowSeg"
copyright = "FlowSeg contributors"
release = re.search(r'^__version__ = "(.+)"$', _INIT, re.M).group(1)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

# Single backticks in docstrings mark code, and blocks without a language are not Python.
default_role = "code"
highlight_language = "none"

# Headings can be linked to, as GitHub does it.
myst_heading_anchors = 3
suppress_warnings = [
    # Links to source files outside docs/ work on GitHub; tests/docs checks that they exist.
    "myst.xref_missing",
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# An attribute's description stays in its class, beside the others.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"FlowSeg {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
