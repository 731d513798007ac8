r"""What scoring and drawing take a frame, where that goes, and whether memory stays flat.

python -m experiments.costs.frames_cost --weights pretrained \
    --records GLOB [--frames 200] [--json FILE]
python -m experiments.costs.frames_cost --weights pretrained --input VIDEO|FOLDER [--frames 1000]

The first scores the records' frames, over and over until there were --frames of them, as
`flowseg.evaluate --report` does; the second draws the frames of --input so, as `flowseg.visualize`
does. Seconds are of the wall's clock, by Python's profiler; peak memory is the whole process's.
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

# Row of the table -> (file, function) whose seconds it is, with all that it calls.
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
    "encoding": ("frames.py", "write"),
}


def profiled(work: Callable[[], object], rows: dict[str, tuple[str, str]]) -> dict[str, float]:
    """Seconds of `work()`: of the whole, and of the functions named in `rows`.

    Raises:
        KeyError: one of them was never called: the table would tell of nothing.
    """
    profile = cProfile.Profile()
    start = time.perf_counter()
    profile.runcall(work)
    told = {"whole": time.perf_counter() - start}
    stats = pstats.Stats(profile).stats
    found = {(Path(file).name, name): row[3] for (file, _, name), row in stats.items()}
    return told | {row: found[place] for row, place in rows.items()}


def peak_memory() -> float:
    """MB that this process has held at most so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Watch:
    """Notes the peak memory after some numbers of frames."""

    def __init__(self, marks: Iterable[int]):
        self.marks, self.seen, self.peaks = set(marks), 0, {}

    def __call__(self, *_):
        self.seen += 1
        if self.seen in self.marks:
            self.peaks[self.seen] = peak_memory()


def scoring_cost(
    run: runs.Run, shards: Sequence[Path | str], count: int, scale: float = 1.0
) -> tuple[dict[str, float], dict[int, float]]:
    """Score `count` frames; seconds by row, peak memory by frame.

    Raises:
        ValueError: there are no records.
    """
    each = records.count(shards)
    if not each:
        raise ValueError(f"{shards[0]}: no records: nothing to score")
    # Whole sets: a shard cannot be left half-read.
    rounds = -(-count // each)
    watch = Watch((min(100, rounds * each), rounds * each))
    collected = report.Collector(run.label_set)

    def keep(*args):
        collected.add(*args)
        watch()

    ask = evaluation.run_answers(run, run.label_set, scale)
    told = profiled(lambda: evaluation.count(shards * rounds, run.label_set, ask, keep), SCORING)
    return told, watch.peaks


def drawing_cost(
    run: runs.Run, path: Path | str, count: int, scale: float = 1.0
) -> tuple[dict[str, float], dict[int, float]]:
    """Draw a video of `count` frames; seconds by row, peak memory by frame."""
    watch = Watch((min(100, count), count))

    def endless():
        while True:
            for frame in frames.open_frames(path)[0]:
                watch()
                yield frame

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "seen.mp4"
        # A pair more than is counted, as the last frame has no next.
        taken = itertools.islice(endless(), count + 1)
        told = profiled(
            lambda: video_panels.write_video({"": run}, taken, output, 10, count + 1, scale),
            DRAWING,
        )
    return told, watch.peaks


def table(told: dict[str, float], peaks: dict[int, float], count: int) -> str:
    """Lines of text."""
    lines = [f"{count} frames in {told['whole']:.1f} s: {count / told['whole']:.2f} a second"]
    rows = (
        (row, f"{1000 * seconds / count:.1f}", "ms a frame", f"{seconds / told['whole']:.1%}")
        for row, seconds in told.items()
    )
    lines.append(tables.plain(rows))
    return "\n".join(lines + [f"peak memory at frame {n}: {mb:.0f} MB" for n, mb in peaks.items()])


def define_flags():
    """The flags of this command."""
    shared_flags.define_run_flags()
    flags.adopt_module_key_flags(shared_flags)
    flags.DEFINE_list("records", None, "Records to score, over and over: GLOB[,GLOB].")
    flags.DEFINE_string("input", None, "Video or folder of frames to draw, over and over.")
    flags.DEFINE_integer("frames", None, "How many; default: 200 to score, 1000 to draw.", 1)
    flags.DEFINE_string("json", None, "File for the figures; default: none.")


def main():
    """Measure and tell."""
    args = flags.FLAGS
    if bool(args.records) == bool(args.input):
        raise ValueError("give --records (what scoring costs) or --input (what drawing costs)")
    run = runs.load_run(args.run_dir, args.weights)
    if args.records:
        shards = records.match_files(*args.records)
        told, peaks = scoring_cost(run, shards, args.frames or 200, args.input_scale)
    else:
        told, peaks = drawing_cost(run, args.input, args.frames or 1000, args.input_scale)
    count = max(peaks)
    print(table(told, peaks, count))
    if args.json:
        content = {"frames": count, "seconds": told, "peak_memory_mb": peaks}
        files.write(args.json, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
