"""Scores of each frame and of each set of records, beside those of all: in lines, JSON and CSV."""

import csv
import io
import json
import os
from pathlib import Path

from flowseg import files
from flowseg.scoring import frame_scores


class Tally:
    """Keeps the scores of frame after frame; see `add`.

    Attributes:
        frames: list of (frame id, folder of its shard, data set, scores).
        by_folder: folder -> counts of its frames.
    """

    def __init__(self, label_set):
        self.label_set, self.frames, self.by_folder = label_set, [], {}

    def add(self, frame, seg, flow, counts):
        """One frame, its answers (either may be None) and their counts by `evaluation.count`."""
        told, name, shard = (frame[key].decode() for key in ("frame_id", "dataset", "shard"))
        folder = os.path.dirname(os.path.abspath(shard))
        scores = frame_scores.scores(counts, self.label_set.names)
        self.frames.append((told, folder, name, scores))
        self.by_folder[folder] = frame_scores.add(self.by_folder.get(folder, {}), counts)
        return scores

    def set_names(self):
        """Folder -> the name of its records: as much of its path's end as all need to differ.

        Not the data set's own name: made streets are written, and read, as KITTI.
        """
        parts, length = {folder: Path(folder).parts for folder in self.by_folder}, 1
        while len({path[-length:] for path in parts.values()}) < len(parts):
            length += 1
        return {folder: "/".join(path[-length:]) for folder, path in parts.items()}

    def set_scores(self):
        """Name -> scores of each set of records; of one alone none, as they are those of all."""
        if len(self.by_folder) < 2:
            return {}
        return {
            name: frame_scores.scores(self.by_folder[folder], self.label_set.names)
            for folder, name in sorted(self.set_names().items(), key=lambda both: both[1])
        }

    def write_csv(self, path, keys):
        """Write a line a frame: its id, set and data set, and the scores `keys` that it has.

        Raises:
            OSError: the file cannot be written.
        """
        text, names = io.StringIO(), self.set_names()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["frame", "set", "dataset", *keys])
        for told, folder, dataset, scores in self.frames:
            cells = (f"{scores[key]:.6g}" if key in scores else "" for key in keys)
            lines.writerow([told, names[folder], dataset, *cells])
        files.write(path, text.getvalue())


def flat(scores, sets):
    """The scores of all, and `set/<name>/<score>` of each set, in one dict."""
    return scores | {
        f"set/{name}/{key}": score for name, own in sets.items() for key, score in own.items()
    }


def read_scores(path):
    """Name and scores of another evaluation's metrics file.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(Path(path).read_text())
        scores = {key: float(value) for key, value in content.items() if value is not None}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no metrics file of flowseg.evaluate: {error}") from error
    return str(path), scores


def table(scores, sets):
    """The scores as lines of text, in percent and pixels; beside them those of each set."""
    columns = [scores, *sets.values()]
    lines = [["", "all", *sets, ""]] * bool(sets and scores)
    for key in scores:
        told = (f"{own[key]:.3f}" if key in own else "" for own in columns)
        lines.append([key, *told, "px" if "aepe" in key else "%"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
