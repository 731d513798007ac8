"""What flow without learning reaches: OpenCV's DIS, and no flow at all, on KITTI pairs.

    python -m experiments.dis_flow --source KITTI [--source ...] --metrics_json FILE

The scores are those of `flowseg.evaluate`, on every pair of the folders (as `data_prep.kitti`
takes them) at its own size; the file holds DIS's under the names of evaluate's metrics file. DIS:
Kroeger et al., Fast Optical Flow using Dense Inverse Search, 2016.
"""

import time

from absl import flags

from flowseg import commands

# isort: split
import cv2
import keras
import numpy as np
from tqdm import tqdm

from data_prep.kitti import find_frames
from experiments.compare_sets import load
from flowseg import runs
from flowseg.metrics import FlowScores

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
METHODS = ("zero", "dis")


def dis_flow(grey1, grey2, preset="medium"):
    """DIS flow of two (H, W) uint8 frames: (H, W, 2) float32 (u, v) in px.

    Raises:
        ValueError: frames too small for DIS.
    """
    method = cv2.DISOpticalFlow_create(PRESETS[preset])
    try:
        return method.calc(grey1, grey2, None)
    except cv2.error as error:
        height, width = grey1.shape
        raise ValueError(f"DIS cannot take frames of {width}x{height} px: {error.err}") from error


def score(frames, preset="medium"):
    """Scores of DIS and of zero flow.

    Args:
        frames: list of :class:`data_prep.frames.Frame`; those without flow are passed over.
        preset: key of PRESETS.

    Returns:
        (per_pair, pooled): {frame id: {method: scores}} and {method: scores}, the scores as
        `flowseg.evaluate` names them, and for DIS `seconds_per_pair`.

    Raises:
        ValueError: no frame has flow; a damaged file; frames too small for DIS.
    """
    frames = [frame for frame in frames if "flow" in frame.files]
    if not frames:
        raise ValueError("no pair with flow truth: training/flow_occ (data_scene_flow) is needed")
    pooled = {method: _Scores() for method in METHODS}
    per_pair = {}
    for frame in tqdm(frames, unit="pair", disable=None):
        pair = load(frame)
        # Grey as the decoder makes it: `cvtColor` rounds otherwise, which alone moves DIS by 5 %.
        greys = [
            cv2.imread(str(frame.files[name]), cv2.IMREAD_GRAYSCALE)
            for name in ("image1", "image2")
        ]
        begin = time.perf_counter()
        found = dis_flow(*greys, preset)
        seconds = time.perf_counter() - begin
        per_pair[frame.frame_id] = {}
        for method, flow in (("zero", np.zeros_like(found)), ("dis", found)):
            alone = _Scores()
            for scores in (alone, pooled[method]):
                scores.add(pair, flow, seconds if method == "dis" else None)
            per_pair[frame.frame_id][method] = alone.result()
    return per_pair, {method: scores.result() for method, scores in pooled.items()}


class _Scores:
    """The flow scores of `flowseg.evaluate`, over the pairs that were added, and their time."""

    def __init__(self):
        self._scores = {"flow": FlowScores(), "flow_noc": FlowScores("_noc")}
        self._seen, self._seconds = set(), []

    def add(self, pair, flow, seconds):
        for key, scores in self._scores.items():
            if key in pair and pair[key][..., 2].any():
                self._seen.add(key)
                scores.update_state(pair[key][None], flow[None])
        if seconds is not None:
            self._seconds.append(seconds)

    def result(self):
        results = {}
        for key, scores in self._scores.items():
            if key in self._seen:
                found = scores.result()
                results |= {k: float(keras.ops.convert_to_numpy(v)) for k, v in found.items()}
        if self._seconds:
            results["seconds_per_pair"] = float(np.mean(self._seconds))
        return results


COLUMNS = {
    "flow/aepe": "AEPE (px)",
    "flow/fl_all": "Fl-all (%)",
    "flow/fl_all_per_image": "per image (%)",
    "flow/aepe_noc": "AEPE noc (px)",
    "flow/fl_all_noc": "Fl-all noc (%)",
    "seconds_per_pair": "seconds",
}


def table(per_pair, pooled):
    """Markdown of what `score` gives: a row a pair and method, and of all pairs together."""
    lines = [["pair", "flow", *COLUMNS.values()], ["---", "---", *["---:"] * len(COLUMNS)]]
    for name, methods in {**per_pair, f"all {len(per_pair)}": pooled}.items():
        for method, scores in methods.items():
            cells = (f"{scores[key]:.3f}" if key in scores else "-" for key in COLUMNS)
            lines.append([name, method, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def define_flags():
    """The flags of this command."""
    flags.DEFINE_multi_string(
        "source", None, "Folder as data_prep.kitti takes it; repeatable.", required=True
    )
    flags.DEFINE_enum("preset", "medium", list(PRESETS), "OpenCV's settings of DIS.")
    flags.DEFINE_string(
        "metrics_json", None, "File for the scores of DIS, and under zero/ of no flow."
    )


def main():
    """Score and tell."""
    args = flags.FLAGS
    per_pair, pooled = score(find_frames(args.source), args.preset)
    print(table(per_pair, pooled))
    if args.metrics_json:
        zero = {f"zero/{key}": value for key, value in pooled["zero"].items()}
        runs.write_json(args.metrics_json, pooled["dis"] | zero)
        print(f"wrote {args.metrics_json}")


if __name__ == "__main__":
    define_flags()
    commands.run(main)
