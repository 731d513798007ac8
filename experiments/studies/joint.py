"""Do the two tasks help each other? Joint networks beside networks of one task, in two tables.

    python -m experiments.studies.joint --train_records GLOB --val_records GLOB --output DIR

(further flags: --help; the recipe is experiments/joint.flags unless --recipe names another.)

Every variant is trained once a seed: equal steps, data, augmentation draws and encoder; the last
weights are scored on the validation records. Finished trainings are kept: the same command goes on
where it was stopped. Networks of one task leave the other's stream untrained and are charged for
nothing that only the other needs (segmentation alone: one frame, no flow stream). Latency is
LiteRT's, all files timed in turn in one process.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from experiments.exports import litert
from experiments.studies import seed_table, trials
from flowseg import files
from flowseg.data.labels import CITYSCAPES
from flowseg.network.backbones import BACKBONES
from flowseg.network.decoder import FLOW_STRIDES
from flowseg.network.model import build_flowseg, compose, parts

VARIANTS = {
    "segmentation only": ("--exchange=none", "--learn=seg"),
    "flow only": ("--exchange=none", "--learn=flow"),
    "no exchange": ("--exchange=none",),
    "seg to flow": ("--exchange=seg_to_flow",),
    "flow to seg": ("--exchange=flow_to_seg",),
    "both": ("--exchange=both",),
}
_SCORES = {
    "seg/miou": "mIoU, %",
    "seg/pixel_accuracy": "pixels, %",
    "flow/aepe": "AEPE, px",
    "flow/fl_all": "Fl-all, %",
}
# Where one variant may lose and another not; the second is `_small_things`.
_PLACES = {
    "seg/boundary_f": "boundaries, F, %",
    "seg/small": "small things, mIoU, %",
    "flow/aepe_noc": "AEPE seen twice, px",
    "flow/aepe_hidden": "hidden",
    "flow/aepe_0_10": "moves 0 to 10 px",
    "flow/aepe_10_40": "10 to 40",
    "flow/aepe_40_up": "over 40",
}
_SMALL = ("pole", "traffic light", "traffic sign", "person", "rider", "motorcycle", "bicycle")
# What a network of one task is not asked.
_UNASKED = {"segmentation only": "flow/", "flow only": "seg/"}


def training_flags(
    variant: str,
    seed: str,
    recipe: str,
    train_records: Sequence[str],
    backbone: str,
    more_flags: Sequence[str] = (),
) -> list[str]:
    """The flags of `flowseg.train` for one variant with one seed.

    Args:
        variant: of `VARIANTS`.
        seed: of the training.
        recipe: flagfile of `flowseg.train`.
        train_records: GLOBs.
        backbone: the encoder.
        more_flags: further flags.
    """
    trained = [f"--flagfile={recipe}", f"--train_records={','.join(train_records)}"]
    trained += [f"--backbone={backbone}", f"--seed={seed}", "--val_records="]
    return [*trained, *VARIANTS[variant], *more_flags]


def task_networks(backbone: str, variants: Sequence[str]) -> dict[str, keras.Model]:
    """Variant -> the network that it takes to answer, and "encoder" -> the encoder of one frame.

    Those of one task are always there.
    """
    classes, image = len(CITYSCAPES.names), keras.Input((None, None, 3), name="image1")
    model = build_flowseg(classes, "none", backbone)
    encoder, decoder = parts(model)
    alone = keras.Model({"frame1": decoder.input["frame1"]}, {"seg": decoder.output["seg"]})
    return {
        "encoder": encoder,
        "segmentation only": keras.Model(image, alone({"frame1": encoder(image)})),
        "flow only": _flow_network(encoder, decoder),
        "no exchange": model,
        **{
            name: build_flowseg(classes, VARIANTS[name][0].partition("=")[2], backbone)
            for name in variants
            if name not in (*_UNASKED, "no exchange")
        },
    }


def _flow_network(encoder, decoder):
    """Flow alone: of encoder and decoder only what it needs, which is nothing of stride 32."""
    names = [f"stride{stride}" for stride in (*FLOW_STRIDES, 2)]
    inputs = {frame: {k: decoder.input[frame][k] for k in names} for frame in decoder.input}
    moves = keras.Model(inputs, {"flow": decoder.output["flow"]}, name="decoder")
    outputs = {key: encoder.output[key] for key in names}
    features = keras.Model(encoder.input, outputs, name="encoder")
    return compose(features, moves, ("flow",), "flow_only")


def costs(
    backbone: str, variants: Sequence[str], height: int, width: int, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Variant (and "encoder") -> {"params", "gflops", "ms"}; height and width: multiples of 32."""
    wanted = {"encoder", "segmentation only", *variants}
    every = task_networks(backbone, variants)
    networks = {name: network for name, network in every.items() if name in wanted}
    data = {
        name: litert.convert(network, height, width)
        if len(network.inputs) == 1
        else litert.convert_pair(network, height, width)
        for name, network in networks.items()
    }
    frame = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    times = litert.latencies(data, frame, threads, rounds)
    return {
        name: {
            "params": network.count_params() / 1e6,
            "gflops": litert.flops(litert.operators(data[name])) / 1e9,
            "ms": statistics.median(times[name]),
        }
        for name, network in networks.items()
    }


