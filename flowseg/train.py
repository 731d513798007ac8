"""Train FlowSeg on record shards.

python -m flowseg.train --flagfile experiments/kitti.flags [--run_dir DIR]

leaves a run folder (see flowseg/runs.py) that evaluate, predict, visualize and the exports take,
and that `tensorboard --logdir runs` shows. The same command again on the same folder, whatever
stopped it, goes on from the last checkpoint as if nothing had happened.
"""

import functools
import json
import math
from pathlib import Path

from absl import flags

from flowseg import commands

# isort: split
import keras
import numpy as np
import tensorflow as tf

from flowseg import (
    callbacks,
    checkpoints,
    data,
    devices,
    files,
    guards,
    packed,
    pictures,
    records,
    restore,
    runs,
    salvage,
    tensorboard,
)
from flowseg import flags as training_flags
from flowseg.commands import warn
from flowseg.decoder import of_stream
from flowseg.labels import load_label_set
from flowseg.losses import ConfidenceLoss, FlowLoss, SegLoss
from flowseg.metrics import FlowScores, SegScores
from flowseg.model import build_flowseg, set_learning, training_model

# Weight of each output's loss; alpha and beta scale them. Coarser flows count less.
_FLOW_WEIGHTS = {"flow": 1.0, "flow_4": 0.5, "flow_8": 0.5, "flow_16": 0.25}
# And of the confidence in each step's flow; at coarse steps half a pixel of theirs is right enough.
_SURE_WEIGHT, _SURE_TOLERANCES = 0.2, {"sure_2": 3.0, "sure_8": 4.0, "sure_16": 8.0}


def build_models(args, label_set, spread=devices.ONE):
    """The public network, with the start weights that the flags ask for, and the one to train.

    They are one model, or, with --precision bfloat16 or on many devices, the second has weights
    of its own, in float32: what is saved for use never depends on what it was trained with.
    """
    model = _build(args, label_set)
    if args.precision == "float32" and spread.count == 1:
        return model, model
    before = keras.config.dtype_policy()
    if args.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with spread.scope():
            trained = _build(args, label_set)
    finally:
        keras.config.set_dtype_policy(before)
    if spread.count > 1:
        devices.synchronise_norms(trained)
    return model, trained


def _build(args, label_set):
    # Not 0: under a global seed of 0 TensorFlow's Dataset.shuffle takes no seed that is a tensor.
    keras.utils.set_random_seed(args.seed + 1)
    classes = len(label_set.names)
    model = build_flowseg(classes, args.exchange, args.backbone, args.backbone_weights)
    if args.weights:
        source, known = _start_weights(args.weights)
        # A file without its run's classes is taken for the same classes if there are as many.
        restore.copy_weights(source, model, same_classes=known in (None, label_set))
    return model


def _start_weights(weights):
    """The network that --weights names, and its classes (None: not known)."""
    path = packed.BOX if weights == "pretrained" else Path(weights)
    if not path.exists():
        raise ValueError(f"--weights {path}: neither pretrained, a .keras file, nor a run folder")
    if path.is_dir():
        run = runs.load_run(path)
        return run.model, run.label_set
    return runs.load_model(path), None


def compile_model(model, args, label_set, seg_scores=None, phase=None):
    """The training form of `model`, compiled as `teach` does it.

    Args:
        model: of `build_models`.
        args: the training's flags.
        label_set: its classes.
        seg_scores: the metric that is to count classes; default: one of its own.
        phase: see `callbacks.Alternate`; default: the one phase from the first step to the last.
    """
    training = training_model(model)
    phase = phase or {"learn": args.learn, "since": 0}
    teach(training, args, phase, seg_scores or SegScores(label_set.names))
    return training


