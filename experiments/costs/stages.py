"""Measure milliseconds and GFLOPs of each stage of the network.

python -m experiments.costs.stages [--run_dir RUN] [--height H --width W --threads N]

The network is cut at successive points; each cut is a TFLite file that ends there. The cost of a
stage is the difference between its file and the previous one. All files are timed in turn within a
round, and the time of a stage is the median of its differences over the rounds.
"""

import statistics

from absl import flags

from flowseg.cli import entry

# isort: split
import keras
import numpy as np
import tensorflow as tf

from experiments.exports import litert
from flowseg import runs, tables
from flowseg.data.labels import CITYSCAPES
from flowseg.network.backbones import BACKBONES
from flowseg.network.decoder import FLOW_STRIDES
from flowseg.network.model import build_flowseg, parts

_FLOW_ENDS = {16: "flow_16_fill", 8: "flow_8_fill", 4: "flow_4_move_0"}


def points(decoder: keras.Model) -> list[tuple[str, keras.Layer]]:
    """[(title of the stage, the decoder layer that ends it)], in network order."""
    stages = []
    for stride in FLOW_STRIDES:
        stages += [
            (f"classes, stride {stride}: join", f"seg_{stride}_in_relu"),
            (f"flow, stride {stride}: match and refine", _FLOW_ENDS[stride]),
            (f"classes, stride {stride}: refine", f"seg_{stride}_out_relu"),
        ]
    stages += [
        ("flow, stride 2: match and refine", "flow_2_move"),
        ("flow to full size", "flow"),
        ("classes to full size", "seg"),
    ]
    return [(title, decoder.get_layer(name)) for title, name in stages]


def cuts(model: keras.Model) -> dict[str, keras.Model]:
    """Title -> network that ends at this point: takes frames and returns all ends so far.

    The first is the encoder, applied to both frames.
    """
    encoder, decoder = parts(model)
    images = {key: keras.Input((None, None, 3), name=key) for key in ("image1", "image2")}
    both = encoder(keras.ops.concatenate(list(images.values()), axis=0))
    halves = {key: keras.ops.split(value, 2, axis=0) for key, value in both.items()}
    features = {f"frame{i + 1}": {k: half[i] for k, half in halves.items()} for i in (0, 1)}
    flat = {f"{frame}_{k}": x for frame, maps in features.items() for k, x in maps.items()}
    networks = {"encoder, both frames": keras.Model(images, flat)}
    ends = {}
    for title, layer in points(decoder):
        ends = {**ends, layer.name: layer.output}
        part = keras.Model(decoder.input, ends)
        networks[title] = keras.Model(images, part(features))
    return networks


def measure(
    model: keras.Model, height: int, width: int, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Title -> {"gflops", "ms"} of each stage, and of the network as "whole"."""
    files = {title: litert.convert_pair(cut, height, width) for title, cut in cuts(model).items()}
    files["whole"] = litert.convert_pair(model, height, width)
    frame = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    times = litert.latencies(files, frame, threads, rounds)
    flops = {title: litert.flops(litert.operators(data)) for title, data in files.items()}
    results = {}
    previous_times, previous_flops = [0.0] * rounds, 0
    for title in files:
        if title == "whole":
            previous_times, previous_flops = [0.0] * rounds, 0
        ms = statistics.median(b - a for a, b in zip(previous_times, times[title], strict=True))
        results[title] = {"gflops": (flops[title] - previous_flops) / 1e9, "ms": ms}
        previous_times, previous_flops = times[title], flops[title]
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown table with one row per stage."""
    whole = results["whole"]
    rows = [
        (
            title,
            f"{values['gflops']:.2f}",
            f"{values['ms']:.1f}",
            f"{100 * values['ms'] / whole['ms']:.0f}",
        )
        for title, values in results.items()
    ]
    return tables.markdown(["", "GFLOPs", "ms", "share of time, %"], rows)


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string(
        "run_dir", None, "Run folder of a trained network; default: random weights."
    )
    flags.DEFINE_enum("backbone", "efficientnet_lite0", BACKBONES, "Encoder, without --run_dir.")
    flags.DEFINE_integer("height", 128, "Rows, a multiple of 32.", 32)
    flags.DEFINE_integer("width", 416, "Columns, a multiple of 32.", 32)
    flags.DEFINE_integer("threads", 2, "LiteRT threads.", 1)
    flags.DEFINE_integer("rounds", 20, "Timed rounds.", 1)


def main():
    """Cut, convert, time and print."""
    args = flags.FLAGS
    size = args.height, args.width
    litert.check_size(*size)
    tf.config.set_visible_devices([], "GPU")
    if args.run_dir:
        model = runs.load_run(args.run_dir).model
    else:
        model = build_flowseg(len(CITYSCAPES.names), backbone=args.backbone)
    results = measure(model, *size, args.threads, args.rounds)
    print(f"{args.height}x{args.width}, LiteRT float32, {args.threads} threads")
    print(table(results))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
