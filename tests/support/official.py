"""Compute the official scores independently, by KITTI's and Cityscapes' definitions.

    python -m tests.support.official --truth FOLDER --predictions DIR --metrics_json FILE

FOLDER is the KITTI or Cityscapes folder that `data_prep` reads. DIR has a folder per frame
(000002_10/flow.png and seg.png, as written by `flowseg.predict --seg_ids label`), FILE was written
by `flowseg.evaluate` for the same frames. Prints both sets of scores and exits with 1 if they
differ by more than the rounding in the files can explain.

Flow: evaluate_scene_flow.cpp of the KITTI 2015 development kit, and flow_error.m.
Labels: functions of cityscapesscripts. Neither FlowSeg's scoring nor its decoders are used here.
"""

import contextlib
import copy
import io
import json
import math
import re
import tempfile
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from absl import flags

from flowseg import tables
from flowseg.cli import entry

# Largest differences between the unrounded run and its written files: pixels, else percent.
BOUNDS = {"flow/aepe": 1e-3, "flow/fl_": 0.05, "seg/": 0.01}
# Scores that only FlowSeg has, and foreground scores, which need an object map.
UNJUDGED = re.compile(
    r"seg/boundary_f(/.+)?|flow/(aepe|fl)_(0_10|10_40|40_up|40_100|100_up|occluded)|flow/(aepe|fl)_[bf]g(_noc)?"
)
# A void id of Cityscapes ("unlabeled"); 255 represents its -1, which does not fit 8 bits.
UNLABELED, NO_ID = 0, 255


def read_flow(path):
    """Read a KITTI flow PNG: (H, W, 2) float64 (u, v) in pixels, and the valid mask (H, W) bool."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{path}: missing, or not a PNG of 16 bits and 3 channels")
    blue, green, red = (image[..., i].astype(np.float64) for i in range(3))
    return np.stack([(red - 32768.0) / 64.0, (green - 32768.0) / 64.0], -1), blue > 0


def read_labels(path):
    """Read a PNG of label ids: (H, W) uint8."""
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if ids is None or ids.dtype != np.uint8 or ids.ndim != 2:
        raise ValueError(f"{path}: missing, or not a PNG of 8 bits and 1 channel")
    return ids


def read_instances(path):
    """Read an instance map in Cityscapes' encoding, (H, W) uint16; None if the file is missing."""
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if ids is None or path.name.endswith("_gtFine_instanceIds.png"):
        return ids
    label, number = ids // 256, ids % 256
    return np.where(number > 0, label * 1000 + number, label).astype(np.uint16)


def judge_flow(frames, suffix=""):
    """Compute KITTI's scores.

    Args:
        frames: iterable of (ground truth (H, W, 2), its valid mask (H, W) bool, prediction
            (H, W, 2), object map (H, W), 0 on the background, or None).
        suffix: suffix of the names, such as "_noc".

    Returns:
        dict of `flow/aepe`, `flow/fl_all` (both over all valid pixels of all frames) and
        `flow/fl_all_per_image`; `flow/fl_bg` and `flow/fl_fg` over frames with an object map;
        empty if no pixel is valid.
    """
    pixels, outliers, total, shares = 0, 0, 0.0, []
    grounds = {"bg": [0, 0], "fg": [0, 0]}
    for truth, valid, prediction, objects in frames:
        truth, prediction = truth[valid].astype(np.float64), prediction[valid].astype(np.float64)
        if not len(truth):
            continue
        distance = np.sqrt(((truth - prediction) ** 2).sum(-1))
        magnitude = np.sqrt((truth**2).sum(-1))
        # Like the kit: where the true motion is zero, x / 0 is infinite, and over 5 %.
        with np.errstate(divide="ignore", invalid="ignore"):
            wrong = (distance > 3.0) & (distance / magnitude > 0.05)
        pixels, outliers = pixels + len(truth), outliers + int(wrong.sum())
        total += float(distance.sum())
        shares.append(float(wrong.mean()))
        for is_fg, totals in zip((False, True), grounds.values(), strict=True):
            mask = np.zeros(len(wrong), bool) if objects is None else (objects[valid] > 0) == is_fg
            totals[0] += int((wrong & mask).sum())
            totals[1] += int(mask.sum())
    if not pixels:
        return {}
    scores = {
        "flow/aepe": total / pixels,
        "flow/fl_all": 100.0 * outliers / pixels,
        "flow/fl_all_per_image": 100.0 * sum(shares) / len(shares),
    }
    scores |= {f"flow/fl_{key}": 100.0 * bad / n for key, (bad, n) in grounds.items() if n}
    return {name + suffix: score for name, score in scores.items()}


