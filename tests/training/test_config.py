"""The configuration of a training: its bounds, its flags, and its lines in flags.txt."""

import dataclasses
import math

import pytest

from flowseg.data.augment import Augmentation
from flowseg.errors import ArgumentError
from flowseg.training.config import TrainingConfig, flag_lines
from tests.conftest import ROOT
from tests.support.trainings import parsed


def test_the_flags_defaults_are_the_configurations():
    assert parsed() == TrainingConfig()


def test_a_flagfile_of_its_lines_gives_it_back(tmp_path):
    config = TrainingConfig(
        train_records=("a/train-*", "b/train-*"),
        train_weights=(3.0, 0.5),
        label_fraction=(0.25, 1.0),
        init_from="pretrained",
        backbone="efficientnet_lite0",
        deterministic=True,
        made_flow=False,
        save_every=50,
        learning_rate=1e-5,
        pictures=0,
    )
    lines = flag_lines(config)
    assert "--train_weights=3,0.5" in lines and "--nomade_flow" in lines
    (tmp_path / "flags.txt").write_text("\n".join(lines))
    assert parsed("--flagfile", tmp_path / "flags.txt") == config
    # What has no value has no line.
    assert not [line for line in flag_lines(TrainingConfig()) if "init_from" in line]


def test_every_recipe_is_a_configuration():
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
    ],
)
def test_values_out_of_bounds_are_refused_by_name(setting):
    [(name, value)] = setting.items()
    with pytest.raises(ArgumentError, match=f"^{name}[ =]") as caught:
        TrainingConfig(**setting)
    assert caught.value.arguments == (name,)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"save_every": 3}, "save_every=3 must divide steps_per_epoch=500"),
        ({"alternate": 1, "learn": "seg"}, "alternate is for both streams, learn=seg for one"),
        ({"alternate": 1, "val_records": ("x",)}, "alternate: the loss is another one in each"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        TrainingConfig(**settings)


def test_augmentation_has_the_settings_of_its_names():
    config = TrainingConfig(scale=0.25, enlarge=0.1, stretch=0.2, flip=0.0, colour=0.75, erase=1.0)
    assert config.augmentation == Augmentation(
        scale=0.25, enlarge=0.1, stretch=0.2, flip=0.0, colour=0.75, erase=1.0
    )


def test_it_cannot_be_changed_but_replaced():
    config = TrainingConfig(steps=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 6
    assert dataclasses.replace(config, steps=6).steps == 6
