"""Every form that the network leaves in, timed beside what a user would run instead.

python -m experiments.exports.benchmark --weights pretrained --calibration GLOB \
    [--sizes 128x416,256x832,384x1248] [--threads 1,2] [--output FILE.json] [--profile]

Rows: Keras (predict_on_batch), SavedModel, TFLite in each number format; then the peers,
torchvision's DeepLabV3-ResNet50 + RAFT-small (12 iterations) and LRASPP-MobileNetV3 + OpenCV's DIS
(medium), by random weights. All take two uint8 frames and give classes and flow. Each row is a
process of its own, and rows take turns, so that ratios, which are medians over the rounds, hold on
a noisy machine. Times in ms:

pair         two frames in, answers out; median and 90th percentile
CPU          of a pair: what all threads took of the processor, so that others do not count
stream       the next frame of a video: one frame encoded, then decoded with the one before
parts        of a stream: encode + decode; of a peer: classes + flow
pair/stream  how much a stream saves, and (2 encode + decode) / (encode + decode), which the parts
             allow
memory       the peak of the row's process in MB, libraries and all
file         MB; of a peer its weights
x            how many times faster than that peer's pair: by pairs, by the stream, by CPU
"""

import os
import platform
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import numpy as np
import tensorflow as tf

from experiments.exports import operator_profile
from experiments.exports.benchmark_table import PEERS, ROWS, table
from experiments.exports.benchmark_turns import measure
from export import lite_convert, parity
from export.check import sample_pair
from flowseg import files, runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.network import packed_weights
from flowseg.network.backbones import BACKBONES, STRIDES
from flowseg.network.model import build_flowseg

# Those of RAFT, whose correlation has four scales from stride 8 on.
SMALLEST = 128


def write_forms(
    run: runs.Run,
    names: Sequence[str],
    folder: Path,
    height: int,
    width: int,
    calibration: Sequence[Path | str],
) -> dict[str, tuple[str, Path]]:
    """Write the network in the forms that rows ask for: name -> (kind, path) for `benchmark_row`.

    Args:
        run: a `runs.Run`.
        names: of `ROWS`.
        folder: where.
        height: rows of the frames.
        width: columns.
        calibration: record shards that set int8's ranges.
    """
    forms = {name: (name, Path()) for name in names if name in PEERS}
    if "keras" in names:
        forms["keras"] = "keras", folder / "model.keras"
        run.model.save(forms["keras"][1])
    saved = folder / "saved_model"
    if set(names) - set(PEERS) - {"keras"}:
        lite_convert.write_signatures(run.model, saved, height, width)
    if "saved_model" in names:
        forms["saved_model"] = "saved_model", saved
    for name in (name for name in lite_convert.FORMATS if name in names):
        pairs = ()
        if name == "int8":
            pairs = parity.frames_of(calibration, run.label_set, height, width)
        forms[name] = "tflite", folder / f"{name}.tflite"
        forms[name][1].write_bytes(lite_convert.convert(str(saved), name, pairs))
    return {name: forms[name] for name in names}


def machine() -> str:
    """Processor, cores and load, in words."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    name = found.group(1) if found else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f} before it began" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}"


def parse_sizes(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(H, W) of each "HxW".

    Raises:
        ValueError: no such text, or a size that the rows cannot take.
    """
    sizes = []
    for text in texts:
        found = re.fullmatch(r"(\d+)x(\d+)", text)
        size = tuple(map(int, found.groups())) if found else (0, 0)
        if not all(size) or any(side % STRIDES[-1] for side in size):
            raise ArgumentError(
                f"sizes {text!r}: HEIGHTxWIDTH, multiples of {STRIDES[-1]}", "sizes"
            )
        sizes.append(size)
    return sizes


