"""Train FlowSeg on record shards.

python -m flowseg.train --flagfile experiments/kitti.flags [--run_dir DIR]

leaves a run folder (see flowseg/runs.py) that evaluate, predict, visualize and the exports take,
and that `tensorboard --logdir runs` shows. The same command again on the same folder, whatever
stopped it, goes on from the last checkpoint as if nothing had happened.
"""

import functools
import json
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np
import tensorflow as tf

from flowseg import files, runs
from flowseg.cli import flags as training_flags
from flowseg.data import decoding, record_sets, records
from flowseg.data.batches import batch_names, training_batches
from flowseg.data.labels import load_label_set
from flowseg.media import drawing
from flowseg.scoring.streaming import SegScores
from flowseg.training import (
    callbacks,
    checkpoints,
    distribution,
    incidents,
    objective,
    resume,
    tensorboard,
)


def train(args, run_dir, spread=distribution.ONE):
    """Run or resume one training; `args` holds the flags of `define_training_flags`.

    Args:
        args: the flags.
        run_dir: the run folder (pathlib.Path); many hosts must all see it.
        spread: the :class:`distribution.Spread` to compute on; on many hosts each calls this.

    Raises:
        ValueError: what cannot be read or does not fit, by name.
    """
    training_flags.check_training_flags(args)
    if args.accumulate > 1 and spread.hosts > 1:
        raise ValueError("--accumulate is for one host: many have the memory for a larger batch")
    label_set = load_label_set(args.label_set)
    sets = record_sets.find(args, label_set)
    kept_in, named = run_dir, records.named_errors(sets.files())
    with spread.folder(run_dir) as run_dir, checkpoints.lock(run_dir), named:
        state = resume.read_state(kept_in, args, label_set)
        if _is_finished(state, args):
            print(f"{kept_in}: finished already, {state['step']} steps")
            return
        if args.bad_records == "skip":
            sets, bad = record_sets.without_damaged(sets, label_set, run_dir / "sound")
            if bad:
                state["incidents"]["records left out"] = bad

        model, trained = resume.build_models(args, label_set, spread)
        with spread.scope():
            seg_scores = SegScores(label_set.names)
            training = objective.compile_model(trained, args, label_set, seg_scores, state["phase"])
        running = None
        if folder := state.pop("folder"):
            print(f"{kept_in}: resuming after step {state['step']}")
            running = checkpoints.load(training, folder)
            if state["step"] % (args.save_every or args.steps_per_epoch) == 0:
                running = None

        files.write(run_dir / "flags.txt", training_flags.to_text(args))
        files.write_json(run_dir / "label_set.json", label_set._asdict())
        shown = decoding.evaluation_data(sets.val or sets.train[0], label_set)
        _keep_sample(shown, run_dir)
        batches_from, look_up = _batch_source(sets, label_set, args, state)
        unlabelled = tuple(objective.unlabelled(args))
        held_to = functools.partial(objective.every_target, unlabelled=unlabelled)
        validation = None
        if sets.val:
            validation = decoding.validation_data(sets.val, label_set, bool(unlabelled)).map(
                held_to
            )
            validation = spread.copies(validation)

        def switch():
            objective.teach(training, args, state["phase"], seg_scores)

        board = tensorboard.TensorBoard(
            run_dir,
            model,
            label_set,
            shown.take(args.pictures),
            seg_scores,
            training_flags.to_dict(args),
            state,
        )
        keeper = checkpoints.KeepState(
            run_dir / "checkpoints", state, args.keep_checkpoints, running
        )
        # Each host decides by the same numbers; host 0 alone tells and keeps for all.
        deciding = [callbacks.Patience(args.patience, state)]
        deciding += [callbacks.Alternate(args, state, switch)] if args.alternate else []
        telling = [
            callbacks.CopyWeights(trained, model),
            callbacks.History(run_dir / "history.csv", state),
            callbacks.KeepBest(run_dir, model, args.best_metric, state),
            board,
        ]
        watching = [
            incidents.Guard(run_dir, state, look_up, args.on_nonfinite, args.spike),
            *(telling if spread.host == 0 else []),
            *deciding,
            keeper,
        ]
        # TensorFlow forbids a clock when deterministic; feeding many devices, it reads ahead.
        clocked = not args.deterministic and spread.here == 1
        with keeper.signals(), spread.scope():
            while not _is_finished(state, args):
                # From where a sum of gradients began.
                begun = (state["step"] - state["phase"]["since"]) % args.accumulate
                batches = batches_from(
                    state["step"] - begun, host=spread.host, hosts=spread.hosts
                ).map(held_to)
                if args.accumulate > 1:
                    batches = objective.over_accumulated(
                        batches, args.accumulate, training.output
                    ).skip(begun)
                if clocked:
                    batches, board.waited = clocked(batches)
                training.fit(
                    batches,
                    shuffle=False,
                    validation_data=validation,
                    callbacks=watching,
                    verbose="auto" if spread.host == 0 else 0,
                    **checkpoints.stretches(state["step"], args)[0],
                )
        board.close()


