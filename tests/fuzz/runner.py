"""Runs cases in worker processes, so that crashes and hangs are seen and reported."""

import contextlib
import os
import resource
import shutil
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowseg.cli import entry
from tests.fuzz import mutations
from tests.support.forked import CONTEXT

# Seconds of computing per case. On a busy machine they take longer, and a worker that waits for
# ever computes nothing, so there is also a limit of seconds on the clock.
TIMEOUT, _CLOCK = 60, 600
_PREPARATION = 1200  # seconds to make the input of one door
_MEMORY = 24 * 2**30  # bytes of addresses per worker, so that a huge array does not stop others


class Case(NamedTuple):
    """One damaged input: the door, its number, and the seed of all cases."""

    door: str
    number: int
    seed: int

    def repeat(self) -> str:
        """Return the command that runs only this case."""
        return f"python -m tests.fuzz --seed {self.seed} --door {self.door} --case {self.number}"


class Result(NamedTuple):
    """What happened: `outcome` is accepted, refused or a fault; `text` describes it."""

    case: Case
    damage: str
    outcome: str
    text: str


def run(cases: Iterable[Case], folder: Path, processes: int = 1) -> Iterator[Result]:
    """Yield the result of each case, in the order in which they finish.

    Args:
        cases: the cases; their doors' inputs are made first.
        folder: for the valid inputs; those that exist are used again.
        processes: number of worker processes.
    """
    cases = list(cases)
    for door in dict.fromkeys(case.door for case in cases):
        if not (folder / door).exists():
            _make(door, folder)
    waiting, workers = cases[::-1], []
    try:
        workers = [_Worker(folder) for _ in range(min(processes, len(cases)))]
        while waiting or any(worker.case for worker in workers):
            for worker in workers:
                if waiting and not worker.case:
                    worker.send(waiting.pop())
            busy = {worker.pipe: worker for worker in workers if worker.case}
            ready = {busy[pipe] for pipe in wait(busy, timeout=1)}
            for worker in busy.values():
                if worker in ready or worker.is_late():
                    yield worker.result()
    finally:
        for worker in workers:
            worker.stop()


def _make(door, folder):
    """Make the valid input of a door in a process of its own."""
    process = CONTEXT.Process(target=_make_input, args=(door, folder))
    process.start()
    process.join(_PREPARATION)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"the valid input of {door} cannot be made")


def _make_input(door, folder):
    from tests.fuzz.doors import DOORS

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        DOORS[door].make(Path(temporary) / door)
        os.rename(Path(temporary) / door, folder / door)


class _Worker:
    """A process that runs one case at a time, and is started again after a crash or a hang."""

    def __init__(self, folder: Path):
        self.folder, self.case = folder, None
        self._start()

    def _start(self):
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(theirs, self.folder), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # It has imported everything.

    def send(self, case: Case) -> None:
        self.case = case
        self.start = time.monotonic(), self._computed()
        self.pipe.send(case)

    def is_late(self) -> bool:
        """Whether the case takes too long."""
        clock, computed = self.start
        return self._computed() - computed > TIMEOUT or time.monotonic() - clock > _CLOCK

    def _computed(self):
        """Return the seconds that the process has computed."""
        with contextlib.suppress(OSError):
            # Fields 14 and 15 (user and system time); the name in front may contain spaces.
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def result(self) -> Result:
        """Return the result of the case; a process that gave none is replaced."""
        case, self.case = self.case, None
        try:
            if self.pipe.poll():
                return self.pipe.recv()
            outcome, text = "hang", f"no answer within {TIMEOUT} s of computing"
        except EOFError:
            self.process.join()
            outcome, text = "crash", f"exit code {self.process.exitcode}"
        self.stop()
        self._start()
        return Result(case, describe(case, self.folder), outcome, text)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    from tests.fuzz import doors  # noqa: F401

    with contextlib.suppress(EOFError):
        pipe.send("ready")
        while True:
            pipe.send(execute(pipe.recv(), folder))


def execute(case: Case, folder: Path) -> Result:
    """Run one case in this process."""
    from tests.fuzz.doors import DOORS

    with tempfile.TemporaryDirectory() as temporary:
        source, output = Path(temporary) / "in", Path(temporary) / "out"
        damage = _damage(case, folder, source)
        outcome, text = "accepted", ""
        try:
            DOORS[case.door].enter(source, output)
        except Exception as error:
            outcome, text = _judge(error, temporary)
        if left := [path.name for path in Path(temporary).rglob("*.partial-*")]:
            outcome, text = "half-written", f"{', '.join(left)} {text}"
        if outcome != "accepted" and (output / "index.json").exists():
            outcome, text = "half-written", f"index.json of a conversion that failed; {text}"
        return Result(case, damage, outcome, text)


def describe(case: Case, folder: Path) -> str:
    """Return how the input of a case is damaged."""
    with tempfile.TemporaryDirectory() as temporary:
        return _damage(case, folder, Path(temporary) / "in")


def _damage(case, folder, target):
    shutil.copytree(folder / case.door, target)
    rng = np.random.default_rng([case.seed, zlib.crc32(case.door.encode()), case.number])
    return mutations.damage(target, rng)


def _judge(error, folder):
    """Return (outcome, text) of an exception, as `flowseg.cli.entry` would report it."""
    if isinstance(error, entry.expected_errors()):
        text = " ".join(entry.message(error).split())
        unclear = isinstance(error, UnicodeError) or not text or len(text) > 2000
        return "unclear" if unclear else "refused", text.replace(folder, "")
    lines = traceback.format_exception(error)
    return "traceback", "".join(lines[-4:]).replace(folder, "")
