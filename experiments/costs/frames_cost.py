r"""Measure the time of scoring and drawing per frame, by function, and the growth of memory.

python -m experiments.costs.frames_cost --weights pretrained \
    --records GLOB [--frames 200] [--json FILE]
python -m experiments.costs.frames_cost --weights pretrained --input VIDEO|FOLDER [--frames 1000]

The first command scores the frames of the records as `flowseg.evaluate --report` does, repeatedly
until --frames are scored; the second draws the frames of --input as `flowseg.visualize` does.
Python's profiler measures wall-clock seconds; peak memory is that of the process.
"""

import cProfile
import itertools
import json
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
from flowseg import files, runs, tables
from flowseg.cli import flags as shared_flags
from flowseg.data import records
from flowseg.media import frames, video_panels
from flowseg.scoring import evaluation, report

# Row of the table -> (file, function) that it measures, including all that it calls.
SCORING = {
    "waiting for frames": ("dataset_ops.py", "__next__"),
    "network": ("runs.py", "predict_logits"),
    "counting scores": ("evaluation.py", "count_frame"),
    "  of it boundaries": ("frame_scores.py", "_boundaries"),
    "  of it confusion": ("frame_scores.py", "_confusion"),
    "  of it flow": ("frame_scores.py", "count_flow"),
    "the report's frames": ("report.py", "add"),
}
DRAWING = {
    "reading frames": ("frames_cost.py", "endless"),
    "encoder": ("runs.py", "encode"),
    "decoder": ("runs.py", "decode"),
    "picture": ("video_panels.py", "compose"),
    "encoding": ("video_output.py", "write"),
}


def profiled(work: Callable[[], object], rows: dict[str, tuple[str, str]]) -> dict[str, float]:
    """Seconds of `work()` as "whole", and of the functions named in `rows`.

    Raises:
        KeyError: one of them was never called, so that its row would be meaningless.
    """
    profile = cProfile.Profile()
    start = time.perf_counter()
    profile.runcall(work)
    seconds = {"whole": time.perf_counter() - start}
    stats = pstats.Stats(profile).stats
    by_function = {(Path(file).name, name): row[3] for (file, _, name), row in stats.items()}
    return seconds | {row: by_function[place] for row, place in rows.items()}


def peak_memory() -> float:
    """Peak memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class MemoryMonitor:
    """Records the peak memory after given numbers of frames."""

    def __init__(self, marks: Iterable[int]):
        self.marks, self.count, self.peaks = set(marks), 0, {}

    def __call__(self, *_):
        self.count += 1
        if self.count in self.marks:
            self.peaks[self.count] = peak_memory()


def scoring_cost(
    run: runs.Run, shards: Sequence[Path | str], count: int, scale: float = 1.0
) -> tuple[dict[str, float], dict[int, float]]:
    """Score `count` frames; returns seconds by row and peak memory by frame.

    Raises:
        ValueError: there are no records.
    """
    per_round = records.count(shards)
    if not per_round:
        raise ValueError(f"{shards[0]}: no records: nothing to score")
    # Complete sets, because reading cannot stop within a shard.
    rounds = -(-count // per_round)
    monitor = MemoryMonitor((min(100, rounds * per_round), rounds * per_round))
    collector = report.Collector(run.label_set)

    def collect(*args):
        collector.add(*args)
        monitor()

    predict = evaluation.run_predictor(run, run.label_set, scale)
    seconds = profiled(
        lambda: evaluation.count(shards * rounds, run.label_set, predict, collect), SCORING
    )
    return seconds, monitor.peaks


def drawing_cost(
    run: runs.Run, path: Path | str, count: int, scale: float = 1.0
) -> tuple[dict[str, float], dict[int, float]]:
    """Draw a video of `count` frames; returns seconds by row and peak memory by frame."""
    monitor = MemoryMonitor((min(100, count), count))

    def endless():
        while True:
            for frame in frames.open_frames(path)[0]:
                monitor()
                yield frame

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "seen.mp4"
        # One frame more than is counted, because the last frame has no successor.
        taken = itertools.islice(endless(), count + 1)
        seconds = profiled(
            lambda: video_panels.write_video({"": run}, taken, output, 10, count + 1, scale),
            DRAWING,
        )
    return seconds, monitor.peaks


def table(times: dict[str, float], peaks: dict[int, float], count: int) -> str:
    """Text table of the seconds, followed by the peak memory."""
    lines = [f"{count} frames in {times['whole']:.1f} s: {count / times['whole']:.2f} per second"]
    rows = (
        (row, f"{1000 * seconds / count:.1f}", "ms per frame", f"{seconds / times['whole']:.1%}")
        for row, seconds in times.items()
    )
    lines.append(tables.plain(rows))
    return "\n".join(lines + [f"peak memory at frame {n}: {mb:.0f} MB" for n, mb in peaks.items()])


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    shared_flags.define_record_sets("records", None, "Records to score repeatedly: GLOB[,GLOB].")
    flags.DEFINE_string("input", None, "Video or folder of frames to draw repeatedly.")
    flags.DEFINE_integer(
        "frames", None, "Number of frames; default: 200 to score, 1000 to draw.", 1
    )
    flags.DEFINE_string("json", None, "JSON file for the results; default: none.")


def main():
    """Measure and print."""
    args = flags.FLAGS
    if bool(args.records) == bool(args.input):
        raise ValueError("give either --records (cost of scoring) or --input (cost of drawing)")
    run = runs.load_run(args.run_dir, args.weights)
    if args.records:
        shards = records.match_files(*args.records)
        seconds, peaks = scoring_cost(run, shards, args.frames or 200, args.input_scale)
    else:
        seconds, peaks = drawing_cost(run, args.input, args.frames or 1000, args.input_scale)
    count = max(peaks)
    print(table(seconds, peaks, count))
    if args.json:
        content = {"frames": count, "seconds": seconds, "peak_memory_mb": peaks}
        files.write(args.json, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
