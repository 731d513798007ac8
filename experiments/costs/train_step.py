"""Measure a training step relative to its bare encoder, and the rate of the input pipeline.

python -m experiments.costs.train_step --records 'data/kitti/train-*.tfrecord'

Both steps are timed in turn in one process, so that the ratio holds on a noisy machine: the joint
network's full step (forward, losses, backward, AdamW), and forward and backward passes of the bare
ResNet50 encoder on the same two frames. The operating system reports the process's peak memory.
"""

import resource
import statistics
import time
from collections.abc import Callable, Sequence

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import tensorflow as tf

from flowseg import tables
from flowseg.cli import flags as shared_flags
from flowseg.data import records
from flowseg.data.batches import Draw, training_batches
from flowseg.data.labels import load_label_set
from flowseg.network.model import parts
from flowseg.training import objective, resume
from flowseg.training.config import TrainingConfig
from flowseg.training.tasks import JOINT


def encoder_step(encoder: keras.Model) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Compiled forward and backward pass of an encoder on a batch of images."""

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            features = encoder(images, training=True)
            loss = tf.add_n([tf.reduce_mean(x) for x in features.values()])
        return tape.gradient(loss, encoder.trainable_variables)

    return step


def benchmark(config: TrainingConfig, files: Sequence[str], rounds: int) -> None:
    """Measure and print."""
    label_set = load_label_set(config.label_set)
    batches = training_batches(
        Draw([files], config.batch_size, config.steps_per_epoch),
        label_set,
        height=config.height,
        width=config.width,
        strength=config.augmentation,
    )
    iterator = iter(batches)
    next(iterator)
    begin = time.perf_counter()
    for _ in range(rounds):
        inputs, targets = next(iterator)
    rate = rounds * config.batch_size / (time.perf_counter() - begin)
    size = f"batch {config.batch_size}, {config.height}x{config.width}"
    print(f"{size}, {tf.config.threading.get_intra_op_parallelism_threads() or 'all'} threads")
    rows = [("input pipeline alone", f"{rate:.1f}", "examples/s")]

    network, _ = resume.build_networks(config, label_set)
    joint = objective.compile_training(network, config, JOINT.metrics(label_set))
    inputs, targets = objective.target_map(JOINT.active_outputs(config))(inputs, targets)
    bare = encoder_step(parts(network).encoder)
    both = tf.concat([inputs["image1"], inputs["image2"]], 0)
    steps = {
        "joint training step": lambda: joint.train_on_batch(inputs, targets),
        "bare encoder, fwd + bwd": lambda: [g.numpy()[..., :1] for g in bare(both)[-1:]],
    }
    times = {name: [] for name in steps}
    for name, step in steps.items():
        begin = time.perf_counter()
        step()
        traced = time.perf_counter() - begin
        rows.append((name, f"{traced:.1f}", "s for the first call (tracing)"))
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    for name, seconds in times.items():
        median = statistics.median(seconds)
        rows.append((name, f"{median:.3f}", f"s (median of {rounds})"))
    joint_times, bare_times = times.values()
    ratios = [a / b for a, b in zip(joint_times, bare_times, strict=True)]
    rows.append(("ratio", f"{statistics.median(ratios):.2f}", ""))
    need = config.batch_size / statistics.median(joint_times)
    note = f"examples/s; the pipeline delivers {rate / need:.1f} x"
    rows.append(("training takes", f"{need:.1f}", note))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    rows.append(("peak memory", f"{peak:.2f}", "GB"))
    print(tables.plain(rows))


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_training_flags(train_records_required=False)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_record_sets(
        "records", None, "Record shards to read: GLOB[,GLOB].", required=True
    )
    flags.DEFINE_integer("rounds", 10, "Timed steps of each kind.", 1)
    flags.FLAGS.set_default("height", 128)
    flags.FLAGS.set_default("width", 416)


def main():
    """Run the benchmark."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError("this benchmark needs TensorFlow: KERAS_BACKEND=tensorflow")
    args = flags.FLAGS
    files = records.match_files(*args.records)
    benchmark(shared_flags.training_config(args), files, args.rounds)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
