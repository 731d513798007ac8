"""A short run of `python -m tests.fuzz`, and that it sees tracebacks, crashes and hangs."""

import os
import signal
import time

import pytest

from tests.fuzz import doors, runner
from tests.fuzz.__main__ import cases_of


def test_cheap_doors_refuse_damaged_files(tmp_path):
    cases = cases_of(doors.CHEAP, 3 * len(doors.CHEAP), seed=5)
    results = list(runner.run(cases, tmp_path))
    assert {result.case for result in results} == set(cases)
    faults = [result for result in results if result.outcome not in ("accepted", "refused")]
    assert faults == []
    # Most damage is noticed.
    assert sum(result.outcome == "refused" for result in results) > len(results) / 3


def test_valid_video_is_accepted(tmp_path):
    door = doors.DOORS["video"]
    door.make(tmp_path / "video")
    door.enter(tmp_path / "video", tmp_path / "output")
    assert {path.name for path in (tmp_path / "video").iterdir()} == {"a.mp4", "b.webm"}


def test_damage_depends_on_the_seed_only(tmp_path):
    (case,) = cases_of(["label_set"], 1, seed=3)
    first, again = (next(runner.run([case], tmp_path)) for _ in range(2))
    assert first == again and first.damage
    assert runner.describe(case, tmp_path) == first.damage
    assert case.repeat() == "python -m tests.fuzz --seed 3 --door label_set --case 0"


@pytest.mark.parametrize(
    ("enter", "outcome", "text"),
    [
        (lambda folder, output: {}["x"], "traceback", "KeyError"),
        (lambda folder, output: b"\xff".decode(), "unclear", "can't decode"),
        (lambda folder, output: (folder / ".partial-a").touch(), "half-written", ".partial-a"),
        (lambda folder, output: None, "accepted", ""),
    ],
)
def test_outcomes(tmp_path, monkeypatch, enter, outcome, text):
    doors.DOORS["label_set"].make(tmp_path / "label_set")
    door = doors.DOORS["label_set"]._replace(enter=enter)
    monkeypatch.setitem(doors.DOORS, "label_set", door)
    result = runner.execute(runner.Case("label_set", 0, 0), tmp_path)
    assert result.outcome == outcome and text in result.text


def test_crash_and_hang_are_reported_and_the_next_case_runs(tmp_path, monkeypatch):
    worker = runner._Worker(tmp_path)
    case = runner.Case("label_set", 0, 0)
    doors.DOORS["label_set"].make(tmp_path / "label_set")
    worker.case = case
    os.kill(worker.process.pid, signal.SIGSEGV)
    worker.process.join()
    crash = worker.result()
    assert (crash.outcome, crash.text) == ("crash", f"exit code {-signal.SIGSEGV}")
    worker.case, worker.start = case, (time.monotonic() - 601, 0.0)
    assert worker.is_late() and worker.result().outcome == "hang"
    worker.send(case)
    while not worker.pipe.poll():
        time.sleep(0.1)
    assert worker.result().outcome in ("accepted", "refused")
    worker.stop()
