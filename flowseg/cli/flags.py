"""Flags of the commands, each group in a function that a command calls once.

They are defined on call, not on import, so that tests can import every command side by side.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.errors import ArgumentError

if typing.TYPE_CHECKING:
    # Not imported at run time: it brings TensorFlow, which most commands start without.
    from flowseg.training.config import TrainingConfig


def define_training_flags(train_records_required: bool = True):
    """Everything that decides a training: a flag for each field of `TrainingConfig`."""
    # Imported here: it brings TensorFlow, which the other commands start without.
    from flowseg.training.config import TrainingConfig

    flags.DEFINE_string("run_dir", None, "Folder of the run; default: runs/<name of the flagfile>.")
    for field in dataclasses.fields(TrainingConfig):
        _define(field)
    if train_records_required:
        flags.mark_flag_as_required("train_records")


def _define(field):
    """One flag of a field: its name, default, help and bounds."""
    told, default = field.metadata["help"], field.default
    bounds = {"lower_bound": field.metadata["at_least"], "upper_bound": field.metadata["at_most"]}
    kind = _kind(field)
    if field.metadata["choices"]:
        flags.DEFINE_enum(field.name, default, field.metadata["choices"], told)
    elif kind is tuple:
        flags.DEFINE_list(field.name, [f"{item:g}" for item in default] or None, told)
    elif kind is bool:
        flags.DEFINE_bool(field.name, default, told)
    elif kind is str:
        flags.DEFINE_string(field.name, default, told)
    else:
        define = {int: flags.DEFINE_integer, float: flags.DEFINE_float}[kind]
        define(field.name, default, told, **bounds)


def _kind(field):
    """str, int, float, bool or tuple: what a field holds where it is not None."""
    told = field.type
    if isinstance(told, types.UnionType):
        told = next(kind for kind in typing.get_args(told) if kind is not types.NoneType)
    return typing.get_origin(told) or told


def training_config(args: flags.FlagValues | None = None) -> "TrainingConfig":
    """The `TrainingConfig` that the flags of `define_training_flags` say.

    Raises:
        ArgumentError: values that cannot be, or do not go together.
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


def define_run_flags(input_scale: bool = True, instead: str | None = None) -> None:
    """Which trained run answers, with which weights, and (if asked for) at which size.

    `instead`: a flag of the command's own, defined before, that may stand in place of --run_dir.
    """
    flags.DEFINE_string("run_dir", None, "Folder of a trained run.")
    flags.DEFINE_enum(
        "weights",
        "best",
        ["best", "last", "pretrained"],
        "The run's by the best validation score, its last, or, in place of --run_dir, those that "
        "come with the package.",
    )
    sources = ["run_dir", *([instead] if instead else [])]

    def one_source(given):
        return sum(bool(given[n]) for n in sources) == (given["weights"] != "pretrained")

    choices = [*(f"--{name}" for name in sources), "--weights pretrained"]
    told = f"give the folder of a trained run; exactly one of {', '.join(choices)}"
    flags.register_multi_flags_validator([*sources, "weights"], one_source, told)
    if not input_scale:
        return
    flags.DEFINE_float(
        "input_scale",
        1.0,
        "Resize frames by this factor for the network; answers keep the frames' size.",
    )
    flags.register_validator("input_scale", lambda scale: scale > 0, "must be greater than 0")


def define_seg_ids():
    """Which numbers a written seg.png holds."""
    flags.DEFINE_enum(
        "seg_ids", "train", ["train", "label"], "Ids in seg.png: train ids or the data set's own."
    )


def flagfile_name(argv: Sequence[str] | None = None) -> str | None:
    """The name, without folder and suffix, of the first flagfile on the command line, or None."""
    argv = sys.argv if argv is None else argv
    for i, argument in enumerate(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "flagfile":
            value = value if equals else "".join(argv[i + 1 : i + 2])
            return Path(value).stem
    return None


def define_device_flags():
    """Where to compute: not of the training, which is the same everywhere."""
    flags.DEFINE_enum(
        "devices",
        "one",
        ["one", "all"],
        "Compute on one device, or on all that TensorFlow or JAX finds; each takes its share of "
        "--batch_size.",
    )
    flags.DEFINE_integer(
        "hosts", 1, "With KERAS_BACKEND=jax: machines that train together, by this command each.", 1
    )
    flags.DEFINE_integer("host", 0, "Which of them this is; 0 keeps the run folder.", 0)
    flags.DEFINE_string("coordinator", None, "Where they meet: HOST:PORT, a free port of host 0.")
