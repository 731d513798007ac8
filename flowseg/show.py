"""Draw records as the data pipeline passes them to the network.

python -m flowseg.show --records GLOB --show N --output DIR
python -m flowseg.show --flagfile experiments/kitti.flags --show N --output DIR

The first form draws the frames as evaluation reads them, a video in its order; the second draws the
training examples of a recipe, including augmentation, or with --clip_frames clips of that many
consecutive frames of videos. The command writes one PNG per example: both frames, the labels
and the flow drawn over the first frame, and the second frame warped back by the flow, which matches
the first frame where the flow is correct.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np

from flowseg import files
from flowseg.cli import flags as shared_flags
from flowseg.data import clips, decoding, records
from flowseg.data.batches import training_batches
from flowseg.data.labels import LabelSet, load_label_set
from flowseg.media import drawing
from flowseg.media.panels import draw_clip, draw_example
from flowseg.training import feeding
from flowseg.training.config import TrainingConfig


def record_examples(
    shards: Sequence[str], label_set: LabelSet
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the frames of record shards as NumPy arrays (name, image1, image2, flow, seg)."""
    decoding.check_records(shards, label_set)
    with records.named_errors(shards):
        for frame in decoding.evaluation_data(shards, label_set).as_numpy_iterator():
            keys = ("image1", "image2", "flow", "seg")
            yield frame["frame_id"].decode(), *(frame[key] for key in keys)


def training_examples(
    config: TrainingConfig, label_set: LabelSet
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield augmented training examples without end, in the form of `record_examples`."""
    # Same seed as `train`, so that these are the examples that it will use.
    keras.utils.set_random_seed(config.seed + 1)
    sets = feeding.find_sets(config, label_set)
    draw = next(iter(feeding.draws_by_phase(config, sets).values()))
    batches = training_batches(
        draw._replace(batch_size=1),
        label_set,
        height=config.height,
        width=config.width,
        strength=config.augmentation,
        synthetic_flow=config.synthetic_flow,
    )
    with records.named_errors(sets.files()):
        for i, (inputs, targets) in enumerate(batches.as_numpy_iterator()):
            images = (inputs[key][0] for key in ("image1", "image2"))
            yield f"example-{i:04d}", *images, targets["flow"][0], targets["seg"][0]


def training_clips(
    config: TrainingConfig, label_set: LabelSet, length: int, stride: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield augmented clips without end: (name, images, flow, backward_flow, seg).

    See `flowseg.data.clips.training_clips` for the shapes.
    """
    sets = feeding.find_sets(config, label_set)
    draw = clips.ClipDraw(
        sets.train,
        length,
        batch_size=1,
        steps_per_epoch=config.steps_per_epoch,
        stride=stride,
        seed=config.seed,
        weights=list(config.train_weights) or None,
    )
    batches = clips.training_clips(
        draw, label_set, height=config.height, width=config.width, strength=config.augmentation
    )
    with records.named_errors(sets.files()):
        for i, (inputs, targets) in enumerate(batches.as_numpy_iterator()):
            truth = (targets[key][0] for key in ("flow", "backward_flow", "seg"))
            yield f"clip-{i:04d}", inputs["images"][0], *truth


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_training_flags(train_records_required=False)
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_record_sets(
        "records", None, "Draw the original frames of these shards: GLOB[,GLOB]."
    )
    flags.DEFINE_integer("show", 8, "Number of examples to draw.", 1)
    flags.DEFINE_integer(
        "clip_frames", None, "Draw clips of a recipe: frames of each; default: pairs.", 2
    )
    flags.DEFINE_integer("clip_stride", 1, "Difference of the frame numbers within a clip.", 1)
    flags.DEFINE_string("output", None, "Folder for the images.", required=True)


def main():
    """Draw the first --show examples."""
    args = flags.FLAGS
    output = Path(args.output)
    files.make_folder(output)
    label_set = load_label_set(args.label_set)
    draw = draw_example
    if args.clip_frames:
        if args.records or not args.train_records:
            raise ValueError("--clip_frames draws the clips of a recipe: give --flagfile")
        draw, config = draw_clip, shared_flags.training_config(args)
        examples = training_clips(config, label_set, args.clip_frames, args.clip_stride)
    elif args.records:
        examples = record_examples(records.match_files(*args.records), label_set)
    elif args.train_records:
        examples = training_examples(shared_flags.training_config(args), label_set)
    else:
        raise ValueError("give --records, or a recipe by --flagfile")
    drawn = 0
    for name, *example in examples:
        drawing.write_png(output / f"{name}.png", draw(*example, label_set))
        drawn += 1
        if drawn == args.show:
            break
    print(f"{output}: {drawn} images")


def entry_point():
    """Entry point of `flowseg-show`."""
    define_flags()
    entry.run(main)


if __name__ == "__main__":
    entry_point()
