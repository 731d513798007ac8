"""Rows of `experiments.exports.benchmark`: their names, their statistics and the table."""

from collections.abc import Sequence

import numpy as np

from flowseg import tables

PEERS = {"deeplab_raft": "DeepLabV3-R50 + RAFT-small", "lraspp_dis": "LRASPP-MNv3 + DIS"}
ROWS = {
    "keras": "Keras",
    "saved_model": "SavedModel",
    "none": "TFLite float32",
    "float16": "TFLite float16",
    "dynamic": "TFLite dynamic",
    "int8": "TFLite int8",
    **PEERS,
}


def summary(
    turns: Sequence[dict[str, Sequence[float]]], medians: dict[str, np.ndarray]
) -> dict[str, float]:
    """Median and 90th percentile of each time over all turns, and the stream ratios.

    Args:
        turns: one dict per turn of `benchmark_row`: name -> times in ms.
        medians: name -> (turns,) median of each turn.
    """
    statistics = {}
    for key in turns[0]:
        values = np.concatenate([each[key] for each in turns])
        statistics |= {
            key: float(np.median(values)),
            f"{key}_p90": float(np.percentile(values, 90)),
        }
    if "stream" in medians:
        encode, decode = medians["encode"], medians["decode"]
        allowed = (2 * encode + decode) / (encode + decode)
        statistics["stream_ratio"] = float(np.median(medians["pair"] / medians["stream"]))
        statistics["stream_allowed"] = float(np.median(allowed))
    return statistics


def table(results: dict[int, dict[str, dict[str, float]]]) -> str:
    """Markdown table of the results of `benchmark`."""
    names = [name for name in ROWS if name in next(iter(results.values()))]
    peers = [name for name in names if name in PEERS]
    head = ["", "threads", "pair", "p90", "CPU", "stream", "p90", "parts", "pair/stream", "allowed"]
    head += ["memory", "file", *(f"x {PEERS[peer]}" for peer in peers)]
    rows = [
        [ROWS[name], threads, *_cells(values[name], peers)]
        for name in names
        for threads, values in results.items()
    ]
    return tables.markdown(head, rows)


def _cells(values, peers):
    def cell(key, form=".1f", scale=1):
        return format(values[key] * scale, form) if key in values else ""

    parts = ("encode", "decode") if "encode" in values else ("seg", "flow")
    cells = [cell(key) for key in ("pair", "pair_p90", "cpu", "stream", "stream_p90")]
    cells.append(" + ".join(cell(part) for part in parts))
    cells += [cell("stream_ratio", ".2f"), cell("stream_allowed", ".2f")]
    cells += [cell("peak_mb", ".0f"), cell("bytes", ".1f", 1e-6)]
    for peer in peers:
        each = (cell(f"{key}_faster_than/{peer}", ".1f") for key in ("pair", "stream", "cpu"))
        cells.append(", ".join(filter(None, each)))
    return cells
