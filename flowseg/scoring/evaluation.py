"""A network's answers, counted over record sets: what `flowseg.evaluate` and studies share."""

import collections
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES, IGNORE_LABEL, LabelSet, class_groups, thing_table
from flowseg.scoring import frame_scores
from flowseg.scoring.streaming import grouped_logits

# What is told about the frames seen, and the counts that a frame with such truth has.
_KINDS = {"seg": "seg/confusion", "flow": "flow/all", "flow_noc": "flow/noc"}


def evaluate(
    run: Any,
    files: Sequence[str | Path],
    scale: float = 1.0,
    each: Callable[[dict[str, Any], np.ndarray, np.ndarray], object] | None = None,
    score_as: LabelSet | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores of a run over every frame of `files`.

    Args:
        run: a `runs.Run`.
        files: record shards.
        scale: frames are resized by it for the network; scores are at their own size.
        each: called with (frame, logits, flow) of each frame, where given.
        score_as: a `labels.LabelSet` of wider classes to score; default: the run's own classes.

    Returns:
        The scores (see `frame_scores.scores`), and how many frames there were (see `count`).

    Raises:
        ValueError: no frames; a shard that cannot be read, by name; classes that do not group;
            answers that are no numbers, by their frame.
    """
    label_set = score_as or run.label_set
    counts, seen = count(files, label_set, run_answers(run, label_set, scale, each))
    return frame_scores.scores(counts, label_set.names), seen


def run_answers(
    run: Any,
    label_set: LabelSet,
    scale: float = 1.0,
    each: Callable[[dict[str, Any], np.ndarray, np.ndarray], object] | None = None,
) -> Callable[[dict[str, Any]], tuple[np.ndarray, np.ndarray]]:
    """A function for `count`: frame -> a run's train ids, in the classes of `label_set`, and flow.

    Raises:
        ValueError: the run's classes do not group into `label_set`. Asked: answers that are no
            numbers, by their frame.
    """
    groups = None if label_set == run.label_set else class_groups(run.label_set, label_set)

    def ask(frame):
        logits, flow = run.predict_logits(frame["image1"], frame["image2"], scale)
        _check_numbers(frame, logits, flow)
        if each:
            each(frame, logits, flow)
        told = logits if groups is None else np.asarray(grouped_logits(logits, groups))
        return told.argmax(-1), flow

    return ask


def _check_numbers(frame, logits, flow):
    """Raise ValueError, naming the frame, where a network answers with what is no number.

    The largest of such logits would be a class like any other.
    """
    for kind, answer in (("classes", logits), ("flow", flow)):
        if not np.isfinite(answer).all():
            lost = (~np.isfinite(answer)).any(-1)
            raise ValueError(
                f"frame {frame['frame_id'].decode()}: the network's {kind} are no numbers at "
                f"{lost.sum()} of {lost.size} pixels: has its training diverged?"
            )


def count(
    files: Sequence[str | Path],
    label_set: LabelSet,
    ask: Callable[[dict[str, Any]], tuple[np.ndarray | None, np.ndarray | None]],
    each: Callable[
        [dict[str, Any], np.ndarray | None, np.ndarray | None, dict[str, np.ndarray]], object
    ]
    | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Counts of answers over every frame of the record shards `files`.

    Args:
        label_set: the classes.
        ask: decoded frame (`decoding.evaluation_data`) -> (H, W) train ids, 255 where
            nothing is said, and (H, W, 2) flow; either may be None: not asked.
        each: called with (frame, seg, flow, the frame's counts), where given.

    Returns:
        The counts of all frames together (see `frame_scores`), and a dict of how many frames there
        were: `frames`, with `seg`, `flow`, `flow_noc` truth that was asked, `single` without a
        second frame, and by what they know their `foreground`.

    Raises:
        ValueError: no frames; a shard that cannot be read, by name; what `ask` raises.
    """
    counts = {}
    seen = dict.fromkeys(("frames", "seg", "flow", "flow_noc", "single"), 0)
    seen["foreground"] = collections.Counter()
    frames = decoding.evaluation_data(files, label_set).as_numpy_iterator()
    with records.named_errors(files):
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            seg, flow = ask(frame)
            found, source = count_frame(frame, seg, flow, label_set)
            counts = frame_scores.add(counts, found)
            if each:
                each(frame, seg, flow, found)
            if "flow/all" in found and source:
                seen["foreground"][source] += 1
            seen["frames"] += 1
            seen["single"] += not frame["has_image2"]
            for kind, key in _KINDS.items():
                seen[kind] += key in found
    if not seen["frames"]:
        raise ValueError(f"{files[0]}: no records: nothing to score")
    return counts, seen


def count_frame(
    frame: dict[str, Any], seg: np.ndarray | None, flow: np.ndarray | None, label_set: LabelSet
) -> tuple[dict[str, np.ndarray], str | None]:
    """One frame's counts (see `frame_scores`), and what its foreground is known by.

    Foreground, as KITTI scores flow on it, is the objects of the frame's object map; where there is
    none, the things of its instance map; else the labels of persons and vehicles, moving or not.

    Args:
        frame: decoded frame of `decoding.evaluation_data`, in NumPy.
        seg: (H, W) train ids of `label_set`, 255 where nothing is said; None: not asked.
        flow: (H, W, 2); None: not asked.
        label_set: the classes.

    Returns:
        dict of counts, and "object map", "instance map", "labels" or None.
    """
    source, foreground = None, None
    if frame["has_objects"]:
        source, foreground = "object map", frame["objects"] > 0
    elif frame["has_things"]:
        source, foreground = "instance map", frame["things"] > 0
    elif (frame["seg"] != IGNORE_LABEL).any():
        source, foreground = "labels", thing_table(label_set)[frame["seg"]]
    city = label_set.names == CITYSCAPES.names and frame["has_things"]
    things = frame["things"] if city else None
    counts = {}
    if seg is not None:
        counts |= frame_scores.count_seg(frame["seg"], seg, len(label_set.names), things)
    if flow is not None:
        counts |= frame_scores.count_flow(frame["flow"], flow, frame["flow_noc"], foreground)
    return counts, source


def frames_with_truth(shards: Iterable[str | Path]) -> dict[str, list[str]]:
    """Ids of the frames that have labels ("seg"), and of those that have flow.

    Raises:
        ValueError: two frames have one id, so that their answers would be one file.
    """
    found, seen = {"seg": [], "flow": []}, {}
    for shard in shards:
        for _, fields in records.read_shard(shard):
            name = fields["frame_id"].decode()
            if name in seen:
                raise ValueError(
                    f"frame {name} is in {seen[name]} and in {shard}: answers are files by frame "
                    "id, so sets that share ids go one by one"
                )
            seen[name] = shard
            for kind, field in (("seg", "labels"), ("flow", "flow")):
                if fields[field]:
                    found[kind].append(name)
    return found
