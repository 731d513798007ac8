"""The training loop: from a configuration to a run folder."""

from pathlib import Path

from flowseg import files, runs
from flowseg.data import records
from flowseg.data.batches import InputClock
from flowseg.data.labels import load_label_set
from flowseg.errors import ArgumentError
from flowseg.media import drawing
from flowseg.training import checkpoints, distribution, feeding, objective, resume, tasks
from flowseg.training.callbacks import build_callbacks, is_spent
from flowseg.training.config import TrainingConfig, flag_lines
from flowseg.training.progress import Progress


def train(
    config: TrainingConfig,
    run_dir: Path,
    spread: distribution.Spread = distribution.ONE,
    task: tasks.Task = tasks.JOINT,
) -> Progress:
    """Run or resume one training.

    Args:
        config: all that decides it.
        run_dir: the run folder (see `runs`); many hosts must all see it.
        spread: what to compute on; on many hosts each calls this.
        task: what is trained.

    Returns:
        How far it got.

    Raises:
        ValueError: what cannot be read or does not fit, by name.
    """
    if config.accumulate > 1 and spread.hosts > 1:
        raise ArgumentError(
            "accumulate is for one host: many have the memory for a larger batch", "accumulate"
        )
    label_set = load_label_set(config.label_set)
    sets = feeding.find_sets(config, label_set)
    named = records.named_errors(sets.files())
    with spread.folder(run_dir) as folder, checkpoints.lock(folder), named:
        progress, checkpoint = resume.read_progress(run_dir, config, label_set)
        if _is_finished(progress, config):
            print(f"{run_dir}: finished already, {progress.step} steps")
            return progress
        if config.bad_records == "skip":
            sets = feeding.leave_out_damaged(sets, label_set, folder / "sound", progress)
        network, trained = resume.build_networks(config, label_set, spread)
        with spread.scope():
            metrics = task.metrics(label_set)
            training = objective.compile_training(trained, config, metrics, progress.phase, task)
        running = None
        if checkpoint:
            print(f"{run_dir}: resuming after step {progress.step}")
            running = resume.load_checkpoint(training, checkpoint, progress, config)
        shown = feeding.shown_frames(sets, label_set)
        _write_description(folder, run_dir, config, label_set, shown)

        source = feeding.BatchSource(config, sets, label_set, progress, task)
        validation = feeding.validation_batches(config, sets, label_set, task, spread.copies)
        # TensorFlow forbids a clock when deterministic; feeding many devices, it reads ahead.
        clock = InputClock() if not config.deterministic and spread.here == 1 else None
        callbacks, keeper = build_callbacks(
            config,
            progress,
            run=runs.Run(network, label_set, folder),
            training=training,
            trained=trained,
            metrics=metrics,
            look_up=source.look_up,
            frames=shown.take(config.pictures),
            running=running,
            clock=clock,
            first_host=spread.host == 0,
            task=task,
        )
        with keeper.signals(), spread.scope():
            while not _is_finished(progress, config):
                batches = source.batches(progress.step, spread.host, spread.hosts)
                training.fit(
                    clock.timed(batches) if clock else batches,
                    shuffle=False,
                    validation_data=validation,
                    callbacks=callbacks,
                    verbose="auto" if spread.host == 0 else 0,
                    **checkpoints.stretches(progress.step, config)[0],
                )
    return progress


def _is_finished(progress, config):
    return progress.step >= config.steps or is_spent(progress.patience, config.patience)


def _write_description(folder, run_dir, config, label_set, frames):
    """What of a run does not change: settings, classes, and the first real pair of its data."""
    lines = sorted([*flag_lines(config), f"--run_dir={run_dir}"])
    files.write(folder / "flags.txt", "\n".join(lines) + "\n")
    files.write_json(folder / "label_set.json", label_set._asdict())
    pairs = frames.filter(lambda frame: frame["has_image2"])
    # In a set of stills: the first frame twice.
    frame = next(pairs.concatenate(frames).as_numpy_iterator())
    for key, name in runs.SAMPLE.items():
        drawing.write_png(folder / name, frame[key])
