"""Records at another size: the rules for frames, flow and labels, and the command."""

import json

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data_prep import kitti
from data_prep.conversion import resized
from flowseg.data import augment, decoding, records
from flowseg.data.labels import CITYSCAPES
from tests.conftest import run_command


@pytest.mark.parametrize("size", [(40, 60), (13, 31), (20, 60)])
def test_flow_is_resized_as_in_training(size):
    rng = np.random.default_rng(0)
    flow = np.dstack([rng.normal(0, 9, (40, 60, 2)), rng.random((40, 60)) < 0.6])
    flow = np.where(flow[..., 2:] > 0, flow, [np.nan, 1e30, 0]).astype(np.float32)
    expected = augment.resize_sparse_flow(tf.constant(flow), *size).numpy()
    actual = resized.resize_sparse_flow(flow, *size)
    # OpenCV's and TensorFlow's weights differ in the last bits.
    close = actual[..., 2] == expected[..., 2]
    assert close.mean() > 0.99
    np.testing.assert_allclose(actual[close], expected[close], atol=2e-3)


@pytest.fixture(scope="module")
def half(kitti_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("half")
    kitti.convert([kitti_folder], output, records_size=(45, 80))
    return output


def frames_of(folder):
    files = records.match_files(f"{folder}/train-*", f"{folder}/val-*")
    frames = decoding.evaluation_data(files, CITYSCAPES).as_numpy_iterator()
    return {frame["frame_id"].decode(): frame for frame in frames}


def test_records(kitti_records, half):
    full, small = frames_of(kitti_records), frames_of(half)
    assert full.keys() == small.keys()
    for name, frame in small.items():
        reference = full[name]
        assert frame["image1"].shape == (45, 80, 3) and frame["flow"].shape == (45, 80, 3)
        for key in ("image1", "image2"):
            mean = cv2.resize(reference[key], (80, 45), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(frame[key], mean)
        assert frame["has_image2"] == reference["has_image2"]
        for key in ("flow", "flow_noc"):
            expected = resized.resize_sparse_flow(reference[key], 45, 80)
            np.testing.assert_array_equal(frame[key], expected)
        # Every label of the small map is that of a pixel nearby.
        height, width = reference["seg"].shape
        rows = ((np.arange(45) + 0.5) * height / 45).astype(int)
        columns = ((np.arange(80) + 0.5) * width / 80).astype(int)
        nearest = reference["seg"][rows][:, columns]
        assert (frame["seg"] == nearest).mean() > 0.97
        assert frame["has_objects"] == reference["has_objects"]
    assert json.loads((half / "index.json").read_text())["settings"]["records_size"] == [45, 80]


def test_enlarging_is_refused(kitti_folder, tmp_path):
    with pytest.raises(ValueError, match="is 90x168, smaller than records_size=96x160"):
        kitti.convert([kitti_folder], tmp_path / "out", records_size=(96, 160))


def test_command(kitti_folder, half, tmp_path):
    command = ("data_prep.kitti", "--source", kitti_folder, "--output", tmp_path / "out")
    run_command(*command, "--records_size", "45x80")
    for path in half.glob("*.tfrecord"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    error = run_command(*command, "--records_size", "45", ok=False).stderr
    assert "--records_size=45: not HEIGHTxWIDTH, such as 192x640" in error
