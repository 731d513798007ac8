"""The rows of `experiments.exports.benchmark` as processes that are measured in turn."""

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
    """Bytes of a file, or of all in a folder."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in found if each.is_file())


@contextlib.contextmanager
def row(title: str, kind: str, path: Path, threads: int, frames: Path) -> Iterator[tuple]:
    """A started `benchmark_row`: yields (ask, its first answer).

    ask() gives the answer to one turn, ask(more=False) the last one.

    Raises:
        ValueError: the row fails, with the last line that it said.
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
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            bufsize=1,
        ) as process,
    ):

        def read():
            line = process.stdout.readline()
            if line:
                return json.loads(line)
            process.wait()
            said.seek(0)
            last = said.read().strip().split("\n")[-1] or f"exit code {process.returncode}"
            raise ValueError(f"{title}: {last}")

        def ask(more=True):
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write("turn\n") if more else process.stdin.close()
            return read()

        try:
            yield ask, read()
        finally:
            process.kill()


def measure(
    forms: dict[str, tuple[str, Path]], threads: int, frames: Path, rounds: int
) -> dict[str, dict[str, float]]:
    """Times of all rows, in turn: name -> `summary` of it, with ratios to the peers among them."""
    turns = {name: [] for name in forms}
    told = {}
    with contextlib.ExitStack() as stack:
        asks = {}
        for name, (kind, path) in forms.items():
            started = row(ROWS[name], kind, path, threads, frames)
            asks[name], first = stack.enter_context(started)
            told[name] = {"bytes": first["bytes"] if name in PEERS else size_of(path)}
        for _ in tqdm(range(rounds), desc=f"{threads} threads", unit="round", disable=None):
            for name, ask in asks.items():
                turns[name].append(ask())
        for name, ask in asks.items():
            told[name] |= ask(more=False)
    medians = {
        name: {key: np.array([np.median(each[key]) for each in own]) for key in own[0]}
        for name, own in turns.items()
    }
    for name, own in turns.items():
        told[name] |= summary(own, medians[name])
        for peer in set(PEERS) & set(forms):
            for key in ("pair", "stream", "cpu"):
                if key in medians[name]:
                    of_peer = medians[peer]["cpu" if key == "cpu" else "pair"]
                    ratios = of_peer / medians[name][key]
                    told[name][f"{key}_faster_than/{peer}"] = float(np.median(ratios))
    return told
