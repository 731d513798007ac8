"""Measure the peak memory of a training by batch size, and estimate the batch that fits.

python -m experiments.costs.train_memory --recipe experiments/kitti.flags --train_records GLOB \
    [--batches 1,2,4] [--fits 8,16,24] [--train_flag=--height=256 ...]

Each measurement runs `flowseg.train` for a few steps in a separate process, and takes the peak from
the operating system. Memory grows linearly with the batch size; the line through the measurements
gives the batch that fits elsewhere. (A GPU's memory holds the same tensors, without the pipeline
and TensorFlow itself.)
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np


def peak(command: Iterable[object]) -> float:
    """Peak memory of a command in GB.

    Raises:
        ValueError: the command failed; the message ends with its last line of output.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            last = (output.read().splitlines() or ["nothing"])[-1]
            raise ValueError(f"exit code {process.returncode}; last output: {last}")
    return usage.ru_maxrss / 1024**2


def train(batch: int, train_flags: Iterable[str]) -> float:
    """Peak memory of a training of three steps in GB.

    Args:
        batch: batch size.
        train_flags: other flags of the training.

    Raises:
        ValueError: the training failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        fixed_flags = ["--steps=3", "--steps_per_epoch=3", "--val_records=", "--pictures=0"]
        fixed_flags += [f"--batch_size={batch}", f"--run_dir={folder}/run"]
        try:
            return peak([sys.executable, "-m", "flowseg.train", *train_flags, *fixed_flags])
        except ValueError as error:
            raise ValueError(f"a training with batches of {batch}: {error}") from error


def line(batches: Sequence[int], peaks: Sequence[float]) -> tuple[float, float]:
    """(GB without examples, GB per example) of the line through the measurements."""
    per_example, base = np.polyfit(batches, peaks, 1)
    return base, per_example


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("recipe", "experiments/kitti.flags", "Flagfile of flowseg.train.")
    flags.DEFINE_string("train_records", None, "Records to train on: GLOB[,GLOB].", required=True)
    flags.DEFINE_multi_string("train_flag", [], "Additional flag of flowseg.train; repeatable.")
    flags.DEFINE_list("batches", ["1", "2", "4"], "Batch sizes, at least two.")
    flags.DEFINE_list("fits", ["8", "16", "24"], "GB for which the largest batch is printed.")


def main():
    """Measure and print."""
    args = flags.FLAGS
    train_flags = [
        f"--flagfile={args.recipe}",
        f"--train_records={args.train_records}",
        *args.train_flag,
    ]
    batches = [int(text) for text in args.batches]
    if len(set(batches)) < 2:
        raise ValueError("--batches: needs at least two sizes")
    peaks = []
    for batch in batches:
        peaks.append(train(batch, train_flags))
        print(f"batch {batch}: peak of {peaks[-1]:.2f} GB", flush=True)
    base, per_example = line(batches, peaks)
    print(f"{base:.2f} GB plus {per_example:.2f} GB per example")
    for size in args.fits:
        print(f"{size} GB: a batch of {max(0, int((float(size) - base) / per_example))}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
