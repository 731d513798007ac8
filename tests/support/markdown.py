"""Reads Markdown tables that commands print, so that tests need not know their spacing."""


def rows(text):
    """The rows of every table in `text`, in order: lists of cells, headings too, rules left out."""
    found = []
    for line in text.splitlines():
        if line.startswith("|") and set(line) - set("|:-"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found
