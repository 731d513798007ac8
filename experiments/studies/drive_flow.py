"""Measure the flow of a folder of drives: its size, and whether forward and backward agree.

    python -m experiments.studies.drive_flow --drives data/drives

Forward flow followed by the backward flow at its end should return to the pixel. This is checked
where the pixel is visible in the next frame and the flow around both ends is smooth: within 5x5
pixels it changes by less than half a pixel plus a fifth of its size.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from flowseg import tables
from flowseg.cli import entry
from flowseg.data.flow_io import read_flow

PERCENTILES = (50, 90, 99, 100)


def measure(folder: str | Path) -> dict[str, float]:
    """Measure all frames with flow to the next.

    Returns:
        text -> number: flow in px (percentiles of known pixels), shares in percent.

    Raises:
        ValueError: the folder holds no drive, or a file is missing or damaged.
    """
    speeds, returns, known, occluded, frames = [], [], 0, 0, 0
    for forward, backward, hidden in read_pairs(Path(folder)):
        valid = forward[..., 2] > 0
        speeds.append(np.linalg.norm(forward[..., :2], axis=-1)[valid].astype(np.float32))
        returns.append(return_errors(forward, backward, hidden))
        known, occluded, frames = known + valid.mean(), occluded + hidden[valid].mean(), frames + 1
    if not frames:
        raise ValueError(f"{folder}: no drive of data_prep.scenes --frames in it")
    speeds, errors = np.concatenate(speeds), np.concatenate(returns)
    rows = {"frames with flow to the next": frames, "flow, mean, px": float(speeds.mean())}
    for percent, value in zip(PERCENTILES, np.percentile(speeds, PERCENTILES), strict=True):
        rows[f"flow, {percent} %, px"] = float(value)
    rows["known, % of the pixels"] = 100 * known / frames
    rows["not visible in the next frame, % of the known pixels"] = 100 * occluded / frames
    rows["checked forward and backward, pixels"] = len(errors)
    rows["of these returned within 0.1 px, %"] = float(100 * (errors < 0.1).mean())
    return rows


def read_pairs(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield forward flow of a frame, backward flow of the next (H, W, 3), and (H, W) occluded."""
    for forward in sorted(folder.glob("Scene*/clone/frames/forwardFlow/Camera_0/flow_*.png")):
        root, number = forward.parents[2], int(forward.stem.removeprefix("flow_"))
        backward = root / f"backwardFlow/Camera_0/backwardFlow_{number + 1:05d}.png"
        occlusion = root / f"occlusion/Camera_0/occlusion_{number:05d}.png"
        hidden = cv2.imread(str(occlusion), cv2.IMREAD_UNCHANGED)
        if hidden is None:
            raise ValueError(f"{occlusion}: missing or damaged: run data_prep.scenes again")
        yield read_flow(forward), read_flow(backward), hidden > 0


def return_errors(forward: np.ndarray, backward: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return the error in px, (N,), of forward then backward flow at the pixels to be checked."""
    height, width = hidden.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ends = x + forward[..., 0], y + forward[..., 1]
    smooth = cv2.remap(_smooth(backward), *ends, cv2.INTER_LINEAR) > 0.999
    use = ~hidden & (_smooth(forward) > 0) & smooth
    back = cv2.remap(backward[..., :2], *ends, cv2.INTER_LINEAR)
    return np.linalg.norm(back + forward[..., :2], axis=-1)[use]


def _smooth(flow):
    """Return 1 where flow is known and smooth, else 0, (H, W) float32."""
    kernel = np.ones((5, 5))
    spread = [cv2.dilate(n, kernel) - cv2.erode(n, kernel) for n in cv2.split(flow[..., :2])]
    size = np.linalg.norm(flow[..., :2], axis=-1)
    known = cv2.erode(flow[..., 2], kernel) > 0
    return np.float32(known & (np.maximum(*spread) < 0.5 + 0.2 * size))


def define_flags():
    """Define the flags of this command."""
    flags.DEFINE_string("drives", None, "Folder of drives, written by data_prep.scenes --frames.")
    flags.mark_flag_as_required("drives")


def main():
    """Run the study."""
    rows = measure(flags.FLAGS.drives)
    print(tables.plain((name, f"{value:.4g}") for name, value in rows.items()))


if __name__ == "__main__":
    define_flags()
    entry.run(main)
