"""The flags that every reader of a data set has."""

from absl import flags

from data_prep.writer import RECORDS_PER_SHARD


def define_flags(source_help):
    """Define the flags; `source_help` says what --source is for this data set."""
    flags.DEFINE_multi_string("source", [], f"{source_help}; repeat it to join several.")
    flags.DEFINE_string("output", None, "Folder for the shards and index.json; made if need be.")
    flags.DEFINE_float(
        "val_fraction", 0.1, "Share of the frames for val; 0: all in train.", 0.0, 1.0
    )
    flags.DEFINE_integer("seed", 0, "Decides which frames are val, and the order of records.")
    flags.DEFINE_integer("records_per_shard", RECORDS_PER_SHARD, "At most.", lower_bound=1)
    flags.DEFINE_integer("workers", None, "Processes; default: one a CPU core.", lower_bound=1)
    flags.DEFINE_enum(
        "on_error", "stop", ["stop", "skip"], "At a bad frame: stop, or leave it out and list it."
    )
    flags.DEFINE_bool("overwrite", False, "Replace another conversion's shards in --output.")


def convert_from_flags(convert):
    """Call `convert(sources, output, ...)` with the values of the flags.

    Raises:
        ValueError: --source or --output is not given.
    """
    values = flags.FLAGS
    if not values.source or not all(values.source):
        raise ValueError("--source is not given: the folder of the data set (see --help)")
    if not values.output:
        raise ValueError("--output is not given: the folder to write records to (see --help)")
    convert(
        values.source,
        values.output,
        val_fraction=values.val_fraction,
        seed=values.seed,
        records_per_shard=values.records_per_shard,
        processes=values.workers,
        on_error=values.on_error,
        overwrite=values.overwrite,
    )
