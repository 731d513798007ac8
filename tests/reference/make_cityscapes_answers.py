"""Write cityscapes_answers.json: what cityscapesscripts scores for stored cases.

    python -m tests.reference.make_cityscapes_answers

wants cityscapesscripts (the extra `test`), and for the real labels KITTI's frames 000002_10 and
000003_10 below FLOWSEG_SAMPLES; without those, what was stored of them stays. Prints the largest
change to what was stored. `tests/scoring/test_cityscapes_scores.py` holds FlowSeg to the file.

    made    three frames of `tests.support.city_frames`, with instance maps
    kitti   two real label maps of KITTI, spoilt; no instance maps
"""

import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np

from flowseg import files
from flowseg.cli import entry
from tests.support import city_frames, official

ANSWERS = Path(__file__).with_name("cityscapes_answers.json")
REAL = ("000002_10", "000003_10")


def real_frames(samples):
    """Frames of real labels, with answers, of KITTI's folder; no things are told apart."""
    rng, frames = np.random.RandomState(7), []
    for name in REAL:
        place = Path(samples) / "kitti/data_semantics/training/semantic"
        truth = official.read_labels(place / f"{name}.png")
        answer = city_frames.spoil(truth, rng)
        frames.append(city_frames.CityFrame(truth, np.full(truth.shape, -1), answer))
    return frames


def judge(frames):
    """cityscapesscripts' scores of the frames; with instance maps where things are told apart."""
    things = any((frame.number >= 0).any() for frame in frames)
    return official.judge_labels(
        (f.truth, f.answer, *([city_frames.cityscapes_instances(f)] * things)) for f in frames
    )


def main():
    """Judge anew, tell what changed, write."""
    stored = json.loads(ANSWERS.read_text()) if ANSWERS.is_file() else {}
    answers = {"made": judge(city_frames.make_frames())}
    if os.environ.get("FLOWSEG_SAMPLES"):
        answers["kitti"] = judge(real_frames(os.environ["FLOWSEG_SAMPLES"]))
    for case, scores in answers.items():
        before = stored.get(case, {})
        shared = before.keys() & scores.keys()
        change = max((abs(scores[name] - before[name]) for name in shared), default=0.0)
        other = len(before.keys() ^ scores.keys())
        print(f"{case}: {len(scores)} scores, changed by {change:g} at most, {other} new or gone")
    answers["cityscapesscripts"] = importlib.metadata.version("cityscapesscripts")
    files.write(ANSWERS, json.dumps(stored | answers, indent=1) + "\n")
    print(f"wrote {ANSWERS}")


if __name__ == "__main__":
    entry.run(main)
