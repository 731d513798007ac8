"""Write cityscapes_answers.json: scores of cityscapesscripts for stored cases.

    python -m tests.reference.make_cityscapes_answers

It needs cityscapesscripts (the extra `test`), and for the real labels KITTI's frames 000002_10 and
000003_10 in FLOWSEG_SAMPLES; without these, their stored scores are kept. It prints the largest
change of the stored scores. `tests/scoring/test_cityscapes_scores.py` compares FlowSeg with the
file.

    made    three synthetic frames of `tests.support.city_frames`, with instance maps
    kitti   two real label maps of KITTI with distorted predictions; no instance maps
"""

import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np

from flowseg import files
from flowseg.cli import entry
from tests.support import city_frames, official

SCORES_FILE = Path(__file__).with_name("cityscapes_answers.json")
REAL = ("000002_10", "000003_10")


def real_frames(samples):
    """Frames with real KITTI labels and distorted predictions, without instances."""
    rng, frames = np.random.RandomState(7), []
    for name in REAL:
        folder = Path(samples) / "kitti/data_semantics/training/semantic"
        truth = official.read_labels(folder / f"{name}.png")
        prediction = city_frames.distort(truth, rng)
        frames.append(city_frames.CityFrame(truth, np.full(truth.shape, -1), prediction))
    return frames


def judge(frames):
    """Scores of cityscapesscripts for the frames; with instance maps if there are instances."""
    has_instances = any((frame.number >= 0).any() for frame in frames)
    return official.judge_labels(
        (f.truth, f.prediction, *([city_frames.cityscapes_instances(f)] * has_instances))
        for f in frames
    )


def main():
    """Compute the scores, print the changes, and write the file."""
    stored = json.loads(SCORES_FILE.read_text()) if SCORES_FILE.is_file() else {}
    computed = {"made": judge(city_frames.make_frames())}
    if os.environ.get("FLOWSEG_SAMPLES"):
        computed["kitti"] = judge(real_frames(os.environ["FLOWSEG_SAMPLES"]))
    for case, scores in computed.items():
        stored_scores = stored.get(case, {})
        common = stored_scores.keys() & scores.keys()
        change = max((abs(scores[name] - stored_scores[name]) for name in common), default=0.0)
        different = len(stored_scores.keys() ^ scores.keys())
        print(
            f"{case}: {len(scores)} scores, changed by {change:g} at most, {different} new or gone"
        )
    computed["cityscapesscripts"] = importlib.metadata.version("cityscapesscripts")
    files.write(SCORES_FILE, json.dumps(stored | computed, indent=1) + "\n")
    print(f"wrote {SCORES_FILE}")


if __name__ == "__main__":
    entry.run(main)
