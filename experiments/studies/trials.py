"""Trainings of one recipe that differ in flags: each is trained and scored once."""

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
    folder: Path, trained: Sequence[str], val_records: Sequence[str], unasked: str | None = None
) -> dict:
    """Train a trial and score its last weights, unless that is done; kept as scores.json.

    Args:
        folder: of the run.
        trained: its flags of `flowseg.train`, all but --run_dir.
        val_records: GLOBs of the records to score on.
        unasked: scores whose names begin so are left out, as "flow/" of a network of one task.

    Returns:
        The scores, and the `seconds` that the training took.

    Raises:
        ValueError: the training failed; or what stands in the folder was asked otherwise.
    """
    asked = {"trained": " ".join(trained), "scored_on": ",".join(val_records)}
    path = folder / "scores.json"
    if path.is_file():
        done = json.loads(path.read_text())
        if {key: done[key] for key in asked} != asked:
            raise ArgumentError(f"{path}: of other flags or records: give another output", "output")
        return done
    begin = time.monotonic()
    command = [sys.executable, "-m", "flowseg.train", f"--run_dir={folder}", *trained]
    if subprocess.run(command).returncode:
        raise ValueError(f"{folder}: the training failed (its reason stands above)")
    seconds = time.monotonic() - begin
    run = runs.load_run(folder, "last")
    scores, _ = evaluation.evaluate(run, records.match_files(*val_records))
    scores = {k: v for k, v in scores.items() if not (unasked and k.startswith(unasked))}
    scores["seconds"] = seconds
    files.write_json(path, asked | scores)
    return scores
