"""Train on the machines of a Ray cluster, with Ray Train's JaxTrainer.

python -m flowseg.train_on_ray --ray_address ADDRESS --hosts 4 --gpus 8 \
    --flagfile experiments/kitti.flags --run_dir RUN

This is equivalent to `python -m flowseg.train --flagfile experiments/kitti.flags --run_dir RUN` on
JAX with four hosts of eight GPUs each: the command takes the same flags, writes the same run folder
and resumes in the same way; with --restarts it resumes automatically. Every machine needs the
packages of the extras `ray` and `jax`, and must see the records and the run folder under the same
paths. The code of FlowSeg is sent to the machines. The output of the workers is in Ray's logs.
"""

import os
import tempfile
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from flowseg import ray_cluster, train
from flowseg.cli import flags as shared_flags
from flowseg.training import checkpoints
from flowseg.training.config import flag_lines
from flowseg.training.progress import Progress


def train_worker(config: dict[str, str | list[str]]) -> None:
    """Run one worker's share of the training, after Ray has connected JAX's hosts."""
    os.chdir(config["folder"])
    from absl import flags

    from flowseg import train

    train.define_flags()
    flags.FLAGS(["train", *config["flags"]])
    train.main()


def define_flags():
    """Define the flags of this command and of a training."""
    train.define_flags()
    flags.FLAGS["hosts"].help = "Number of workers, each a process on a machine of the cluster."
    flags.DEFINE_string(
        "ray_address", "local", "Address of the Ray cluster; local starts one on this machine only."
    )
    flags.DEFINE_integer("cpus", 1, "CPU cores per worker.", 1)
    flags.DEFINE_integer("gpus", 0, "GPUs per worker.", 0)
    flags.DEFINE_integer("restarts", 0, "How often to resume after a worker has failed.", 0)


def main():
    """Train with the configuration in the flags."""
    args = flags.FLAGS
    args.run_dir = os.path.abspath(args.run_dir or train.default_run_dir())
    ray = ray_cluster.connect(args.ray_address, "ray.train.v2.jax", code=("flowseg",))
    try:
        _fit(args)
    finally:
        ray.shutdown()
    state, _ = checkpoints.newest(Path(args.run_dir) / "checkpoints")
    train.print_summary(Path(args.run_dir), Progress.from_dict(state))


def _fit(args):
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import WorkerGroupError
    from ray.train.v2.jax import JaxConfig, JaxTrainer

    platform = "cuda" if args.gpus else "cpu"
    config = shared_flags.training_config(args)
    lines = [*flag_lines(config), f"--run_dir={args.run_dir}", "--devices=all"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = JaxTrainer(
            train_worker,
            train_loop_config={"folder": os.getcwd(), "flags": lines},
            # True even without GPUs, because otherwise Ray does not connect the workers.
            jax_config=JaxConfig(use_gpu=True),
            scaling_config=ScalingConfig(
                num_workers=args.hosts,
                use_gpu=bool(args.gpus),
                resources_per_worker={"CPU": args.cpus} | ({"GPU": args.gpus} if args.gpus else {}),
            ),
            run_config=RunConfig(
                storage_path=folder,
                failure_config=FailureConfig(max_failures=args.restarts),
                worker_runtime_env={
                    "env_vars": {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": platform}
                },
            ),
        )
        try:
            trainer.fit()
        except WorkerGroupError as error:
            host, cause = min(error.worker_failures.items())
            # Ray wraps a worker's exception, and its own message is a traceback.
            text = entry.message(getattr(cause, "_base_exc", cause))
            raise ValueError(f"worker {host}: {text}") from error


if __name__ == "__main__":
    define_flags()
    entry.run(main)
