"""Defines the flags that commands share, one function per group of flags.

Flags are defined on call, not on import, so that tests can import all commands in one process.
"""

import dataclasses
import os
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg import globs, packaged
from flowseg.errors import ArgumentError

if typing.TYPE_CHECKING:
    # Not imported at run time: it imports TensorFlow, which most commands start without.
    from flowseg.training.config import TrainingConfig


def define_training_flags(train_records_required: bool = True):
    """Define all flags of a training: one for each field of `TrainingConfig`."""
    # Imported here: it imports TensorFlow, which the other commands start without.
    from flowseg.training.config import TrainingConfig

    flags.DEFINE_string("run_dir", None, "Run folder; default: runs/<name of the flagfile>.")
    for field in dataclasses.fields(TrainingConfig):
        _define(field)
    if train_records_required:
        flags.mark_flag_as_required("train_records")


def _define(field):
    """Define the flag of one field, with its default, help and bounds."""
    text, default = field.metadata["help"], field.default
    bounds = {"lower_bound": field.metadata["at_least"], "upper_bound": field.metadata["at_most"]}
    kind = _kind(field)
    choices = field.metadata["choices"]
    if choices and kind is int:
        flags.DEFINE_integer(field.name, default, text)
        listed = ", ".join(map(str, choices))
        flags.register_validator(field.name, lambda n: n in choices, f"must be one of {listed}")
    elif choices:
        flags.DEFINE_enum(field.name, default, choices, text)
    elif kind is tuple and typing.get_args(field.type)[0] is str:
        define_record_sets(field.name, default or None, text)
    elif kind is tuple:
        flags.DEFINE_list(field.name, [f"{item:g}" for item in default] or None, text)
    elif kind is bool:
        flags.DEFINE_bool(field.name, default, text)
    elif kind is str:
        flags.DEFINE_string(field.name, default, text)
    else:
        define = {int: flags.DEFINE_integer, float: flags.DEFINE_float}[kind]
        define(field.name, default, text, **bounds)


def define_record_sets(
    name: str, default: Sequence[str] | None, help: str, required: bool = False
) -> None:
    """Define the flag of a comma-separated list of globs; a path that exists may contain commas."""
    parser, serializer = _RecordSets(), flags.ListSerializer(",")
    flags.DEFINE(parser, name, default, help, serializer=serializer, required=required)


class _RecordSets(flags.ListParser):
    def parse(self, argument):
        if isinstance(argument, str) and os.path.lexists(argument):
            return [argument]
        return globs.split(super().parse(argument))


def _kind(field):
    """Return the type of a field when not None: str, int, float, bool or tuple."""
    hint = field.type
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return typing.get_origin(hint) or hint


def training_config(args: flags.FlagValues | None = None) -> "TrainingConfig":
    """Build a `TrainingConfig` from the flags of `define_training_flags`.

    Raises:
        ArgumentError: a value is invalid or conflicts with another.
    """
    from flowseg.training.config import TrainingConfig

    args = flags.FLAGS if args is None else args
    values = {}
    for field in dataclasses.fields(TrainingConfig):
        value = args[field.name].value
        if _kind(field) is tuple:
            value = tuple(value or ())
            if typing.get_args(field.type)[0] is float:
                value = _numbers(field.name, value)
        values[field.name] = value
    return TrainingConfig(**values)


def _numbers(name, texts):
    try:
        return tuple(map(float, texts))
    except ValueError as error:
        raise ArgumentError(f"{name}={','.join(texts)}: not a list of numbers", name) from error


def define_run_flags(input_scale: bool = True, alternative: str | None = None) -> None:
    """Define the flags that select a trained run, its weights and the optional input scale.

    `alternative`: a flag of the command, already defined, that can replace --run_dir.
    """
    flags.DEFINE_string("run_dir", None, "Folder of a trained run.")
    flags.DEFINE_enum(
        "weights",
        "best",
        ["best", "last", *packaged.NETWORKS],
        "Weights with the run's best validation score, its last weights, or, instead of --run_dir, "
        f"a trained network of the package: {' or '.join(packaged.NETWORKS)}.",
    )
    sources = ["run_dir", *([alternative] if alternative else [])]

    def one_source(values):
        return sum(bool(values[n]) for n in sources) == (values["weights"] not in packaged.NETWORKS)

    named = (f"--weights {name}" for name in packaged.NETWORKS)
    choices = [*(f"--{name}" for name in sources), *named]
    text = f"give the folder of a trained run; exactly one of {', '.join(choices)}"
    flags.register_multi_flags_validator([*sources, "weights"], one_source, text)
    if not input_scale:
        return
    flags.DEFINE_float(
        "input_scale",
        1.0,
        "Resize frames by this factor for the network; predictions keep the frames' size.",
    )
    flags.register_validator("input_scale", lambda scale: scale > 0, "must be greater than 0")


def define_input(required: bool = True):
    """Define the flags that name a video or a folder of frames, for `open_frames`."""
    flags.DEFINE_string(
        "input",
        None,
        "Video file, folder of frames, pattern of names (FOLDER/%05d.png) or address (rtsp://...).",
        required=required,
    )
    flags.DEFINE_bool(
        "allow_gaps",
        False,
        "Pair all neighbours of a folder, also where the numbers in their names have a gap.",
    )


def define_bit_depth():
    """Define the flag that says how many bits 16-bit images use."""
    flags.DEFINE_integer(
        "bit_depth",
        None,
        "Bits in use in images of 16 bits, such as 12; default: the smallest of 8, 10, 12, 14 and "
        "16 that holds the largest value of all images.",
        8,
        16,
    )


def define_seg_ids():
    """Define the flag that selects the ids in seg.png."""
    flags.DEFINE_enum(
        "seg_ids",
        "train",
        ["train", "label"],
        "Ids in seg.png: train ids or the data set's label ids.",
    )


def flagfile_name(argv: Sequence[str] | None = None) -> str | None:
    """Return the stem of the first flagfile on the command line, or None."""
    argv = sys.argv if argv is None else argv
    for i, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "flagfile":
            value = value if equals else "".join(argv[i + 1 : i + 2])
            return Path(value).stem
    return None


def define_device_flags():
    """Define the flags that select devices and hosts; they do not change the training."""
    flags.DEFINE_enum(
        "devices",
        "one",
        ["one", "all"],
        "Compute on one device, or on all that TensorFlow or JAX finds; each processes its share "
        "of --batch_size.",
    )
    flags.DEFINE_integer(
        "hosts",
        1,
        "With KERAS_BACKEND=jax: number of machines that train together, each by this command.",
        1,
    )
    flags.DEFINE_integer("host", 0, "Index of this machine; 0 writes the run folder.", 0)
    flags.DEFINE_string(
        "coordinator", None, "Address to connect to: HOST:PORT, a free port of host 0."
    )
