"""Feed damaged files to every part of FlowSeg that reads files, and report what goes wrong.

    python -m tests.fuzz --cases 1000 --seed 0 [--door NAME] [--processes 2]

Each case damages one file of a valid input and must be accepted, or refused with an error that the
commands report in one line. Tracebacks, crashes, hangs over 60 s, unclear messages and half-written
output are printed with the command that repeats them; then the exit code is 1.
"""

import argparse
import collections
import itertools
import sys
import tempfile
from pathlib import Path

from flowseg.cli import entry  # noqa: F401  (quiets TensorFlow's start, so it comes first)

# isort: split
from tests.fuzz import runner
from tests.fuzz.doors import CHEAP, DOORS

FAULTS = ("traceback", "crash", "hang", "unclear", "half-written")


def cases_of(doors, count, seed):
    """Return `count` cases, of the doors in turn."""
    turns = itertools.islice(itertools.cycle(doors), count)
    return [runner.Case(door, i // len(doors), seed) for i, door in enumerate(turns)]


def main():
    """Run the cases and print the faults and a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=1000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other damage")
    parser.add_argument("--door", action="append", choices=[*DOORS, "cheap"], help="repeatable")
    parser.add_argument("--case", type=int, help="run only this case of a --door")
    parser.add_argument("--processes", type=int, default=2, help="number of worker processes")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    args = parser.parse_args()
    doors = CHEAP if args.door == ["cheap"] else args.door or list(DOORS)
    cases = cases_of(doors, args.cases, args.seed)
    if args.case is not None:
        cases = [runner.Case(door, args.case, args.seed) for door in doors]
    table = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case, damage, outcome, text in runner.run(cases, Path(folder), args.processes):
            table[case.door, outcome] += 1
            if outcome in FAULTS or args.verbose or args.case is not None:
                print(f"{outcome}: {case.door}, {damage}\n  {case.repeat()}\n  {text}", flush=True)
    outcomes = ("accepted", "refused", *FAULTS)
    print(f"{'door':12}" + "".join(f"{outcome:>13}" for outcome in outcomes))
    for door in dict.fromkeys(case.door for case in cases):
        print(f"{door:12}" + "".join(f"{table[door, outcome]:13}" for outcome in outcomes))
    sys.exit(any(table[door, outcome] for door in DOORS for outcome in FAULTS))


if __name__ == "__main__":
    main()
