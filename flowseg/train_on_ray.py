"""Train on the machines of a Ray cluster, by Ray Train's JaxTrainer.

python -m flowseg.train_on_ray --ray_address ADDRESS --hosts 4 --gpus 8 \
    --flagfile experiments/kitti.flags --run_dir RUN

is `python -m flowseg.train --flagfile experiments/kitti.flags --run_dir RUN` on JAX by four hosts
of eight GPUs: the same flags, the same run folder, the same resuming, by itself with --restarts.
The machines have the packages of the extras `ray` and `jax`, and see records and run folder under
the same names; the code is sent to them. What a worker says is in Ray's logs.
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


def work(config: dict[str, str | list[str]]) -> None:
    """What a worker does: its share of the training, JAX's hosts being joined by Ray."""
    os.chdir(config["folder"])
    from absl import flags

    from flowseg import train

    train.define_flags()
    flags.FLAGS(["train", *config["flags"]])
    train.main()


def define_flags():
    """The flags of this command, and all of a training."""
    train.define_flags()
    flags.FLAGS["hosts"].help = "How many workers, each a process on a machine of the cluster."
    flags.DEFINE_string(
        "ray_address", "local", "Of the Ray cluster; local: one of this machine alone."
    )
    flags.DEFINE_integer("cpus", 1, "Cores that each worker asks Ray for.", 1)
    flags.DEFINE_integer("gpus", 0, "GPUs that each worker asks Ray for.", 0)
    flags.DEFINE_integer("restarts", 0, "How often to go on by itself after a worker failed.", 0)


def main():
    """Train by the flags."""
    args = flags.FLAGS
    args.run_dir = os.path.abspath(args.run_dir or train.default_run_dir())
    ray = ray_cluster.connect(args.ray_address, "ray.train.v2.jax", code=("flowseg",))
    try:
        _fit(args)
    finally:
        ray.shutdown()
    kept, _ = checkpoints.newest(Path(args.run_dir) / "checkpoints")
    train.tell(Path(args.run_dir), Progress.from_dict(kept))


def _fit(args):
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import WorkerGroupError
    from ray.train.v2.jax import JaxConfig, JaxTrainer

    platform = "cuda" if args.gpus else "cpu"
    config = shared_flags.training_config(args)
    lines = [*flag_lines(config), f"--run_dir={args.run_dir}", "--devices=all"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = JaxTrainer(
            work,
            train_loop_config={"folder": os.getcwd(), "flags": lines},
            # Said of GPUs or not: else Ray would not join the workers.
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
            # Ray wraps what a worker raised, and says its traceback for it.
            told = entry.message(getattr(cause, "_base_exc", cause))
            raise ValueError(f"worker {host}: {told}") from error


if __name__ == "__main__":
    define_flags()
    entry.run(main)
