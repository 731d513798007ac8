"""What is drawn of a recipe is what its training sees; of records, their frames as they are."""

from types import SimpleNamespace

import cv2
import keras
import numpy as np

from flowseg import show, train
from flowseg.data import record_sets
from flowseg.data.labels import CITYSCAPES
from flowseg.training import objective
from tests.commands.test_train import parse
from tests.conftest import run_command


def test_examples_are_those_of_the_training(kitti_records):
    shares = ("--label_fraction=0.5", "--height=64", "--width=96", "--batch_size=1", "--seed=3")
    asked = parse("--flagfile=experiments/kitti.flags", *shares).flag_values_dict()
    asked |= {"train_records": [str(kitti_records / "train-*")], "val_records": []}
    args = SimpleNamespace(**{**asked, "records": None})
    drawn = show.examples(args)
    sets = record_sets.find(args, CITYSCAPES)
    state = {"phase": {"learn": "both"}}
    keras.utils.set_random_seed(args.seed + 1)  # As `resume.build_models`.
    batches = train._batch_source(sets, CITYSCAPES, args, state)[0](0).as_numpy_iterator()
    truths = set()
    for _ in range(6):
        inputs, targets = next(batches)
        _, *ours = next(drawn)
        theirs = (inputs["image1"], inputs["image2"], targets["flow"], targets["seg"])
        for mine, its in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, its[0])
        truths.add((ours[3] != 255).any() or bool(ours[2][..., 2].any()))
    # Of frames without truth there are none, unless they teach without.
    assert truths == {True} and not objective.unlabelled(args)


def test_command(kitti_records, tmp_path):
    asked = ("flowseg.show", "--records", kitti_records / "train-*", "--output", tmp_path)
    assert "2 pictures" in run_command(*asked, "--show", 2).stdout
    pictures = sorted(tmp_path.iterdir())
    assert len(pictures) == 2
    for path in pictures:
        picture = cv2.imread(str(path))
        # Two frames beside each other at least, and not one colour.
        assert picture.shape[1] > 2 * 96 and picture.std() > 10
    error = run_command("flowseg.show", "--output", tmp_path, ok=False).stderr
    assert "give --records, or a recipe by --flagfile" in error
