"""Starts a run from another run's weights, or resumes it from its checkpoint."""

from pathlib import Path

import keras
import numpy as np

from flowseg import files, packaged, runs
from flowseg.console import warn
from flowseg.data.labels import LabelSet
from flowseg.errors import ArgumentError
from flowseg.network.decoder import SEG_HEAD
from flowseg.network.model import build_flowseg, parts
from flowseg.training import checkpoints, distribution
from flowseg.training.config import TrainingConfig, flag_lines
from flowseg.training.progress import FORMAT, Phase, Progress

# Settings that may change when a run is resumed: they do not affect the steps already done.
_MAY_CHANGE = (
    "run_dir",
    "steps",
    "val_records",
    "best_metric",
    "pictures",
    "log_every",
    "init_from",
    "backbone_weights",
    "save_every",
    "keep_checkpoints",
    "patience",
    "on_nonfinite",
    "spike",
)


def build_networks(
    config: TrainingConfig,
    label_set: LabelSet,
    devices: distribution.Devices = distribution.ONE_DEVICE,
) -> tuple[keras.Model, keras.Model]:
    """Build the public network with the requested initial weights, and the network to train.

    The public network is saved for use: it has float32 layers, on one device. It is also the one
    to train, except with precision bfloat16 or on several devices: then a second model with its
    own float32 weights is trained, so that saved networks never depend on how they were trained.
    """
    network = _build(config, label_set)
    if config.precision == "float32" and devices.count == 1:
        return network, network
    before = keras.config.dtype_policy()
    if config.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with devices.scope():
            trained = _build(config, label_set)
    finally:
        keras.config.set_dtype_policy(before)
    if devices.count > 1:
        distribution.synchronise_norms(trained)
    return network, trained


def _build(config, label_set):
    # Not 0: with a global seed of 0 TensorFlow's Dataset.shuffle rejects seeds that are tensors.
    keras.utils.set_random_seed(config.seed + 1)
    classes = len(label_set.names)
    network = build_flowseg(
        classes, config.exchange, config.backbone, config.backbone_weights, config.coarsest
    )
    if config.init_from:
        source, source_labels = _start_weights(config.init_from)
        # A bare file has no class names: the same number of classes is taken as the same classes.
        copy_weights(source, network, same_classes=source_labels in (None, label_set))
    return network


def _start_weights(init_from):
    """Load the network that `init_from` names, and its classes (None if unknown)."""
    path = packaged.NETWORKS.get(init_from) or Path(init_from)
    if not path.exists():
        names = ", ".join(packaged.NETWORKS)
        raise ArgumentError(
            f"init_from {path}: neither {names}, a .keras file, nor a run folder", "init_from"
        )
    if path.is_dir():
        run = runs.load_run(path)
        return run.model, run.label_set
    return runs.load_model(path), None


def copy_weights(source: keras.Model, target: keras.Model, same_classes: bool = True) -> None:
    """Copy each layer's weights by name; warn about layers that do not match and stay unchanged.

    Args:
        source: network from `build_flowseg`.
        target: network from `build_flowseg`.
        same_classes: whether the channels of the segmentation head are the same classes in both.

    Raises:
        ValueError: the encoders differ.
    """
    unmatched = []
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
                    f"init_from: its encoder differs at layer {layer.name}: check backbone",
                    "init_from",
                    "backbone",
                )
            elif shapes:
                unmatched.append(layer.name)
    if unmatched:
        warn(
            "these layers do not fit the given weights and keep their initial values: "
            f"{', '.join(unmatched)}"
        )


def read_progress(
    run_dir: Path, config: TrainingConfig, label_set: LabelSet
) -> tuple[Progress, Path | None]:
    """Read the progress of a run and check that it can be resumed with this configuration.

    Returns:
        Its progress, and the folder of the checkpoint to resume from (None for a new run).

    Raises:
        ValueError: the run folder is damaged, or has another configuration, classes or version.
    """
    initial = Progress(
        Phase("seg" if config.alternate else config.learn), best_metric=config.best_metric
    )
    state, folder = checkpoints.newest(run_dir / "checkpoints")
    if state is None:
        if (run_dir / "checkpoints" / "latest.json").is_file():
            raise _earlier_version_error(run_dir)
        return initial, None
    if state.get("format") != FORMAT:
        raise _earlier_version_error(run_dir)
    if runs.load_run_labels(run_dir) != label_set:
        raise ArgumentError(
            "trained on other classes: give another run_dir", "run_dir", path=run_dir
        )
    before = set(files.read_text(run_dir / "flags.txt").splitlines())
    now = set(flag_lines(config))
    changed = {_flag_name(line) for line in now ^ before}
    if conflicts := sorted(changed.difference(_MAY_CHANGE)):
        differences = "; ".join(_difference(name, before, now) for name in conflicts)
        raise ArgumentError(
            f"was trained with other flags ({differences}): give another run_dir, or the same "
            "flags to resume",
            "run_dir",
            path=run_dir,
        )
    if new_flags := sorted(now - before):
        print(f"{run_dir}: resuming with {', '.join(new_flags)}")
    progress = Progress.from_dict(state)
    if progress.best_metric != config.best_metric:
        # The best value of another score is not comparable.
        progress.best, progress.best_metric = None, config.best_metric
    return progress, folder


def load_checkpoint(
    training: keras.Model, folder: Path, progress: Progress, config: TrainingConfig
) -> list[np.ndarray] | None:
    """Restore a compiled training model from a checkpoint.

    Returns:
        The running metrics to restore if the checkpoint is in the middle of a Keras epoch, else
        None.
    """
    running = checkpoints.load(training, folder)
    return running if progress.step % config.checkpoint_interval else None


def _earlier_version_error(run_dir):
    return ArgumentError(
        "written by an earlier FlowSeg version and cannot be resumed: weights is now named "
        "init_from, made_flow is named synthetic_flow and, outside training, scale is named "
        "input_scale; start in another run_dir, with this run as init_from",
        "weights",
        "init_from",
        "made_flow",
        "synthetic_flow",
        "scale",
        "input_scale",
        "run_dir",
        path=run_dir,
    )


def _difference(name, before, now):
    """Describe a flag in the run and in this command, given the flags of both as lines."""
    of_run, of_command = (
        next((line for line in lines if _flag_name(line) == name), f"no --{name}")
        for lines in (before, now)
    )
    return f"the run has {of_run}, this command {of_command}"


def _flag_name(line):
    """Return the flag of a line of a flagfile; `--noflip` is the flag `flip`."""
    name, equals, _ = line.lstrip("-").partition("=")
    return name if equals else name.removeprefix("no")
