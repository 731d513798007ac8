"""FlowSeg's scores equal the official ones, on the same arrays and from written files."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data_prep import kitti
from flowseg import files
from flowseg.data import records
from flowseg.data.labels import CITYSCAPES
from flowseg.media.frames import read_image
from flowseg.predict import predict
from flowseg.scoring.evaluation import evaluate
from tests.conftest import run_command
from tests.support import official
from tests.support.kitti_writer import write_kitti

FLOW, LABELS = "data_scene_flow/training", "data_semantics/training"
FLOW_NAMES = {f"flow/{name}" for name in ("aepe", "fl_all", "fl_all_per_image")}
TRAIN, BICYCLE = CITYSCAPES.names.index("train"), CITYSCAPES.names.index("bicycle")


class FakeRun:
    """A run that predicts the ground truth of a KITTI folder with errors typical of a network."""

    label_set = CITYSCAPES

    def __init__(self, folder):
        self.predictions = {}
        rng = np.random.default_rng(0)
        for path in sorted((folder / LABELS / "image_2").glob("*_10.png")):
            image = read_image(path)
            ids = official.read_labels(folder / LABELS / "semantic" / path.name)
            flow, valid = np.zeros((*ids.shape, 2)), np.zeros(ids.shape, bool)
            if (folder / FLOW / "flow_occ" / path.name).is_file():
                flow, valid = official.read_flow(folder / FLOW / "flow_occ" / path.name)
            predictions = distort_labels(ids, rng), distort_flow(flow, valid, rng)
            self.predictions[image.tobytes()] = predictions

    def predict_logits(self, image1, image2, scale=1.0):
        """Logits and flow of the frame."""
        return self.predictions[image1.tobytes()]

    def predict(self, image1, image2, scale=1.0):
        """Train ids and flow."""
        seg, flow = self.predict_logits(image1, image2)
        return seg.argmax(-1).astype(np.uint8), flow


def distort_labels(ids, rng):
    """Label ids -> (H, W, 19) logits: shifted edges, wrong regions, classes absent in the truth."""
    height, width = ids.shape
    train_ids = np.full(256, 0)
    for train_id, (owner_id, *_) in enumerate(CITYSCAPES.ids["cityscapes"]):
        train_ids[owner_id] = train_id
    prediction = np.roll(train_ids[ids], (1, 2), (0, 1))
    for _ in range(12):
        y, x = rng.integers(0, (height, width))
        prediction[y : y + height // 6, x : x + width // 12] = rng.integers(0, TRAIN)
    prediction[height // 2 : height // 2 + 5, 4:14] = TRAIN
    logits = rng.normal(0, 1, (height, width, 19)).astype(np.float32)
    logits[..., BICYCLE] -= 20  # never predicted
    np.put_along_axis(logits, prediction[..., None], 5, -1)
    return logits


def distort_flow(flow, valid, rng):
    """Flow -> (H, W, 2) float32: mostly small errors, some near 3 px or 5 %, some large."""
    shape = valid.shape
    speed = np.hypot(flow[..., 0], flow[..., 1])
    size = np.choose(
        rng.choice(4, shape, p=[0.8, 0.08, 0.06, 0.06]),
        [
            np.abs(rng.normal(0, 0.7, shape)),
            rng.normal(3, 0.6, shape),
            speed * rng.normal(0.05, 0.01, shape),
            rng.exponential(15, shape),
        ],
    )
    angle = rng.uniform(0, 2 * np.pi, shape)
    prediction = flow + size[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    prediction[~valid] = rng.normal(0, 20, (int((~valid).sum()), 2))
    return prediction.astype(np.float32)


def synthetic_folder(folder):
    """Frames of two sizes, one with only labels, with all kinds of void in the labels."""
    write_kitti(folder, count=3, semantics_only=1, sizes=[(96, 160), (75, 213)])
    for path in (folder / LABELS / "semantic").iterdir():
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for i, void in enumerate((0, 4, 9, 29, 255)):
            ids[10 * i : 10 * i + 15, 30 * i : 30 * i + 12] = void
        ids[60:66, 10:40] = 18  # polegroup: ignored, though pole is a class
        cv2.imwrite(str(path), ids)
        # As in KITTI's maps, instances are only where the labels have their class.
        place = folder / LABELS / "instance" / path.name
        things = cv2.imread(str(place), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(place), np.where(things // 256 == ids, things, np.uint16(ids) * 256))
    return folder


@pytest.fixture(scope="module", params=["synthetic", "real"])
def case(request, tmp_path_factory):
    """A KITTI folder, the scores of a run on it by `evaluate`, and its predictions and files."""
    place = tmp_path_factory.mktemp("official")
    if request.param == "synthetic":
        folder = synthetic_folder(place / "kitti")
    else:
        folder = request.getfixturevalue("samples") / "kitti"
    kitti.convert([folder], place / "records", val_fraction=0, processes=1)
    shards = records.match_files(f"{place}/records/train-*.tfrecord")
    run, arrays = FakeRun(folder), {}

    def keep(frame, logits, flow):
        frame_id = frame["frame_id"].decode()
        arrays[frame_id] = logits, flow
        for ids in ("label", "train"):
            output = place / ids / frame_id
            predict(run, frame["image1"], frame["image2"], output, seg_ids=ids)

    scores, _ = evaluate(run, shards, each=keep)
    files.write_json(place / "metrics.json", scores)
    synthetic = request.param == "synthetic"
    return SimpleNamespace(
        folder=folder, place=place, scores=scores, arrays=arrays, synthetic=synthetic
    )


@pytest.fixture
def cityscapes():
    """Cityscapes train id -> label id, from the table of cityscapesscripts."""
    reason = "cityscapesscripts is not installed (pip install .[test])"
    labels = pytest.importorskip("cityscapesscripts.helpers.labels", reason=reason)
    table = np.zeros(256, np.uint8)
    table[:19] = [labels.trainId2label[i].id for i in range(19)]
    return table


def agree(scores, official_scores, px=1e-4, fl=1e-4, percent=1e-4):
    for name, score in official_scores.items():
        limit = px if "aepe" in name else fl if "flow/fl_" in name else percent
        assert scores[name] == pytest.approx(score, rel=0, abs=limit), name


def test_official_flow_example():
    # Distance and true magnitude of each pixel; an outlier is above 3 px and above 5 %.
    distance = np.array([[3.0, 3.1, 5.0, 5.1, 4.0, 0.0, 99.0]])
    magnitude = np.array([[1.0, 1.0, 100.0, 100.0, 0.0, 0.0, 1.0]])
    truth = np.stack([0 * magnitude, magnitude], -1)
    prediction = truth + np.stack([0 * distance, distance], -1)
    valid = distance < 99
    # Outliers: 3.1, 5.1 and 4.0 (no motion) of six pixels; none of two in the second frame.
    no_flow = np.zeros((1, 2, 2))
    objects = np.array([[0, 2, 0, 1, 1, 0, 1]])
    scores = official.judge_flow(
        [(truth, valid, prediction, objects), (no_flow, np.ones((1, 2)) > 0, no_flow, None)]
    )
    expected = {"flow/aepe": 20.2 / 8, "flow/fl_all": 37.5, "flow/fl_all_per_image": 25.0}
    # In the frame with an object map: 3 of 3 on objects, none of 3 on the background.
    assert scores == pytest.approx({**expected, "flow/fl_fg": 100.0, "flow/fl_bg": 0.0})
    assert official.judge_flow([(truth, valid & False, prediction, None)]) == {}


def test_official_labels_example(cityscapes):
    truth = np.uint8([[7, 7, 7, 26], [26, 255, 0, 29]])
    prediction = np.uint8([[7, 7, 26, 26], [33, 33, 7, 26]])
    # Void is ignored. Road 2 of 3; car 1 of TP 1 + FN 1 + FP 1; bicycle 0 of 1.
    scores = official.judge_labels([(truth, prediction)])
    expected = {
        "seg/miou": 100 / 3,
        "seg/pixel_accuracy": 60.0,
        "seg/iou/road": 200 / 3,
        "seg/iou/car": 100 / 3,
        "seg/iou/bicycle": 0.0,
        # A car predicted as a bicycle is still a vehicle.
        "seg/category_miou": (200 / 3 + 200 / 3) / 2,
        "seg/category_iou/flat": 200 / 3,
        "seg/category_iou/vehicle": 200 / 3,
    }
    assert scores == pytest.approx(expected)
    assert official.judge_labels([(np.zeros((2, 2), np.uint8), prediction[:, :2])]) == {}


def objects(folder, path):
    place = folder / FLOW / "obj_map" / path.name
    return official.read_labels(place) if place.is_file() else None


def test_flow_scores_on_same_arrays(case):
    for kind, suffix in (("flow_occ", ""), ("flow_noc", "_noc")):
        truths = sorted((case.folder / FLOW / kind).iterdir())
        expected = official.judge_flow(
            (
                (*official.read_flow(path), case.arrays[path.stem][1], objects(case.folder, path))
                for path in truths
            ),
            suffix,
        )
        # The samples have no object map.
        names = FLOW_NAMES | ({"flow/fl_bg", "flow/fl_fg"} if case.synthetic else set())
        assert set(expected) == {name + suffix for name in names}
        agree(case.scores, expected)
        # Errors are neither zero nor extreme, so that agreement is meaningful.
        assert 1 < expected[f"flow/aepe{suffix}"] < 5 and 5 < expected[f"flow/fl_all{suffix}"] < 30


def test_label_scores_on_same_arrays(case, cityscapes):
    frames = []
    for path in sorted((case.folder / LABELS / "semantic").iterdir()):
        prediction = cityscapes[case.arrays[path.stem][0].argmax(-1)]
        things = official.read_instances(case.folder / LABELS / "instance" / path.name)
        frames.append(
            (official.read_labels(path), prediction, *([things] if case.synthetic else []))
        )
    expected = official.judge_labels(frames)
    scored_names = {k for k in case.scores if k.startswith("seg/") and "boundary" not in k}
    assert scored_names == set(expected)
    # The samples have no instance map.
    assert {"seg/category_miou", "seg/category_iou/vehicle"} < scored_names
    assert (
        {"seg/iiou", "seg/iiou/car", "seg/category_iiou/human"} < scored_names
    ) is case.synthetic
    agree(case.scores, expected)
    # Predicted, but not in the truth: 0. In neither: no score.
    assert expected["seg/iou/train"] == 0 and 20 < expected["seg/miou"] < 90
    assert ("seg/iou/bicycle" in expected) is not case.synthetic


def official_names(case):
    """Names of the scores that the official evaluations also compute."""
    names = {name for name in case.scores if not official.UNJUDGED.fullmatch(name)}
    grounds = {"flow/fl_bg", "flow/fl_fg", "flow/fl_bg_noc", "flow/fl_fg_noc"}
    assert grounds < set(case.scores)
    return names | grounds if case.synthetic else names


def test_scores_of_written_files(case, cityscapes):
    expected = official.judge_folders(case.folder, case.place / "label")
    assert set(expected) == official_names(case)
    agree(case.scores, expected, px=1e-3, fl=0.05, percent=0.01)
    rows = official.compare(expected, case.scores)
    assert len(rows) == len(expected) and all(row[-1] for row in rows)


def test_label_ids_and_train_ids_agree(case, cityscapes):
    for path in sorted((case.place / "label").iterdir()):
        by_label = official.read_labels(path / "seg.png")
        by_train = official.read_labels(case.place / "train" / path.name / "seg.png")
        assert by_train.max() < 19 and np.array_equal(by_label, cityscapes[by_train])


def test_official_command(case, cityscapes, tmp_path):
    command = [
        "tests.support.official",
        "--truth",
        case.folder,
        "--predictions",
        case.place / "label",
    ]
    done = run_command(*command, "--metrics_json", case.place / "metrics.json")
    assert f"{len(official_names(case))} scores agree" in done.stdout
    off = dict(case.scores)
    off["flow/aepe"] += 0.002
    off["flow/fl_all_noc"] += 0.1
    off["seg/iou/fence"] = off.pop("seg/iou/car")
    off["seg/miou"] += 0.005
    (tmp_path / "off.json").write_text(json.dumps(off))
    done = run_command(*command, "--metrics_json", tmp_path / "off.json", ok=False)
    names = done.stderr.split("not the official scores: ")[1].strip().split(", ")
    assert set(names) == {"flow/aepe", "flow/fl_all_noc", "seg/iou/car", "seg/iou/fence"}


def test_invalid_prediction_folders(case, tmp_path):
    with pytest.raises(ValueError, match="contains no folder"):
        official.judge_folders(case.folder, tmp_path)
    (tmp_path / "000099_10").mkdir()
    with pytest.raises(ValueError, match="000099_10: .* has no ground truth for this frame"):
        official.judge_folders(case.folder, tmp_path)


def test_unknown_pixel_in_written_flow(case, cityscapes, tmp_path):
    frame_id = sorted(path.stem for path in (case.folder / FLOW / "flow_occ").iterdir())[0]
    image = read_image(case.folder / FLOW / "image_2" / f"{frame_id}.png")
    logits, flow = case.arrays[frame_id]
    _, valid = official.read_flow(case.folder / FLOW / "flow_occ" / f"{frame_id}.png")
    far = flow.copy()
    far[tuple(np.argwhere(valid)[0])] = 600  # beyond the range of the file
    run = SimpleNamespace(label_set=CITYSCAPES, predict=lambda *_, **__: (logits.argmax(-1), far))
    predict(run, image, image, tmp_path / frame_id, seg_ids="label")
    with pytest.raises(ValueError, match="flow.png: invalid at 1 px"):
        official.judge_folders(case.folder, tmp_path)
