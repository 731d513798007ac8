"""Where a training begins: at another run's weights, or where it stopped itself."""

from pathlib import Path

import keras
import numpy as np

from flowseg import runs
from flowseg.console import warn
from flowseg.data.labels import LabelSet
from flowseg.errors import ArgumentError
from flowseg.network import packed_weights
from flowseg.network.decoder import SEG_HEAD
from flowseg.network.model import build_flowseg, parts
from flowseg.training import checkpoints, distribution
from flowseg.training.config import TrainingConfig, flag_lines
from flowseg.training.progress import FORMAT, Phase, Progress

# Settings that a run may be resumed with another value of: they change no step that was made.
_MAY_CHANGE = (
    "run_dir",
    "steps",
    "val_records",
    "best_metric",
    "pictures",
    "init_from",
    "backbone_weights",
    "save_every",
    "keep_checkpoints",
    "patience",
    "on_nonfinite",
    "spike",
)


def build_networks(
    config: TrainingConfig, label_set: LabelSet, spread: distribution.Spread = distribution.ONE
) -> tuple[keras.Model, keras.Model]:
    """The public network, with the start weights that are asked for, and the one to train.

    They are one model, or, with precision bfloat16 or on many devices, the second has weights
    of its own, in float32: what is saved for use never depends on what it was trained with.
    """
    network = _build(config, label_set)
    if config.precision == "float32" and spread.count == 1:
        return network, network
    before = keras.config.dtype_policy()
    if config.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with spread.scope():
            trained = _build(config, label_set)
    finally:
        keras.config.set_dtype_policy(before)
    if spread.count > 1:
        distribution.synchronise_norms(trained)
    return network, trained


def _build(config, label_set):
    # Not 0: under a global seed of 0 TensorFlow's Dataset.shuffle takes no seed that is a tensor.
    keras.utils.set_random_seed(config.seed + 1)
    classes = len(label_set.names)
    network = build_flowseg(classes, config.exchange, config.backbone, config.backbone_weights)
    if config.init_from:
        source, known = _start_weights(config.init_from)
        # A file without its run's classes is taken for the same classes if there are as many.
        copy_weights(source, network, same_classes=known in (None, label_set))
    return network


def _start_weights(init_from):
    """The network that `init_from` names, and its classes (None: not known)."""
    path = packed_weights.BOX if init_from == "pretrained" else Path(init_from)
    if not path.exists():
        raise ArgumentError(
            f"init_from {path}: neither pretrained, a .keras file, nor a run folder", "init_from"
        )
    if path.is_dir():
        run = runs.load_run(path)
        return run.model, run.label_set
    return runs.load_model(path), None


def copy_weights(source: keras.Model, target: keras.Model, same_classes: bool = True) -> None:
    """Copy every layer's weights by name; what does not fit is left new, with a warning.

    Args:
        source: network of `build_flowseg`.
        target: likewise.
        same_classes: whether the head's channels mean the same in both.

    Raises:
        ValueError: the encoders differ: another network.
    """
    new = []
    for donor_part, part in zip(parts(source), parts(target), strict=True):
        donors = {layer.name: layer for layer in donor_part.layers}
        if not same_classes:
            donors.pop(SEG_HEAD, None)
        for layer in part.layers:
            shapes = [w.shape for w in layer.weights]
            donor = donors.get(layer.name)
            if donor is not None and [w.shape for w in donor.weights] == shapes:
                layer.set_weights(donor.get_weights())
            elif part.name == "encoder":
                raise ArgumentError(
                    f"init_from: its encoder differs from this one at {layer.name} (backbone?)",
                    "init_from",
                    "backbone",
                )
            elif shapes:
                new.append(layer.name)
    if new:
        warn(f"these layers do not fit the given weights and start anew: {', '.join(new)}")


def read_progress(
    run_dir: Path, config: TrainingConfig, label_set: LabelSet
) -> tuple[Progress, Path | None]:
    """Where a run stands, if it may go on with this configuration.

    Returns:
        Its progress, and the folder of the checkpoint to go on from, None for a run that begins.

    Raises:
        ValueError: a damaged run folder, or one of another configuration, classes or version.
    """
    begun = Progress(
        Phase("seg" if config.alternate else config.learn), best_metric=config.best_metric
    )
    kept, folder = checkpoints.newest(run_dir / "checkpoints")
    if kept is None:
        if (run_dir / "checkpoints" / "latest.json").is_file():
            raise _of_earlier_version(run_dir)
        return begun, None
    if kept.get("format") != FORMAT:
        raise _of_earlier_version(run_dir)
    if runs.load_run_labels(run_dir) != label_set:
        raise ArgumentError(
            "trained on other classes: give another run_dir", "run_dir", path=run_dir
        )
    before = set((run_dir / "flags.txt").read_text().splitlines())
    now = set(flag_lines(config))
    changed = sorted(line for line in now ^ before if _flag_name(line) != "run_dir")
    grave = [line for line in changed if _flag_name(line) not in _MAY_CHANGE]
    if grave:
        raise ArgumentError(
            f"was trained with other flags ({', '.join(grave)}): give another run_dir, or the same "
            "flags to resume",
            "run_dir",
            path=run_dir,
        )
    if told := sorted(now - before):
        print(f"{run_dir}: goes on with {', '.join(told)}")
    found = Progress.from_dict(kept)
    if found.best_metric != config.best_metric:
        # A best by another score counts no more.
        found.best, found.best_metric = None, config.best_metric
    return found, folder


def load_checkpoint(
    training: keras.Model, folder: Path, progress: Progress, config: TrainingConfig
) -> list[np.ndarray] | None:
    """Give a compiled training what a checkpoint kept of it.

    Returns:
        The running scores to go on with, where it stopped in the middle of one of Keras's epochs.
    """
    running = checkpoints.load(training, folder)
    return running if progress.step % config.checkpoint_interval else None


def _of_earlier_version(run_dir):
    return ArgumentError(
        "of an earlier FlowSeg, which cannot be gone on from: its weights is init_from "
        "now, and after training its scale is input_scale; begin in another run_dir, with this run "
        "as init_from",
        "weights",
        "init_from",
        "scale",
        "input_scale",
        "run_dir",
        path=run_dir,
    )


def _flag_name(line):
    return line.lstrip("-").partition("=")[0]
