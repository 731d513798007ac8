"""Independent judges of FlowSeg's scores, after KITTI's and Cityscapes' own definitions.

    python -m tests.support.official --truth FOLDER --predictions DIR --metrics_json FILE

FOLDER is KITTI's or Cityscapes' as `data_prep` reads it. DIR holds a folder a frame
(000002_10/flow.png and seg.png, as `flowseg.predict --seg_ids label` writes them), FILE is what
`flowseg.evaluate` wrote for the same frames. Prints both sides and exits with 1 where they differ
by more than the rounding of the files can explain.

Flow: evaluate_scene_flow.cpp of the KITTI 2015 development kit, and flow_error.m beside it.
Labels: cityscapesscripts' own functions. Nothing of flowseg's scoring is used here, and no
decoder of it.
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
# FlowSeg's own scores, and those on foreground where no object map says what that is.
UNJUDGED = re.compile(
    r"seg/boundary_f(/.+)?|flow/(aepe|fl)_(0_10|10_40|40_up|hidden)|flow/(aepe|fl)_[bf]g(_noc)?"
)
# A void id of Cityscapes ("unlabeled"); 255 stands for its -1, which 8 bits cannot hold.
UNLABELED, NO_ID = 0, 255


def read_flow(path):
    """A KITTI flow PNG: (H, W, 2) float64 (u, v) in pixels, and (H, W) bool where it is known."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{path}: missing, or not a PNG of 16 bits and 3 channels")
    blue, green, red = (image[..., i].astype(np.float64) for i in range(3))
    return np.stack([(red - 32768.0) / 64.0, (green - 32768.0) / 64.0], -1), blue > 0


def read_labels(path):
    """A PNG of label ids: (H, W) uint8."""
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if ids is None or ids.dtype != np.uint8 or ids.ndim != 2:
        raise ValueError(f"{path}: missing, or not a PNG of 8 bits and 1 channel")
    return ids


def read_instances(path):
    """An instance map in Cityscapes' coding, (H, W) uint16; None if there is no such file."""
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if ids is None or path.name.endswith("_gtFine_instanceIds.png"):
        return ids
    label, number = ids // 256, ids % 256
    return np.where(number > 0, label * 1000 + number, label).astype(np.uint16)


def judge_flow(frames, suffix=""):
    """KITTI's scores.

    Args:
        frames: iterable of (truth (H, W, 2), where it is valid (H, W) bool, answer (H, W, 2),
            object map (H, W), 0 on the background, or None).
        suffix: appended to the names, as "_noc".

    Returns:
        dict of `flow/aepe`, `flow/fl_all` (both over all valid pixels of all frames) and
        `flow/fl_all_per_image`; `flow/fl_bg` and `flow/fl_fg` over frames with an object map;
        empty if no pixel is valid.
    """
    pixels, outliers, total, shares = 0, 0, 0.0, []
    grounds = {"bg": [0, 0], "fg": [0, 0]}
    for truth, valid, answer, objects in frames:
        truth, answer = truth[valid].astype(np.float64), answer[valid].astype(np.float64)
        if not len(truth):
            continue
        distance = np.sqrt(((truth - answer) ** 2).sum(-1))
        magnitude = np.sqrt((truth**2).sum(-1))
        # As the kit divides: where the truth is rest, x / 0 is infinite, and over 5 %.
        with np.errstate(divide="ignore", invalid="ignore"):
            wrong = (distance > 3.0) & (distance / magnitude > 0.05)
        pixels, outliers = pixels + len(truth), outliers + int(wrong.sum())
        total += float(distance.sum())
        shares.append(float(wrong.mean()))
        for is_fg, at in zip((False, True), grounds.values(), strict=True):
            mine = np.zeros(len(wrong), bool) if objects is None else (objects[valid] > 0) == is_fg
            at[0] += int((wrong & mine).sum())
            at[1] += int(mine.sum())
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
    """Cityscapes' scores, by cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling.

    Args:
        frames: iterable of (truth, answer), both (H, W) uint8 label ids. 255 counts as unlabeled:
            nowhere in the truth, as a miss in an answer. Or all frames with a third, an instance
            map (H, W) uint16 in Cityscapes' coding: id * 1000 + number, or the id alone.

    Returns:
        dict of `seg/miou`, `seg/pixel_accuracy`, `seg/iou/<class>`, `seg/category_miou`,
        `seg/category_iou/<category>` and, with instance maps, `seg/iiou`, `seg/category_iiou`, and
        these by name, in percent; what Cityscapes gives no number is left out; empty if no pixel
        has a scored class.
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
            for kind, ids, paths in zip(("truth", "answer"), images, lists, strict=True):
                ids = np.where(ids == NO_ID, UNLABELED, ids).astype(np.uint8)
                if not set(np.unique(ids).tolist()) <= set(id2label):
                    raise ValueError(f"{kind} {i}: ids that Cityscapes does not have")
                paths.append(f"{folder}/{kind}_{i}_labelIds.png")
                cv2.imwrite(paths[-1], ids)
        # Its way of failing is to print and leave.
        said = io.StringIO()
        try:
            # Left NumPy with 2.4, and it still calls it.
            in1d = mock.patch.object(np, "in1d", _in1d, create=True)
            with contextlib.redirect_stdout(said), in1d:
                result = judge.evaluateImgLists(lists[1], lists[0], args)
        except SystemExit as error:
            raise ValueError(f"cityscapesscripts: {said.getvalue().strip()}") from error
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
    """Where a frame's label ids and its instance map would be, in KITTI's or Cityscapes' layout."""
    kitti = Path(truth) / "data_semantics" / "training"
    city = [*Path(truth).glob(f"gtFine/*/*/{frame_id}_gtFine_labelIds.png"), None][0]
    if city:
        return city, city.with_name(f"{frame_id}_gtFine_instanceIds.png")
    return kitti / "semantic" / f"{frame_id}.png", kitti / "instance" / f"{frame_id}.png"


