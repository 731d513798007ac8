"""Compare joint networks with single-task networks, in two tables.

    python -m experiments.studies.joint --train_records GLOB --val_records GLOB --output DIR

(further flags: --help; the recipe is experiments/joint.flags unless --recipe names another.)

Every variant is trained once per seed, with the same steps, data, augmentation draws and encoder;
the last weights are scored on the validation records. Finished runs are kept: the same command
resumes an interrupted study. Single-task networks leave the other stream untrained, and their cost
excludes everything that only the other task needs (segmentation alone: one frame, no flow stream).
Latency is measured in LiteRT, with all files timed in turn in one process.
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
from flowseg.cli import flags as shared_flags
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
# Scores of the second table, by kind of pixel; `seg/small` is from `_add_small_classes`.
_DETAILED_SCORES = {
    "seg/boundary_f": "boundaries, F, %",
    "seg/small": "small classes, mIoU, %",
    "flow/aepe_noc": "AEPE non-occluded, px",
    "flow/aepe_occluded": "occluded",
    "flow/aepe_0_10": "motion 0 to 10 px",
    "flow/aepe_10_40": "10 to 40",
    "flow/aepe_40_up": "over 40",
}
_SMALL_CLASSES = (
    "pole",
    "traffic light",
    "traffic sign",
    "person",
    "rider",
    "motorcycle",
    "bicycle",
)
# Prefix of the scores that a single-task network lacks.
_MISSING_SCORES = {"segmentation only": "flow/", "flow only": "seg/"}


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
        variant: key of `VARIANTS`.
        seed: random seed of the run.
        recipe: flagfile of `flowseg.train`.
        train_records: GLOBs.
        backbone: the encoder.
        more_flags: additional flags.
    """
    train_flags = [f"--flagfile={recipe}", f"--train_records={','.join(train_records)}"]
    train_flags += [f"--backbone={backbone}", f"--seed={seed}", "--val_records="]
    return [*train_flags, *VARIANTS[variant], *more_flags]


def task_networks(backbone: str, variants: Sequence[str]) -> dict[str, keras.Model]:
    """Variant -> the network needed for its predictions; "encoder" -> the encoder of one frame.

    Single-task networks are always included.
    """
    classes, image = len(CITYSCAPES.names), keras.Input((None, None, 3), name="image1")
    model = build_flowseg(classes, "none", backbone)
    encoder, decoder = parts(model)
    seg_decoder = keras.Model({"frame1": decoder.input["frame1"]}, {"seg": decoder.output["seg"]})
    return {
        "encoder": encoder,
        "segmentation only": keras.Model(image, seg_decoder({"frame1": encoder(image)})),
        "flow only": _flow_network(encoder, decoder),
        "no exchange": model,
        **{
            name: build_flowseg(classes, VARIANTS[name][0].partition("=")[2], backbone)
            for name in variants
            if name not in (*_MISSING_SCORES, "no exchange")
        },
    }


def _flow_network(encoder, decoder):
    """Flow only: the parts of encoder and decoder that flow needs, which excludes stride 32."""
    names = [f"stride{stride}" for stride in (*FLOW_STRIDES, 2)]
    inputs = {frame: {k: decoder.input[frame][k] for k in names} for frame in decoder.input}
    flow_decoder = keras.Model(inputs, {"flow": decoder.output["flow"]}, name="decoder")
    outputs = {key: encoder.output[key] for key in names}
    features = keras.Model(encoder.input, outputs, name="encoder")
    return compose(features, flow_decoder, ("flow",), "flow_only")


