"""Counts words of the project's former private vocabulary in code, tests and documentation.

python -m tests.support.words [CHECKOUT]

prints a Markdown table: for each group of words how often it occurs in the product code, the tests
and the documentation, in identifiers, comments, docstrings and messages. docs/contributing.md says
which plain term replaces each group. A count that is not zero is not an error: "own" and "second"
are ordinary English, and "made" is also the past tense of a verb.
"""

import re
import sys
from pathlib import Path

from flowseg import tables

# Group of words -> pattern. Identifiers are split at underscores before matching.
GROUPS = {
    "told, tell, tells": r"told|tells?",
    "found": r"found",
    "own": r"own",
    "no number(s)": r"(?:no|not a|not) numbers?",
    "made": r"made",
    "answer(s)": r"answers?",
    "asked, asks": r"asked|asks?",
    "mend, mended": r"mend(?:ed|s)?",
    "hidden": r"hidden",
    "learnt": r"learnt",
    "taught, teaching, teaches": r"taught|teaching|teach(?:es)?",
    "room, house, floor": r"(?:room|house|floor)s?",
    "of before, as it then was": r"of before|as it then was",
    "sure, surest": r"sure|surest",
    "Spread, Written, BOX": r"Spread|Written|BOX",
    "whole or not at all": r"whole or not at all",
    "begins anew, goes on": r"anew|goes on|go on",
    "so many, as many": r"(?:so|as) many",
}
PARTS = {
    "code": ("flowseg", "data_prep", "export", "experiments"),
    "tests": ("tests",),
    "docs": ("docs", "README.md"),
}


def sources(root: Path, part: str) -> list[Path]:
    """Files of one part of the checkout; experiments/README.md counts as documentation."""
    paths = []
    for name in PARTS[part]:
        place = root / name
        paths += [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
    endings = (".md",) if part == "docs" else (".py", ".jinja", ".flags")
    if part == "docs":
        paths.append(root / "experiments/README.md")
    this = Path(__file__).name
    return [p for p in paths if p.suffix in endings and p.is_file() and p.name != this]


def count(texts: list[str]) -> dict[str, int]:
    """Occurrences of each group in texts whose identifiers are split at underscores."""
    joined = "\n".join(text.replace("_", " ") for text in texts)
    counts = {}
    for group, pattern in GROUPS.items():
        # Class and constant names are matched by case, prose is not.
        case = 0 if group.startswith("Spread") else re.IGNORECASE
        spaced = pattern.replace(" ", r"\s+")
        counts[group] = len(re.findall(rf"\b(?:{spaced})\b", joined, case))
    return counts


def main(root: Path):
    """Print the table for a checkout."""
    by_part = {
        part: count([path.read_text(errors="replace") for path in sources(root, part)])
        for part in PARTS
    }
    rows = [[group, *(by_part[part][group] for part in PARTS)] for group in GROUPS]
    totals = ["all", *(sum(by_part[part].values()) for part in PARTS)]
    print(tables.markdown(["words", *PARTS], [*rows, totals]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
