"""Feed damaged files to every part of FlowSeg that reads files, and report what goes wrong.

    python -m tests.fuzz --cases 1000 --seed 0 [--door NAME] [--processes 2]

Each case damages one file of a valid input and must be accepted, or refused with an error that the
commands report in one line. Tracebacks, crashes, hangs over 60 s, unclear messages and half-written
output are printed with the command that repeats them; then the exit code is 1.
"""

import collections
import itertools
import tempfile
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from tests.fuzz import runner
from tests.fuzz.doors import CHEAP, DOORS

FAULTS = ("traceback", "crash", "hang", "unclear", "half-written")


def cases_of(doors, count, seed):
    """Return `count` cases, of the doors in turn."""
    turns = itertools.islice(itertools.cycle(doors), count)
    return [runner.Case(door, i // len(doors), seed) for i, door in enumerate(turns)]


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_integer("cases", 1000, "Number of cases.", 1)
    flags.DEFINE_integer("seed", 0, "Other seeds give other damage.", 0)
    flags.DEFINE_multi_enum("door", [], [*DOORS, "cheap"], "Door; repeatable; default: all.")
    flags.DEFINE_integer("case", None, "Run only the case with this number of each --door.", 0)
    flags.DEFINE_integer("processes", 2, "Number of worker processes.", 1)


def main():
    """Run the cases and print the faults and a table.

    Raises:
        ValueError: there are faults.
    """
    args = flags.FLAGS
    doors = CHEAP if args.door == ["cheap"] else args.door or list(DOORS)
    cases = cases_of(doors, args.cases, args.seed)
    if args.case is not None:
        cases = [runner.Case(door, args.case, args.seed) for door in doors]
    table = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case, damage, outcome, text in runner.run(cases, Path(folder), args.processes):
            table[case.door, outcome] += 1
            if outcome in FAULTS or args.case is not None:
                print(f"{outcome}: {case.door}, {damage}\n  {case.repeat()}\n  {text}", flush=True)
    outcomes = ("accepted", "refused", *FAULTS)
    print(f"{'door':12}" + "".join(f"{outcome:>13}" for outcome in outcomes))
    for door in dict.fromkeys(case.door for case in cases):
        print(f"{door:12}" + "".join(f"{table[door, outcome]:13}" for outcome in outcomes))
    faults = sum(count for (_, outcome), count in table.items() if outcome in FAULTS)
    if faults:
        raise ValueError(f"{faults} of {len(cases)} cases are faults; see above")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