def judge_labels(frames):
    """Compute scores with cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling.

    Args:
        frames: iterable of (ground truth, prediction), both (H, W) uint8 label ids. 255 counts as
            unlabeled: ignored in the ground truth, wrong in a prediction. Optionally all frames
            with an instance map (H, W) uint16 in Cityscapes' encoding: id * 1000 + number, or id.

    Returns:
        dict of `seg/miou`, `seg/pixel_accuracy`, `seg/iou/<class>`, `seg/category_miou`,
        `seg/category_iou/<category>` and, with instance maps, `seg/iiou`, `seg/category_iiou`, and
        these by name, in percent; without scores that are NaN; empty if no pixel has a scored
        class.
    """
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as judge
    from cityscapesscripts.helpers.labels import id2label

    args = copy.copy(judge.args)
    args.evalPixelAccuracy = args.JSONOutput = False
    args.quiet, args.evalInstLevelScore = True, False
    with tempfile.TemporaryDirectory() as folder:
        lists = [], []
        for i, (*images, instances) in enumerate(f if len(f) == 3 else (*f, None) for f in frames):
            if instances is not None:
                args.evalInstLevelScore = True
                cv2.imwrite(f"{folder}/truth_{i}_instanceIds.png", instances)
            for kind, ids, paths in zip(("truth", "prediction"), images, lists, strict=True):
                ids = np.where(ids == NO_ID, UNLABELED, ids).astype(np.uint8)
                if not set(np.unique(ids).tolist()) <= set(id2label):
                    raise ValueError(f"{kind} {i}: ids that Cityscapes does not have")
                paths.append(f"{folder}/{kind}_{i}_labelIds.png")
                cv2.imwrite(paths[-1], ids)
        # On errors, cityscapesscripts prints a message and exits.
        printed = io.StringIO()
        try:
            # cityscapesscripts calls np.in1d, which NumPy 2.4 removed.
            in1d = mock.patch.object(np, "in1d", _in1d, create=True)
            with contextlib.redirect_stdout(printed), in1d:
                result = judge.evaluateImgLists(lists[1], lists[0], args)
        except SystemExit as error:
            raise ValueError(f"cityscapesscripts: {printed.getvalue().strip()}") from error
    confusion = np.array(result["confMatrix"], np.float64)
    scored = [i for i in args.evalLabels if not id2label[i].ignoreInEval]
    pixels = confusion[scored].sum()
    if not pixels:
        return {}
    scores = {
        "seg/miou": result["averageScoreClasses"],
        "seg/pixel_accuracy": float(confusion[scored, scored].sum() / pixels),
        "seg/category_miou": result["averageScoreCategories"],
        **{f"seg/iou/{name}": iou for name, iou in result["classScores"].items()},
        **{f"seg/category_iou/{name}": iou for name, iou in result["categoryScores"].items()},
    }
    if args.evalInstLevelScore:
        scores["seg/iiou"] = result["averageScoreInstClasses"]
        scores["seg/category_iiou"] = result["averageScoreInstCategories"]
        for key, name in (("iiou", "classInstScores"), ("category_iiou", "categoryInstScores")):
            scores |= {f"seg/{key}/{thing}": iou for thing, iou in result[name].items()}
    return {name: 100.0 * score for name, score in scores.items() if not math.isnan(score)}


def _in1d(array, values, invert=False):
    return np.isin(np.ravel(array), values, invert=invert)


def label_files(truth, frame_id):
    """Return paths of a frame's label ids and instance map, in KITTI's or Cityscapes' layout."""
    kitti = Path(truth) / "data_semantics" / "training"
    city = [*Path(truth).glob(f"gtFine/*/*/{frame_id}_gtFine_labelIds.png"), None][0]
    if city:
        return city, city.with_name(f"{frame_id}_gtFine_instanceIds.png")
    return kitti / "semantic" / f"{frame_id}.png", kitti / "instance" / f"{frame_id}.png"


