"""What is reached without learning, on any records: a yardstick for every table.

    python -m experiments.studies.baselines --records GLOB[,GLOB] --metrics_json FILE

Flow, on every pair that has flow truth, at its own size: OpenCV's DIS (Kroeger et al., Fast Optical
Flow using Dense Inverse Search, 2016) and Farneback (Two-Frame Motion Estimation Based on
Polynomial Expansion, 2003), and no motion at all. Classes, on every labelled frame that is the
second frame of another labelled one: that one's true labels, as they are and moved by DIS.

Scores are those of `flowseg.evaluate`, which says what foreground (fg) and background (bg) are;
the file holds them as <method>/<score>, those of DIS also under evaluate's own names.
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
from tqdm import tqdm

from flowseg import files, tables
from flowseg.data import decoding, records
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
    """Farneback's flow, with the settings of OpenCV's own sample: as `dis_flow`."""
    return cv2.calcOpticalFlowFarneback(grey1, grey2, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def _grey(data, name):
    # Grey as the decoder makes it: `cvtColor` rounds otherwise, which moves DIS by 5 %.
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError(f"{name}: an image is damaged; convert this data again")
    return image


def pairs_with_flow(
    files: Sequence[Path | str], label_set: LabelSet
) -> Iterator[tuple[str, list[np.ndarray], dict]]:
    """Yields (folder/frame id, [grey1, grey2], decoded frame) of pairs with flow.

    Raises:
        ValueError: a damaged shard or picture, by name.
    """
    frames = decoding.evaluation_data(files, label_set).as_numpy_iterator()
    with records.named_errors(files):
        for path in files:
            for index, fields in records.read_shard(path):
                wanted, name = fields["flow"] and fields["image2"], f"{path}, record {index}"
                greys = wanted and [_grey(fields[key], name) for key in ("image1", "image2")]
                frame = next(frames)
                if wanted:
                    # Made pairs are named like KITTI's: the folder tells them apart.
                    yield f"{Path(path).parent.name}/{frame['frame_id'].decode()}", greys, frame


def score_flow(
    files: Sequence[Path | str], label_set: LabelSet, preset: str = "medium"
) -> tuple[dict, dict, collections.Counter]:
    """Scores of flow without learning.

    Args:
        files: record shards; frames without flow are passed over.
        label_set: classes of the labels, by which foreground is known where there is no map.
        preset: key of PRESETS.

    Returns:
        (per_pair, pooled, sources): {folder/frame id: {method: scores}}, sorted, and
        {method: scores}, the scores as `flowseg.evaluate` names them, and `seconds_per_pair`; and
        by what so many pairs' foreground is known. All empty if no frame has flow.

    Raises:
        ValueError: a damaged file; frames too small for DIS.
    """
    counts, seconds = {method: {} for method in METHODS}, {method: [] for method in METHODS}
    per_pair, sources = {}, collections.Counter()
    pairs = pairs_with_flow(files, label_set)
    for name, greys, frame in tqdm(pairs, unit="pair", disable=None):
        if name in per_pair:
            raise ValueError(f"{name}: two pairs of this name: score their sets one by one")
        per_pair[name] = {}
        for method, ask in (
            ("zero", lambda a, b: np.zeros((*a.shape, 2), np.float32)),
            ("dis", lambda a, b: dis_flow(a, b, preset)),
            ("farneback", farneback_flow),
        ):
            begin = time.perf_counter()
            flow = ask(*greys)
            seconds[method].append(time.perf_counter() - begin)
            own, source = count_frame(frame, None, flow, label_set)
            counts[method] = frame_scores.add(counts[method], own)
            per_pair[name][method] = frame_scores.scores(own)
            per_pair[name][method]["seconds_per_pair"] = seconds[method][-1]
        if source:
            sources[source] += 1
    if not per_pair:
        return {}, {}, sources
    pooled = {
        method: frame_scores.scores(own) | {"seconds_per_pair": float(np.mean(seconds[method]))}
        for method, own in counts.items()
    }
    return dict(sorted(per_pair.items())), pooled, sources


def score_labels(
    files: Sequence[Path | str], label_set: LabelSet, preset: str = "medium"
) -> tuple[dict[str, dict[str, float]], int]:
    """Scores of the labels of the frame before.

    Args:
        files: record shards. A frame is followed by that whose first image is, byte for byte, its
            second one.
        label_set: the classes.
        preset: of DIS, which finds where each pixel was before.

    Returns:
        ({method: scores}, how many frames); empty and 0 if no labelled frame follows another.
    """
    # Labels alone are kept: the frames of a large set do not fit into memory.
    labels = {}
    for path in files:
        for index, fields in records.read_shard(path):
            if fields["labels"]:
                told = fields["labels"], fields["label_set"].decode(), f"{path}, record {index}"
                labels[_digest(fields["image1"])] = told
    counts, frames = {method: {} for method in LABEL_METHODS}, 0
    pairs = (
        (fields, labels[_digest(fields["image2"])])
        for path in files
        for _, fields in records.read_shard(path)
        if fields["labels"] and _digest(fields["image2"]) in labels
    )
    for fields, following in tqdm(pairs, unit="frame", disable=None):
        own = labels[_digest(fields["image1"])]
        before, truth = (_train_ids(*told, label_set) for told in (own, following))
        back = dis_flow(*(_grey(fields[key], own[-1]) for key in ("image2", "image1")), preset)
        y, x = np.mgrid[: truth.shape[0], : truth.shape[1]].astype(np.float32)
        moved = cv2.remap(
            before, x + back[..., 0], y + back[..., 1], cv2.INTER_NEAREST, None,
            cv2.BORDER_REPLICATE,
        )  # fmt: skip
        for method, answer in zip(LABEL_METHODS, (before, moved), strict=True):
            own = frame_scores.count_seg(truth, answer, len(label_set.names))
            counts[method] = frame_scores.add(counts[method], own)
        frames += 1
    if not frames:
        return {}, 0
    return {m: frame_scores.scores(own, label_set.names) for m, own in counts.items()}, frames


def _digest(data):
    return hashlib.sha256(data).digest()


def _train_ids(data, numbering, name, label_set):
    """(H, W) uint8 of a record's labels."""
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
    """Markdown of what `score_flow` gives: a row a pair and method, and of all pairs together."""
    rows = []
    for name, methods in {**per_pair, f"all {len(per_pair)}": pooled}.items():
        for method, scores in methods.items():
            cells = (f"{scores[key]:.3f}" if key in scores else "-" for key in COLUMNS)
            rows.append([name, method, *cells])
    return tables.markdown(["pair", "flow", *COLUMNS.values()], rows, left=2)


