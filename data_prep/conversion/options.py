"""The flags that every reader of a data set has, and what it says of them."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from data_prep.conversion import split
from data_prep.conversion.frames import Frame
from data_prep.conversion.writer import RECORDS_PER_SHARD
from flowseg import console


def define_flags(source_help: str, official_split: bool = False) -> None:
    """Define the flags.

    Args:
        source_help: what --source is for this data set.
        official_split: the data set's own split is kept, so that there is no --val_fraction.
    """
    flags.DEFINE_multi_string("source", [], f"{source_help}; repeat it to join several.")
    flags.DEFINE_string("output", None, "Folder for the shards and index.json; made if need be.")
    decides = "the order of records"
    if not official_split:
        flags.DEFINE_float(
            "val_fraction",
            0.1,
            "Share of the frames for val; 0: all in train.",
            lower_bound=0.0,
            upper_bound=1.0,
        )
        decides = f"which frames are val, and {decides}"
    flags.DEFINE_integer("seed", 0, f"Decides {decides}.")
    flags.DEFINE_integer("records_per_shard", RECORDS_PER_SHARD, "At most.", lower_bound=1)
    flags.DEFINE_integer("workers", None, "Processes; default: one a CPU core.", lower_bound=1)
    flags.DEFINE_string(
        "ray_address",
        None,
        "Of a Ray cluster whose machines do the work in place of processes, and see --source under "
        "the same name; local: of this machine alone.",
    )
    flags.DEFINE_enum(
        "on_error", "stop", ["stop", "skip"], "At a bad frame: stop, or leave it out and list it."
    )
    flags.DEFINE_bool("overwrite", False, "Replace another conversion's shards in --output.")


def split_by_hash(
    frames: Sequence[Frame], val_fraction: float, seed: int
) -> dict[str, list[Frame]]:
    """`split.by_hash`, with a warning where a split is wanted but no frame falls into it.

    Raises:
        ValueError: `val_fraction` outside 0..1.
    """
    splits = split.by_hash(frames, val_fraction, seed)
    groups = {frame.group for frame in frames if frame.group}
    told = f" (the frames of each of {len(groups)} subfolders stay together)" if groups else ""
    if val_fraction > 0 and not splits["val"]:
        mend = "choose another --seed, or --val_fraction=0 to want none"
        console.warn(f"no frame falls into val{told}: {mend}")
    if val_fraction < 1 and not splits["train"]:
        console.warn(
            f"no frame falls into train{told}: choose another --seed or a smaller --val_fraction"
        )
    return splits


def convert_from_flags(convert: Callable[..., Any], *own: str) -> None:
    """Call `convert(sources, output, ...)` with the values of the flags.

    Args:
        convert: takes each flag as a keyword; --workers is called `processes`.
        *own: names of the flags that only this reader has.

    Raises:
        ValueError: --source or --output is not given.
    """
    values = flags.FLAGS
    if not values.source or not all(values.source):
        raise ValueError("--source is not given: the folder of the data set (see --help)")
    if not values.output:
        raise ValueError("--output is not given: the folder to write records to (see --help)")
    fraction = ["val_fraction"] if "val_fraction" in values else []
    names = (*fraction, "seed", "records_per_shard", "on_error", "overwrite", "ray_address", *own)
    # Ray's workers stand in other folders.
    sources = [os.path.abspath(s) for s in values.source] if values.ray_address else values.source
    convert(
        sources,
        values.output,
        processes=values.workers,
        **{name: values[name].value for name in names},
    )
