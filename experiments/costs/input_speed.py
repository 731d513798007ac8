r"""Measure how many examples per second the input pipeline delivers, by record set.

python -m experiments.costs.input_speed --records GLOB[,GLOB] \
    [--clip_frames 5] [training flags]

The pipelines of the record sets take turns in one process, so that their ratios hold on a noisy
machine. With --clip_frames, each set of videos also delivers clips of that many frames. Nothing is
trained: the rate is that at which this machine could feed a training. A set converted with
--uncompressed or --records_size beside the same set without shows what these options give. A second
table lists the CPU time of the parts of one example of the first set.
"""

import statistics
import time
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import tensorflow as tf

from flowseg import tables
from flowseg.cli import flags as shared_flags
from flowseg.data import augment, clips, records
from flowseg.data.batches import Draw, training_batches
from flowseg.data.decoding import frame_decoder
from flowseg.data.labels import LabelSet, load_label_set
from flowseg.training.config import TrainingConfig

# Batches before the clock starts, for filling the buffers.
_FIRST = 2


def pipelines(
    config: TrainingConfig, label_set: LabelSet, globs: list[str], clip_frames: int | None
) -> dict[str, tuple[tf.data.Dataset, int]]:
    """Title -> endless batches, and the frames that are decoded for one example."""
    batches_of = {}
    options = {"height": config.height, "width": config.width, "strength": config.augmentation}
    for glob in globs:
        files = records.match_files(glob)
        name = "/".join(Path(files[0]).parent.parts[-2:])
        draw = Draw([files], config.batch_size, config.steps_per_epoch, config.seed)
        batches_of[f"{name}: pairs"] = training_batches(draw, label_set, **options), 2
        if clip_frames:
            draw = clips.ClipDraw(
                [files], clip_frames, config.batch_size, config.steps_per_epoch, seed=config.seed
            )
            batches = clips.training_clips(draw, label_set, **options)
            batches_of[f"{name}: clips of {clip_frames}"] = batches, clip_frames
    return batches_of


def seconds_per_batch(batches: tf.data.Dataset, count: int) -> float:
    """Mean seconds between batches, after the first ones."""
    iterator = iter(batches)
    for _ in range(_FIRST):
        next(iterator)
    start = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return (time.perf_counter() - start) / count


def part_times(
    config: TrainingConfig, label_set: LabelSet, files: list[str], repeats: int = 20
) -> dict[str, float]:
    """Median CPU milliseconds of decoding and augmenting the first pair with flow.

    Raises:
        ValueError: no record has a second frame and flow.
    """
    decode = frame_decoder(label_set)
    for record in tf.data.TFRecordDataset(files):
        fields = records.parse_example(record)
        if fields["flow"] != "" and fields["image2"] != "":
            break
    else:
        raise ValueError(f"{files[0]}: no record of this set has a second frame and flow")
    keys = ("image1", "image2", "flow", "seg")
    example = {key: decode(record)[key] for key in keys}
    strength, seed = config.augmentation, tf.constant([1, 2], tf.int64)
    size = config.height, config.width
    scales = strength.scale, strength.stretch, strength.enlarge
    crop = augment.random_crop(dict(example), seed, *size, *scales)
    images = tf.stack([crop["image1"], crop["image2"]])
    parts = {
        "decode images": lambda: [decode(record)[key] for key in ("image1", "image2")],
        "decode flow": lambda: decode(record)["flow"],
        "decode labels": lambda: decode(record)["seg"],
        "resize flow to the crop": lambda: augment.resize_sparse_flow(example["flow"], *size),
        "mirror": lambda: augment.mirror(dict(crop)),
        "recolour": lambda: augment.recolour(images, seed, strength.colour),
        "erase": lambda: augment.erase(images[1], seed, 1.0),
        "all of augmentation": lambda: augment.augment(dict(example), seed, *size, strength),
    }
    return {name: _milliseconds(work, repeats) for name, work in parts.items()}


def _milliseconds(work, repeats):
    work, times = tf.function(work), []
    for _ in range(repeats + 2):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    # The first calls trace the graph.
    return 1e3 * statistics.median(times[2:])


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_training_flags(train_records_required=False)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_record_sets(
        "records", None, "Record sets to read: GLOB[,GLOB].", required=True
    )
    flags.DEFINE_integer("clip_frames", None, "Also time clips of so many frames.", 2)
    flags.DEFINE_integer("turns", 5, "Turns per pipeline.", 1)
    flags.DEFINE_integer("turn", 10, "Timed batches per turn.", 1)


def main():
    """Time the pipelines in turn, and print their rates and ratios to the first."""
    args = flags.FLAGS
    config = shared_flags.training_config(args)
    label_set = load_label_set(config.label_set)
    batches_of = pipelines(config, label_set, args.records, args.clip_frames)
    seconds = {name: [] for name in batches_of}
    for turn in range(args.turns):
        # The order is reversed each time, as a pipeline may still work in the background.
        for name, (batches, _) in list(batches_of.items())[:: -1 if turn % 2 else 1]:
            seconds[name].append(seconds_per_batch(batches, args.turn))
    size = f"batch {config.batch_size}, crops of {config.height}x{config.width}"
    print(f"{size}: median of {args.turns} turns of {args.turn} batches")
    rows = [("", "examples/s", "frames/s", "frames/s of the first, times")]
    first = next(iter(batches_of))
    for name, times in seconds.items():
        frames = batches_of[name][1]
        ratios = [
            frames / mine / (batches_of[first][1] / other)
            for mine, other in zip(times, seconds[first], strict=True)
        ]
        rate = config.batch_size / statistics.median(times)
        ratio = statistics.median(ratios)
        rows.append((name, f"{rate:.1f}", f"{rate * frames:.1f}", f"{ratio:.2f}"))
    print(tables.plain(rows))
    print("CPU time of the parts of one example of the first set:")
    times = part_times(config, label_set, records.match_files(args.records[0]))
    print(tables.plain((name, f"{ms:.1f}", "ms") for name, ms in times.items()))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
