"""Markdown table of variants that were trained with several seeds each."""

import statistics
from collections.abc import Collection

from flowseg import tables

Scores = dict[str, float]

_COSTS = {"params": ("parameters, M", ".2f"), "gflops": ("GFLOPs", ".2f"), "ms": ("ms", ".1f")}


def table(
    scores_by_variant: dict[str, list[Scores]],
    keys: dict[str, str],
    base: str | None = None,
    excluded: Collection[str] = (),
    network_costs: dict[str, dict[str, float]] | None = None,
) -> str:
    """Markdown: one row per variant, with mean and standard deviation over the seeds.

    If `base` is among the variants, the row of each other variant is followed by its difference
    from `base`, seed by seed: the same initial weights and data reduce the influence of chance.

    Args:
        scores_by_variant: variant -> list of scores, one dict per seed.
        keys: score -> heading.
        base: the variant that others are compared with; None: no such rows.
        excluded: variants that are not compared.
        network_costs: variant -> its cost, from `joint.costs`; None: no such columns.
    """
    costs = _COSTS if network_costs else {}
    rows = []
    for variant, seeds in scores_by_variant.items():
        cells = [cell([scores.get(key) for scores in seeds]) for key in keys]
        rows.append(
            [variant, *cells, *(f"{network_costs[variant][k]:{costs[k][1]}}" for k in costs)]
        )
        if base in scores_by_variant and variant != base and variant not in excluded:
            differences = [
                cell(_differences(seeds, scores_by_variant[base], key), "+") for key in keys
            ]
            rows.append([f"... minus {base}", *differences, *("" for _ in costs)])
    headings = ["", *keys.values(), *(heading for heading, _ in costs.values())]
    return tables.markdown(headings, rows)


def _differences(seeds, base, key):
    """Difference of each seed's score from that of the same seed of `base`, if both have it."""
    pairs = zip(seeds, base, strict=True)
    return [
        scores[key] - base_scores[key]
        for scores, base_scores in pairs
        if key in scores and key in base_scores
    ]


def cell(values: list[float | None], sign: str = "") -> str:
    """Mean and standard deviation of numbers as a table cell; None values are ignored."""
    values = [value for value in values if value is not None]
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"
