"""Collects scores of all frames, each record set and each frame; writes text, JSON and CSV."""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from flowseg import files, tables
from flowseg.data.labels import LabelSet
from flowseg.scoring import frame_scores


class Tally:
    """Collects the scores of every frame; see `add`.

    Attributes:
        frames: list of (frame id, folder of its shard, data set, scores).
        by_folder: folder -> counts of its frames.
    """

    def __init__(self, label_set: LabelSet):
        self.label_set, self.frames, self.by_folder = label_set, [], {}

    def add(
        self,
        frame: dict[str, Any],
        seg: np.ndarray | None,
        flow: np.ndarray | None,
        counts: dict[str, np.ndarray],
    ) -> dict[str, float]:
        """Add a frame, its predictions (either may be None) and counts from `evaluation.count`."""
        frame_id, name, shard = (frame[key].decode() for key in ("frame_id", "dataset", "shard"))
        folder = os.path.dirname(os.path.abspath(shard))
        scores = frame_scores.scores(counts, self.label_set.names)
        self.frames.append((frame_id, folder, name, scores))
        self.by_folder[folder] = frame_scores.add(self.by_folder.get(folder, {}), counts)
        return scores

    def set_names(self) -> dict[str, str]:
        """Name each folder's record set by the shortest path endings that are all different.

        The data set's name is not used, because synthetic streets have that of KITTI.
        """
        parts, length = {folder: Path(folder).parts for folder in self.by_folder}, 1
        while len({path[-length:] for path in parts.values()}) < len(parts):
            length += 1
        return {folder: "/".join(path[-length:]) for folder, path in parts.items()}

    def set_scores(self) -> dict[str, dict[str, float]]:
        """Return name -> scores of each record set; empty if there is only one set."""
        if len(self.by_folder) < 2:
            return {}
        return {
            name: frame_scores.scores(self.by_folder[folder], self.label_set.names)
            for folder, name in sorted(self.set_names().items(), key=lambda item: item[1])
        }

    def write_csv(self, path: str | Path, keys: Iterable[str]) -> None:
        """Write one line per frame: its id, record set and data set, and its scores of `keys`.

        Raises:
            OSError: the file cannot be written.
        """
        text, names = io.StringIO(), self.set_names()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["frame", "set", "dataset", *keys])
        for frame_id, folder, dataset, scores in self.frames:
            cells = (f"{scores[key]:.6g}" if key in scores else "" for key in keys)
            lines.writerow([frame_id, names[folder], dataset, *cells])
        files.write(path, text.getvalue())


def flat(scores: dict[str, float], sets: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the scores of all frames, and `set/<name>/<score>` of each set, in one dict."""
    return scores | {
        f"set/{name}/{key}": score
        for name, set_scores in sets.items()
        for key, score in set_scores.items()
    }


def read_scores(path: str | Path) -> tuple[str, dict[str, float]]:
    """Read the name and scores of another evaluation from its metrics file.

    Raises:
        ValueError: the file is not a metrics file.
    """
    try:
        content = json.loads(Path(path).read_text())
        scores = {key: float(value) for key, value in content.items() if value is not None}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a metrics file of flowseg.evaluate: {error}") from error
    return str(path), scores


def table(scores: dict[str, float], sets: dict[str, dict[str, float]]) -> str:
    """Format the scores as lines of text, in percent and pixels, with a column per record set."""
    columns = [scores, *sets.values()]
    rows = [["", "all", *sets, ""]] if sets and scores else []
    for key in scores:
        cells = (f"{column[key]:.3f}" if key in column else "" for column in columns)
        rows.append([key, *cells, "px" if "aepe" in key else "%"])
    return tables.plain(rows)
