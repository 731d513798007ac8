"""Flags that several commands share, each group in a function that a command calls once.

They are defined on call, not on import, so that tests can import every command side by side.
"""

from absl import flags


def define_run_flags():
    """Which trained run answers, with which weights, at which scale: predict, visualize."""
    flags.DEFINE_string("run_dir", None, "Folder of a trained run.", required=True)
    flags.register_validator("run_dir", bool, "is empty: give the folder of a trained run")
    flags.DEFINE_enum(
        "weights", "best", ["best", "last"], "Weights by the best validation score, or the last."
    )
    flags.DEFINE_float(
        "scale", 1.0, "Resize frames by this factor for the network; answers keep the frames' size."
    )
    flags.register_validator("scale", lambda scale: scale > 0, "must be greater than 0")