def _batch_source(sets, label_set, args, state):
    """Two functions: batches from a step on; and of a step its frames' names, inputs, targets."""
    pair = bool(objective.unlabelled(args))
    draw = record_sets.draws(args, sets, pair)
    making = {"height": args.height, "width": args.width, "made_flow": args.made_flow}
    making |= {"strength": training_flags.augmentation(args), "pair": pair}

    def batches_from(step, **share):
        drawn = draw(state["phase"]["learn"])
        return training_batches(drawn, label_set, first_step=step, **making, **share)

    def look_up(step):
        names = batch_names(draw(state["phase"]["learn"]), step)
        return names, *next(batches_from(step).as_numpy_iterator())

    return batches_from, look_up


def _is_finished(state, args):
    return state["step"] >= args.steps or callbacks.is_spent(state["tasks"], args.patience)


def _keep_sample(frames, run_dir):
    """Put the first real pair (in a set of stills: the first frame twice) into the run."""
    pairs = frames.filter(lambda frame: frame["has_image2"])
    frame = next(pairs.concatenate(frames).as_numpy_iterator())
    for key, name in runs.SAMPLE.items():
        drawing.write_png(run_dir / name, frame[key])


def default_run_dir():
    """runs/<name of the flagfile>.

    Raises:
        ValueError: no flagfile to take the name from.
    """
    name = training_flags.flagfile_name()
    if not name:
        raise ValueError("--run_dir: give a folder for the run (its default needs a --flagfile)")
    return str(Path("runs") / name)


def main():
    """Train by the flags."""
    args = flags.FLAGS
    args.run_dir = args.run_dir or default_run_dir()
    if args.deterministic:
        tf.config.experimental.enable_op_determinism()
    spread = distribution.find(args, args.batch_size)
    train(args, Path(args.run_dir), spread)
    if spread.host == 0:
        tell(Path(args.run_dir))


def tell(run_dir):
    """Print what became of a run (pathlib.Path)."""
    scores = json.loads((run_dir / "metrics.json").read_text())
    state, _ = checkpoints.newest(run_dir / "checkpoints")
    shown = {key: scores[key] for key in training_flags.BEST_METRICS if scores.get(key) is not None}
    minutes = f"{state['step']} steps in {state['seconds'] / 60:.1f} minutes"
    best = ", ".join(f"{key} {np.round(value, 3)}" for key, value in shown.items())
    print(f"{run_dir}: {minutes}; best after step {scores['step']}: {best}")
    if state["incidents"]:
        told = ", ".join(f"{kind}: {count}" for kind, count in state["incidents"].items())
        print(f"{told}: see {run_dir / 'incidents'}")
    print(f"look at it: tensorboard --logdir {run_dir.parent}")


def define_flags():
    """The flags of this command."""
    training_flags.define_training_flags()
    training_flags.define_device_flags()
    flags.adopt_module_key_flags(training_flags)


def run():
    """Entry point of `flowseg-train`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    run()