def costs(
    backbone: str, variants: Sequence[str], height: int, width: int, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Variant (and "encoder") -> {"params", "gflops", "ms"}; height and width: multiples of 32."""
    wanted = {"encoder", "segmentation only", *variants}
    all_networks = task_networks(backbone, variants)
    networks = {name: network for name, network in all_networks.items() if name in wanted}
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
    scores_by_variant: dict[str, list[dict[str, float]]],
    keys: dict[str, str],
    network_costs: dict[str, dict[str, float]] | None = None,
) -> str:
    """`seed_table.table` that compares the joint networks with "no exchange"."""
    return seed_table.table(
        scores_by_variant,
        keys,
        "no exchange",
        excluded=_MISSING_SCORES,
        network_costs=network_costs,
    )


def _add_small_classes(scores):
    """Scores, with the mean IoU of thin or small classes added as `seg/small`."""
    small = [scores[f"seg/iou/{n}"] for n in _SMALL_CLASSES if f"seg/iou/{n}" in scores]
    return scores | ({"seg/small": statistics.mean(small)} if small else {})


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("recipe", "experiments/joint.flags", "Flagfile of flowseg.train.")
    shared_flags.define_record_sets(
        "train_records", None, "Records to train on: GLOB[,GLOB].", required=True
    )
    shared_flags.define_record_sets(
        "val_records", None, "Records to score on: GLOB[,GLOB].", required=True
    )
    flags.DEFINE_string("output", None, "Folder for runs and scores.", required=True)
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Random seeds; each trains every variant once.")
    flags.DEFINE_list("variants", list(VARIANTS), "Variants to compare.")
    flags.DEFINE_multi_string("train_flag", [], "Additional flag of flowseg.train; repeatable.")
    flags.DEFINE_enum("backbone", "efficientnet_lite0", BACKBONES, "The encoder.")
    flags.DEFINE_integer(
        "height", 128, "Frame height for the cost measurement, multiple of 32.", 32
    )
    flags.DEFINE_integer("width", 416, "Frame width for it, multiple of 32.", 32)
    flags.DEFINE_integer("threads", 2, "LiteRT threads.", 1)
    flags.DEFINE_integer("rounds", 20, "Timed rounds.", 1)


def main():
    """Train what is missing, score, measure and print the tables."""
    args = flags.FLAGS
    unknown = set(args.variants) - set(VARIANTS)
    if unknown:
        raise ValueError(f"--variants: {sorted(unknown)}: not among {', '.join(VARIANTS)}")
    size = args.height, args.width
    litert.check_size(*size)
    # Costs come first, so that a missing dependency is reported before hours of training.
    tf.config.set_visible_devices([], "GPU")
    network_costs = costs(args.backbone, args.variants, *size, args.threads, args.rounds)
    scores_by_variant = {variant: [] for variant in args.variants}
    for seed in args.seeds:
        for variant in args.variants:
            name = variant.replace(" ", "_")
            folder = Path(args.output) / f"{name}_{seed}"
            train_flags = training_flags(
                variant, seed, args.recipe, args.train_records, args.backbone, args.train_flag
            )
            scores = trials.score(
                folder, train_flags, args.val_records, _MISSING_SCORES.get(variant)
            )
            scores_by_variant[variant].append(_add_small_classes(scores))
    print(
        table(scores_by_variant, _SCORES, network_costs),
        table(scores_by_variant, _DETAILED_SCORES),
        sep="\n\n",
        end="\n\n",
    )
    reference = network_costs["segmentation only"]["ms"] + network_costs["encoder"]["ms"]
    print(
        f"{size[0]}x{size[1]}, {args.threads} threads; "
        f"segmentation network plus an encoder: {reference:.1f} ms"
    )
    for variant in args.variants:
        print(f"  {variant} takes {network_costs[variant]['ms'] / reference:.2f} times that")
    results = {f"{v}/cost/{k}": x for v, values in network_costs.items() for k, x in values.items()}
    for variant, seeds in scores_by_variant.items():
        for seed, scores in zip(args.seeds, seeds, strict=True):
            results |= {
                f"{variant}/{seed}/{k}": scores[k]
                for k in (*_SCORES, *_DETAILED_SCORES)
                if k in scores
            }
    files.write_json(Path(args.output) / "scores.json", results)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