def judge_folders(truth, predictions):
    """The official scores of written answers; names as in `flowseg.evaluate`'s JSON.

    Args:
        truth: folder with the official data_scene_flow and data_semantics, or one of them; or with
            Cityscapes' gtFine.
        predictions: folder that holds `<frame id>/flow.png` and `<frame id>/seg.png`.

    Raises:
        ValueError: no answers, an answer without truth, or a file that is no such answer.
    """
    flow_set = Path(truth) / "data_scene_flow" / "training"
    answers = sorted(path for path in Path(predictions).glob("*") if path.is_dir())
    if not answers:
        raise ValueError(f"{predictions}: holds no folder of a frame's answers")
    for answer in answers:
        flow = flow_set / "flow_occ" / f"{answer.name}.png"
        if not flow.is_file() and not label_files(truth, answer.name)[0].is_file():
            raise ValueError(f"{answer}: {truth} has no truth for this frame")

    labelled = [(*label_files(truth, answer.name), answer / "seg.png") for answer in answers]
    labelled = [files for files in labelled if files[0].is_file()]

    def flows(kind):
        pairs = [(flow_set / kind / f"{path.name}.png", path / "flow.png") for path in answers]
        for there, path in (pair for pair in pairs if pair[0].is_file()):
            (flow, valid), (answer, known) = read_flow(there), read_flow(path)
            _check_size(path, answer, flow)
            # The kit fills holes of an answer from the pixels around; FlowSeg's are whole.
            holes = int((valid & ~known).sum())
            if holes:
                raise ValueError(f"{path}: unknown at {holes} px that {there} has truth for")
            objects = flow_set / "obj_map" / there.name
            yield flow, valid, answer, read_labels(objects) if objects.is_file() else None

    def labels():
        for there, instances, path in labelled:
            ids, answer, things = read_labels(there), read_labels(path), read_instances(instances)
            _check_size(path, answer, ids)
            yield (ids, answer) if things is None else (ids, answer, things)

    return {
        **(judge_labels(labels()) if labelled else {}),
        **judge_flow(flows("flow_occ")),
        **judge_flow(flows("flow_noc"), "_noc"),
    }


def _check_size(path, answer, truth):
    if answer.shape[:2] != truth.shape[:2]:
        raise ValueError(f"{path}: is {answer.shape[:2]}, the truth is {truth.shape[:2]}")


def bound(name):
    """How much the score `name` may differ; None if it is none of the judged scores."""
    return next((limit for start, limit in BOUNDS.items() if name.startswith(start)), None)


def compare(official, flowseg):
    """Rows (name, official, FlowSeg's, whether they agree) of every score that either side has."""
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
    """The rows of `compare` as lines of text."""
    told = [("score", "official", "flowseg", "difference", "bound", "")]
    for name, ours, theirs, agree in rows:
        numbers = ("-" if number is None else f"{number:.5f}" for number in (ours, theirs))
        gap = "-" if None in (ours, theirs) else f"{theirs - ours:+.6f}"
        told.append((name, *numbers, gap, f"{bound(name):g}", "" if agree else "<-- differs"))
    return tables.plain(told)


def main():
    """Judge the written answers and hold FlowSeg's numbers against it."""
    args = flags.FLAGS
    content = json.loads(Path(args.metrics_json).read_text())
    rows = compare(judge_folders(args.truth, args.predictions), content)
    print(table(rows))
    wrong = [name for name, *_, agree in rows if not agree]
    if wrong:
        raise ValueError(f"{args.metrics_json}: not the official scores: {', '.join(wrong)}")
    print(f"{len(rows)} scores agree")


if __name__ == "__main__":
    flags.DEFINE_string("truth", None, "KITTI's or Cityscapes' folder.", required=True)
    flags.DEFINE_string("predictions", None, "Folder of <frame id>/{flow,seg}.png.", required=True)
    flags.DEFINE_string("metrics_json", None, "What flowseg.evaluate wrote.", required=True)
    entry.run(main)
