"""What a training step costs beside its bare encoder, and what the input pipeline gives.

python -m experiments.costs.train_step --records 'data/kitti/train-*.tfrecord'

Both steps are timed in turn in one process, so that the ratio holds on a noisy machine: the joint
network's full step (forward, losses, backward, AdamW) and forward and backward of the bare ResNet50
encoder on the same two frames. Peak memory is the process's own, by the operating system.
"""

import resource
import statistics
import time

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import tensorflow as tf

from flowseg import tables
from flowseg.cli import flags as training_flags
from flowseg.data import records
from flowseg.data.batches import Draw, training_batches
from flowseg.data.labels import load_label_set
from flowseg.training import objective, resume


def encoder_step(encoder):
    """Forward and backward of an encoder on a batch of images, compiled."""

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            features = encoder(images, training=True)
            loss = tf.add_n([tf.reduce_mean(x) for x in features.values()])
        return tape.gradient(loss, encoder.trainable_variables)

    return step


def benchmark(args):
    """Measure and print."""
    label_set = load_label_set(args.label_set)
    files = records.match_files(*args.records)
    batches = training_batches(
        Draw([files], args.batch_size, args.steps_per_epoch),
        label_set,
        height=args.height,
        width=args.width,
        strength=training_flags.augmentation(args),
    )
    iterator = iter(batches)
    next(iterator)
    begin = time.perf_counter()
    for _ in range(args.rounds):
        inputs, targets = next(iterator)
    rate = args.rounds * args.batch_size / (time.perf_counter() - begin)
    size = f"batch {args.batch_size}, {args.height}x{args.width}"
    print(f"{size}, {tf.config.threading.get_intra_op_parallelism_threads() or 'all'} threads")
    rows = [("input pipeline alone", f"{rate:.1f}", "examples/s")]

    model, _ = resume.build_models(args, label_set)
    joint = objective.compile_model(model, args, label_set)
    inputs, targets = objective.every_target(inputs, targets)
    bare = encoder_step(model.get_layer("encoder"))
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
        rows.append((name, f"{traced:.1f}", "s the first time (tracing)"))
    for _ in range(args.rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    for name, seconds in times.items():
        median = statistics.median(seconds)
        rows.append((name, f"{median:.3f}", f"s (median of {args.rounds})"))
    joint_times, bare_times = times.values()
    ratios = [a / b for a, b in zip(joint_times, bare_times, strict=True)]
    rows.append(("ratio", f"{statistics.median(ratios):.2f}", ""))
    need = args.batch_size / statistics.median(joint_times)
    told = f"examples/s; the pipeline gives {rate / need:.1f} x"
    rows.append(("training takes", f"{need:.1f}", told))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    rows.append(("peak memory", f"{peak:.2f}", "GB"))
    print(tables.plain(rows))


def define_flags():
    """The flags of this command."""
    training_flags.define_training_flags(train_records_required=False)
    flags.adopt_module_key_flags(training_flags)
    flags.DEFINE_list("records", None, "Record shards to read: GLOB[,GLOB].", required=True)
    flags.DEFINE_integer("rounds", 10, "Timed steps of each kind.", 1)
    flags.FLAGS.set_default("height", 128)
    flags.FLAGS.set_default("width", 416)


def main():
    """Run the benchmark."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError("the benchmark times TensorFlow: KERAS_BACKEND=tensorflow")
    benchmark(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
