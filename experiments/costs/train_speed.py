r"""Measure the time of a training step by part, and compare `fit` with a hand-written loop.

python -m experiments.costs.train_speed --records 'data/kitti/train-*' \
    [--trace DIR] [training flags]

Several ways of training the same network on the same records take turns in one process, so that
their ratios hold on a noisy machine:

    one batch      a hand-written loop that repeats one batch: no input
    hand-written   the same loop on the input pipeline
    fit            Keras's `fit`, without metrics
    + scores       with the metrics mIoU and end-point error
    + watching     and with the callbacks that `flowseg.train` runs at each step: guards, clocks,
                   TensorBoard

The share of metrics and callbacks in a step is smaller than the variation of these times, so both
are also timed separately. The first steps of each turn, in which the pipeline fills, are not
counted. --trace writes a trace of a few steps for TensorBoard's profiler, and prints which
operators took the time.
"""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import tensorflow as tf

from flowseg import runs, tables
from flowseg.cli import flags as shared_flags
from flowseg.data import records
from flowseg.data.batches import Draw, InputClock, training_batches
from flowseg.data.labels import LabelSet, load_label_set
from flowseg.training import incidents, objective, resume, tensorboard
from flowseg.training.config import TrainingConfig
from flowseg.training.progress import Phase, Progress
from flowseg.training.tasks import JOINT

# Steps before the clock starts, for tracing and for filling the pipeline's buffers.
_FIRST = 4
_SHOWN = 15
# Batches and a number of steps -> time at which each step ended.
Timed = Callable[[tf.data.Dataset, int], list[float]]


class _Clock(keras.callbacks.Callback):
    """Records the time at which each step ended."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())


def loop(training: keras.Model) -> Timed:
    """A hand-written loop: batches and a number of steps -> time at which each step ended."""

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            outputs = training(inputs, training=True)
            loss = training.compute_loss(inputs, targets, outputs)
        variables = training.trainable_variables
        training.optimizer.apply_gradients(
            zip(tape.gradient(loss, [v.value for v in variables]), variables, strict=True)
        )
        return loss

    def run(batches, steps):
        ends = []
        for inputs, targets in batches.take(steps):
            step(inputs, targets).numpy()
            ends.append(time.perf_counter())
        return ends

    return run


def fitting(training: keras.Model, callbacks: Iterable[keras.callbacks.Callback] = ()) -> Timed:
    """The same with Keras's `fit`."""

    def run(batches, steps):
        clock = _Clock()
        all_callbacks = [*callbacks, clock]
        training.fit(
            batches, steps_per_epoch=steps, shuffle=False, callbacks=all_callbacks, verbose=0
        )
        return clock.ends

    return run


def ways(
    config: TrainingConfig, label_set: LabelSet, batches: tf.data.Dataset, run_dir: Path
) -> tuple[dict[str, tuple[Timed, tf.data.Dataset]], list[keras.callbacks.Callback]]:
    """Name -> (function of batches and steps, its batches); and the callbacks."""
    network, _ = resume.build_networks(config, label_set)
    metrics = JOINT.metrics(label_set)

    def compiled(scores):
        return objective.compile_training(network, config, metrics if scores else None)

    bare = loop(compiled(False))
    progress, clock = Progress(Phase(config.learn)), InputClock()
    run = runs.Run(network, label_set, run_dir)
    board = tensorboard.TensorBoard(run, config, progress, None, metrics, clock)
    guard = incidents.Guard(run_dir, progress, None, "skip", config.spike)
    # What it writes at the end of an epoch is not part of a step.
    board.on_epoch_end = lambda epoch, logs=None: None
    one = next(iter(batches))
    timed = {
        "one batch": (bare, tf.data.Dataset.from_tensors(one).repeat()),
        "hand-written": (bare, batches),
        "fit": (fitting(compiled(False)), batches),
        "+ scores": (fitting(compiled(True)), batches),
        "+ watching": (fitting(compiled(True), [guard, board]), clock.timed(batches)),
    }
    return timed, [guard, board]


