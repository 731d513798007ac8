"""Trains and scores each training of a study once."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flowseg import files, runs
from flowseg.data import records
from flowseg.errors import ArgumentError
from flowseg.scoring import evaluation


def score(
    folder: Path,
    train_flags: Sequence[str],
    val_records: Sequence[str],
    excluded: str | None = None,
) -> dict:
    """Train and score the last weights, unless scores.json in `folder` has the scores already.

    Args:
        folder: run folder.
        train_flags: flags of `flowseg.train`, except --run_dir.
        val_records: GLOBs of the records to score on.
        excluded: scores with this prefix are omitted, such as "flow/" for a single-task network.

    Returns:
        The scores, and the `seconds` of the training.

    Raises:
        ValueError: the training failed; or the folder belongs to other flags or records.
    """
    settings = {"trained": " ".join(train_flags), "scored_on": ",".join(val_records)}
    path = folder / "scores.json"
    if path.is_file():
        stored = json.loads(path.read_text())
        if {key: stored[key] for key in settings} != settings:
            raise ArgumentError(
                f"{path}: has other flags or records: choose another output", "output"
            )
        return stored
    begin = time.monotonic()
    command = [sys.executable, "-m", "flowseg.train", f"--run_dir={folder}", *train_flags]
    if subprocess.run(command).returncode:
        raise ValueError(f"{folder}: the training failed (see its message above)")
    seconds = time.monotonic() - begin
    run = runs.load_run(folder, "last")
    scores, _ = evaluation.evaluate(run, records.match_files(*val_records))
    scores = {k: v for k, v in scores.items() if not (excluded and k.startswith(excluded))}
    scores["seconds"] = seconds
    files.write_json(path, settings | scores)
    return scores
