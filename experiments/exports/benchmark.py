"""Benchmark every export format of the network against the models a user would run instead.

python -m experiments.exports.benchmark --weights pretrained --calibration GLOB \
    [--sizes 128x416,256x832,384x1248] [--threads 1,2] [--output FILE.json] [--profile]

Rows: Keras (predict_on_batch), SavedModel and TFLite in each number format; then the peers,
torchvision's DeepLabV3-ResNet50 + RAFT-small (12 iterations) and LRASPP-MobileNetV3 + OpenCV's DIS
(medium), with random weights. All take two uint8 frames and return classes and flow. Each row runs
in a separate process, and rows take turns, so that ratios, which are medians over the rounds, hold
on a noisy machine. Times are in ms:

pair         two frames in, predictions out; median and 90th percentile
CPU          of a pair: processor time of all threads of the row, without other processes
stream       the next frame of a video: encode one frame, then decode it with the previous one
parts        of a stream: encode + decode; of a peer: classes + flow
pair/stream  measured speed-up of a stream, and (2 encode + decode) / (encode + decode), the
             speed-up that the parts allow
memory       peak memory of the row's process in MB, including libraries
file         MB; for a peer, the size of its weights
x            how many times faster than that peer's pair: by pair, by stream, by CPU
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
from flowseg import files, packaged, runs
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.network.backbones import BACKBONES, STRIDES
from flowseg.network.model import build_flowseg

# Smallest side that RAFT takes: its correlation has four scales from stride 8 on.
SMALLEST = 128


def write_formats(
    run: runs.Run,
    names: Sequence[str],
    folder: Path,
    height: int,
    width: int,
    calibration: Sequence[Path | str],
) -> dict[str, tuple[str, Path]]:
    """Write the network in the formats of the rows: name -> (kind, path) for `benchmark_row`.

    Args:
        run: a `runs.Run`.
        names: keys of `ROWS`.
        folder: output folder.
        height: rows of the frames.
        width: columns.
        calibration: record shards that set int8's ranges.
    """
    formats = {name: (name, Path()) for name in names if name in PEERS}
    if "keras" in names:
        formats["keras"] = "keras", folder / "model.keras"
        run.model.save(formats["keras"][1])
    saved = folder / "saved_model"
    if set(names) - set(PEERS) - {"keras"}:
        lite_convert.write_signatures(run.model, saved, height, width)
    if "saved_model" in names:
        formats["saved_model"] = "saved_model", saved
    for name in (name for name in lite_convert.FORMATS if name in names):
        pairs = ()
        if name == "int8":
            pairs = parity.calibration_pairs(calibration, run.label_set, height, width)
        formats[name] = "tflite", folder / f"{name}.tflite"
        formats[name][1].write_bytes(lite_convert.convert(str(saved), name, pairs))
    return {name: formats[name] for name in names}


def machine() -> str:
    """Description of the processor, its cores and the current load."""
    info = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    name = match.group(1) if match else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}"


def parse_sizes(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(H, W) of each "HxW".

    Raises:
        ValueError: a text is not "HxW", or a size is not one that the rows take.
    """
    sizes = []
    for text in texts:
        match = re.fullmatch(r"(\d+)x(\d+)", text)
        size = tuple(map(int, match.groups())) if match else (0, 0)
        if not all(size) or any(side % STRIDES[-1] for side in size):
            raise ArgumentError(
                f"sizes {text!r}: must be HEIGHTxWIDTH, multiples of {STRIDES[-1]}", "sizes"
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
    """Measure all rows with frames of one size, then print profiles if requested.

    Args:
        run: a `runs.Run`.
        names: keys of `ROWS`.
        size: (H, W), multiples of 32.
        threads: numbers of threads.
        rounds: number of turns per row.
        calibration: record shards, for int8.
        profile: whether to print the time by operator of the float32 and int8 files.

    Returns:
        number of threads -> results of `measure`.

    Raises:
        ValueError: a row fails, or the records do not fit.
    """
    pair = [np.uint8(x[0]) for x in sample_pair(run.folder, *size).values()]
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.npy"
        np.save(frames, pair)
        formats = write_formats(run, names, Path(folder), *size, calibration)
        results = {number: measure(formats, number, frames, rounds) for number in threads}
        for name in (name for name in ("none", "int8") if profile and name in formats):
            print(f"\n{ROWS[name]}, {size[0]}x{size[1]}")
            content = formats[name][1].read_bytes()
            print(operator_profile.table(*operator_profile.profile(content, pair)))
    return results


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_enum(
        "backbone", None, BACKBONES, "Encoder with random weights, in place of a run."
    )
    shared_flags.define_run_flags(input_scale=False, alternative="backbone")
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_list("rows", list(ROWS), "Rows to measure.")
    flags.DEFINE_list("sizes", ["128x416", "256x832", "384x1248"], "Frame sizes, HEIGHTxWIDTH.")
    flags.DEFINE_list("threads", ["1", "2"], "Numbers of threads that a row uses.")
    flags.DEFINE_integer("rounds", 8, "Turns per row, with three timed runs each.", 1)
    shared_flags.define_record_sets(
        "calibration", [], "Records whose frames set int8's ranges: GLOB[,GLOB]."
    )
    flags.DEFINE_bool("profile", False, "Print time by operator of the float32 and int8 files.")
    flags.DEFINE_string("output", None, "JSON file for all results; default: none.")


def main():
    """Measure, print and write."""
    args = flags.FLAGS
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown or not args.rows:
        raise ValueError(f"--rows {','.join(unknown)!r}: choose from {', '.join(ROWS)}")
    sizes = parse_sizes(args.sizes)
    if "deeplab_raft" in args.rows and min(min(size) for size in sizes) < SMALLEST:
        raise ValueError(f"--sizes: RAFT needs sides of at least {SMALLEST}")
    if not all(text.isdigit() and int(text) for text in args.threads):
        raise ValueError(
            f"--threads {','.join(args.threads)}: must be numbers of threads, such as 1,2"
        )
    if "int8" in args.rows and not args.calibration:
        raise ValueError("int8 needs --calibration GLOB of records; or remove it from --rows")
    tf.config.set_visible_devices([], "GPU")
    if args.backbone:
        network = build_flowseg(len(CITYSCAPES.names), backbone=args.backbone)
        run = runs.Run(network, CITYSCAPES, packaged.NETWORKS["pretrained"])
    else:
        run = runs.load_run(args.run_dir, args.weights)
    shards = records.match_files(*args.calibration) if args.calibration else []
    decoding.check_records(shards, run.label_set)
    print(machine())
    threads, flat = [int(text) for text in args.threads], {}
    for size in sizes:
        results = benchmark(
            run,
            args.rows,
            size,
            threads,
            args.rounds,
            calibration=shards,
            profile=args.profile,
        )
        print(f"\n{size[0]}x{size[1]}\n\n{table(results)}", flush=True)
        flat |= {
            f"{size[0]}x{size[1]}/{number}/{name}/{key}": value
            for number, rows in results.items()
            for name, values in rows.items()
            for key, value in values.items()
        }
        # Written after each size, because a complete run takes long.
        if args.output:
            files.write_json(args.output, flat)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
