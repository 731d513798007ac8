"""Runs the training loop: from a configuration to a run folder."""

from pathlib import Path

from flowseg import files, memory, runs
from flowseg.console import warn
from flowseg.data import records
from flowseg.data.batches import InputClock
from flowseg.data.labels import load_label_set
from flowseg.errors import ArgumentError
from flowseg.media import drawing
from flowseg.training import checkpoints, distribution, feeding, objective, resume, tasks
from flowseg.training.callbacks import build_callbacks, out_of_patience
from flowseg.training.config import TrainingConfig, flag_lines
from flowseg.training.progress import Progress


def train(
    config: TrainingConfig,
    run_dir: Path,
    devices: distribution.Devices = distribution.ONE_DEVICE,
    task: tasks.Task = tasks.JOINT,
) -> Progress:
    """Start a training run, or resume it from its last checkpoint.

    Args:
        config: settings of the run.
        run_dir: the run folder (see `runs`); all hosts must have access to it.
        devices: devices to compute on; with several hosts, each calls this function.
        task: task to train.

    Returns:
        The final progress of the run.

    Raises:
        ValueError: a file cannot be read, or settings are incompatible; the message names them.
    """
    if config.accumulate > 1 and devices.hosts > 1:
        raise ArgumentError(
            "accumulate works on one host only; several have memory for a larger batch",
            "accumulate",
        )
    files.check_utf8(run_dir, "run_dir")
    label_set = load_label_set(config.label_set)
    _warn_of_one_class(label_set)
    sets = feeding.find_sets(config, label_set)
    named_errors = records.named_errors(sets.files())
    with devices.folder(run_dir) as folder, _lock(folder), named_errors:
        progress, checkpoint = resume.read_progress(run_dir, config, label_set)
        if _is_finished(progress, config):
            print(f"{run_dir}: finished already, {progress.step} steps")
            return progress
        if config.bad_records == "skip":
            sets = feeding.leave_out_damaged(sets, label_set, folder / "sound", progress)
        require_memory(config, devices)
        network, trained = resume.build_networks(config, label_set, devices)
        with devices.scope():
            metrics = task.metrics(label_set)
            training = objective.compile_training(trained, config, metrics, progress.phase, task)
        running = None
        if checkpoint:
            print(f"{run_dir}: resuming after step {progress.step}")
            running = resume.load_checkpoint(training, checkpoint, progress, config)
        preview = feeding.preview_frames(sets, label_set)
        _write_description(folder, run_dir, config, label_set, preview)

        source = feeding.BatchSource(config, sets, label_set, progress, task)
        validation = feeding.validation_batches(config, sets, label_set, task, devices.copies)
        # TensorFlow forbids the clock's variable in deterministic mode; with several devices it
        # prefetches batches, so that the clock would not measure the wait of the training loop.
        clock = InputClock() if not config.deterministic and devices.here == 1 else None
        callbacks, keeper = build_callbacks(
            config,
            progress,
            run=runs.Run(network, label_set, folder),
            training=training,
            trained=trained,
            metrics=metrics,
            fetch_batch=source.fetch_batch,
            frames=preview.take(config.pictures),
            running=running,
            clock=clock,
            first_host=devices.host == 0,
            task=task,
        )
        with keeper.signals(), devices.scope():
            while not _is_finished(progress, config):
                batches = source.batches(progress.step, devices.host, devices.hosts)
                training.fit(
                    clock.timed(batches) if clock else batches,
                    shuffle=False,
                    validation_data=validation,
                    callbacks=callbacks,
                    verbose="auto" if devices.host == 0 else 0,
                    **checkpoints.fit_segments(progress.step, config)[0],
                )
    return progress


def _warn_of_one_class(label_set):
    if len(label_set.names) == 1:
        warn(
            f"label set {label_set.name} has one class, {label_set.names[0]}: every labelled pixel "
            "has it, so that there is nothing to distinguish; add a class for the background"
        )


def _lock(folder):
    return files.lock(folder, "another training is using this run folder")


def require_memory(
    config: TrainingConfig, devices: distribution.Devices = distribution.ONE_DEVICE
) -> None:
    """Raise ArgumentError if a step of a training cannot fit into the memory of this host."""
    memory.require_for_training(
        config.backbone,
        config.batch_size // devices.hosts,
        config.height,
        config.width,
        partly=config.freeze == "encoder" or config.learn != "both" or config.alternate > 0,
        bytes_per_value=2 if config.precision == "bfloat16" else 4,
    )


def _is_finished(progress, config):
    return progress.step >= config.steps or out_of_patience(progress.patience, config.patience)


def _write_description(folder, run_dir, config, label_set, frames):
    """Write the files that stay constant during a run: settings, classes and sample frame pair."""
    lines = sorted([*flag_lines(config), f"--run_dir={run_dir}"])
    files.write(folder / "flags.txt", "\n".join(lines) + "\n")
    files.write_json(folder / "label_set.json", label_set._asdict())
    pairs = frames.filter(lambda frame: frame["has_image2"])
    # If there are only single images, the first one serves as both frames.
    frame = next(pairs.concatenate(frames).as_numpy_iterator())
    for key, name in runs.SAMPLE.items():
        drawing.write_png(folder / name, frame[key])
