r"""One trial of the decoder's ablation: train by flags, then score the last weights on sets.

FLOWSEG_DECODER='{"norm": "group"}' python -m experiments.trial --flagfile experiments/trial.flags \
    --run_dir runs/group --train_records 'street/train-*,layers/train-*' \
    --score kitti='kitti/train-*' --score street='street/val-*'

This file and the switches in flowseg/decoder.py live in this commit alone; what won is in the next.
"""

import json
import os
from pathlib import Path

from absl import flags

from flowseg import commands

# isort: split
from flowseg import evaluate, records, runs, train


def main():
    """Train, score, print one line of JSON."""
    args = flags.FLAGS
    train.train(args, Path(args.run_dir))
    run = runs.load_run(args.run_dir, "last")
    told = {"decoder": os.environ.get("FLOWSEG_DECODER", "{}"), "params": run.model.count_params()}
    for item in args.score:
        name, _, pattern = item.partition("=")
        scores, _ = evaluate.evaluate(run, records.match_files(pattern))
        keys = ("seg/miou", "flow/aepe", "flow/fl_all", "flow/aepe_noc")
        told |= {f"{name}/{key}": round(scores[key], 3) for key in keys if key in scores}
    print(json.dumps(told))


if __name__ == "__main__":
    train.define_flags()
    flags.DEFINE_multi_string("score", [], "NAME=GLOB to score on; repeat it.")
    commands.run(main)
