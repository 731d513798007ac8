r"""Compare the cost of backbones and the accuracy of their int8 encoders.

python -m experiments.costs.backbones --records 'data/kitti/train-*' \
    [--run_dir RUN[,RUN]] [--json FILE]

For each backbone (with ImageNet weights if available, else random weights) or trained run:
parameters, FLOPs (a multiply-add counts as two), median milliseconds in LiteRT, and the agreement
of the encoder's int8 features with float32. Files are timed in turn in one process, so that ratios
(in brackets: to the first column, the median of the ratios within each round) hold on a noisy
machine.

The first frame of each record is used, resized: the first --calibrate frames set the int8 ranges;
on the next --judge frames the int8 features are compared with those in float32.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import cv2
import keras
import numpy as np
import tensorflow as tf

from experiments.exports import litert
from flowseg import files, runs, tables
from flowseg.cli import flags as shared_flags
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.errors import ArgumentError
from flowseg.network.backbones import BACKBONES, STRIDES
from flowseg.network.model import build_flowseg, parts

# Key of the results, its title in the table, its format.
_ROWS = (
    ("weights", "weights", ""),
    ("params/encoder", "parameters, encoder, millions", ".2f"),
    ("params/decoder", "parameters, decoder, millions", ".2f"),
    ("params/whole", "parameters, whole, millions", ".2f"),
    ("gflops/encoder", "GFLOPs, encoder, one frame", ".2f"),
    ("gflops/whole", "GFLOPs, whole, one pair", ".2f"),
    ("ms/whole", "ms, whole, one pair, float32", ".1f"),
    ("ms/encoder", "ms, encoder, one frame, float32", ".1f"),
    ("ms/encoder_int8", "ms, encoder, one frame, int8", ".1f"),
    ("int8/megabytes", "MB, encoder's int8 file", ".2f"),
    ("int8/floats_left", "operators that are not int8", ""),
    ("int8/norms_left", "batch norms not folded", ""),
    *((f"int8/sqnr_{stride}", f"SQNR at stride {stride}, dB", ".1f") for stride in STRIDES),
    *((f"int8/cosine_{stride}", f"cosine at stride {stride}", ".4f") for stride in STRIDES),
)


def read_frames(files: Sequence[Path | str], height: int, width: int, count: int) -> np.ndarray:
    """The first frame of each of the first `count` records, (count, height, width, 3) float32 RGB.

    Raises:
        ValueError: too few records, or a damaged one.
    """
    frames = []
    for path in files:
        for index, fields in records.read_shard(path):
            image = cv2.imdecode(np.frombuffer(fields["image1"], np.uint8), cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise ValueError(f"{path}, record {index}: image1 is damaged")
            frames.append(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
            if len(frames) == count:
                return np.float32(frames)
    raise ArgumentError(
        f"records: {len(frames)} frames, calibrate and judge need {count}",
        "records",
        "calibrate",
        "judge",
    )


def network(name: str) -> tuple[keras.Model, str]:
    """The joint network on a backbone, and its encoder's weights: "imagenet" or "random"."""
    classes = len(CITYSCAPES.names)
    try:
        return build_flowseg(classes, backbone=name, backbone_weights="imagenet"), "imagenet"
    except ValueError:
        return build_flowseg(classes, backbone=name), "random"


def cost(
    model: keras.Model, calibration: np.ndarray, judging: np.ndarray
) -> tuple[dict, dict[str, bytes]]:
    """Costs of a network other than time, and the accuracy of its encoder's int8 features.

    Args:
        model: from `build_flowseg`.
        calibration: (N, H, W, 3) float32 RGB frames that set the int8 ranges.
        judging: (M, H, W, 3) other frames, on which float32 and int8 are compared.

    Returns:
        (results, files): results by keys of the table; bytes of TFLite files by `ms/` keys.
    """
    size = calibration.shape[1:3]
    encoder, decoder = parts(model)
    files = {
        "ms/whole": litert.convert_pair(model, *size),
        "ms/encoder": litert.convert(encoder, *size),
        "ms/encoder_int8": litert.convert(encoder, *size, calibration),
    }
    operators = {key: litert.operators(data) for key, data in files.items()}
    floats = set(litert.floats_left(operators["ms/encoder_int8"]))
    results = {
        "params/encoder": encoder.count_params() / 1e6,
        "params/decoder": decoder.count_params() / 1e6,
        "params/whole": model.count_params() / 1e6,
        "gflops/encoder": litert.flops(operators["ms/encoder"]) / 1e9,
        "gflops/whole": litert.flops(operators["ms/whole"]) / 1e9,
        "int8/megabytes": len(files["ms/encoder_int8"]) / 1e6,
        "int8/floats_left": " ".join(sorted(floats)) or "none",
        "int8/norms_left": len(litert.norms_left(operators["ms/encoder_int8"])),
    }
    expected = litert.features(files["ms/encoder"], judging)
    actual = litert.features(files["ms/encoder_int8"], judging)
    for stride in STRIDES:
        pair = expected[f"stride{stride}"], actual[f"stride{stride}"]
        results[f"int8/sqnr_{stride}"] = litert.sqnr(*pair)
        results[f"int8/cosine_{stride}"] = litert.cosine(*pair)
    return results, files