def judge_folders(truth, predictions):
    """Compute the official scores of prediction files; names as in `flowseg.evaluate`'s JSON.

    Args:
        truth: folder with the official data_scene_flow and data_semantics, or one of them; or with
            Cityscapes' gtFine.
        predictions: folder that contains `<frame id>/flow.png` and `<frame id>/seg.png`.

    Raises:
        ValueError: there are no predictions, one has no ground truth, or a file is invalid.
    """
    flow_set = Path(truth) / "data_scene_flow" / "training"
    folders = sorted(path for path in Path(predictions).glob("*") if path.is_dir())
    if not folders:
        raise ValueError(f"{predictions}: contains no folder with predictions of a frame")
    for folder in folders:
        flow = flow_set / "flow_occ" / f"{folder.name}.png"
        if not flow.is_file() and not label_files(truth, folder.name)[0].is_file():
            raise ValueError(f"{folder}: {truth} has no ground truth for this frame")

    labelled = [(*label_files(truth, folder.name), folder / "seg.png") for folder in folders]
    labelled = [files for files in labelled if files[0].is_file()]

    def flows(kind):
        pairs = [(flow_set / kind / f"{path.name}.png", path / "flow.png") for path in folders]
        for truth_path, path in (pair for pair in pairs if pair[0].is_file()):
            (flow, valid), (prediction, known) = read_flow(truth_path), read_flow(path)
            _check_size(path, prediction, flow)
            # The kit fills holes from surrounding pixels; FlowSeg's predictions are dense.
            holes = int((valid & ~known).sum())
            if holes:
                raise ValueError(f"{path}: invalid at {holes} px where {truth_path} is valid")
            objects = flow_set / "obj_map" / truth_path.name
            yield flow, valid, prediction, read_labels(objects) if objects.is_file() else None

    def labels():
        for truth_path, instance_path, path in labelled:
            ids, prediction, instances = (
                read_labels(truth_path),
                read_labels(path),
                read_instances(instance_path),
            )
            _check_size(path, prediction, ids)
            yield (ids, prediction) if instances is None else (ids, prediction, instances)

    return {
        **(judge_labels(labels()) if labelled else {}),
        **judge_flow(flows("flow_occ")),
        **judge_flow(flows("flow_noc"), "_noc"),
    }


def _check_size(path, prediction, truth):
    if prediction.shape[:2] != truth.shape[:2]:
        raise ValueError(f"{path}: is {prediction.shape[:2]}, the truth is {truth.shape[:2]}")


def bound(name):
    """Return how much the score `name` may differ; None if it has no official counterpart."""
    return next((limit for start, limit in BOUNDS.items() if name.startswith(start)), None)


def compare(official, flowseg):
    """Return rows (name, official, FlowSeg's, whether they agree) of all scores of either side."""
    rows = []
    ours = (name for name in flowseg if name not in official and not UNJUDGED.fullmatch(name))
    names = [*official, *(name for name in ours if bound(name))]
    for name in names:
        pair = official.get(name), flowseg.get(name)
        agree = None not in pair and abs(pair[0] - pair[1]) <= bound(name)
        if pair != (None, None):
            rows.append((name, *pair, agree))
    return rows


def table(rows):
    """Return the rows of `compare` as a text table."""
    lines = [("score", "official", "flowseg", "difference", "bound", "")]
    for name, ours, theirs, agree in rows:
        numbers = ("-" if number is None else f"{number:.5f}" for number in (ours, theirs))
        gap = "-" if None in (ours, theirs) else f"{theirs - ours:+.6f}"
        lines.append((name, *numbers, gap, f"{bound(name):g}", "" if agree else "<-- differs"))
    return tables.plain(lines)


def main():
    """Compute the official scores and compare FlowSeg's with them."""
    args = flags.FLAGS
    content = json.loads(Path(args.metrics_json).read_text())
    rows = compare(judge_folders(args.truth, args.predictions), content)
    print(table(rows))
    wrong = [name for name, *_, agree in rows if not agree]
    if wrong:
        raise ValueError(f"{args.metrics_json}: not the official scores: {', '.join(wrong)}")
    print(f"{len(rows)} scores agree")


if __name__ == "__main__":
    flags.DEFINE_string("truth", None, "Folder of KITTI or Cityscapes.", required=True)
    flags.DEFINE_string("predictions", None, "Folder of <frame id>/{flow,seg}.png.", required=True)
    flags.DEFINE_string("metrics_json", None, "File of flowseg.evaluate.", required=True)
    entry.run(main)
