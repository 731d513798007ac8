"""Where a training begins: at another run's weights, or where it stopped itself."""

import json
import sys

import keras

from flowseg import flags as training_flags
from flowseg import runs
from flowseg.decoder import SEG_HEAD

# Flags that a run may be resumed with another value of: they change no step that was made.
_MAY_CHANGE = ("run_dir", "steps", "steps_per_epoch", "val_records", "best_metric", "pictures")
_MAY_CHANGE += ("weights", "backbone_weights")


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
                    f"--weights: its encoder differs from this one at {layer.name} (--backbone?)"
                )
            elif shapes:
                new.append(layer.name)
    if new:
        warn(f"these layers do not fit the given weights and start anew: {', '.join(new)}")


def read_state(run_dir, args, label_set):
    """Where a run stands, if it may go on with these flags.

    Returns:
        What `callbacks.Checkpoint` wrote: `step` and `epoch` to go on from, `file` with the
        weights, and the `best` score so far (None before the first).

    Raises:
        ValueError: a damaged run folder, or one of other flags or classes.
    """
    state_file = run_dir / "checkpoints" / "latest.json"
    if not state_file.is_file():
        return {"step": 0, "epoch": 0, "best": None}
    if runs.load_run_labels(run_dir) != label_set:
        raise ValueError(f"{run_dir}: trained on other classes: give another --run_dir")
    before = set((run_dir / "flags.txt").read_text().splitlines())
    changed = sorted(set(training_flags.to_text(args).splitlines()) ^ before)
    changed = [line for line in changed if _flag_name(line) not in _MAY_CHANGE]
    if changed:
        raise ValueError(
            f"{run_dir}: was trained with other flags ({', '.join(changed)}): give another "
            "--run_dir, or the same flags to resume"
        )
    try:
        state = json.loads(state_file.read_text())
        best = state["best"] if state["best_metric"] == args.best_metric else None
        return {"best": best, **{key: state[key] for key in ("step", "epoch", "file")}}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{state_file}: damaged ({error}); remove it to begin anew") from error


def _flag_name(line):
    return line.lstrip("-").partition("=")[0]


def load_state(training, path):
    """Give a compiled training the weights and the optimizer's state of a checkpoint.

    Raises:
        ValueError: it cannot be read, or is of another network.
    """
    try:
        saved = keras.saving.load_model(path)
        training.set_weights(saved.get_weights())
        training.optimizer.build(training.trainable_variables)
        pairs = zip(training.optimizer.variables, saved.optimizer.variables, strict=True)
        for variable, value in pairs:
            variable.assign(value)
    except Exception as error:  # zipfile, h5py and Keras each raise their own.
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: cannot be resumed from: damaged, or of another network ({reason}); begin in "
            "another --run_dir, with this run's model.keras as --weights"
        ) from error


def warn(message):
    """One line on stderr."""
    print(f"warning: {message}", file=sys.stderr)
