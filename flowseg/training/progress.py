"""How far a training is: what is counted, kept in checkpoints, and gone on from."""

import dataclasses
from typing import Any

# Of what a checkpoint tells; another one cannot be gone on from.
FORMAT = 2


@dataclasses.dataclass
class Phase:
    """A part of a training in which the same streams learn; see `callbacks.Alternate`.

    Attributes:
        learn: the stream that learns: "seg", "flow" or "both".
        since: the step that it began at.
        best: its best validation score so far, None before the first.
        waits: epochs since.
    """

    learn: str
    since: int = 0
    best: float | None = None
    waits: int = 0


@dataclasses.dataclass
class Progress:
    """The state of a training beside its weights; callbacks write it, checkpoints keep it.

    Attributes:
        phase: what learns now.
        step: steps made.
        seconds: that they took.
        best: the best validation score so far, None before the first.
        best_metric: which score that is.
        best_scores: all scores of the best weights with their `step`, and whether they are
            `validated`; empty before the first.
        patience: by score its best value and the validations since; see `callbacks.Patience`.
        incidents: how many of each kind; see `incidents.Guard`.
    """

    phase: Phase
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_metric: str = "loss"
    best_scores: dict[str, Any] = dataclasses.field(default_factory=dict)
    patience: dict[str, list] = dataclasses.field(default_factory=dict)
    incidents: dict[str, int] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values, with the `format`."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> "Progress":
        """What `as_dict` gave; further keys are passed over.

        Raises:
            ValueError: another format.
        """
        if told.get("format") != FORMAT:
            raise ValueError(f"format {told.get('format')} of a training's state, not {FORMAT}")
        names = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in told.items() if key in names}
        return cls(**values | {"phase": Phase(**told["phase"])})
