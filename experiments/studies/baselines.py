"""Score methods without learning on any records, as a baseline for every table.

    python -m experiments.studies.baselines --records GLOB[,GLOB] --metrics_json FILE

Flow, on every pair with ground-truth flow, at its own size: OpenCV's DIS (Kroeger et al., Fast
Optical Flow using Dense Inverse Search, 2016) and Farneback (Two-Frame Motion Estimation Based on
Polynomial Expansion, 2003), and zero motion. Classes, on every labelled frame that is the second
frame of another labelled frame: the ground-truth labels of that earlier frame, unchanged and warped
by DIS.

Scores are those of `flowseg.evaluate`, which defines foreground (fg) and background (bg); the file
holds them as <method>/<score>, and those of DIS also under the names of `flowseg.evaluate`.
"""

import collections
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from flowseg.cli import entry

# isort: split
import cv2
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from flowseg import files, tables
from flowseg.cli import flags as shared_flags
from flowseg.data import decoding, records, videos
from flowseg.data.labels import LabelSet, load_label_set, train_id_table
from flowseg.scoring import frame_scores
from flowseg.scoring.evaluation import count_frame

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
METHODS = ("zero", "dis", "farneback")
LABEL_METHODS = ("previous", "previous moved")


def dis_flow(grey1: np.ndarray, grey2: np.ndarray, preset: str = "medium") -> np.ndarray:
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


def farneback_flow(grey1: np.ndarray, grey2: np.ndarray) -> np.ndarray:
    """Farneback's flow, with the settings of OpenCV's sample; same arguments as `dis_flow`."""
    return cv2.calcOpticalFlowFarneback(grey1, grey2, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def _grey(data, name):
    # Decoded directly to grey: `cvtColor` rounds differently, which changes DIS by 5 %.
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"{name}: an image is damaged; convert this data again")
    return image


def pairs_with_flow(
    files: Sequence[Path | str], label_set: LabelSet
) -> Iterator[tuple[str, list[np.ndarray], dict]]:
    """Yields (folder/frame id, [grey1, grey2], decoded frame) of pairs with flow.

    Raises:
        ValueError: a damaged shard or image, which the message names.
    """
    decode = decoding.frame_decoder(label_set, maps=True)
    keys = ("image1", "image2")

    def with_files(record, shard):
        fields = records.parse_example(record)
        return decode(record), [fields[key] for key in keys], fields["flow"] != "", shard

    with records.named_errors(files):
        frames = videos.in_order(files).map(with_files, tf.data.AUTOTUNE)
        for frame, images, has_flow, shard in frames.prefetch(2).as_numpy_iterator():
            if has_flow:
                # Synthetic pairs are named like KITTI's: the folder distinguishes them.
                name = f"{Path(shard.decode()).parent.name}/{frame['frame_id'].decode()}"
                yield name, [_grey(image, name) for image in images], frame


def score_flow(
    files: Sequence[Path | str], label_set: LabelSet, preset: str = "medium"
) -> tuple[dict, dict, collections.Counter]:
    """Scores of flow methods without learning.

    Args:
        files: record shards; frames without flow are skipped.
        label_set: classes of the labels, which define the foreground if there is no map.
        preset: key of PRESETS.

    Returns:
        (per_pair, pooled, sources): {folder/frame id: {method: scores}}, sorted, and
        {method: scores}, the scores as `flowseg.evaluate` names them, and `seconds_per_pair`; and
        the number of pairs by source of the foreground. All empty if no frame has flow.

    Raises:
        ValueError: a damaged file; frames too small for DIS.
    """
    counts, seconds = {method: {} for method in METHODS}, {method: [] for method in METHODS}
    per_pair, sources = {}, collections.Counter()
    pairs = pairs_with_flow(files, label_set)
    for name, greys, frame in tqdm(pairs, unit="pair", disable=None):
        if name in per_pair:
            raise ValueError(f"{name}: two pairs have this name: score their sets separately")
        per_pair[name] = {}
        for method, method_flow in (
            ("zero", lambda a, b: np.zeros((*a.shape, 2), np.float32)),
            ("dis", lambda a, b: dis_flow(a, b, preset)),
            ("farneback", farneback_flow),
        ):
            begin = time.perf_counter()
            flow = method_flow(*greys)
            seconds[method].append(time.perf_counter() - begin)
            frame_counts, source = count_frame(frame, None, flow, label_set)
            counts[method] = frame_scores.add(counts[method], frame_counts)
            per_pair[name][method] = frame_scores.scores(frame_counts)
            per_pair[name][method]["seconds_per_pair"] = seconds[method][-1]
        if source:
            sources[source] += 1
    if not per_pair:
        return {}, {}, sources
    pooled = {
        method: frame_scores.scores(frame_counts)
        | {"seconds_per_pair": float(np.mean(seconds[method]))}
        for method, frame_counts in counts.items()
    }
    return dict(sorted(per_pair.items())), pooled, sources