def benchmark(
    run: runs.Run,
    names: Sequence[str],
    size: tuple[int, int],
    threads: Sequence[int],
    rounds: int,
    calibration: Sequence[Path | str] = (),
    profile: bool = False,
) -> dict[int, dict[str, dict[str, float]]]:
    """Measure all rows with frames of one size; prints profiles after that.

    Args:
        run: a `runs.Run`.
        names: of `ROWS`.
        size: (H, W), multiples of 32.
        threads: numbers of threads.
        rounds: how many turns each row has.
        calibration: record shards, for int8.
        profile: whether time by operator of the float32 and int8 files is printed.

    Returns:
        number of threads -> `measure`'s answers.

    Raises:
        ValueError: a row fails; records that do not fit.
    """
    pair = [np.uint8(x[0]) for x in sample_pair(run.folder, *size).values()]
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.npy"
        np.save(frames, pair)
        forms = write_forms(run, names, Path(folder), *size, calibration)
        told = {number: measure(forms, number, frames, rounds) for number in threads}
        for name in (name for name in ("none", "int8") if profile and name in forms):
            print(f"\n{ROWS[name]}, {size[0]}x{size[1]}")
            content = forms[name][1].read_bytes()
            print(operator_profile.table(*operator_profile.profile(content, pair)))
    return told


def define_flags():
    """The flags of this command."""
    flags.DEFINE_enum(
        "backbone", None, BACKBONES, "In place of a run: this encoder, random weights."
    )
    shared_flags.define_run_flags(input_scale=False, instead="backbone")
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_list("rows", list(ROWS), "What is measured.")
    flags.DEFINE_list("sizes", ["128x416", "256x832", "384x1248"], "Frames, HEIGHTxWIDTH.")
    flags.DEFINE_list("threads", ["1", "2"], "How many cores a row may use.")
    flags.DEFINE_integer("rounds", 8, "Turns of each row, with three timed runs each.", 1)
    flags.DEFINE_list("calibration", [], "Records whose frames set int8's ranges: GLOB[,GLOB].")
    flags.DEFINE_bool("profile", False, "Print time by operator of the float32 and int8 files.")
    flags.DEFINE_string("output", None, "JSON file of all numbers; default: none.")


def main():
    """Measure, print, write."""
    args = flags.FLAGS
    wrong = [name for name in args.rows if name not in ROWS]
    if wrong or not args.rows:
        raise ValueError(f"--rows {','.join(wrong)!r}: choose of {', '.join(ROWS)}")
    sizes = parse_sizes(args.sizes)
    if "deeplab_raft" in args.rows and min(min(size) for size in sizes) < SMALLEST:
        raise ValueError(f"--sizes: RAFT takes sides of {SMALLEST} and more")
    if not all(text.isdigit() and int(text) for text in args.threads):
        raise ValueError(f"--threads {','.join(args.threads)}: numbers of cores, such as 1,2")
    if "int8" in args.rows and not args.calibration:
        raise ValueError("int8 needs --calibration GLOB of records; or leave it out of --rows")
    tf.config.set_visible_devices([], "GPU")
    if args.backbone:
        network = build_flowseg(len(CITYSCAPES.names), backbone=args.backbone)
        run = runs.Run(network, CITYSCAPES, packed_weights.BOX)
    else:
        run = runs.load_run(args.run_dir, args.weights)
    shards = records.match_files(*args.calibration) if args.calibration else []
    decoding.check_records(shards, run.label_set)
    print(machine())
    threads, flat = [int(text) for text in args.threads], {}
    for size in sizes:
        told = benchmark(
            run,
            args.rows,
            size,
            threads,
            args.rounds,
            calibration=shards,
            profile=args.profile,
        )
        print(f"\n{size[0]}x{size[1]}\n\n{table(told)}", flush=True)
        flat |= {
            f"{size[0]}x{size[1]}/{number}/{name}/{key}": value
            for number, rows in told.items()
            for name, own in rows.items()
            for key, value in own.items()
        }
        # After each size: a run of all takes long.
        if args.output:
            files.write_json(args.output, flat)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
