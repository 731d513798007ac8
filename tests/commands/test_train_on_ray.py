"""Ray gives the same results: the same bytes in conversion, the same losses in training."""

import importlib.util

import keras
import pytest

from data_prep import kitti
from flowseg import ray_cluster, runs
from flowseg.network import model
from tests.conftest import run_command
from tests.support.kitti_writer import write_kitti
from tests.training.test_distribution import assert_same_losses, command

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder_with_bad_frame(tmp_path_factory):
    folder = write_kitti(tmp_path_factory.mktemp("kitti"), count=4)
    bad = folder / "data_scene_flow/training/image_2/000001_10.png"
    bad.write_bytes(bad.read_bytes()[:1000])
    return folder


def test_conversion_gives_the_same_bytes(folder_with_bad_frame, tmp_path):
    by_ray, here = tmp_path / "ray", tmp_path / "here"
    source = ("--source", folder_with_bad_frame, "--ray_address", "local")
    error = run_command("data_prep.kitti", *source, "--output", by_ray, ok=False).stderr
    assert "000001_10.png: " in error
    run_command("data_prep.kitti", *source, "--output", by_ray, "--on_error", "skip")
    kitti.convert([folder_with_bad_frame], here, on_error="skip")
    names = sorted(path.name for path in here.iterdir())
    assert sorted(path.name for path in by_ray.iterdir()) == names and "index.json" in names
    for name in names:
        assert (by_ray / name).read_bytes() == (here / name).read_bytes(), name


def test_missing_cluster_is_reported(folder_with_bad_frame, tmp_path):
    arguments = ("--source", folder_with_bad_frame, "--output", tmp_path / "records")
    error = run_command(
        "data_prep.kitti", *arguments, "--ray_address", "127.0.0.1:9", ok=False
    ).stderr
    assert "--ray_address=127.0.0.1:9: no Ray cluster responds there" in error


def test_ray_that_does_not_start_is_reported(monkeypatch):
    import ray

    def init(**options):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="^Ray does not start .*timed out during startup"):
        ray_cluster.connect()


def test_two_workers_have_the_losses_of_one(kitti_records, tmp_path, monkeypatch):
    if not importlib.util.find_spec("pyarrow") or not importlib.util.find_spec("jax"):
        pytest.skip("Ray Train or JAX is not installed (the extras `ray` and `jax`)")
    # XLA's full optimisation takes minutes, too long for one step.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    # Initial weights of the real network, because Ray's workers run the real command.
    keras.utils.set_random_seed(1)
    start = tmp_path / "start.keras"
    runs.save_model(model.build_flowseg(19, backbone="efficientnet_lite0"), start)
    by_ray, alone = tmp_path / "ray", tmp_path / "alone"
    command_line = ("flowseg.train_on_ray", "--hosts=2")
    # Ray's workers run at low priority.
    done = run_command(
        *command_line, *command(kitti_records, by_ray, init_from=start), timeout=1500
    )
    assert f"{by_ray}: 1 steps in" in done.stdout
    run_command("tests.support.eager_train", *command(kitti_records, alone, init_from=start))
    assert_same_losses(by_ray, alone)
    # An error of a worker is reported in one line.
    other = command(kitti_records, by_ray, steps=2, learning_rate=1, init_from=start)
    error = run_command(*command_line, *other, ok=False).stderr
    assert "trained with other flags (the run has --learning_rate=" in error
