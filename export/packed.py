"""Pack a trained run into a few megabytes that stand for it (see `network.packed_weights`).

python -m export.packed --run_dir RUN --output FOLDER

writes weights (kernels as float16), description, classes and a made sample pair, and says what
rounding changed. A card, README.md beside them, is written by hand: scores, data and their
licences, limits.
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

# A drive that no training sees, for exports to be checked on: no data set's frame may lie here.
_SAMPLE = {"height": 128, "width": 416, "seed": 1, "index": 9, "count": 2}


def pack(run: runs.Run, folder: Path) -> str:
    """Write `run` into `folder`, as `packed_weights.read_network` takes it.

    Returns:
        Lines that say what was written, and how far the rounded network is from the run's.

    Raises:
        ValueError: what `packed_weights.write_network` refuses.
    """
    network = _network(run.folder)
    count = packed_weights.write_network(folder, run.model, **network)
    files.write_json(folder / "label_set.json", run.label_set._asdict())
    frames = list(farm.load("street").film(**_SAMPLE))
    for name, frame in zip(runs.SAMPLE.values(), frames, strict=True):
        drawing.write_png(folder / name, frame)
    rounded = packed_weights.read_network(folder, len(run.label_set.names))
    seg, flow = run.predict(*frames)
    again = runs.Run(rounded, run.label_set).predict(*frames)
    apart = np.hypot(*np.moveaxis(again[1] - flow, -1, 0))
    return (
        f"{folder}: {count / 1e6:.1f} MB, backbone {network['backbone']}; beside the run's own: "
        f"{100 * (again[0] == seg).mean():.2f} % of labels equal, flow {apart.mean():.4f} px apart "
        f"on average, {apart.max():.3f} px at most"
    )


def _network(run_dir):
    """What the run's network was built with."""
    values = dict(
        line.lstrip("-").partition("=")[::2]
        for line in (Path(run_dir) / "flags.txt").read_text().splitlines()
    )
    return {key: values[key] for key in ("backbone", "exchange")}


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags(input_scale=False)
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_string("output", None, "Folder to write.", required=True)


def main():
    """Load, write, tell."""
    args = flags.FLAGS
    run = runs.load_run(args.run_dir, args.weights)
    if packed_weights.is_packed(run.folder):
        raise ValueError(f"{run.folder}: is packed already")
    print(pack(run, Path(args.output)))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
