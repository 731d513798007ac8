"""A checkpoint that was damaged after it was written is skipped, and the one before it is used."""

import json

import pytest

from flowseg.training import checkpoints
from flowseg.training.progress import Phase, Progress


class Training:
    """Stands in for a compiled training model."""

    metrics = ()

    def save(self, path):
        path.write_bytes(b"weights")


@pytest.fixture
def folder(tmp_path):
    for step in (1, 2):
        progress = Progress(Phase("both", best=1.5), step=step, best_scores={"loss": float("nan")})
        checkpoints.save(tmp_path, Training(), progress, keep=2)
    return tmp_path


def change_state(folder, change):
    path = folder / "step-00000002" / "state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))


def test_newest_checkpoint(folder):
    state, path = checkpoints.newest(folder)
    assert path.name == "step-00000002"
    assert Progress.from_dict(state).step == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(phase=None),
        lambda state: state["phase"].pop("learn"),
        lambda state: state["phase"].update(best="1.5"),
        lambda state: state.update(step=3),
        lambda state: state.pop("best_scores"),
        lambda state: state["sha256"].pop("metrics.npz"),
        lambda state: state["sha256"].update({"training.keras": None}),
        lambda state: state.update(sha256=None),
        lambda state: state.pop("sha256"),
    ],
)
def test_damaged_state(folder, capsys, change):
    change_state(folder, change)
    state, path = checkpoints.newest(folder)
    assert path.name == "step-00000001"
    assert Progress.from_dict(state).step == 1
    assert "step-00000002: damaged" in capsys.readouterr().err


def test_state_of_an_earlier_version(folder):
    change_state(folder, lambda state: state["sha256"].pop("state.json"))
    assert checkpoints.newest(folder)[1].name == "step-00000002"
