"""Do the two tasks help each other? Joint networks beside networks of one task, in two tables.

    python -m experiments.studies.joint --train_records GLOB --val_records GLOB --output DIR

(further flags: --help; the recipe is experiments/joint.flags unless --recipe names another.)

Every variant is trained once a seed: equal steps, data, augmentation draws and encoder; the last
weights are scored on the validation records. Finished trainings are kept: the same command goes on
where it was stopped. Networks of one task leave the other's stream untrained and are charged for
nothing that only the other needs (segmentation alone: one frame, no flow stream). Latency is
LiteRT's, all files timed in turn in one process.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from experiments.costs import backbones
from experiments.exports import quantized_encoder as quantized
from experiments.studies import seed_table
from flowseg import files, runs
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.network.backbones import BACKBONES, STRIDES
from flowseg.network.decoder import FLOW_STRIDES
from flowseg.network.model import build_flowseg, compose
from flowseg.scoring import evaluation

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


def score(folder, variant, seed, args):
    """Train one variant with one seed (unless that is done) and score it; dict of scores.

    Raises:
        ValueError: the training failed; or what stands in the folder was asked otherwise.
    """
    trained = [f"--flagfile={args.recipe}", f"--train_records={','.join(args.train_records)}"]
    trained += [f"--backbone={args.backbone}", f"--seed={seed}", "--val_records="]
    trained += [*VARIANTS[variant], *args.train_flag]
    asked = {"trained": " ".join(trained), "scored_on": ",".join(args.val_records)}
    path = folder / "scores.json"
    if path.is_file():
        done = json.loads(path.read_text())
        if {key: done[key] for key in asked} != asked:
            raise ValueError(f"{path}: of other flags or records: give another --output")
        return done
    command = [sys.executable, "-m", "flowseg.train", f"--run_dir={folder}", *trained]
    if subprocess.run(command).returncode:
        raise ValueError(f"{folder}: the training failed (its reason stands above)")
    run = runs.load_run(folder, "last")
    scores, _ = evaluation.evaluate(run, records.match_files(*args.val_records))
    unasked = _UNASKED.get(variant)
    scores = {k: v for k, v in scores.items() if not (unasked and k.startswith(unasked))}
    files.write_json(path, asked | scores)
    return scores


def task_networks(backbone, variants):
    """Variant -> the network that it takes to answer, and "encoder" -> the encoder of one frame.

    Those of one task are always there.
    """
    classes, image = len(CITYSCAPES.names), keras.Input((None, None, 3), name="image1")
    model = build_flowseg(classes, "none", backbone)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
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
    features = keras.Model(encoder.input, {key: encoder.output[key] for key in names})
    return compose(features, moves, ("flow",), "flow_only")


def costs(backbone, variants, height, width, threads, rounds):
    """Variant (and "encoder") -> {"params", "gflops", "ms"}; height and width: multiples of 32."""
    wanted = {"encoder", "segmentation only", *variants}
    every = task_networks(backbone, variants)
    networks = {name: network for name, network in every.items() if name in wanted}
    data = {
        name: quantized.convert(network, height, width)
        if len(network.inputs) == 1
        else quantized.convert_pair(network, height, width)
        for name, network in networks.items()
    }
    frame = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    times = backbones.latencies(data, frame, threads, rounds)
    return {
        name: {
            "params": network.count_params() / 1e6,
            "gflops": quantized.flops(quantized.operators(data[name])) / 1e9,
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
    if any(side % STRIDES[-1] for side in size):
        raise ValueError(f"--height and --width: {size} are not multiples of {STRIDES[-1]}")
    # Files of the networks first: what is missing for them is told before hours of training.
    tf.config.set_visible_devices([], "GPU")
    spent = costs(args.backbone, args.variants, *size, args.threads, args.rounds)
    found = {variant: [] for variant in args.variants}
    for seed in args.seeds:
        for variant in args.variants:
            name = variant.replace(" ", "_")
            folder = Path(args.output) / f"{name}_{seed}"
            found[variant].append(_small_things(score(folder, variant, seed, args)))
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
