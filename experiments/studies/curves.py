"""Plot the training curves of runs from their history.csv.

python -m experiments.studies.curves --run_dir runs/kitti_sample --output curves.png

Several runs (--run_dir A --run_dir B) are drawn in one picture, one colour each: dashed lines are
training batches, solid lines validation.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry
from flowseg.media import drawing

# isort: split
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

PANELS = {
    "loss": "loss",
    "seg/miou": "mIoU (%)",
    "flow/aepe": "AEPE (px)",
    "flow/fl_all": "Fl-all (%)",
}


def read_history(run_dir: Path | str) -> dict[str, np.ndarray]:
    """Score name -> array over epochs.

    Raises:
        ValueError: no history.csv, or one without a finished epoch.
    """
    path = Path(run_dir) / "history.csv"
    if not path.is_file():
        raise ValueError(f"{path}: missing; give a run folder")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path}: no finished epoch yet")
    # "NA" marks a training without validation.
    return {
        key: np.array([np.nan if row[key] == "NA" else float(row[key]) for row in rows])
        for key in rows[0]
    }


def draw_curves(run_dirs: Sequence[Path | str]) -> np.ndarray:
    """(H, W, 3) uint8 RGB image with one panel per score, over epochs."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 2.8), dpi=100, layout="constrained")
    for number, run_dir in enumerate(run_dirs):
        history = read_history(run_dir)
        for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("epoch", fontsize=9)
            axis.grid(alpha=0.3)
            epochs = history["epoch"] + 1
            for prefix, style in (("", "--"), ("val_", "-")):
                if prefix + key in history:
                    axis.plot(epochs, history[prefix + key], style, color=f"C{number}", marker=".")
    if len(run_dirs) > 1:
        axes[0].legend(
            [plt.Line2D([], [], color=f"C{i}") for i in range(len(run_dirs))],
            [Path(run_dir).name for run_dir in run_dirs],
            fontsize=8,
        )
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return picture


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_multi_string("run_dir", None, "Run folder; repeatable.", required=True)
    flags.DEFINE_string("output", None, "Picture to write, FILE.png.", required=True)


def main():
    """Draw and write."""
    args = flags.FLAGS
    drawing.write_png(Path(args.output), draw_curves(args.run_dir))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