def alone(
    callbacks: Sequence[keras.callbacks.Callback], batches: tf.data.Dataset, steps: int = 50
) -> list[float]:
    """Median seconds per step of the metrics and of the callbacks.

    Args:
        callbacks: callbacks that a `fit` has called already.
        batches: the metrics are timed on the first of these.
        steps: number of timed calls.
    """
    training = callbacks[0].model
    inputs, targets = next(iter(batches))
    outputs = training(inputs)
    score = tf.function(lambda: training.compute_metrics(inputs, targets, outputs))
    logs = {"loss": tf.constant(1.0)}

    def watch():
        for callback in callbacks:
            callback.on_train_batch_end(0, logs)

    medians = []
    for act in (score, watch):
        act()  # The first call traces.
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - start)
        medians.append(statistics.median(seconds))
    return medians


def operators(folder: str | Path) -> Counter[str]:
    """Operator -> total seconds of its calls, in the newest trace below a folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(max(Path(folder).rglob("*.xplane.pb")).read_bytes())
    totals = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # Operators are named "scope/name:Operator"; other events ("Class::work") contain
                # them or are contained in them.
                _, colon, operator = name.rpartition(":")
                if colon and "::" not in name and operator.isidentifier():
                    # oneDNN's variant of an operator counts as the operator.
                    totals[operator.removeprefix("_Mkl").removeprefix("Native")] += (
                        event.duration_ps / 1e12
                    )
    return totals


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_training_flags(train_records_required=False)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_record_sets(
        "records", None, "Record shards to read: GLOB[,GLOB].", required=True
    )
    flags.DEFINE_integer("turns", 5, "Turns per way of training.", 1)
    flags.DEFINE_integer("turn", 20, "Timed steps per turn.", 1)
    flags.DEFINE_string("trace", None, "Folder for a trace of a few steps.")
    flags.FLAGS.set_default("height", 128)
    flags.FLAGS.set_default("width", 416)


def main():
    """Time the ways in turn and print them; write a trace if requested."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError("this benchmark needs TensorFlow: KERAS_BACKEND=tensorflow")
    args = flags.FLAGS
    config = shared_flags.training_config(args)
    label_set = load_label_set(config.label_set)
    draw = Draw(
        [records.match_files(*args.records)],
        config.batch_size,
        config.steps_per_epoch,
        config.seed,
    )
    batches = training_batches(
        draw,
        label_set,
        height=config.height,
        width=config.width,
        strength=config.augmentation,
        pair=JOINT.needs_pair(config),
    ).map(objective.target_map(JOINT.active_outputs(config)))
    with tempfile.TemporaryDirectory() as folder:
        timed, callbacks = ways(config, label_set, batches, Path(folder))
        seconds = {name: [] for name in timed}
        for turn in range(args.turns + 1):
            # The order is reversed each time, as the previous way may still work in the background.
            for name, (run, source) in list(timed.items())[:: -1 if turn % 2 else 1]:
                ends = run(source, _FIRST + args.turn)[_FIRST - 1 :]
                if turn:  # The first turn traces.
                    seconds[name].append((ends[-1] - ends[0]) / args.turn)
        size = f"{config.backbone}, batch {config.batch_size}, {config.height}x{config.width}"
        print(f"{size}: median of {args.turns} turns of {args.turn} steps")
        base = seconds["hand-written"]
        rows = []
        for name, times in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
            step = statistics.median(times)
            row = [name, f"{1 / step:.2f}", "steps/s", f"{config.batch_size / step:.2f}"]
            rows.append([*row, "examples/s", f"{ratio:.3f}", "of the hand-written time"])
        print(tables.plain(rows))
        step = statistics.median(base)
        for name, cost in zip(("metrics", "callbacks"), alone(callbacks, batches), strict=True):
            print(f"{name} alone: {1000 * cost:.2f} ms per step, {100 * cost / step:.2f} %")
        if args.trace:
            run, source = timed["+ watching"]
            with tf.profiler.experimental.Profile(args.trace):
                run(source, 3)
    if args.trace:
        totals = operators(args.trace)
        total = sum(totals.values())
        print(f"operators of 3 steps, {total:.1f} s in sum:")
        shown = totals.most_common(_SHOWN)
        print(tables.plain((name, f"{100 * spent / total:.1f} %") for name, spent in shown))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
