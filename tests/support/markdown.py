"""Parses Markdown tables that commands print, so that tests do not depend on their spacing."""


def rows(text):
    """Return the rows of all tables in `text` as lists of cells, with headings, without rules."""
    cells = []
    for line in text.splitlines():
        if line.startswith("|") and set(line) - set("|:-"):
            cells.append([cell.strip() for cell in line.strip("|").split("|")])
    return cells
