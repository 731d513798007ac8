"""Train FlowSeg on record shards.

python -m flowseg.train --flagfile experiments/kitti.flags [--run_dir DIR]

writes a run folder (see flowseg/runs.py) for evaluate, predict, visualize and the exports;
`tensorboard --logdir runs` shows its progress. Running the same command again on the same folder
resumes from the last checkpoint as if the training had never stopped.
"""

from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np
import tensorflow as tf

from flowseg.cli import flags as shared_flags
from flowseg.training import distribution, loop
from flowseg.training.config import BEST_METRICS
from flowseg.training.progress import Progress


def default_run_dir() -> str:
    """Return runs/<name of the flagfile>.

    Raises:
        ValueError: the command line has no flagfile to take the name from.
    """
    name = shared_flags.flagfile_name()
    if not name:
        raise ValueError("--run_dir: give a folder for the run (its default needs a --flagfile)")
    return str(Path("runs") / name)


def main():
    """Train with the configuration in the flags."""
    args = flags.FLAGS
    config = shared_flags.training_config(args)
    run_dir = Path(args.run_dir or default_run_dir())
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    devices = distribution.find(
        config.batch_size,
        devices=args.devices,
        hosts=args.hosts,
        host=args.host,
        coordinator=args.coordinator,
    )
    progress = loop.train(config, run_dir, devices)
    if devices.host == 0:
        print_summary(run_dir, progress)


def print_summary(run_dir: Path, progress: Progress):
    """Print the duration, the best scores and the incidents of a run."""
    scores = progress.best_scores
    shown = {key: scores[key] for key in BEST_METRICS if np.isfinite(scores.get(key, np.nan))}
    duration = f"{progress.step} steps in {progress.seconds / 60:.1f} minutes"
    best = ", ".join(f"{key} {np.round(value, 3)}" for key, value in shown.items())
    print(f"{run_dir}: {duration}; best after step {scores['step']}: {best}")
    if progress.incidents:
        incidents = ", ".join(f"{kind}: {count}" for kind, count in progress.incidents.items())
        print(f"{incidents}: see {run_dir / 'incidents'}")
    print(f"view it with: tensorboard --logdir {run_dir.parent}")


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_training_flags()
    shared_flags.define_device_flags()
    flags.adopt_module_key_flags(shared_flags)


def entry_point():
    """Entry point of `flowseg-train`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