def teach(training, args, phase, seg_scores):
    """Compile a phase of a training: one loss an output that learns, weighted by alpha and beta.

    A phase begins with a new optimizer, since Adam's moments are of no use after thousands of steps
    in which the other stream has moved, and with a warm-up. What is left to the end of the training
    is scheduled like one by itself, at a rate as much lower as there are fewer steps.
    """
    learn = phase["learn"]
    # A flow that alternates would draw the encoder away from segmentation, which cannot follow.
    kept = args.alternate and learn == "flow"
    set_learning(training, learn, "encoder" if kept else args.freeze)
    left = args.steps - phase["since"]
    rate = args.learning_rate * (left / args.steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if args.warmup_steps else rate,
        max(1, left - args.warmup_steps),
        alpha=0.01,
        warmup_target=rate if args.warmup_steps else None,
        warmup_steps=args.warmup_steps,
    )
    # Clipped variable by variable: all together, one task's large gradient would slow the other.
    optimizer = guards.GuardedAdamW(
        schedule,
        weight_decay=args.weight_decay,
        clipnorm=args.clip_norm or None,
        gradient_accumulation_steps=args.accumulate if args.accumulate > 1 else None,
    )
    # Decay would pull norms to zero and biases for nothing.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "sharpness", "damping"])
    flow_loss = FlowLoss(args.flow_loss)
    losses = {"seg": SegLoss(), **dict.fromkeys(_FLOW_WEIGHTS, flow_loss)}
    losses |= {key: ConfidenceLoss(tolerance) for key, tolerance in _SURE_TOLERANCES.items()}
    weights = {**_FLOW_WEIGHTS, **dict.fromkeys(_SURE_TOLERANCES, _SURE_WEIGHT)}
    weights = {"seg": args.alpha, **{key: args.beta * weight for key, weight in weights.items()}}
    # A loss dict that misses an output would train silently without it.
    if set(losses) != set(training.output):
        raise AssertionError(f"losses {sorted(losses)}, outputs {sorted(training.output)}")
    # Of a stream that does not learn, nothing is taught.
    taught = [key for key in losses if learn == "both" or of_stream(key, learn)]
    training.compile(
        optimizer,
        loss={key: losses[key] for key in taught},
        loss_weights={key: weights[key] for key in taught},
        metrics={"seg": seg_scores, "flow": FlowScores()},
    )
    _make_variables(training)


def _make_variables(training):
    """Make the variables of optimizer, losses and metrics, by one tiny batch without a step.

    If the first step had to make them, TensorFlow would trace it twice, which takes a minute. (On
    JAX `fit` makes them first.)
    """
    if keras.backend.backend() != "tensorflow":
        return
    image = np.zeros((1, 32, 32, 3), np.float32)
    blank = {"seg": np.zeros((1, 32, 32), np.int32), "flow": image}
    inputs, targets = every_target({"image1": image, "image2": image}, blank)
    with keras.StatelessScope():  # Makes variables, and changes none.
        answers = training(inputs)
        training.compute_loss(inputs, targets, answers)
        training.compute_metrics(inputs, targets, answers)
    training.optimizer.build(training.trainable_variables)


