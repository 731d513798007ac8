"""The table of variants that were trained with several seeds each."""

import statistics
from collections.abc import Collection

from flowseg import tables

Scores = dict[str, float]

_COSTS = {"params": ("parameters, M", ".2f"), "gflops": ("GFLOPs", ".2f"), "ms": ("ms", ".1f")}


def table(
    found: dict[str, list[Scores]],
    keys: dict[str, str],
    base: str | None = None,
    apart: Collection[str] = (),
    spent: dict[str, dict[str, float]] | None = None,
) -> str:
    """Markdown: a row a variant, mean and standard deviation over the seeds.

    Where `base` is among the variants, each other's row is followed by what it has more than
    `base`, seed by seed: the same start and the same data, so that chance counts for less.

    Args:
        found: variant -> list of scores, one dict a seed.
        keys: score -> heading.
        base: the variant that others are compared with; None: no such rows.
        apart: variants that are not compared.
        spent: variant -> its cost, as `joint.costs` gives; None: no such columns.
    """
    costs = _COSTS if spent else {}
    rows = []
    for variant, seeds in found.items():
        cells = [cell([scores.get(key) for scores in seeds]) for key in keys]
        rows.append([variant, *cells, *(f"{spent[variant][k]:{costs[k][1]}}" for k in costs)])
        if base in found and variant != base and variant not in apart:
            gaps = [cell(_gaps(seeds, found[base], key), "+") for key in keys]
            rows.append([f"... more than {base}", *gaps, *("" for _ in costs)])
    headings = ["", *keys.values(), *(heading for heading, _ in costs.values())]
    return tables.markdown(headings, rows)


def _gaps(seeds, base, key):
    """What each seed's score is more than that of the same seed of `base`; where both have it."""
    pairs = zip(seeds, base, strict=True)
    return [own[key] - other[key] for own, other in pairs if key in own and key in other]


def cell(values: list[float | None], sign: str = "") -> str:
    """Mean and standard deviation of numbers (None: left out), as a table shows them."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{spread}"
