"""Check that a repeatedly killed training ends bit for bit like an undisturbed one.

python -m experiments.costs.kill_test --train_records GLOB --val_records GLOB --output DIR \
    [--kills 20] [--train_flag=--steps=24 ...]

trains once undisturbed (DIR/whole) and once killed by SIGKILL (DIR/killed) at random moments, every
third time while a checkpoint is being written, and resumed each time with the same command; then
compares weights, optimizer, scores and history. Both trainings use --deterministic, shuffling and
augmentation.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np

from flowseg.training import checkpoints

# Small, because a start costs as much as many steps.
_FLAGS = {
    "--backbone": "efficientnet_lite0",
    # Enough for each of twenty kills to happen before the end.
    "--steps": 84,
    "--steps_per_epoch": 12,
    "--save_every": 2,
    "--batch_size": 2,
    "--height": 64,
    "--width": 96,
    "--warmup_steps": 4,
    "--pictures": 0,
}


def kill_once(
    command: Iterable[object],
    folder: Path,
    rng: random.Random,
    while_saving: bool,
    trace: IO | None = None,
) -> bool:
    """Start a training and kill it after it has made progress.

    Args:
        command: command of the training.
        folder: folder of its checkpoints.
        rng: a `random.Random`.
        while_saving: whether to wait until a checkpoint is partly written.
        trace: file for its output.

    Returns:
        True if it was killed, False if it ended by itself.

    Raises:
        ValueError: the training failed by itself.
    """
    before = _newest(folder)
    process = subprocess.Popen([str(part) for part in command], stdout=trace, stderr=trace)
    deadline = None
    while process.poll() is None:
        progressed = _newest(folder) > before
        if while_saving and any(folder.glob(".partial-step-*")) and (progressed or not before):
            # At any time between its first file and its last.
            time.sleep(rng.uniform(0, 0.3))
            break
        if not while_saving and progressed and deadline is None:
            deadline = time.monotonic() + rng.uniform(0, 3)
        if deadline and time.monotonic() > deadline:
            break
        time.sleep(0.002)
    killed = process.poll() is None
    process.kill()
    code = process.wait()
    if not killed and code:
        raise ValueError(f"{folder.parent}: the training failed by itself, exit code {code}")
    return killed


def _newest(folder):
    return max((path.name for path in folder.glob("step-*")), default="")


def differences(one: Path, other: Path) -> list[str]:
    """Differences between two finished run folders; empty if there are none."""
    differing = []
    networks = []
    for folder in (one, other):
        state, path = checkpoints.newest(folder / "checkpoints")
        state = {key: x for key, x in state.items() if key not in ("sha256", "seconds")}
        networks.append((state, checkpoints.network(path)))
    (state, ours), (other_state, theirs) = networks
    if state != other_state:
        differing.append(f"state: {state}, {other_state}")
    for kind in ("model", "optimizer"):
        ours_, theirs_ = (ours, theirs) if kind == "model" else (ours.optimizer, theirs.optimizer)
        for a, b in zip(ours_.variables, theirs_.variables, strict=True):
            if not np.array_equal(np.asarray(a), np.asarray(b)):
                differing.append(f"{kind}: {a.path}")
    for name in ("history.csv", "metrics.json"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            differing.append(name)
    for name in ("model.keras", "best.keras"):
        pairs = [keras.saving.load_model(folder / name).get_weights() for folder in (one, other)]
        if not all(np.array_equal(a, b) for a, b in zip(*pairs, strict=True)):
            differing.append(name)
    return differing


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("train_records", None, "To train on: GLOB[,GLOB].", required=True)
    flags.DEFINE_string("val_records", None, "To validate on: GLOB[,GLOB].", required=True)
    flags.DEFINE_string("output", None, "Folder for both runs.", required=True)
    flags.DEFINE_integer("kills", 20, "Number of kills.", 1)
    flags.DEFINE_integer("seed", 0, "Random seed of the moments of the kills.")
    flags.DEFINE_multi_string(
        "train_flag", [], "Flag of the training, such as --steps=24; repeatable."
    )


def main():
    """Train, kill and compare."""
    args = flags.FLAGS
    output = Path(args.output)
    if output.exists():
        raise ValueError(f"{output}: already exists; choose another folder")
    output.mkdir(parents=True)
    command = [sys.executable, "-m", "flowseg.train", "--deterministic"]
    command += ["--train_records", args.train_records, "--val_records", args.val_records]
    command += [f"{name}={value}" for name, value in _FLAGS.items()] + args.train_flag
    rng, kills = random.Random(args.seed), 0
    with open(output / "log.txt", "a") as trace:
        begin = time.monotonic()
        undisturbed = [*command, "--run_dir", output / "whole"]
        if subprocess.run(
            [str(part) for part in undisturbed], stdout=trace, stderr=trace
        ).returncode:
            raise ValueError(f"the undisturbed training failed: see {output / 'log.txt'}")
        print(f"undisturbed: {time.monotonic() - begin:.0f} s", flush=True)
        command += ["--run_dir", output / "killed"]
        folder = output / "killed" / "checkpoints"
        while kills < args.kills and kill_once(command, folder, rng, kills % 3 == 2, trace):
            kills += 1
            print(f"kill {kills}: newest {_newest(folder) or 'none'}", flush=True)
        if subprocess.run([str(part) for part in command], stdout=trace, stderr=trace).returncode:
            raise ValueError(f"the killed training did not resume: see {output / 'log.txt'}")
    if differing := differences(output / "whole", output / "killed"):
        raise ValueError(f"after {kills} kills these differ: {'; '.join(differing[:8])}")
    if kills < args.kills:
        raise ValueError(
            f"the training ended after {kills} of {args.kills} kills: increase --steps"
        )
    print(f"after {kills} kills weights, optimizer, scores and history are the same bit for bit")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
