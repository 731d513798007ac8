"""Compares predictions with ground truth over record sets, for `flowseg.evaluate` and studies."""

import collections
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flowseg.data import decoding, records
from flowseg.data.labels import CITYSCAPES, IGNORE_LABEL, LabelSet, thing_table
from flowseg.scoring import frame_scores
from flowseg.scoring.class_groups import class_groups
from flowseg.scoring.streaming import grouped_logits

# Reported kind of ground truth -> key of the counts that a frame with it has.
_COUNT_KEYS = {"seg": "seg/confusion", "flow": "flow/all", "flow_noc": "flow/noc"}


def evaluate(
    run: Any,
    files: Sequence[str | Path],
    scale: float = 1.0,
    each: Callable[[dict[str, Any], np.ndarray, np.ndarray], object] | None = None,
    score_as: LabelSet | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Score a run on every frame of `files`.

    Args:
        run: a `runs.Run`.
        files: record shards.
        scale: factor by which frames are resized for the network; scores are at the original size.
        each: if given, called with (frame, logits, flow) of each frame.
        score_as: a `labels.LabelSet` of broader classes to score; default: the run's classes.

    Returns:
        The scores (see `frame_scores.scores`), and the numbers of frames (see `count`).

    Raises:
        ValueError: there are no frames; a shard cannot be read; the classes cannot be grouped into
            `score_as`; or predictions are NaN or Inf. The message names the shard or frame.
    """
    label_set = score_as or run.label_set
    counts, frame_totals = count(files, label_set, run_predictor(run, label_set, scale, each))
    return frame_scores.scores(counts, label_set.names), frame_totals


def run_predictor(
    run: Any,
    label_set: LabelSet,
    scale: float = 1.0,
    each: Callable[[dict[str, Any], np.ndarray, np.ndarray], object] | None = None,
) -> Callable[[dict[str, Any]], tuple[np.ndarray, np.ndarray]]:
    """A function for `count`: frame -> a run's train ids, in the classes of `label_set`, and flow.

    Raises:
        ValueError: the run's classes cannot be grouped into `label_set`. The returned function
            raises it for predictions that are NaN or Inf; the message names the frame.
    """
    groups = None if label_set == run.label_set else class_groups(run.label_set, label_set)

    def predict(frame):
        logits, flow = run.predict_logits(frame["image1"], frame["image2"], scale)
        _check_finite(frame, logits, flow)
        if each:
            each(frame, logits, flow)
        grouped = logits if groups is None else np.asarray(grouped_logits(logits, groups))
        return grouped.argmax(-1), flow

    return predict


def _check_finite(frame, logits, flow):
    """Raise ValueError, naming the frame, if predictions are NaN or Inf.

    Without this check, `argmax` would turn NaN logits into an ordinary class.
    """
    for kind, output in (("classes", logits), ("flow", flow)):
        if not np.isfinite(output).all():
            invalid = (~np.isfinite(output)).any(-1)
            raise ValueError(
                f"frame {frame['frame_id'].decode()}: the network's output for "
                f"{kind} is NaN or Inf at {invalid.sum()} of {invalid.size} pixels: has its "
                "training diverged?"
            )


def count(
    files: Sequence[str | Path],
    label_set: LabelSet,
    predictor: Callable[[dict[str, Any]], tuple[np.ndarray | None, np.ndarray | None]],
    each: Callable[
        [dict[str, Any], np.ndarray | None, np.ndarray | None, dict[str, np.ndarray]], object
    ]
    | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Compare predictions with ground truth over every frame of the record shards `files`.

    Args:
        files: record shards.
        label_set: the classes.
        predictor: decoded frame (`decoding.evaluation_data`) -> (H, W) train ids, 255 = no
            prediction, and (H, W, 2) flow; either may be None to leave it uncounted.
        each: if given, called with (frame, seg, flow, the frame's counts).

    Returns:
        The counts of all frames together (see `frame_scores`), and a dict of numbers of frames:
        `frames` in total; `seg`, `flow`, `flow_noc` with scored ground truth of this kind;
        `single` without a second frame; and `foreground`, by the source of the foreground.

    Raises:
        ValueError: there are no frames; a shard cannot be read; or `predictor` raises it.
    """
    counts = {}
    frame_totals = dict.fromkeys(("frames", "seg", "flow", "flow_noc", "single"), 0)
    frame_totals["foreground"] = collections.Counter()
    frames = decoding.evaluation_data(files, label_set).as_numpy_iterator()
    with records.named_errors(files):
        for frame in tqdm(frames, unit="frame", total=records.count(files), disable=None):
            seg, flow = predictor(frame)
            frame_counts, source = count_frame(frame, seg, flow, label_set)
            counts = frame_scores.add(counts, frame_counts)
            if each:
                each(frame, seg, flow, frame_counts)
            if "flow/all" in frame_counts and source:
                frame_totals["foreground"][source] += 1
            frame_totals["frames"] += 1
            frame_totals["single"] += not frame["has_image2"]
            for kind, key in _COUNT_KEYS.items():
                frame_totals[kind] += key in frame_counts
    if not frame_totals["frames"]:
        raise ValueError(f"{files[0]}: no records: nothing to score")
    return counts, frame_totals


def count_frame(
    frame: dict[str, Any], seg: np.ndarray | None, flow: np.ndarray | None, label_set: LabelSet
) -> tuple[dict[str, np.ndarray], str | None]:
    """Counts of one frame (see `frame_scores`), and the source of its foreground.

    The foreground, whose flow KITTI scores separately, consists of the objects in the frame's
    object map; without one, of the instances in its instance map; else of the pixels labelled as
    persons and vehicles, moving or not.

    Args:
        frame: decoded frame of `decoding.evaluation_data`, in NumPy.
        seg: (H, W) train ids of `label_set`, 255 = no prediction; None to leave it uncounted.
        flow: (H, W, 2); None to leave it uncounted.
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
    count_things = label_set.names == CITYSCAPES.names and frame["has_things"]
    things = frame["things"] if count_things else None
    counts = {}
    if seg is not None:
        counts |= frame_scores.count_seg(frame["seg"], seg, len(label_set.names), things)
    if flow is not None:
        counts |= frame_scores.count_flow(frame["flow"], flow, frame["flow_noc"], foreground)
    return counts, source


def frames_with_truth(shards: Iterable[str | Path]) -> dict[str, list[str]]:
    """Ids of the frames that have labels ("seg"), and of those that have flow ("flow").

    Raises:
        ValueError: two frames have the same id, so their predictions would be the same file.
    """
    frame_ids, shard_of = {"seg": [], "flow": []}, {}
    for shard in shards:
        for _, fields in records.read_shard(shard):
            name = fields["frame_id"].decode()
            if name in shard_of:
                raise ValueError(
                    f"frame {name} is in {shard_of[name]} and in {shard}: predictions are "
                    "stored by frame id, so evaluate sets with common ids one at a time"
                )
            shard_of[name] = shard
            for kind, field in (("seg", "labels"), ("flow", "flow")):
                if fields[field]:
                    frame_ids[kind].append(name)
    return frame_ids