def train(args, run_dir, spread=devices.ONE):
    """Run or resume one training; `args` holds the flags of `define_training_flags`.

    Args:
        args: the flags.
        run_dir: the run folder (pathlib.Path); many hosts must all see it.
        spread: the :class:`devices.Spread` to compute on; on many hosts each calls this.

    Raises:
        ValueError: what cannot be read or does not fit, by name.
    """
    label_set = load_label_set(args.label_set)
    if args.save_every and args.steps_per_epoch % args.save_every:
        raise ValueError(
            f"--save_every={args.save_every} must divide --steps_per_epoch={args.steps_per_epoch}"
        )
    if args.alternate and args.learn != "both":
        raise ValueError(f"--alternate is for both streams, --learn={args.learn} for one")
    if args.alternate and args.val_records and args.best_metric == "loss":
        raise ValueError(
            "--alternate: the loss is another one in each phase: say which score the best weights "
            "are kept by, as --best_metric seg/miou or flow/aepe"
        )
    if not args.train_records:
        raise ValueError("--train_records is empty: name the record sets to train on")
    file_sets = [records.match_files(pattern) for pattern in args.train_records]
    weights = _set_weights(args.train_weights, file_sets)
    phase_weights = {
        learn: _weights_for(learn, weights, file_sets, args.made_flow)
        for learn in (("seg", "flow") if args.alternate else (args.learn,))
    }
    val_files = _validation_files(args.val_records or [])
    every_file = [path for paths in file_sets for path in paths] + val_files
    if args.bad_records == "stop":
        data.check_records(every_file, label_set)

    kept_in, named = run_dir, records.named_errors(every_file)
    with spread.folder(run_dir) as run_dir, checkpoints.lock(run_dir), named:
        state = restore.read_state(kept_in, args, label_set)
        if _is_finished(state, args):
            print(f"{kept_in}: finished already, {state['step']} steps")
            return
        if args.bad_records == "skip":
            *file_sets, val_files = _sound([*file_sets, val_files], label_set, run_dir, state)
            every_file = [path for paths in file_sets for path in paths] + val_files
        model, trained = build_models(args, label_set, spread)
        with spread.scope():
            seg_scores = SegScores(label_set.names)
            training = compile_model(trained, args, label_set, seg_scores, state["phase"])
        running = None
        if folder := state.pop("folder"):
            print(f"{kept_in}: resuming after step {state['step']}")
            running = checkpoints.load(training, folder)
            if state["step"] % (args.save_every or args.steps_per_epoch) == 0:
                running = None
        files.write(run_dir / "flags.txt", training_flags.to_text(args))
        runs.write_json(run_dir / "label_set.json", label_set._asdict())
        drawn = data.evaluation_data(val_files or file_sets[0], label_set)
        _keep_sample(drawn, run_dir)
        batches_from = functools.partial(
            data.training_data,
            file_sets,
            label_set,
            height=args.height,
            width=args.width,
            batch_size=args.batch_size,
            steps_per_epoch=args.steps_per_epoch,
            seed=args.seed,
            strength=training_flags.augmentation(args),
            weights=weights,
            made_flow=args.made_flow,
        )
        validation = None
        if val_files:
            validation = data.validation_data(val_files, label_set).map(every_target)
            validation = spread.copies(validation)
        board = tensorboard.TensorBoard(
            *(run_dir, model, label_set, drawn.take(args.pictures), seg_scores),
            *(training_flags.to_dict(args), state),
        )
        keeper = checkpoints.KeepState(
            run_dir / "checkpoints", state, args.keep_checkpoints, running
        )

        def switch():
            teach(training, args, state["phase"], seg_scores)

        patience = callbacks.Patience(args.patience, state)
        alternating = [callbacks.Alternate(args, state, switch)] if args.alternate else []
        watching = [
            guards.Guard(run_dir, state, _finder(batches_from), args.on_nonfinite, args.spike),
            callbacks.CopyWeights(trained, model),
            callbacks.History(run_dir / "history.csv", state),
            callbacks.KeepBest(run_dir, model, args.best_metric, state),
            patience,
            board,
            *alternating,
            keeper,
        ]
        if spread.host > 0:  # Decides as host 0 does, which tells and keeps for all.
            watching = [watching[0], patience, *alternating, keeper]
        # TensorFlow forbids a clock when deterministic; feeding many devices, it reads ahead.
        clocked = not args.deterministic and spread.here == 1
        with keeper.signals(), spread.scope():
            while not _is_finished(state, args):
                batches_from.keywords["weights"] = phase_weights[state["phase"]["learn"]]
                batches = batches_from(
                    first_step=state["step"], host=spread.host, hosts=spread.hosts
                ).map(every_target)
                if clocked:
                    batches, board.waited = data.clocked(batches)
                training.fit(
                    batches,
                    shuffle=False,
                    validation_data=validation,
                    callbacks=watching,
                    verbose="auto" if spread.host == 0 else 0,
                    **_stretches(state["step"], args)[0],
                )
        board.close()


