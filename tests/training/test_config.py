"""The training configuration: bounds, flags, and the lines of flags.txt."""

import dataclasses
import json
import math

import pytest

from flowseg.data.augment import Augmentation
from flowseg.errors import ArgumentError
from flowseg.training.config import TrainingConfig, flag_lines
from flowseg.training.loop import train
from tests.conftest import ROOT
from tests.support.trainings import parsed


def test_flag_defaults():
    assert parsed() == TrainingConfig()


def test_flagfile_round_trip(tmp_path):
    config = TrainingConfig(
        train_records=("a/train-*", "b/train-*"),
        train_weights=(3.0, 0.5),
        label_fraction=(0.25, 1.0),
        init_from="pretrained",
        backbone="efficientnet_lite0",
        deterministic=True,
        synthetic_flow=False,
        save_every=50,
        learning_rate=1e-5,
        pictures=0,
        coarsest=64,
    )
    lines = flag_lines(config)
    assert "--train_weights=3,0.5" in lines and "--nosynthetic_flow" in lines
    (tmp_path / "flags.txt").write_text("\n".join(lines))
    assert parsed("--flagfile", tmp_path / "flags.txt") == config
    # Settings without a value have no line.
    assert not [line for line in flag_lines(TrainingConfig()) if "init_from" in line]


def test_recipes_are_valid():
    for recipe in sorted((ROOT / "experiments").glob("*.flags")):
        assert parsed("--flagfile", recipe) != TrainingConfig(), recipe


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"height": 31},
        {"alpha": -0.1},
        {"flip": 1.5},
        {"enlarge": -1.5},
        {"learning_rate": math.nan},
        {"backbone": "vgg"},
        {"learn": "depth"},
        {"best_metric": "seg/iou"},
        {"coarsest": 48},
    ],
)
def test_bounds(setting):
    [(name, value)] = setting.items()
    with pytest.raises(ArgumentError, match=f"^{name}[ =]") as raised:
        TrainingConfig(**setting)
    assert raised.value.arguments == (name,)
    assert str(value) in str(raised.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"save_every": 3}, "save_every=3 must divide steps_per_epoch=500"),
        (
            {"alternate": 1, "learn": "seg"},
            "alternate trains both streams, but learn=seg trains only one",
        ),
        ({"alternate": 1, "val_records": ("x",)}, "alternate: each phase has a different loss"),
    ],
)
def test_incompatible_settings(settings, message):
    with pytest.raises(ArgumentError, match=message):
        TrainingConfig(**settings)


def test_augmentation():
    config = TrainingConfig(scale=0.25, enlarge=0.1, stretch=0.2, flip=0.0, colour=0.75, erase=1.0)
    assert config.augmentation == Augmentation(
        scale=0.25, enlarge=0.1, stretch=0.2, flip=0.0, colour=0.75, erase=1.0
    )


def test_frozen():
    config = TrainingConfig(steps=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 6
    assert dataclasses.replace(config, steps=6).steps == 6


def test_a_label_set_of_one_class_is_reported(tmp_path, capsys):
    label_set = {"names": ["crack"], "palette": [[255, 0, 0]], "ids": {"mine": [1]}}
    (tmp_path / "one.json").write_text(json.dumps(label_set))
    config = TrainingConfig(label_set=str(tmp_path / "one.json"), train_records=("none/*",))
    with pytest.raises(ValueError, match="no record files match"):
        train(config, tmp_path / "run")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: label set one has one class, crack: every labelled pixel has")
