"""How much memory a training takes, by batch size, and what fits.

python -m experiments.costs.train_memory --recipe experiments/kitti.flags --train_records GLOB \
    [--batches 1,2,4] [--fits 8,16,24] [--train_flag=--height=256 ...]

Each is the command `flowseg.train` of a few steps, in a process of its own, whose peak is the
operating system's. Memory grows by so much an example; the line through what was measured says what
fits elsewhere. (A GPU's memory holds the same tensors, without the pipeline and TensorFlow itself.)
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
    """Peak memory in GB of a command.

    Raises:
        ValueError: it failed, with its last line.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            last = (said.read().splitlines() or ["nothing"])[-1]
            raise ValueError(f"exit code {process.returncode}; it said: {last}")
    return usage.ru_maxrss / 1024**2


def train(batch: int, given: Iterable[str]) -> float:
    """Peak memory in GB of a training of three steps.

    Args:
        batch: its size.
        given: the training's other flags.

    Raises:
        ValueError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = ["--steps=3", "--steps_per_epoch=3", "--val_records=", "--pictures=0"]
        asked += [f"--batch_size={batch}", f"--run_dir={folder}/run"]
        try:
            return peak([sys.executable, "-m", "flowseg.train", *given, *asked])
        except ValueError as error:
            raise ValueError(f"a training with batches of {batch}: {error}") from error


def line(batches: Sequence[int], peaks: Sequence[float]) -> tuple[float, float]:
    """(GB without an example, GB an example) of the line through them."""
    each, base = np.polyfit(batches, peaks, 1)
    return base, each


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("recipe", "experiments/kitti.flags", "Flagfile of flowseg.train.")
    flags.DEFINE_string("train_records", None, "Records to train on: GLOB[,GLOB].", required=True)
    flags.DEFINE_multi_string("train_flag", [], "Further flag of flowseg.train; repeat it.")
    flags.DEFINE_list("batches", ["1", "2", "4"], "Batch sizes, two at least.")
    flags.DEFINE_list("fits", ["8", "16", "24"], "GB for which the largest batch is told.")


def main():
    """Measure and print."""
    args = flags.FLAGS
    given = [f"--flagfile={args.recipe}", f"--train_records={args.train_records}", *args.train_flag]
    batches = [int(text) for text in args.batches]
    if len(set(batches)) < 2:
        raise ValueError("--batches: two sizes at least")
    peaks = []
    for batch in batches:
        peaks.append(train(batch, given))
        print(f"batch {batch}: {peaks[-1]:.2f} GB at most", flush=True)
    base, each = line(batches, peaks)
    print(f"{base:.2f} GB, and {each:.2f} GB an example")
    for room in args.fits:
        print(f"{room} GB: a batch of {max(0, int((float(room) - base) / each))}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
