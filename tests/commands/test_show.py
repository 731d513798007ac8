"""`flowseg.show`: draws the training examples of a recipe, or the original frames of records."""

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


def test_examples_match_the_training(kitti_records):
    shares = ("--label_fraction=0.5", "--height=64", "--width=96", "--batch_size=1", "--seed=3")
    records = (f"--train_records={kitti_records / 'train-*'}", "--val_records=")
    config = parsed("--flagfile=experiments/kitti.flags", *shares, *records)
    drawn = show.training_examples(config, CITYSCAPES)
    sets = feeding.find_sets(config, CITYSCAPES)
    keras.utils.set_random_seed(config.seed + 1)  # As `resume.build_networks`.
    source = feeding.BatchSource(config, sets, CITYSCAPES, Progress(Phase("both")))
    batches = source.batches(0).as_numpy_iterator()
    has_truth = set()
    for _ in range(6):
        inputs, targets = next(batches)
        _, *shown = next(drawn)
        trained = (inputs["image1"], inputs["image2"], targets["flow"], targets["seg"])
        for actual, expected in zip(shown, trained, strict=True):
            np.testing.assert_array_equal(actual, expected[0])
        has_truth.add((shown[3] != 255).any() or bool(shown[2][..., 2].any()))
    # Frames without ground truth are drawn only for unsupervised losses.
    assert has_truth == {True} and not JOINT.needs_pair(config)


def test_command(kitti_records, tmp_path):
    command = ("flowseg.show", "--records", kitti_records / "train-*", "--output", tmp_path)
    assert "2 images" in run_command(*command, "--show", 2).stdout
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 2
    for path in paths:
        image = cv2.imread(str(path))
        # At least two frames side by side, and not a single colour.
        assert image.shape[1] > 2 * 96 and image.std() > 10
    error = run_command("flowseg.show", "--output", tmp_path, ok=False).stderr
    assert "give --records, or a recipe by --flagfile" in error
