"""What is drawn of a recipe is what its training sees; of records, their frames as they are."""

import cv2
import keras
import numpy as np

from flowseg import show
from flowseg.data.labels import CITYSCAPES
from flowseg.training import feeding
from flowseg.training.progress import Phase, Progress
from flowseg.training.tasks import JOINT
from tests.conftest import run_command
from tests.support.trainings import parsed


def test_examples_are_those_of_the_training(kitti_records):
    shares = ("--label_fraction=0.5", "--height=64", "--width=96", "--batch_size=1", "--seed=3")
    records = (f"--train_records={kitti_records / 'train-*'}", "--val_records=")
    config = parsed("--flagfile=experiments/kitti.flags", *shares, *records)
    drawn = show.training_examples(config, CITYSCAPES)
    sets = feeding.find_sets(config, CITYSCAPES)
    keras.utils.set_random_seed(config.seed + 1)  # As `resume.build_networks`.
    source = feeding.BatchSource(config, sets, CITYSCAPES, Progress(Phase("both")))
    batches = source.batches(0).as_numpy_iterator()
    truths = set()
    for _ in range(6):
        inputs, targets = next(batches)
        _, *ours = next(drawn)
        theirs = (inputs["image1"], inputs["image2"], targets["flow"], targets["seg"])
        for mine, its in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, its[0])
        truths.add((ours[3] != 255).any() or bool(ours[2][..., 2].any()))
    # Of frames without truth there are none, unless they teach without.
    assert truths == {True} and not JOINT.needs_pair(config)


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