def compare(
    networks: dict[str, tuple[keras.Model, str]],
    frames: np.ndarray,
    calibrate: int,
    threads: int,
    rounds: int,
) -> dict[str, dict]:
    """Costs of several networks, timed in turn.

    Args:
        networks: name -> (model, weights).
        frames: (N, H, W, 3) float32 RGB.
        calibrate: number of frames that set the int8 ranges; the others are for comparison.
        threads: number of LiteRT threads.
        rounds: number of timed rounds.

    Returns:
        Name -> results by keys of the table; `ratio/KEY` is KEY relative to the first network.
    """
    results, files = {}, {}
    for name, (model, weights) in networks.items():
        results[name], network_files = cost(model, frames[:calibrate], frames[calibrate:])
        results[name]["weights"] = weights
        files |= {(name, key): data for key, data in network_files.items()}
    first = next(iter(networks))
    times = litert.latencies(files, frames[-1], threads, rounds)
    for (name, key), values in times.items():
        results[name][key] = statistics.median(values)
        ratios = [a / b for a, b in zip(values, times[first, key], strict=True)]
        results[name][f"ratio/{key}"] = statistics.median(ratios)
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """Text table: one row per quantity, one column per network; in brackets ratios to the first."""
    rows = [("", *results)]
    for key, title, form in _ROWS:
        row = [title]
        for place, values in enumerate(results.values()):
            ratio = values.get(f"ratio/{key}") if place else None
            row.append(format(values[key], form) + (f" ({ratio:.2f})" if ratio else ""))
        rows.append(row)
    return tables.plain(rows)


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_list("run_dir", [], "Trained runs to compare: RUN[,RUN].")
    flags.DEFINE_list("backbone", [], "Backbones to compare; default: all, if no run is given.")
    shared_flags.define_record_sets(
        "records", None, "Record shards of frames: GLOB[,GLOB].", required=True
    )
    flags.DEFINE_integer("height", 128, "Rows of the frames, a multiple of 32.", 32)
    flags.DEFINE_integer("width", 416, "Columns of the frames, a multiple of 32.", 32)
    flags.DEFINE_integer("calibrate", 10, "Frames that set the int8 ranges.", 1)
    flags.DEFINE_integer("judge", 8, "Frames on which int8 is compared with float32.", 1)
    flags.DEFINE_integer("threads", 2, "LiteRT threads.", 1)
    flags.DEFINE_integer("rounds", 20, "Timed rounds.", 1)
    flags.DEFINE_string("json", None, "JSON file for all results, by NETWORK/KEY.")


def main():
    """Measure and print."""
    args = flags.FLAGS
    size = args.height, args.width
    litert.check_size(*size)
    tf.config.set_visible_devices([], "GPU")
    shards = records.match_files(*args.records)
    frames = read_frames(shards, *size, args.calibrate + args.judge)
    networks = {name: (runs.load_run(name).model, "trained") for name in args.run_dir}
    backbones = args.backbone or (() if args.run_dir else BACKBONES)
    networks |= {name: network(name) for name in backbones}
    results = compare(networks, frames, args.calibrate, args.threads, args.rounds)
    print(f"{args.height}x{args.width}, LiteRT, {args.threads} threads, {args.rounds} rounds")
    print(table(results))
    if args.json:
        flat = {f"{name}/{key}": values[key] for name, values in results.items() for key in values}
        files.write_json(args.json, flat)


if __name__ == "__main__":
    define_flags()
    entry.run(main)