def _sound(file_sets, label_set, run_dir, state):
    """The sets with copies in place of damaged shards; how much is left out is an incident."""
    paths = [path for files in file_sets for path in files]
    sound, bad = salvage.sound_files(paths, label_set, run_dir / "sound")
    if bad:
        state["incidents"]["records left out"] = bad
    sound = iter(sound)
    return [[next(sound) for _ in files] for files in file_sets]


def _is_finished(state, args):
    return state["step"] >= args.steps or callbacks.is_spent(state["tasks"], args.patience)


def _stretches(step, args):
    """How `fit` goes on from a step: what is left of an epoch of Keras's, whole ones, the last.

    Keras's epoch is what lies between two checkpoints, --save_every steps; what --steps_per_epoch
    says is a whole number of them, after which there is validation.

    Returns:
        Keywords of `fit`, one dict a call.
    """
    every = args.save_every or args.steps_per_epoch
    rest = min(-step % every, args.steps - step)
    whole, last = divmod(args.steps - step - rest, every)
    found = []
    for steps, count in ((rest, 1), (every, whole), (last, 1)):
        if not steps or not count:
            continue
        first = step // every
        step += steps * count
        ends = range(first + 1, first + count + 1)
        validated = [n for n in ends if n * every % args.steps_per_epoch == 0]
        if step == args.steps and ends[-1] not in validated:
            validated.append(ends[-1])
        found.append({
            "steps_per_epoch": steps,
            "initial_epoch": first,
            "epochs": first + count,
            "validation_freq": validated,
        })  # fmt: skip
    return found


def _finder(batches_from):
    """A function of a step -> the names of its batch's frames, its inputs and targets."""

    def find(step):
        names = data.batch_names(batches_from.args[0], step, **batches_from.keywords)
        inputs, targets = next(batches_from(first_step=step).as_numpy_iterator())
        return names, inputs, targets

    return find


def _set_weights(texts, file_sets):
    """How often each record set is drawn from, as numbers."""
    if not texts:
        return [1.0] * len(file_sets)
    try:
        weights = [float(text) for text in texts]
    except ValueError:
        weights = []
    usable = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
    if len(weights) != len(file_sets) or not usable:
        raise ValueError(
            f"--train_weights={','.join(map(str, texts))}: one number a record set "
            f"({len(file_sets)}), none below 0 and not all 0"
        )
    return weights


def _weights_for(learn, weights, file_sets, made_flow):
    """The weights of the sets while `learn` learns: what has no truth for it is not drawn from."""
    if learn == "both":
        return weights
    pairs = zip(weights, file_sets, strict=True)
    own = [weight * data.teaches(paths, learn, made_flow) for weight, paths in pairs]
    if not any(own):
        raise ValueError(f"--train_records: no set that is drawn from has truth for {learn}")
    return own


def _keep_sample(frames, run_dir):
    """Put the first real pair (in a set of stills: the first frame twice) into the run."""
    pairs = frames.filter(lambda frame: frame["has_image2"])
    frame = next(pairs.concatenate(frames).as_numpy_iterator())
    for key, name in runs.SAMPLE.items():
        pictures.write_png(run_dir / name, frame[key])


def every_target(inputs, targets):
    """Targets of `training_model`: coarser flows and confidences are held to the flow's truth."""
    held = dict.fromkeys((*_FLOW_WEIGHTS, *_SURE_TOLERANCES), targets["flow"])
    return inputs, {**targets, **held}


def _validation_files(patterns):
    """Files of the globs; a conversion that put no frame into `val` is no error."""
    files = []
    for pattern in patterns:
        try:
            files += records.match_files(pattern)
        except ValueError:
            folder = Path(pattern).parent
            index = data.read_index(folder)
            if index is None or index["records"].get("val"):
                raise
            warn(f"{folder}: no frame is for validation, by its index.json: going without")
    return files


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
    spread = devices.find(args, args.batch_size)
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
    devices.define_flags()
    flags.adopt_module_key_flags(training_flags)


def run():
    """Entry point of `flowseg-train`."""
    define_flags()
    commands.run(main)


if __name__ == "__main__":
    run()
