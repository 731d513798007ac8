"""Where the network's time goes: milliseconds and GFLOPs from one point of it to the next.

python -m experiments.costs.stages [--run_dir RUN] [--height H --width W --threads N]

The network is cut at points along its way, each cut a TFLite file that ends there; a stage is what
a file takes beyond the one before. All files are timed in turn within a round, and a stage is the
median over the rounds of its differences.
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
    """[(what the stage is called, the decoder's layer that it ends in)], in the network's order."""
    found = []
    for stride in FLOW_STRIDES:
        found += [
            (f"classes, stride {stride}: join", f"seg_{stride}_in_relu"),
            (f"flow, stride {stride}: match and refine", _FLOW_ENDS[stride]),
            (f"classes, stride {stride}: refine", f"seg_{stride}_out_relu"),
        ]
    found += [
        ("flow, stride 2: match and refine", "flow_2_move"),
        ("flow to full size", "flow"),
        ("classes to full size", "seg"),
    ]
    return [(title, decoder.get_layer(name)) for title, name in found]


def cuts(model: keras.Model) -> dict[str, keras.Model]:
    """Title -> network that ends at this point: frames in, all ends so far out.

    The first is the encoder, on both frames.
    """
    encoder, decoder = parts(model)
    images = {key: keras.Input((None, None, 3), name=key) for key in ("image1", "image2")}
    both = encoder(keras.ops.concatenate(list(images.values()), axis=0))
    halves = {key: keras.ops.split(value, 2, axis=0) for key, value in both.items()}
    features = {f"frame{i + 1}": {k: half[i] for k, half in halves.items()} for i in (0, 1)}
    flat = {f"{frame}_{k}": x for frame, own in features.items() for k, x in own.items()}
    found = {"encoder, both frames": keras.Model(images, flat)}
    ends = {}
    for title, layer in points(decoder):
        ends = {**ends, layer.name: layer.output}
        part = keras.Model(decoder.input, ends)
        found[title] = keras.Model(images, part(features))
    return found


def measure(
    model: keras.Model, height: int, width: int, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Title -> {"gflops", "ms"} of each stage, and of the "whole"."""
    files = {title: litert.convert_pair(cut, height, width) for title, cut in cuts(model).items()}
    files["whole"] = litert.convert_pair(model, height, width)
    frame = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    times = litert.latencies(files, frame, threads, rounds)
    work = {title: litert.flops(litert.operators(data)) for title, data in files.items()}
    found = {}
    before, done = [0.0] * rounds, 0
    for title in files:
        if title == "whole":
            before, done = [0.0] * rounds, 0
        ms = statistics.median(b - a for a, b in zip(before, times[title], strict=True))
        found[title] = {"gflops": (work[title] - done) / 1e9, "ms": ms}
        before, done = times[title], work[title]
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: a row a stage."""
    whole = found["whole"]
    rows = [
        (title, f"{own['gflops']:.2f}", f"{own['ms']:.1f}", f"{100 * own['ms'] / whole['ms']:.0f}")
        for title, own in found.items()
    ]
    return tables.markdown(["", "GFLOPs", "ms", "of the time, %"], rows)


def define_flags():
    """The flags of this command."""
    flags.DEFINE_string("run_dir", None, "A trained run; default: random weights.")
    flags.DEFINE_enum("backbone", "efficientnet_lite0", BACKBONES, "Without --run_dir.")
    flags.DEFINE_integer("height", 128, "Rows, a multiple of 32.", 32)
    flags.DEFINE_integer("width", 416, "Columns, a multiple of 32.", 32)
    flags.DEFINE_integer("threads", 2, "Threads of LiteRT.", 1)
    flags.DEFINE_integer("rounds", 20, "Timed rounds.", 1)


def main():
    """Cut, convert, time, print."""
    args = flags.FLAGS
    size = args.height, args.width
    litert.check_size(*size)
    tf.config.set_visible_devices([], "GPU")
    if args.run_dir:
        model = runs.load_run(args.run_dir).model
    else:
        model = build_flowseg(len(CITYSCAPES.names), backbone=args.backbone)
    found = measure(model, *size, args.threads, args.rounds)
    print(f"{args.height}x{args.width}, LiteRT float32, {args.threads} threads")
    print(table(found))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
