"""Findings of the doctor and their text form."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

LEVELS = ("error", "warning", "note")
# Maximum number of frames named in a line of text.
_MAX_NAMED = 4


class Finding(NamedTuple):
    """A fault or a noteworthy property of the records.

    Attributes:
        level: "error" (training would fail or learn from wrong data), "warning" (scores or
            training may suffer), "note" (for information).
        name: machine-readable identifier.
        text: description and fix, without the frames.
        frames: :class:`data_prep.doctor.facts.Facts` of the affected records, if any.
    """

    level: str
    name: str
    text: str
    frames: Sequence = ()

    def line(self) -> str:
        """Return the text in one line, with the names of the first frames."""
        return f"{self.text}{_name_frames(self.frames)}"


def _name_frames(frames):
    if not frames:
        return ""
    names = ", ".join(frame.name() for frame in frames[:_MAX_NAMED])
    more = len(frames) - _MAX_NAMED
    return f": {names}" + (f" and {more} more" if more > 0 else "")


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort the findings by severity, worst first; the order within a level is kept."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def count(number: int, noun: str) -> str:
    """Format a count with its noun, such as "1 frame" or "2 frames"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
