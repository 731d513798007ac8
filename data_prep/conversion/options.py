"""Defines and reads the flags that all converters share."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from data_prep.conversion import split
from data_prep.conversion.frames import Frame
from data_prep.conversion.writer import RECORDS_PER_SHARD
from flowseg import console
from flowseg.cli import flags as shared_flags


def define_flags(source_help: str, official_split: bool = False) -> None:
    """Define the shared flags of a converter.

    Args:
        source_help: what --source is for this data set.
        official_split: whether the official split is kept, so that there is no --val_fraction.
    """
    flags.DEFINE_multi_string("source", [], f"{source_help}; repeat it to join several.")
    flags.DEFINE_string("output", None, "Folder for the shards and index.json; created if missing.")
    purpose = "the order of records"
    if not official_split:
        flags.DEFINE_float(
            "val_fraction",
            0.1,
            "Fraction of the frames for val; 0: all in train.",
            lower_bound=0.0,
            upper_bound=1.0,
        )
        purpose = f"the choice of val frames and {purpose}"
    flags.DEFINE_integer("seed", 0, f"Random seed for {purpose}.")
    flags.DEFINE_integer(
        "records_per_shard",
        RECORDS_PER_SHARD,
        "Maximum number of records per shard.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "workers", None, "Number of processes; default: one per CPU core.", lower_bound=1
    )
    flags.DEFINE_string(
        "ray_address",
        None,
        "Address of a Ray cluster whose machines do the work instead of local processes and see "
        "--source under the same path; local: a cluster on this machine only.",
    )
    flags.DEFINE_enum(
        "on_error", "stop", ["stop", "skip"], "At a bad frame: stop, or skip it and list it."
    )
    shared_flags.define_bit_depth()
    flags.DEFINE_string(
        "records_size",
        None,
        "Resize frames and ground truth to HEIGHTxWIDTH, such as 192x640, for trainings at a "
        "smaller size; scores on such records are at that size.",
    )
    flags.DEFINE_bool(
        "uncompressed",
        False,
        "Store PNG files without compression: about three times the disk space, and a third of "
        "the time to decode them in training.",
    )
    flags.DEFINE_bool("overwrite", False, "Replace another conversion's shards in --output.")


def split_by_hash(
    frames: Sequence[Frame], val_fraction: float, seed: int, group_kind: str = "subfolders"
) -> dict[str, list[Frame]]:
    """Call `split.by_hash`, and warn if no frame falls into a requested split.

    The warning calls groups of frames `group_kind`.

    Raises:
        ValueError: `val_fraction` outside 0..1.
    """
    splits = split.by_hash(frames, val_fraction, seed)
    groups = {frame.group or frame.video for frame in frames} - {""}
    kind = group_kind if any(frame.group for frame in frames) else "videos"
    note = f" (the frames of each of {len(groups)} {kind} stay together)" if groups else ""
    if val_fraction > 0 and not splits["val"]:
        advice = "choose another --seed, or --val_fraction=0 for no val split"
        console.warn(f"no frame falls into val{note}: {advice}")
    if val_fraction < 1 and not splits["train"]:
        console.warn(
            f"no frame falls into train{note}: choose another --seed or a smaller --val_fraction"
        )
    return splits


def convert_from_flags(convert: Callable[..., Any], *extra: str) -> None:
    """Call `convert(sources, output, ...)` with the values of the flags.

    Args:
        convert: accepts each flag as a keyword; --workers is called `processes`.
        *extra: names of the flags specific to this converter.

    Raises:
        ValueError: --source or --output is not given.
    """
    values = flags.FLAGS
    if not values.source or not all(values.source):
        raise ValueError("--source is not given: the folder of the data set (see --help)")
    if not values.output:
        raise ValueError("--output is not given: the folder to write records to (see --help)")
    fraction = ["val_fraction"] if "val_fraction" in values else []
    names = (*fraction, "seed", "records_per_shard", "on_error", "overwrite", "ray_address")
    names += ("bit_depth", "uncompressed", *extra)
    # Ray's workers run in other working directories.
    sources = [os.path.abspath(s) for s in values.source] if values.ray_address else values.source
    convert(
        sources,
        values.output,
        processes=values.workers,
        records_size=_read_size(values.records_size),
        **{name: values[name].value for name in names},
    )


def _read_size(text):
    """Read HEIGHTxWIDTH."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = match and tuple(map(int, match.groups()))
    if not size or not all(size):
        raise ValueError(f"--records_size={text}: not HEIGHTxWIDTH, such as 192x640")
    return size
