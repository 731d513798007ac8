"""Tables as text, for terminals and for Markdown pages."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate


def plain(rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Columns of text, two spaces apart.

    Args:
        rows: of equally many cells each, shown as `str` gives them.
        left: how many columns, from the first on, are aligned to the left; the others, which hold
            numbers, are aligned to the right.

    Returns:
        The lines, without a newline at the end; "" of no rows.
    """
    return _table(rows, left, tablefmt="plain")


def markdown(headings: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; see `plain`.

    Args:
        headings: of the columns.
        rows: of as many cells each.
        left: how many columns are aligned to the left.
    """
    return _table([headings, *rows], left, tablefmt="pipe", headers="firstrow")


def _table(rows, left, **how):
    rows = [[str(cell) for cell in row] for row in rows]
    if not rows:
        return ""
    columns = len(rows[0])
    align = ["left" if column < left else "right" for column in range(columns)]
    # Cells are formatted already: numbers are not to be parsed and written anew.
    return tabulate(rows, colalign=align, disable_numparse=True, **how)
