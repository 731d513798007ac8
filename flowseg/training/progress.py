"""Defines the state of a training, except weights: counters and best scores, for checkpoints."""

import dataclasses
from typing import Any

# Version of a checkpoint's state; other versions cannot be resumed.
FORMAT = 2


@dataclasses.dataclass
class Phase:
    """A part of a training in which the same streams are trained; see `callbacks.Alternate`.

    Attributes:
        learn: the trained stream: "seg", "flow" or "both".
        since: step at which the phase began.
        best: its best validation score so far, None before the first.
        waits: number of epochs since that score.
    """

    learn: str
    since: int = 0
    best: float | None = None
    waits: int = 0


@dataclasses.dataclass
class Progress:
    """State of a training, except its weights; callbacks update it, and checkpoints store it.

    Attributes:
        phase: the current phase.
        step: number of completed steps.
        seconds: total time of these steps.
        best: the best validation score so far, None before the first.
        best_metric: name of that score.
        best_scores: all scores of the best weights with their `step`, and whether they are
            `validated`; empty before the first.
        patience: for each score its best value and the validations since; see `callbacks.Patience`.
        incidents: number of incidents of each kind; see `incidents.Guard`.
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
        """Return the state as JSON values, with its `format`."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Progress":
        """Restore what `as_dict` returned; unknown keys are ignored.

        Raises:
            ValueError: the state has another format.
        """
        if state.get("format") != FORMAT:
            raise ValueError(f"format {state.get('format')} of a training's state, not {FORMAT}")
        names = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in state.items() if key in names}
        return cls(**values | {"phase": Phase(**state["phase"])})
