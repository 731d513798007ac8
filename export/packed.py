"""Pack a trained run into a folder of a few megabytes (see `network.packed_weights`).

python -m export.packed --run_dir RUN --output FOLDER

writes the weights (kernels as float16), their description, the classes and a synthetic sample pair,
and prints how much rounding changed the predictions. The model card, README.md in the same folder,
is written by hand: scores, data and their licences, limits.
"""

from pathlib import Path

import numpy as np
from absl import flags

from flowseg.cli import entry

# isort: split
from data_prep.scenes import farm
from flowseg import files, runs
from flowseg.cli import flags as shared_flags
from flowseg.media import drawing
from flowseg.network import packed_weights

# Synthetic drive not used in training, for checking exports: frames of data sets must not ship.
_SAMPLE = {"height": 128, "width": 416, "seed": 1, "index": 9, "count": 2}


def pack(run: runs.Run, folder: Path) -> str:
    """Write `run` into `folder` for `packed_weights.read_network`.

    Returns:
        Summary of the files and of how the rounded network differs from the run's.

    Raises:
        ValueError: `packed_weights.write_network` rejects the network.
    """
    settings = _build_settings(run.folder)
    count = packed_weights.write_network(folder, run.model, **settings)
    files.write_json(folder / "label_set.json", run.label_set._asdict())
    frames = list(farm.load("street").film(**_SAMPLE))
    for name, frame in zip(runs.SAMPLE.values(), frames, strict=True):
        drawing.write_png(folder / name, frame)
    rounded = packed_weights.read_network(folder, len(run.label_set.names))
    seg, flow = run.predict(*frames)
    predictions = runs.Run(rounded, run.label_set).predict(*frames)
    distance = np.hypot(*np.moveaxis(predictions[1] - flow, -1, 0))
    return (
        f"{folder}: {count / 1e6:.1f} MB, backbone {settings['backbone']}; compared with the run: "
        f"{100 * (predictions[0] == seg).mean():.2f} % of labels equal, flow differs by "
        f"{distance.mean():.4f} px on average, {distance.max():.3f} px at most"
    )


def _build_settings(run_dir):
    """Return the arguments that the run's network was built with."""
    values = dict(
        line.lstrip("-").partition("=")[::2]
        for line in files.read_text(Path(run_dir) / "flags.txt").splitlines()
    )
    # Runs of earlier versions have no `coarsest`.
    coarsest = int(values.get("coarsest", 16))
    return {"backbone": values["backbone"], "exchange": values["exchange"], "coarsest": coarsest}


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "Folder to write.", required=True)


def main():
    """Load the run, pack it and print the summary."""
    args = flags.FLAGS
    run = runs.load_run(args.run_dir, args.weights)
    if packed_weights.is_packed(run.folder):
        raise ValueError(f"{run.folder}: is already packed")
    print(pack(run, Path(args.output)))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
