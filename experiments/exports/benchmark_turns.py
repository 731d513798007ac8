"""Runs the rows of `experiments.exports.benchmark` as processes that take turns."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments.exports.benchmark_table import PEERS, ROWS, summary


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    paths = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in paths if file.is_file())


@contextlib.contextmanager
def row(title: str, kind: str, path: Path, threads: int, frames: Path) -> Iterator[tuple]:
    """Start a `benchmark_row`: yields (request, its first message).

    request() runs a turn and returns its message; request(more=False) returns the last message.

    Raises:
        ValueError: the row fails; the message ends with the last line of its error output.
    """
    command = [
        sys.executable,
        "-m",
        "experiments.exports.benchmark_row",
        kind,
        path,
        threads,
        frames,
    ]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            bufsize=1,
        ) as process,
    ):

        def read():
            line = process.stdout.readline()
            if line:
                return json.loads(line)
            process.wait()
            errors.seek(0)
            last = errors.read().strip().split("\n")[-1] or f"exit code {process.returncode}"
            raise ValueError(f"{title}: {last}")

        def request(more=True):
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write("turn\n") if more else process.stdin.close()
            return read()

        try:
            yield request, read()
        finally:
            process.kill()


def measure(
    formats: dict[str, tuple[str, Path]], threads: int, frames: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """Measure all rows in turn: name -> its `summary`, with ratios to the peers among the rows."""
    turns = {name: [] for name in formats}
    results = {}
    with contextlib.ExitStack() as stack:
        requests = {}
        for name, (kind, path) in formats.items():
            started = row(ROWS[name], kind, path, threads, frames)
            requests[name], first = stack.enter_context(started)
            results[name] = {"bytes": first["bytes"] if name in PEERS else size_of(path)}
        for _ in tqdm(range(rounds), desc=f"{threads} threads", unit="round", disable=None):
            for name, request in requests.items():
                turns[name].append(request())
        for name, request in requests.items():
            results[name] |= request(more=False)
    medians = {
        name: {
            key: np.array([np.median(times[key]) for times in row_turns]) for key in row_turns[0]
        }
        for name, row_turns in turns.items()
    }
    for name, row_turns in turns.items():
        results[name] |= summary(row_turns, medians[name])
        for peer in set(PEERS) & set(formats):
            for key in ("pair", "stream", "cpu"):
                if key in medians[name]:
                    peer_times = medians[peer]["cpu" if key == "cpu" else "pair"]
                    ratios = peer_times / medians[name][key]
                    results[name][f"{key}_faster_than/{peer}"] = float(np.median(ratios))
    return results