def score_labels(
    files: Sequence[Path | str], label_set: LabelSet, preset: str = "medium"
) -> tuple[dict[str, dict[str, float]], int]:
    """Scores of the labels of the previous frame.

    Args:
        files: record shards. A frame's successor is the one whose first image equals the frame's
            second image, byte for byte.
        label_set: the classes.
        preset: settings of DIS, which computes the previous position of each pixel.

    Returns:
        ({method: scores}, number of frames); empty and 0 if no labelled frame follows another.
    """
    # Only labels are stored: the frames of a large set do not fit into memory.
    labels = {}
    for path in files:
        for index, fields in records.read_shard(path):
            if fields["labels"]:
                entry = fields["labels"], fields["label_set"].decode(), f"{path}, record {index}"
                labels[_digest(fields["image1"])] = entry
    counts, frames = {method: {} for method in LABEL_METHODS}, 0
    pairs = (
        (fields, labels[_digest(fields["image2"])])
        for path in files
        for _, fields in records.read_shard(path)
        if fields["labels"] and _digest(fields["image2"]) in labels
    )
    for fields, following in tqdm(pairs, unit="frame", disable=None):
        current = labels[_digest(fields["image1"])]
        previous, truth = (_train_ids(*labelled, label_set) for labelled in (current, following))
        back = dis_flow(*(_grey(fields[key], current[-1]) for key in ("image2", "image1")), preset)
        y, x = np.mgrid[: truth.shape[0], : truth.shape[1]].astype(np.float32)
        moved = cv2.remap(
            previous, x + back[..., 0], y + back[..., 1], cv2.INTER_NEAREST, None,
            cv2.BORDER_REPLICATE,
        )  # fmt: skip
        for method, predicted in zip(LABEL_METHODS, (previous, moved), strict=True):
            frame_counts = frame_scores.count_seg(truth, predicted, len(label_set.names))
            counts[method] = frame_scores.add(counts[method], frame_counts)
        frames += 1
    if not frames:
        return {}, 0
    return {m: frame_scores.scores(total, label_set.names) for m, total in counts.items()}, frames


def _digest(data):
    return hashlib.sha256(data).digest()


def _train_ids(data, numbering, name, label_set):
    """(H, W) uint8 train ids of a record's labels."""
    ids = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if ids is None:
        raise ValueError(f"{name}: its labels are damaged; convert this data again")
    return train_id_table(label_set, numbering)[ids]


COLUMNS = {
    "flow/aepe": "AEPE (px)",
    "flow/fl_all": "Fl-all (%)",
    "flow/fl_bg": "Fl-bg (%)",
    "flow/fl_fg": "Fl-fg (%)",
    "flow/fl_all_per_image": "per image (%)",
    "flow/aepe_noc": "AEPE noc (px)",
    "flow/fl_all_noc": "Fl-all noc (%)",
    "seconds_per_pair": "seconds",
}


def table(
    per_pair: dict[str, dict[str, dict[str, float]]], pooled: dict[str, dict[str, float]]
) -> str:
    """Markdown of `score_flow`'s results: one row per pair and method, and for all pairs."""
    rows = []
    for name, methods in {**per_pair, f"all {len(per_pair)}": pooled}.items():
        for method, scores in methods.items():
            cells = (f"{scores[key]:.3f}" if key in scores else "-" for key in COLUMNS)
            rows.append([name, method, *cells])
    return tables.markdown(["pair", "flow", *COLUMNS.values()], rows, left=2)


def label_table(scores: dict[str, dict[str, float]], frames: int) -> str:
    """Markdown of `score_labels`'s results."""
    keys = {"seg/miou": "mIoU (%)", "seg/pixel_accuracy": "pixels (%)"}
    rows = []
    for method, values in scores.items():
        name = {"previous": "unchanged", "previous moved": "warped by DIS"}[method]
        cells = (f"{values[key]:.2f}" if key in values else "-" for key in keys)
        rows.append([f"{name}, {frames} frames", *cells])
    return tables.markdown(["labels of the previous frame", *keys.values()], rows)


def define_flags():
    """Define the flags of this command."""
    shared_flags.define_record_sets("records", None, "Record shards: GLOB[,GLOB].", required=True)
    flags.DEFINE_enum("preset", "medium", list(PRESETS), "OpenCV's preset of DIS.")
    flags.DEFINE_string("label_set", "cityscapes", "Classes: a built-in name, or a JSON file.")
    flags.DEFINE_string("metrics_json", None, "JSON file for the scores; default: none.")


def main():
    """Score and print."""
    args = flags.FLAGS
    shards = records.match_files(*args.records)
    label_set = load_label_set(args.label_set)
    decoding.check_records(shards, label_set)
    per_pair, pooled, sources = score_flow(shards, label_set, args.preset)
    by_labels, frames = score_labels(shards, label_set, args.preset)
    if not (pooled or by_labels):
        raise ValueError(
            f"{shards[0]}: no pair with ground-truth flow, "
            "and no labelled frame that follows another"
        )
    if pooled:
        print(table(per_pair, pooled))
        for source, pairs in sources.items():
            print(f"foreground (fg) by {source}: {pairs} pairs")
    if by_labels:
        print(label_table(by_labels, frames))
    if args.metrics_json:
        by_method = {**pooled, **{m.replace(" ", "_"): values for m, values in by_labels.items()}}
        named = {
            f"{m}/{key}": value for m, values in by_method.items() for key, value in values.items()
        }
        files.write_json(args.metrics_json, pooled.get("dis", {}) | named)
        print(f"wrote {args.metrics_json}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