def label_table(scores: dict[str, dict[str, float]], frames: int) -> str:
    """Markdown of what `score_labels` gives."""
    keys = {"seg/miou": "mIoU (%)", "seg/pixel_accuracy": "pixels (%)"}
    rows = []
    for method, own in scores.items():
        name = {"previous": "as they are", "previous moved": "moved by DIS"}[method]
        cells = (f"{own[key]:.2f}" if key in own else "-" for key in keys)
        rows.append([f"{name}, {frames} frames", *cells])
    return tables.markdown(["labels of the frame before", *keys.values()], rows)


def define_flags():
    """The flags of this command."""
    flags.DEFINE_list("records", None, "Record shards: GLOB[,GLOB].", required=True)
    flags.DEFINE_enum("preset", "medium", list(PRESETS), "OpenCV's settings of DIS.")
    flags.DEFINE_string("label_set", "cityscapes", "Classes: a built-in name, or a JSON file.")
    flags.DEFINE_string("metrics_json", None, "File for the scores; default: none.")


def main():
    """Score and tell."""
    args = flags.FLAGS
    shards = records.match_files(*args.records)
    label_set = load_label_set(args.label_set)
    decoding.check_records(shards, label_set)
    per_pair, pooled, sources = score_flow(shards, label_set, args.preset)
    by_labels, frames = score_labels(shards, label_set, args.preset)
    if not (pooled or by_labels):
        raise ValueError(
            f"{shards[0]}: no pair with flow truth, and no labelled frame after another"
        )
    if pooled:
        print(table(per_pair, pooled))
        for source, pairs in sources.items():
            print(f"foreground (fg) by {source}: {pairs} pairs")
    if by_labels:
        print(label_table(by_labels, frames))
    if args.metrics_json:
        found = {**pooled, **{m.replace(" ", "_"): own for m, own in by_labels.items()}}
        named = {f"{m}/{key}": value for m, own in found.items() for key, value in own.items()}
        files.write_json(args.metrics_json, pooled.get("dis", {}) | named)
        print(f"wrote {args.metrics_json}")


if __name__ == "__main__":
    define_flags()
    entry.run(main)
