"""Formats tables as text for terminals and Markdown."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def plain(rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Format a table as plain text with columns two spaces apart.

    Args:
        rows: rows with the same number of cells, formatted by `str`.
        left: number of leading columns aligned to the left; the others, which hold numbers, are
            aligned to the right.

    Returns:
        The lines without a trailing newline; "" if there are no rows.
    """
    return _table(rows, left, tablefmt="plain")


def markdown(headings: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Format a Markdown table; see `plain`.

    Args:
        headings: column headings.
        rows: rows with one cell per heading.
        left: number of leading columns aligned to the left.
    """
    return _table([headings, *rows], left, tablefmt="pipe", headers="firstrow")


def _table(rows, left, **options):
    rows = [[str(cell) for cell in row] for row in rows]
    if not rows:
        return ""
    columns = len(rows[0])
    align = ["left" if column < left else "right" for column in range(columns)]
    # Cells are already formatted: tabulate must not parse and reformat numbers.
    return tabulate(rows, colalign=align, disable_numparse=True, **options)
