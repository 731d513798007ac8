"""What the doctor tells: findings, and how frames are named in them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

LEVELS = ("error", "warning", "note")
# How many frames a line of text names.
_NAMED = 4


class Finding(NamedTuple):
    """One thing that is wrong or worth knowing.

    Attributes:
        level: "error" (training would fail or learn what is wrong), "warning" (scores or training
            may suffer), "note" (worth knowing).
        name: what it is, for programs.
        text: what it is and how it is mended, for people; without the frames.
        frames: :class:`data_prep.doctor.facts.Facts` of the records it is about, if any.
    """

    level: str
    name: str
    text: str
    frames: Sequence = ()

    def line(self) -> str:
        """One line of text, with the first frames by name."""
        return f"{self.text}{_tell(self.frames)}"


def _tell(frames):
    if not frames:
        return ""
    names = ", ".join(frame.name() for frame in frames[:_NAMED])
    more = len(frames) - _NAMED
    return f": {names}" + (f" and {more} more" if more > 0 else "")


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, worst first; those of one level stay in their order."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def count(number: int, noun: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
