"""Where a training begins: at another run's weights, or where it stopped itself."""

from pathlib import Path

import keras

from flowseg import runs
from flowseg.cli import flags as training_flags
from flowseg.console import warn
from flowseg.network import packed_weights
from flowseg.network.decoder import SEG_HEAD
from flowseg.network.model import build_flowseg
from flowseg.training import callbacks, checkpoints, distribution

# Flags that a run may be resumed with another value of: they change no step that was made.
_MAY_CHANGE = ("run_dir", "steps", "val_records", "best_metric", "pictures", "init_from")
_MAY_CHANGE += ("backbone_weights", "save_every", "keep_checkpoints", "patience", "on_nonfinite")
_MAY_CHANGE += ("spike",)


def build_models(args, label_set, spread=distribution.ONE):
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
        distribution.synchronise_norms(trained)
    return model, trained


def _build(args, label_set):
    # Not 0: under a global seed of 0 TensorFlow's Dataset.shuffle takes no seed that is a tensor.
    keras.utils.set_random_seed(args.seed + 1)
    classes = len(label_set.names)
    model = build_flowseg(classes, args.exchange, args.backbone, args.backbone_weights)
    if args.init_from:
        source, known = _start_weights(args.init_from)
        # A file without its run's classes is taken for the same classes if there are as many.
        copy_weights(source, model, same_classes=known in (None, label_set))
    return model


def _start_weights(weights):
    """The network that --init_from names, and its classes (None: not known)."""
    path = packed_weights.BOX if weights == "pretrained" else Path(weights)
    if not path.exists():
        raise ValueError(f"--init_from {path}: neither pretrained, a .keras file, nor a run folder")
    if path.is_dir():
        run = runs.load_run(path)
        return run.model, run.label_set
    return runs.load_model(path), None


def copy_weights(source, target, same_classes=True):
    """Copy every layer's weights by name; what does not fit is left new, with a warning.

    Args:
        source: network of `build_flowseg`.
        target: likewise.
        same_classes: whether the head's channels mean the same in both.

    Raises:
        ValueError: the encoders differ: another network.
    """
    new = []
    for part in ("encoder", "decoder"):
        donors = {layer.name: layer for layer in source.get_layer(part).layers}
        if not same_classes:
            donors.pop(SEG_HEAD, None)
        for layer in target.get_layer(part).layers:
            shapes = [w.shape for w in layer.weights]
            donor = donors.get(layer.name)
            if donor is not None and [w.shape for w in donor.weights] == shapes:
                layer.set_weights(donor.get_weights())
            elif part == "encoder":
                raise ValueError(
                    f"--init_from: its encoder differs from this one at {layer.name} (--backbone?)"
                )
            elif shapes:
                new.append(layer.name)
    if new:
        warn(f"these layers do not fit the given weights and start anew: {', '.join(new)}")


def read_state(run_dir, args, label_set):
    """Where a run stands, if it may go on with these flags.

    Returns:
        What was kept (`step` to go on from; `best` score, None before the first; `tasks`, see
        `callbacks.Patience`; `phase`, see `callbacks.Alternate`; `incidents`, see
        `incidents.Guard`), and the `folder` it lies in, None for a run that begins.

    Raises:
        ValueError: a damaged run folder, or one of other flags or classes.
    """
    begun = {"step": 0, "best": None, "tasks": {}, "incidents": {}, "seconds": 0.0}
    begun |= {"best_metric": args.best_metric, "folder": None}
    begun["phase"] = callbacks.begin_phase("seg" if args.alternate else args.learn, 0)
    kept, folder = checkpoints.newest(run_dir / "checkpoints")
    if kept is None:
        if (run_dir / "checkpoints" / "latest.json").is_file():
            raise ValueError(
                f"{run_dir}: of an older FlowSeg, whose checkpoints cannot be gone on from; begin "
                "in another --run_dir, with this run as --init_from"
            )
        return begun
    if runs.load_run_labels(run_dir) != label_set:
        raise ValueError(f"{run_dir}: trained on other classes: give another --run_dir")
    before = set((run_dir / "flags.txt").read_text().splitlines())
    now = set(training_flags.to_text(args).splitlines())
    changed = sorted(now ^ before)
    grave = [line for line in changed if _flag_name(line) not in _MAY_CHANGE]
    if grave:
        raise ValueError(
            f"{run_dir}: was trained with other flags ({', '.join(grave)}): give another "
            "--run_dir, or the same flags to resume"
        )
    if told := [line for line in sorted(now - before) if _flag_name(line) != "run_dir"]:
        print(f"{run_dir}: goes on with {', '.join(told)}")
    # A best by another score counts no more.
    best = kept["best"] if kept["best_metric"] == args.best_metric else None
    names = ("step", "tasks", "phase", "incidents", "seconds")
    going_on = {key: kept[key] for key in names}
    return begun | going_on | {"best": best, "folder": folder}


def _flag_name(line):
    return line.lstrip("-").partition("=")[0]