def table(
    found: dict[str, list[dict[str, float]]],
    keys: dict[str, str],
    spent: dict[str, dict[str, float]] | None = None,
) -> str:
    """`seed_table.table`; joint networks are compared with "no exchange"."""
    return seed_table.table(found, keys, "no exchange", apart=_UNASKED, spent=spent)


def _small_things(scores):
    """Scores, and with them the mean IoU of what is thin or small, as `seg/small`."""
    found = [scores[f"seg/iou/{name}"] for name in _SMALL if f"seg/iou/{name}" in scores]
    return scores | ({"seg/small": statistics.mean(found)} if found else {})


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("recipe", "experiments/joint.flags", "Flagfile of flowseg.train.")
    flags.DEFINE_list("train_records", None, "Records to train on: GLOB[,GLOB].", required=True)
    flags.DEFINE_list("val_records", None, "Records to score on: GLOB[,GLOB].", required=True)
    flags.DEFINE_string("output", None, "Folder for runs and scores.", required=True)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "One training a variant and seed.")
    flags.DEFINE_list("variants", list(VARIANTS), "Which variants.")
    flags.DEFINE_multi_string("train_flag", [], "Further flag of flowseg.train; repeat it.")
    flags.DEFINE_enum("backbone", "efficientnet_lite0", BACKBONES, "The encoder.")
    flags.DEFINE_integer("height", 128, "Rows at which cost is measured, a multiple of 32.", 32)
    flags.DEFINE_integer("width", 416, "Columns, a multiple of 32.", 32)
    flags.DEFINE_integer("threads", 2, "Threads of LiteRT.", 1)
    flags.DEFINE_integer("rounds", 20, "Timed rounds.", 1)


def main():
    """Train what is missing, score, measure, print the table."""
    args = flags.FLAGS
    unknown = set(args.variants) - set(VARIANTS)
    if unknown:
        raise ValueError(f"--variants: {sorted(unknown)}: not among {', '.join(VARIANTS)}")
    size = args.height, args.width
    litert.check_size(*size)
    # Files of the networks first: what is missing for them is told before hours of training.
    tf.config.set_visible_devices([], "GPU")
    spent = costs(args.backbone, args.variants, *size, args.threads, args.rounds)
    found = {variant: [] for variant in args.variants}
    for seed in args.seeds:
        for variant in args.variants:
            name = variant.replace(" ", "_")
            folder = Path(args.output) / f"{name}_{seed}"
            trained = training_flags(
                variant, seed, args.recipe, args.train_records, args.backbone, args.train_flag
            )
            scores = trials.score(folder, trained, args.val_records, _UNASKED.get(variant))
            found[variant].append(_small_things(scores))
    print(table(found, _SCORES, spent), table(found, _PLACES), sep="\n\n", end="\n\n")
    alone = spent["segmentation only"]["ms"] + spent["encoder"]["ms"]
    print(
        f"{size[0]}x{size[1]}, {args.threads} threads; segmentation and an encoder: {alone:.1f} ms"
    )
    for variant in args.variants:
        print(f"  {variant} takes {spent[variant]['ms'] / alone:.2f} times that")
    everything = {f"{v}/cost/{k}": x for v, own in spent.items() for k, x in own.items()}
    for variant, seeds in found.items():
        for seed, scores in zip(args.seeds, seeds, strict=True):
            everything |= {
                f"{variant}/{seed}/{k}": scores[k] for k in (*_SCORES, *_PLACES) if k in scores
            }
    files.write_json(Path(args.output) / "scores.json", everything)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
