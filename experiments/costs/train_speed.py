r"""Where the time of a training goes, and what `fit` costs beside a loop written by hand.

python -m experiments.costs.train_speed --records 'data/kitti/train-*' \
    [--trace DIR] [training flags]

Several ways of training the same network on the same records take turns in one process, so that
their ratios hold on a noisy machine:

    one batch      a hand-written loop on one batch again and again: no input
    hand-written   the same on the input pipeline
    fit            Keras's, without scores
    + scores       with mIoU and end-point errors counted
    + watching     and with what `flowseg.train` does at each step: guards, clocks, TensorBoard

What scores and what watches take of a step is less than such times vary by, so both are also timed
by themselves. The first steps of each turn, in which the pipeline fills, are not counted. --trace
leaves a trace of a few steps for TensorBoard's profiler, and prints which operators took the time.
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

# Steps before the clock starts: tracing, and the pipeline's buffers.
_FIRST = 4
_SHOWN = 15
# Batches and a count of steps -> when each step ended.
Timed = Callable[[tf.data.Dataset, int], list[float]]


class _Clock(keras.callbacks.Callback):
    """Notes when each step ended."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())


def loop(training: keras.Model) -> Timed:
    """A function of batches and a count of steps -> when each step ended: written by hand."""

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            answers = training(inputs, training=True)
            loss = training.compute_loss(inputs, targets, answers)
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
    """The same by Keras's `fit`."""

    def run(batches, steps):
        clock = _Clock()
        watching = [*callbacks, clock]
        training.fit(batches, steps_per_epoch=steps, shuffle=False, callbacks=watching, verbose=0)
        return clock.ends

    return run


def ways(
    config: TrainingConfig, label_set: LabelSet, batches: tf.data.Dataset, run_dir: Path
) -> tuple[dict[str, tuple[Timed, tf.data.Dataset]], list[keras.callbacks.Callback]]:
    """Name -> (function of batches and steps, the batches that it is given); what watches."""
    network, _ = resume.build_networks(config, label_set)
    metrics = JOINT.metrics(label_set)

    def compiled(scores):
        return objective.compile_training(network, config, metrics if scores else None)

    bare = loop(compiled(False))
    progress, clock = Progress(Phase(config.learn)), InputClock()
    run = runs.Run(network, label_set, run_dir)
    board = tensorboard.TensorBoard(run, config, progress, None, metrics, clock)
    guard = incidents.Guard(run_dir, progress, None, "skip", config.spike)
    # What it writes at the end of an epoch is not of a step.
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
    watching: Sequence[keras.callbacks.Callback], batches: tf.data.Dataset, steps: int = 50
) -> list[float]:
    """Seconds that counting scores takes in a step, and those that what watches takes: medians.

    Args:
        watching: callbacks that a `fit` has called already.
        batches: what to count the scores of: its first.
    """
    training = watching[0].model
    inputs, targets = next(iter(batches))
    answers = training(inputs)
    score = tf.function(lambda: training.compute_metrics(inputs, targets, answers))
    logs = {"loss": tf.constant(1.0)}

    def watch():
        for callback in watching:
            callback.on_train_batch_end(0, logs)

    found = []
    for act in (score, watch):
        act()  # Traces.
        seconds = []
        for _ in range(steps):
            begun = time.perf_counter()
            act()
            seconds.append(time.perf_counter() - begun)
        found.append(statistics.median(seconds))
    return found


def operators(folder: str | Path) -> Counter[str]:
    """Operator -> seconds that all its uses ran, of the newest trace under a folder."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(max(Path(folder).rglob("*.xplane.pb")).read_bytes())
    found = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # "scope/name:Operator" is an operator's; what else there is ("Class::work") holds
                # these, or is held by them.
                _, colon, operator = name.rpartition(":")
                if colon and "::" not in name and operator.isidentifier():
                    # oneDNN's own form of an operator counts as the operator.
                    found[operator.removeprefix("_Mkl").removeprefix("Native")] += (
                        event.duration_ps / 1e12
                    )
    return found


def define_flags():
    """The flags of this command."""
    shared_flags.define_training_flags(train_records_required=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_list("records", None, "Record shards to read: GLOB[,GLOB].", required=True)
    flags.DEFINE_integer("turns", 5, "Turns of each way.", 1)
    flags.DEFINE_integer("turn", 20, "Timed steps of a turn.", 1)
    flags.DEFINE_string("trace", None, "Folder for a trace of a few steps.")
    flags.FLAGS.set_default("height", 128)
    flags.FLAGS.set_default("width", 416)


def main():
    """Time the ways in turn, print them; trace if asked to."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError("these ways are TensorFlow's: KERAS_BACKEND=tensorflow")
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
    ).map(objective.target_map(JOINT.asked(config)))
    with tempfile.TemporaryDirectory() as folder:
        timed, watching = ways(config, label_set, batches, Path(folder))
        seconds = {name: [] for name in timed}
        for turn in range(args.turns + 1):
            # The other way round each time: what comes before a way may work on in the background.
            for name, (run, source) in list(timed.items())[:: -1 if turn % 2 else 1]:
                ends = run(source, _FIRST + args.turn)[_FIRST - 1 :]
                if turn:  # The first one traces.
                    seconds[name].append((ends[-1] - ends[0]) / args.turn)
        size = f"{config.backbone}, batch {config.batch_size}, {config.height}x{config.width}"
        print(f"{size}: median of {args.turns} turns of {args.turn} steps")
        base = seconds["hand-written"]
        rows = []
        for name, own in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            step = statistics.median(own)
            row = [name, f"{1 / step:.2f}", "steps/s", f"{config.batch_size / step:.2f}"]
            rows.append([*row, "examples/s", f"{ratio:.3f}", "of the time by hand"])
        print(tables.plain(rows))
        step = statistics.median(base)
        for name, own in zip(("scores", "watching"), alone(watching, batches), strict=True):
            print(f"{name} by itself: {1000 * own:.2f} ms a step, {100 * own / step:.2f} %")
        if args.trace:
            run, source = timed["+ watching"]
            with tf.profiler.experimental.Profile(args.trace):
                run(source, 3)
    if args.trace:
        found = operators(args.trace)
        total = sum(found.values())
        print(f"operators of 3 steps, {total:.1f} s one after the other:")
        shown = found.most_common(_SHOWN)
        print(tables.plain((name, f"{100 * spent / total:.1f} %") for name, spent in shown))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
